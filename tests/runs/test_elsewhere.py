"""What another run made: players, judges and whole stages taken from its folder."""

import pytest

from debate_rl.config.tree import dump_config, parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.records import digest, read_json
from debate_rl.runs.execute import run_stages, stage_fingerprints
from debate_rl.runs.run import Run
from tests.tiny import tiny_adapter, tiny_model


def engine():
    """A judge whose taste depends on the speeches."""
    return ScriptedEngine(
        score=lambda choice: [-int(digest([choice.model_dump(mode="json"), a]), 16) / 2**62 for a in choice.candidates]
    )


def config(tmp_path, name="a", **changes):
    tree = {
        "name": name,
        "runs": str(tmp_path),
        "questions": {"train": 4, "test": 4},
        "protocol": {"prompts": "lab"},
        "tracking": {"mode": "disabled"},
        "stages": {"reading": {"models": ["m"]}, "oversight": {"players": ["base"], "protocols": ["debate", "blind"]}},
    }
    return parse_config({**tree, **changes})


@pytest.fixture
def adapter(tmp_path):
    base = tiny_model(tmp_path / "base")
    tiny_adapter(base, tmp_path / "other" / "dpo" / "adapter")
    return tmp_path / "other" / "dpo"


def test_the_trained_player_of_another_run_is_named_by_its_folder(tmp_path, adapter):
    stages = {"tournament": {"players": ["base", str(adapter), f"{adapter}@2"], "evidence_probes": 0, "resamples": 10}}
    found = config(tmp_path, stages=stages)
    run = Run(found, engine(), say=lambda line: None)
    player = run.debater(f"{adapter}@2")
    assert (player.adapter, player.best_of) == (str(adapter / "adapter"), 2)
    metrics = run_stages(run)["tournament"]
    assert {row["player"] for row in metrics["ratings"]["standings"]} == {"base", str(adapter), f"{adapter}@2"}


def test_what_lies_in_the_folder_is_part_of_what_a_stage_is_made_from(tmp_path, adapter):
    found = config(tmp_path, stages={"tournament": {"players": ["base", f"{adapter}@2"]}})
    before = stage_fingerprints(found)["tournament"]
    (adapter / "adapter" / "adapter_config.json").write_text("{}")
    assert stage_fingerprints(found)["tournament"] != before


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere/dpo", "player's folder not found: nowhere/dpo"), ("dpoo", "no player or training")]
)
def test_a_folder_without_weights_is_refused_in_a_line(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        Run(config(tmp_path)).debater(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no trained weights"):
        Run(config(tmp_path)).debater(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("stage", "settings", "folder"),
    [
        ("judge", {"players": ["base"], "adversarial_rounds": 2}, "judge/round2"),
        ("it", {"kind": "iterations", "start": "base", "iterations": 3}, "it/iteration3"),
    ],
)
def test_the_weights_of_a_stage_with_several_trainings_are_those_of_the_last(tmp_path, stage, settings, folder):
    other = config(tmp_path, "other", stages={stage: settings})
    base = tiny_model(tmp_path / "base")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text(dump_config(other))
    for place in (stage, folder):
        tiny_adapter(base, tmp_path / "other" / place / "adapter")
    found = Run(config(tmp_path)).debater(str(tmp_path / "other" / stage))
    assert found.adapter == str(tmp_path / "other" / folder / "adapter")


def test_a_judge_of_another_run_is_named_by_its_folder(tmp_path, adapter):
    judge = Run(config(tmp_path)).judge_named(str(adapter))
    assert judge.adapter == str(adapter / "adapter") and judge.model == "lab-base"


def test_stages_made_from_the_same_settings_are_taken_from_another_run(tmp_path):
    first = run_stages(Run(config(tmp_path), engine(), say=lambda line: None))
    changed = {"reading": {"models": ["m"]}, "oversight": {"players": ["base"], "protocols": ["debate", "single"]}}
    said, asked = [], ScriptedEngine(score=lambda choice: [-1.0, -2.0])
    second = run_stages(Run(config(tmp_path, "b", reuse=str(tmp_path / "a"), stages=changed), asked, say=said.append))
    assert second["reading"] == first["reading"]
    assert any(line.startswith("reading: taken from ") for line in said)
    assert not any(line.startswith("oversight: taken from ") for line in said)
    assert set(second["oversight"]["rows"][0]) and len(second["oversight"]["rows"]) == 2
    # It is a run like any other: finished, and not done again.
    again = []
    run_stages(Run(config(tmp_path, "b", stages=changed), asked, say=again.append))
    assert "reading: done before" in again and "oversight: done before" in again
    assert read_json(tmp_path / "b" / "reading" / "stage.json")["files"]


def test_a_stage_that_is_to_be_made_anew_is_not_taken_again(tmp_path):
    run_stages(Run(config(tmp_path), engine(), say=lambda line: None))
    again = config(tmp_path, "b", reuse=str(tmp_path / "a"))
    run_stages(Run(again, engine(), say=lambda line: None))
    note = tmp_path / "b" / "reading" / "stage.json"
    note.write_text(note.read_text().replace('"passing_failures": 0', '"passing_failures": 1'))
    said = []
    run_stages(Run(again, engine(), say=said.append))
    assert any("they are tried again" in line for line in said)
    assert not any(line.startswith("reading: taken from ") for line in said)


def test_nothing_is_taken_where_the_settings_above_the_stages_differ(tmp_path):
    run_stages(Run(config(tmp_path), engine(), say=lambda line: None))
    said = []
    run_stages(Run(config(tmp_path, "b", reuse=str(tmp_path / "a"), seed=1), engine(), say=said.append))
    assert not any("taken from" in line for line in said)


def test_a_run_to_reuse_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="reuse not found"):
        run_stages(Run(config(tmp_path, "b", reuse=str(tmp_path / "no")), engine(), say=lambda line: None))
