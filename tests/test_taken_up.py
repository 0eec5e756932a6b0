"""Failures that pass: a run that goes on plays them again, with what was built on them, and leaves the others."""

import hashlib
import json

import pytest

from debate_rl.engines.request import EngineFailure
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import PASSING_KINDS, UserError
from debate_rl.experiment import Run, run_stages
from debate_rl.records import digest
from debate_rl.stages import FUNCTIONS
from tests.test_experiment import FAST, results, small


class Stormy:
    """A script in front of which some requests fail: those of a drawn name for good, others while the storm lasts."""

    def __init__(self, kind=None, share=10):
        told = lambda choice: [-(int(digest(choice)[:2], 16) + 1) / 100, -0.5]  # noqa: E731
        self.script = ScriptedEngine(score=lambda choice: told(choice)[: len(choice.candidates)])
        self.kind, self.share = kind, share

    def _answers(self, asked, answers):
        found = []
        for one, answer in zip(asked, answers, strict=True):
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


QUESTIONS = {"train": 24, "test": 20}


def run(config, engine, only=None):
    said = []
    run_stages(Run(config, engine, say=said.append), FUNCTIONS, only)
    return said


def failures(folder):
    found = []
    for path in sorted(folder.rglob("legs.jsonl")):
        for line in path.read_text().splitlines():
            failure = json.loads(line)["failure"]
            found += [] if failure is None else [failure["kind"]]
    return found


@pytest.mark.parametrize("kind", sorted(PASSING_KINDS)[::2])
def test_what_failed_for_a_reason_that_passes_is_played_again_and_the_rest_stays(tmp_path, kind):
    stages = {
        "tournament": {"kind": "tournament", "players": ["base", "base@2"], "resamples": 20, "readings": 4},
        "oversight": {"kind": "oversight", "players": ["base"], "protocols": ["debate", "single", "blind"]},
        "reading": {"kind": "reading", "models": ["lab-base"]},
    }  # fmt: skip
    calm, lost = (small(tmp_path / where, stages=stages, questions=QUESTIONS) for where in ("calm", "lost"))
    run(calm, Stormy())
    said = run(lost, Stormy(kind))
    folder = tmp_path / "lost" / "small"
    assert failures(folder).count(kind) > 3 and any("the same command takes it up again" in line for line in said)
    said = run(lost, Stormy())
    assert any(line.startswith("tournament: taken up again") for line in said)
    assert set(failures(folder)) == {"context"} and results(folder) == results(tmp_path / "calm" / "small")
    assert [line for line in run(lost, Stormy()) if "done before" not in line] == []


def test_failures_of_other_kinds_are_final(tmp_path):
    config = small(tmp_path, stages=("tournament",), questions=QUESTIONS)
    run(config, Stormy("request"))
    before = results(tmp_path / "small")
    assert run(config, Stormy()) == ["tournament: done before"] and results(tmp_path / "small") == before


def adapter(folder):
    return hashlib.sha256((folder / "dpo/adapter/adapter_model.safetensors").read_bytes()).hexdigest()


def test_a_training_on_games_that_are_played_again_is_done_again(tmp_path):
    stages = {
        "preferences": {"player": "base", "best_of": 3, "opponents": 1, "questions": 8},
        "dpo": {"start": "base", "lora": {"r": 4, "alpha": 8}, "train": FAST},
        "tournament": {"players": ["base", "dpo"], "resamples": 20, "readings": 0},
    }

    def config(where):
        return small(tmp_path / where, stages=stages, questions=QUESTIONS)

    calm, lost = tmp_path / "calm" / "small", tmp_path / "lost" / "small"
    run(config("calm"), Stormy())
    run(config("lost"), Stormy("server", 20), {"preferences", "dpo"})
    assert adapter(lost) != adapter(calm)
    run(config("lost"), Stormy(), {"preferences"})  # a kill between the two would leave this
    said = run(config("lost"), Stormy())
    assert "dpo: taken up again: built on preferences, made anew since" in said
    assert adapter(lost) == adapter(calm) and results(lost) == results(calm)
    assert {path.name for path in lost.iterdir()} == {path.name for path in calm.iterdir()}


def test_a_file_of_a_finished_stage_that_was_changed_is_named(tmp_path):
    config = small(tmp_path, stages=("tournament",), questions=QUESTIONS)
    run(config, Stormy())
    path = tmp_path / "small" / "tournament" / "legs.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"speech", b"speach", 1))
    with pytest.raises(UserError, match=r"legs.jsonl is damaged .* remove .*tournament and run again"):
        run(config, Stormy())
    path.unlink()
    with pytest.raises(UserError, match="legs.jsonl is missing"):
        run(config, Stormy())
    path.write_bytes(data)
    assert run(config, Stormy()) == ["tournament: done before"]


@pytest.mark.parametrize("moment", ["aside", "sealed"])
def test_a_stage_killed_while_it_takes_its_name_is_not_made_again(tmp_path, moment):
    config = small(tmp_path, stages=("tournament",), questions=QUESTIONS)
    run(config, Stormy())
    folder = tmp_path / "small"
    before = results(folder)
    (folder / "tournament").rename(folder / ".tournament")
    if moment == "aside":
        (folder / ".tournament~").mkdir()
    assert run(config, Stormy()) == []
    assert results(folder) == before and not list(folder.glob(".tournament*"))
