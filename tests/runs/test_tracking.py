import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from debate_rl.runs.tracking import Tracker, _reachable_mode, _run_id, attempt


def read_back(folder):
    """Records of an offline run, by W&B's own reader."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(Path(folder).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def test_an_offline_run_holds_numbers_tables_and_artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights.txt").write_text("w")
    tracker = Tracker("offline", "debate-rl", None, "test", tmp_path, {"seed": 3, "stages": {"dpo": {"gamma": 7}}})
    tracker.log({"dpo/loss": 0.5}, {"dpo/step": 10.0})
    tracker.table("tournament/debates", ["question", "p(A)"], [["where", 0.7], ["who", None]])
    tracker.artifact("test-dpo", "model", tmp_path / "adapter", {"base fingerprint": "abc"})
    tracker.summary({"tournament/legs": 12.0})
    folder = tracker.folder
    tracker.finish()
    text = json.dumps(read_back(folder))
    assert '"dpo/loss"' in text or "dpo/loss" in text
    for wanted in ("dpo/step", "tournament/debates", "test-dpo", "tournament/legs", "gamma"):
        assert wanted in text, wanted
    tables = list(Path(folder).rglob("*.table.json"))
    assert json.loads(tables[0].read_text())["data"] == [["where", 0.7], ["who", None]]


def test_an_unreachable_server_means_offline(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert _reachable_mode("online") == "offline" and _reachable_mode("auto") == "offline"
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert _reachable_mode("auto") == "offline" and _reachable_mode("disabled") == "disabled"


@pytest.mark.parametrize(
    ("variable", "value", "mode"),
    [
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "offline", "offline"),
        ("WANDB_DISABLED", "true", "disabled"),
    ],
)
def test_the_switches_of_wandb_are_honoured(monkeypatch, variable, value, mode):
    monkeypatch.setenv(variable, value)
    assert _reachable_mode("auto") == mode


def test_the_server_is_reached_through_a_proxy(monkeypatch):
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert _reachable_mode("auto") == "online" and asked
    server.shutdown()


def test_a_run_keeps_its_id_when_it_goes_on(tmp_path):
    assert _run_id(tmp_path) == _run_id(tmp_path) != _run_id(tmp_path / "other")


def test_a_tracker_that_breaks_stops_tracking_and_nothing_else(tmp_path, capsys):
    tracker = Tracker("disabled", "p", None, "test", tmp_path, {})
    tracker.log({"a": 1.0})

    class Broken:
        def log(self, *_):
            raise RuntimeError("disk on fire")

    tracker._run = Broken()
    tracker.log({"a": 1.0})
    tracker.log({"a": 2.0})
    tracker.finish()
    assert capsys.readouterr().err.count("disk on fire") == 1


class Online:
    """A W&B run with a server behind it, as far as artifacts go."""

    def __init__(self, there):
        self.there, self.logged, self.used = there, [], []

    def log_artifact(self, artifact):
        self.logged.append(artifact)

    def use_artifact(self, wanted):
        name = wanted if isinstance(wanted, str) else wanted.name
        if name.partition(":")[0] not in self.there:
            raise ValueError("no such artifact")
        self.used.append(name)


def test_sources_are_marked_as_used_online_and_one_that_is_not_there_is_only_named(tmp_path, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(wandb.Artifact, "wait", lambda self, timeout=None: self)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    tracker = Tracker("disabled", "p", None, "test", tmp_path, {})
    tracker._wandb, tracker._is_online = wandb, True
    tracker._run = run = Online({"x-sft", "x-rows"})
    tracker.artifact("x-rows", "dataset", tmp_path / "rows.jsonl", {}, ["elsewhere"])
    tracker.artifact("x-dpo", "model", tmp_path / "rows.jsonl", {}, ["x-rows", "x-sft"])
    tracker.artifact("x-dpo", "model", tmp_path / "rows.jsonl", {}, ["x-rows"])
    assert [artifact.name for artifact in run.logged] == ["x-rows", "x-dpo"]
    assert run.used == ["x-rows", "x-sft:latest"]
    assert run.logged[0].metadata["made from"] == ["elsewhere"]
    assert tracker.is_on and capsys.readouterr().err == ""


def test_what_only_wandb_would_show_may_fail_alone(capsys):
    with attempt("draw the charts of dpo"):
        raise ValueError("1 validation error for Settings\nmode\n  Input should be 'online'")
    said = "1 validation error for Settings mode Input should be 'online'"  # which setting, too
    assert capsys.readouterr().err == f"tracking: could not draw the charts of dpo ({said}); the rest is logged\n"
