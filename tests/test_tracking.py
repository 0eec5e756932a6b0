import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from debate_rl.config import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.experiment import Run, run_stages
from debate_rl.stages import FUNCTIONS
from debate_rl.tracking import Tracker, _reachable_mode, _run_id, wanted_mode


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


@pytest.fixture
def answers():
    """Starts a server that gives every request this answer; what it was asked for."""
    started = []

    def start(status):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                asked.append((self.path, dict(self.headers)))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def keyed(monkeypatch):
    for name in ("WANDB_MODE", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "WANDB_HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    return monkeypatch


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "WANDB_HTTP_PROXY"])
@pytest.mark.parametrize(("status", "mode"), [(200, "online"), (404, "online"), (407, "offline"), (503, "offline")])
def test_wandb_is_reached_through_a_proxy_where_no_name_can_be_resolved(keyed, answers, variable, status, mode):
    proxy, asked = answers(status)
    keyed.setenv("WANDB_BASE_URL", "http://wandb.invalid")
    assert _reachable_mode("auto") == "offline"
    keyed.setenv(variable, proxy)
    assert _reachable_mode("auto") == mode
    path, headers = asked[0]
    assert path.startswith("http://wandb.invalid") and "Authorization" not in headers


def test_any_answer_of_the_server_itself_means_online(keyed, answers):
    url, asked = answers(401)
    keyed.setenv("WANDB_BASE_URL", url)
    assert _reachable_mode("online") == "online" and len(asked) == 1
    keyed.delenv("WANDB_API_KEY")
    keyed.setenv("HOME", "/nonexistent")
    assert _reachable_mode("online") == "offline" and len(asked) == 1


@pytest.mark.parametrize(
    ("variable", "config", "mode"),
    [
        ("offline", "auto", "offline"), ("offline", "online", "offline"), ("dryrun", "online", "offline"),
        ("disabled", "auto", "disabled"), ("disabled", "offline", "disabled"), ("DISABLED", "online", "disabled"),
        ("online", "auto", "online"), ("run", "auto", "online"), ("online", "offline", "offline"),
        ("online", "disabled", "disabled"), ("", "auto", "auto"), ("offline", "disabled", "disabled"),
    ],
)  # fmt: skip
def test_of_the_variable_and_the_config_the_one_that_gives_away_less_counts(monkeypatch, variable, config, mode):
    monkeypatch.setenv("WANDB_MODE", variable)
    assert wanted_mode(config) == (mode, "")


def test_an_unknown_mode_in_the_variable_is_said_and_stays_offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    mode, note = wanted_mode("online")
    assert mode == "offline" and "'onlin'" in note and "\n" not in note
    assert wanted_mode("disabled") == ("disabled", "")


def test_a_run_with_wandb_disabled_by_the_variable_leaves_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = Tracker("online", "p", None, "test", tmp_path, {})
    tracker.log({"a": 1.0})
    tracker.finish()
    assert tracker.folder is None and not list(tmp_path.iterdir())


def test_a_finished_run_that_is_run_again_opens_no_new_wandb_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    config = parse_config({
        "name": "r", "runs": str(tmp_path), "questions": {"train": 4, "test": 2}, "tracking": {"mode": "offline"},
        "protocol": {"prompts": "lab", "max_new_tokens": 8},
        "stages": {"tournament": {"players": ["base", "base@2"], "resamples": 20, "readings": 0}, "report": {}},
    })  # fmt: skip

    def opened():
        run_stages(Run(config, ScriptedEngine(), say=lambda line: None), FUNCTIONS)
        return sorted((tmp_path / "r" / "wandb").glob("offline-run-*"))

    first = opened()
    assert len(first) == 1 and opened() == first and (tmp_path / "r" / "report" / "index.html").is_file()


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
