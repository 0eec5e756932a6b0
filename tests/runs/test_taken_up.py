"""Failures that pass: a run that goes on plays them again, with what was built on them, and leaves the others."""

import hashlib
import json

import pytest

from debate_rl.engines.request import EngineFailure
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.verdict import PASSING_KINDS
from debate_rl.records import digest
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from tests.runs.test_run import FAST, results, small

QUESTIONS = {"train": 24, "test": 20}


class Stormy:
    """A script in front of which some requests fail: those of a drawn name for good, others while the storm lasts.

    Args:
        kind: of the failures of the storm; None is calm weather.
        share: of 256 requests so many fail in the storm.
    """

    def __init__(self, kind=None, share=10):
        self.script = ScriptedEngine(score=lambda choice: [-(int(digest(choice)[:2], 16) + 1) / 100, -0.5])
        self.kind, self.share = kind, share
        self.asked = 0

    def _answers(self, asked, answers):
        found = []
        for one, answer in zip(asked, answers, strict=True):
            self.asked += 1
            drawn = int(digest(one)[-2:], 16)
            if drawn < 3:
                answer = EngineFailure(kind="context", message="too long")
            elif self.kind is not None and drawn < 3 + self.share:
                answer = EngineFailure(kind=self.kind, message="come back later")
            found.append(answer)
        return found

    def generate(self, requests):
        return self._answers(requests, self.script.generate(requests))

    def choose(self, choices):
        return self._answers(choices, self.script.choose(choices))

    def revision(self, model, adapter):
        return self.script.revision(model, adapter)


def run(config, engine, only=None):
    """Lines that a run says."""
    said = []
    run_stages(Run(config, engine, say=said.append), only)
    return said


def failures(folder):
    """Kinds of the failures in the logs of finished stages."""
    kinds = []
    for path in sorted(folder.rglob("debates.jsonl")):
        for line in path.read_text().splitlines():
            failure = json.loads(line)["failure"]
            if failure is not None:
                kinds.append(failure["kind"])
    return kinds


@pytest.mark.parametrize("kind", ["rate limit", "server", "time-out", "connection"])
def test_what_failed_for_a_cause_that_passes_is_played_again_and_the_rest_stays(tmp_path, kind):
    stages = {
        "tournament": {"players": ["base", "base@2"], "resamples": 20, "evidence_probes": 4},
        "oversight": {"players": ["base"], "protocols": ["debate", "single", "blind"]},
    }
    calm, lost = (small(tmp_path / where, own=stages, questions=QUESTIONS) for where in ("calm", "lost"))
    run(calm, Stormy())
    stormy = Stormy(kind)
    run(lost, stormy)
    folder = tmp_path / "lost" / "small"
    assert failures(folder).count(kind) > 3 and "context" in failures(folder)
    later = Stormy()
    said = run(lost, later)
    assert any(line.startswith("tournament: ") and "they are tried again" in line for line in said)
    assert later.asked < stormy.asked / 2  # what was answered is not asked again
    assert set(failures(folder)) == {"context"} and results(folder) == results(tmp_path / "calm" / "small")
    assert run(lost, Stormy()) == ["tournament: done before", "oversight: done before"]


def test_a_storm_that_lasts_changes_nothing_and_the_next_run_tries_once_more(tmp_path):
    config = small(tmp_path, stages=("tournament",), questions=QUESTIONS)
    run(config, Stormy("server"))
    before = results(tmp_path / "small")
    assert any("they are tried again" in line for line in run(config, Stormy("server")))
    assert results(tmp_path / "small") == before
    assert any("they are tried again" in line for line in run(config, Stormy()))
    assert set(failures(tmp_path / "small")) == {"context"}


@pytest.mark.parametrize("kind", ["context", "neither", "filtered"])
def test_failures_of_other_kinds_are_final(tmp_path, kind):
    assert kind not in PASSING_KINDS
    config = small(tmp_path, stages=("tournament",), questions=QUESTIONS)
    run(config, Stormy(kind))
    before = results(tmp_path / "small")
    calm = Stormy()
    assert run(config, calm) == ["tournament: done before"] and calm.asked == 0
    assert results(tmp_path / "small") == before


def adapter(folder):
    """What a training made."""
    return hashlib.sha256((folder / "dpo/adapter/adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("between", [False, True])
def test_a_training_on_games_that_are_played_again_is_done_again(tmp_path, between):
    """Also where the run that played them again was stopped before it came to the training."""
    stages = {
        "preferences": {"player": "base", "best_of": 3, "opponents": 1, "questions": 8},
        "dpo": {"start": "base", "lora": {"r": 4, "alpha": 8}, "train": FAST},
        "tournament": {"players": ["base", "dpo"], "resamples": 20, "evidence_probes": 0},
    }
    calm, lost = tmp_path / "calm" / "small", tmp_path / "lost" / "small"
    run(small(tmp_path / "calm", own=stages, questions=QUESTIONS), Stormy())
    config = small(tmp_path / "lost", own=stages, questions=QUESTIONS)
    run(config, Stormy("server", 20), {"preferences", "dpo"})
    assert adapter(lost) != adapter(calm)
    if between:
        run(config, Stormy(), {"preferences"})
    said = run(config, Stormy())
    assert any(line.startswith("dpo: made again") for line in said)
    assert adapter(lost) == adapter(calm) and results(lost) == results(calm)
    assert {path.name for path in lost.iterdir()} == {path.name for path in calm.iterdir()}


def test_a_training_begun_on_games_that_are_played_again_begins_anew(tmp_path, monkeypatch):
    stages = {
        "preferences": {"player": "base", "best_of": 3, "opponents": 1, "questions": 8},
        "dpo": {"start": "base", "lora": {"r": 4, "alpha": 8}, "train": FAST},
    }
    calm, lost = tmp_path / "calm" / "small", tmp_path / "lost" / "small"
    run(small(tmp_path / "calm", own=stages, questions=QUESTIONS), Stormy())
    config = small(tmp_path / "lost", own=stages, questions=QUESTIONS)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("debate_rl.trainers.common.job._save", stop)
        run(config, Stormy("server", 20))
    assert (lost / ".dpo").is_dir()
    run(config, Stormy())
    assert adapter(lost) == adapter(calm) and results(lost) == results(calm)
