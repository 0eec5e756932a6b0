import json
import subprocess
import sys
from pathlib import Path

from debate_rl.tracking import Tracker, _reachable_mode


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
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert _reachable_mode("online") == "offline" and _reachable_mode("auto") == "offline"
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert _reachable_mode("auto") == "offline" and _reachable_mode("disabled") == "disabled"


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
