"""What a run, a study and a training leave in W&B, read back from the offline files."""

import os
import threading
from pathlib import Path

import pytest
from transformers import TrainerCallback

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.intervals import Estimate
from debate_rl.records import digest, read_json, write
from debate_rl.runs import live_curve as live_curves
from debate_rl.runs.execute import run_stages
from debate_rl.runs.live_curve import live_curve
from debate_rl.runs.run import Run
from debate_rl.runs.study import run_study
from debate_rl.runs.tracking import Tracker
from debate_rl.stages.training import log_intervals
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.settings import Job, Lora
from debate_rl.trainers.grpo.judge_metrics import JudgePoint
from tests import ROOT
from tests.runs.offline_run import offline_runs
from tests.trainers.tiny import make_model, sft_examples

KEY = "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed"
STAGES = {
    "tournament": {"players": ["base", "base@2", "base@3"], "resamples": 20, "evidence_probes": 2},
    "oversight": {"players": ["base", "base@2", "base@3"], "protocols": ["debate"]},
    "report": {"transcripts": 1},
}


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def config(tmp_path, stages=STAGES, **changes):
    tree = {
        "name": "s", "runs": str(tmp_path / "runs"), "questions": {"train": 4, "test": 4},
        "tracking": {"mode": "offline", "job_type": "pilot", "tags": ["lab", "small"], "notes": "a trial"},
        "stages": stages,
    }  # fmt: skip
    return parse_config({**tree, **changes})


def engine():
    return ScriptedEngine(
        score=lambda choice: [-int(digest([choice.model_dump(mode="json"), a]), 16) / 2**62 for a in choice.candidates]
    )


def run(asked):
    return run_stages(Run(asked, engine(), lambda line: None))


def test_a_run_is_one_wandb_run_with_numbers_charts_debates_and_lineage_and_a_finished_one_opens_none(tmp_path):
    asked = config(tmp_path)
    metrics = run(asked)
    run(asked)
    (kept,) = offline_runs(tmp_path / "runs")
    assert (kept.run["run_group"], kept.run["job_type"], kept.run["notes"]) == ("s", "pilot", "a trial")
    assert kept.run["tags"] == ["lab", "small"]
    assert kept.run["run_id"] == (tmp_path / "runs" / "s" / "wandb-id").read_text()
    assert kept.run["config"]["update"]["stages"]["tournament"]["resamples"] == 20

    summary = kept.summary
    rating = metrics["tournament"]["ratings"]["standings"][0]
    key = f"tournament/ratings/standings/{rating['player']}/rating"
    assert summary[key] == pytest.approx(rating["rating"]["value"])
    assert summary[f"{key}.low"] == pytest.approx(rating["rating"]["low"]) and summary[f"{key}.high"] >= summary[key]
    assert "oversight/cost/seconds" in summary and any(name.startswith("report/effects/") for name in summary)

    for chart in ("tournament/charts/elo", "tournament/charts/win_matrix", "oversight/charts/accuracy_over_skill"):
        (page,) = kept.media(chart)
        assert "<svg" in page and "<script" not in page, chart
    assert kept.media("oversight/charts/calibration/debate/base") and "<html" in kept.media("report/page")[0]
    rows, files = kept.table("tournament/debates")
    page = Path(files[rows[0]["debate"]["path"]]).read_text()
    assert rows[0]["debate"]["_type"] == "html-file" and "<html" in page and rows[0]["question"] in page

    assert kept.artifacts["s-tournament-debates"][0] == "debates"
    assert kept.artifacts["s-report"][1]["made from"] == ["s-tournament-debates", "s-oversight-debates"]
    assert "index.html" in kept.artifacts["s-report"][2]
    for folder in ("runs", "data", "cache"):
        for path in (tmp_path / folder).rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_run_that_was_not_tracked_can_be_logged_when_it_is_finished(tmp_path):
    stages = {"oversight": {"players": ["base"], "protocols": ["blind"]}}
    run(config(tmp_path, stages, tracking={"mode": "disabled"}))
    assert offline_runs(tmp_path / "runs") == []
    (tmp_path / "runs" / "s" / "oversight" / "timing.json").unlink()  # as where it was made by an earlier version
    run(config(tmp_path, stages, tracking={"mode": "offline", "artifacts": False}))
    (kept,) = offline_runs(tmp_path / "runs")
    assert "oversight/rows/blind/-/scores/accuracy" in kept.summary
    assert kept.table("oversight/debates") and kept.artifacts == {}


def test_the_seeds_of_a_study_are_grouped_under_its_name(tmp_path):
    stages = {"oversight": {"players": ["base"], "protocols": ["blind"]}}
    asked = config(tmp_path, stages, seeds=[0, 3], tracking={"mode": "offline"})
    for _ in range(2):
        run_study(asked, engine=engine(), say=lambda line: None)
    kept = {found.run["display_name"]: found for found in offline_runs(tmp_path / "runs")}
    assert set(kept) == {"s", "s-seed0", "s-seed3"} and len(offline_runs(tmp_path / "runs")) == 3
    assert {found.run["run_group"] for found in kept.values()} == {"s"}
    assert kept["s"].run["job_type"] == "study" and "<html" in kept["s"].media("report/page")[0]
    assert len({found.run["run_id"] for found in kept.values()}) == 3


def test_a_damaged_note_of_what_was_logged_stops_no_run(tmp_path, capsys):
    stages = {"oversight": {"players": ["base"], "protocols": ["blind"]}}
    asked = config(tmp_path, stages, tracking={"mode": "disabled"})
    run(asked)
    (tmp_path / "runs" / "s" / "wandb-logged.json").write_text("{")
    run(config(tmp_path, stages))
    assert "tracking: could not log oversight" in capsys.readouterr().err and offline_runs(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("key", "value"), [("tags", [""]), ("tags", ["x" * 65]), ("job_type", ""), ("groups", "x"), ("notes", 3)]
)
def test_labels_that_wandb_would_refuse_are_refused_when_the_config_is_read(tmp_path, key, value):
    with pytest.raises(UserError, match="tracking"):
        config(tmp_path, tracking={key: value})


class Recorder(Tracker):
    """Keeps what was logged, and says when something was."""

    def __init__(self):
        super().__init__("disabled", "p", None, "test", Path(), {})
        self.entries = []
        self.heard = threading.Event()

    is_on = True

    def log(self, values, step=None):
        self.entries.append((step, values))
        self.heard.set()


class WaitFor(TrainerCallback):
    """Holds a training at a step until something was logged; its end is no signal for that."""

    def __init__(self, heard):
        self.heard, self.was_heard = heard, False

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self.was_heard = self.heard.wait(120)


def test_the_curve_of_a_training_is_logged_while_it_trains_and_each_entry_once(tmp_path, monkeypatch):
    monkeypatch.setattr(live_curves, "EVERY", 0.02)
    tracker = Recorder()
    write(tmp_path / "rows.jsonl", sft_examples(10))
    train = {"max_steps": 5, "logging_steps": 1, "save_steps": 2, "per_device_train_batch_size": 4}
    job = Job(
        kind="sft", model=make_model(tmp_path / "model"), rows=str(tmp_path / "rows.jsonl"), out=str(tmp_path / "out"),
        lora=Lora(r=4, alpha=8), train=train,
    )  # fmt: skip
    waiting = WaitFor(tracker.heard)
    with live_curve(tracker, "sft", Path(job.out)):
        run_job(job, [waiting], quiet=True)
    assert waiting.was_heard
    history = read_json(Path(job.out) / "history.json")
    assert [step for step, _ in tracker.entries] == [{"sft/step": float(entry["step"])} for entry in history]
    assert tracker.entries[0][1]["sft/loss"] == pytest.approx(history[0]["loss"])
    assert not (Path(job.out) / "checkpoints").exists()


def test_a_file_that_is_half_written_or_begun_anew_is_followed(tmp_path):
    tracker = Recorder()
    curve = live_curves._Curve(tracker, "sft", tmp_path)
    curve.look()  # before there is a file
    curve.path.parent.mkdir()
    curve.path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    curve.look()
    curve.look()
    assert [values for _, values in tracker.entries] == [{"sft/loss": 0.5}]
    curve.path.write_text("")  # as a resumed training does
    curve.look()
    curve.path.write_text('{"step": 2, "loss": 0.4}\n{"step": 3, "loss": NaN}\n')
    curve.look()
    assert [values for _, values in tracker.entries] == [{"sft/loss": 0.5}, {"sft/loss": 0.4}]


def test_what_is_measured_during_online_training_gets_its_intervals(tmp_path):
    watched = Run(config(tmp_path))
    watched._tracker = tracker = Recorder()
    accuracy = Estimate(value=0.7, low=0.6, high=0.8, n=20, clusters=10)
    log_intervals(watched, "grpo", [JudgePoint(step=10, accuracy=accuracy, ece=0.1), JudgePoint(step=20)])
    assert tracker.entries == [({"grpo/step": 10.0}, {"grpo/watch/accuracy.low": 0.6, "grpo/watch/accuracy.high": 0.8})]


@pytest.mark.slow
def test_a_launched_training_is_followed_by_the_run_that_waits(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(live_curves, "EVERY", 0.02)
    tracker = Recorder()
    seen = []
    monkeypatch.setattr(
        Recorder, "log", lambda self, values, step=None: seen.append((out / "sft" / "result.json").is_file())
    )
    asked = config(
        tmp_path,
        {
            "sft": {
                "limit": 24, "lora": {"r": 4, "alpha": 8}, "launch": "configs/accelerate/single.yaml",
                "train": {"max_steps": 30, "logging_steps": 1, "per_device_train_batch_size": 8},
            }
        },
    )  # fmt: skip
    out = tmp_path / "runs" / "s" / "."
    launched = Run(asked, say=lambda line: None)
    launched._tracker = tracker
    run_stages(launched)
    assert len(seen) >= 30 and not seen[0]
