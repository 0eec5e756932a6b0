"""Iterated training on the lab's small model: what is made, what it is named, and that a killed one ends the same."""

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.errors import UserError
from debate_rl.plan.plan import plan
from debate_rl.records import read, read_json
from debate_rl.runs.execute import needed, run_stages
from debate_rl.runs.run import Run
from debate_rl.stages import iterations
from debate_rl.stages.iterations import IterationsStage
from debate_rl.stages.preferences import PreferencesStage
from debate_rl.trainers.common.arguments import training_arguments
from debate_rl.trainers.common.rows import PreferenceRow

FAST = {"per_device_train_batch_size": 8, "learning_rate": 4e-3, "max_steps": 2, "save_steps": 1}
LORA = {"r": 4, "alpha": 8}


def config(folder, name="it", stages=None, **changes):
    """Two iterations that take seconds."""
    stage = {
        "start": "base", "preferences": {"best_of": 2, "opponents": 1, "questions": 8},
        "dpo": {"lora": LORA, "train": FAST}, "pool": [], "resamples": 20, **changes,
    }  # fmt: skip
    tree = {
        "name": name, "runs": str(folder), "questions": {"train": 16, "test": 6}, "tracking": {"mode": "disabled"},
        "protocol": {"prompts": "lab", "max_new_tokens": 24}, "engine": {"threads": 1, "cache_tokens": 0},
        "models": {"debater": "lab-small", "judge": "lab-small"},
        "stages": stages or {"iterations": stage, "tournament": {"players": ["base", "iterations.1", "iterations"]}},
    }  # fmt: skip
    return parse_config(tree)


def run(config):
    return run_stages(Run(config, say=lambda line: None))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two iterations and a tournament after them."""
    folder = tmp_path_factory.mktemp("runs")
    found = config(folder)
    return found, run(found), folder / "it"


def test_each_iteration_plays_trains_and_is_rated(finished):
    _, metrics, folder = finished
    found = metrics["iterations"]
    assert [point["player"] for point in found["points"]] == ["base", "iterations.1", "iterations.2"]
    assert found["points"][0]["over_start"] is None and found["points"][1]["over_start"]["low"] is not None
    rounds = found["iterations"]
    assert [one["learning_rate"] for one in rounds] == [4e-3, 2e-3]
    assert [one["reference"] for one in rounds] == ["base", "iterations.1"]
    assert [one["opponent"] for one in rounds] == ["base", "iterations.1"]
    rows = [read(folder / f"iterations/iteration{k}/preferences/rows.jsonl", PreferenceRow) for k in (1, 2)]
    questions = [{row.question for row in found} for found in rows]
    assert questions[0] and questions[1] and not questions[0] & questions[1]
    players = {p for one in found["ratings"]["standings"] for p in [one["player"]]}
    assert players == {"base", "iterations.1", "iterations.2"} == set(found["judge_accuracy"])


def test_later_stages_name_the_last_iteration_or_any(finished):
    config, metrics, _ = finished
    one = Run(config)
    assert one.debater("iterations").adapter == one.debater("iterations.2").adapter == "iterations/iteration2/adapter"
    assert one.debater("iterations.1@4").adapter == "iterations/iteration1/adapter"
    rated = {row["player"]: row["rating"]["value"] for row in metrics["tournament"]["ratings"]["standings"]}
    found = {row["player"]: row["rating"]["value"] for row in metrics["iterations"]["ratings"]["standings"]}
    assert rated["iterations"] == pytest.approx(found["iterations.2"])  # the same games: the store answers
    assert needed(config, "tournament") == {"iterations", "tournament"}
    with pytest.raises(UserError, match=r"did you mean 'iterations.2'"):
        one.debater("iterations.3")


def test_cards_say_what_made_an_adapter_and_what_was_measured(finished):
    _, _, folder = finished
    card = (folder / "iterations/iteration2/adapter/README.md").read_text()
    for part in (
        "# it: iterations.2", "started from | iterations/iteration1/adapter", "judged speeches of iterations.1",
        "judge | base judge (lab-small)", "reference | iterations.1", "## Rated in iterations",
        "## Rated in tournament", "iterations.2 judge accuracy", "iterations Elo",
    ):  # fmt: skip
        assert part in card, part
    assert card.count("## Rated in tournament") == 1


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the project catches it."""


@pytest.mark.parametrize("part", ["preferences", "training", "rating"])
def test_stopped_in_any_part_it_ends_the_same(finished, tmp_path, monkeypatch, part):
    _, expected, folder = finished
    again = config(tmp_path)
    where = {"preferences": (iterations.preferences, "execute"), "training": (iterations.dpo, "learn"),
             "rating": (iterations, "curve")}[part]  # fmt: skip
    true, calls = getattr(*where), []

    def stop(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            found = true(*args, **options)  # its files are there, its metrics are not
            raise Killed(found)
        return true(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(*where, stop)
        with pytest.raises(Killed):
            run(again)
    working = tmp_path / "it" / ".iterations"
    first = (working / "iteration1" / "training.json").stat().st_mtime_ns
    assert not (working / "iteration2" / f"{part}.json").exists()
    found = run(again)
    assert found["iterations"] == expected["iterations"] and found["tournament"] == expected["tournament"]
    assert (tmp_path / "it/iterations/iteration1/training.json").stat().st_mtime_ns == first
    for file in ("iteration2/adapter/adapter_model.safetensors", "debates.jsonl", "iteration2/preferences/rows.jsonl"):
        assert (tmp_path / "it/iterations" / file).read_bytes() == (folder / "iterations" / file).read_bytes()


def test_the_very_first_debater_as_reference_and_opponent(tmp_path):
    stages = {
        "sft": {"limit": 8, "lora": LORA, "train": FAST},
        "iterations": {
            "preferences": {"best_of": 2, "opponents": 1, "questions": 8}, "reference": "start", "opponents": "start",
            "dpo": {"lora": LORA, "train": {**FAST, "logging_steps": 1}}, "pool": ["base"], "resamples": 20,
        },
    }  # fmt: skip
    metrics = run(config(tmp_path, stages=stages))["iterations"]
    assert [one["reference"] for one in metrics["iterations"]] == ["sft", "sft"]
    assert [one["opponent"] for one in metrics["iterations"]] == ["sft", "sft"]
    logs = [read_json(tmp_path / f"it/iterations/iteration{k}/history.json")[0] for k in (1, 2)]
    assert logs[0]["rewards/chosen"] == 0 and logs[1]["rewards/chosen"] != 0  # the second is not its own reference
    assert {row["player"] for row in metrics["ratings"]["standings"]} == {"base", "sft", "iterations.1", "iterations.2"}


@pytest.mark.parametrize("protocol", ["single", "double"])
def test_consultants_are_trained_by_the_same_code(tmp_path, protocol):
    rows = {"best_of": 2, "opponents": 1, "questions": 8, "protocol": protocol}
    metrics = run(config(tmp_path, preferences=rows, iterations=1, stages=None))["iterations"]
    made = read(tmp_path / "it/iterations/iteration1/preferences/rows.jsonl", PreferenceRow)
    assert len(made) == metrics["iterations"][0]["preferences"]["pairs"] > 0
    point = metrics["points"][1]
    if protocol == "single":  # nobody sits opposite: no rating, but how far the judge follows
        assert metrics["ratings"] is None and point["rating"] is None and 0 < point["persuaded"]["value"] < 1
        assert len({row.question for row in made}) == len(made)  # one side of each question
    else:
        assert point["over_start"] is not None and {row.side for row in made} == {"A", "B"}


def test_shares_of_the_questions_are_disjoint_where_there_are_enough():
    def shares(total, **changes):
        stage = IterationsStage(preferences=PreferencesStage(questions=300), **changes)
        return [iterations.share(stage, total, number) for number in range(1, stage.iterations + 1)]

    assert shares(600) == [(0, 300), (300, 300)]
    assert shares(1000, iterations=3) == [(0, 300), (300, 300), (600, 300)]
    assert shares(500) == [(0, 300), (200, 300)]
    assert shares(250) == [(0, 250), (0, 250)]
    assert shares(600, fresh_questions=False) == [(0, 300), (0, 300)]
    assert shares(10, iterations=1) == [(0, 10)]
    with pytest.raises(UserError, match="skip 5000 leaves no training questions of 600"):
        iterations.share(IterationsStage(preferences=PreferencesStage(skip=5000)), 600, 1)


def test_a_plan_counts_all_iterations(tmp_path):
    row = next(row for row in plan(Run(config(tmp_path))) if row.stage == "iterations")
    assert row.debates == 2 * 8 + 6 * (2 * 3 + 3) and row.note == "trains"


def test_the_learning_rate_is_that_of_any_dpo_where_none_is_named(tmp_path):
    assert training_arguments("dpo", {}, tmp_path, 0).learning_rate == iterations.LEARNING_RATE


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"preferences": {"player": "dpo"}}, "preferences.player is the newest debater"),
        ({"dpo": {"reference": "base"}}, "use `reference`"),
        ({"pool": ["sfd"]}, "builds on 'sfd'"),
        ({"dpo": {"trian": {}}}, "did you mean 'stages.iterations.dpo.train'"),
        ({"iterations": 0}, "iterations"),
        ({"dpo": {"train": {"learning_rate": "abc"}}}, "dpo.train.learning_rate is 'abc'; give a number"),
        ({"dpo": {"train": {"learning_rate": None}}}, "dpo.train.learning_rate is None"),
    ],
)
def test_mistakes_are_one_line(tmp_path, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        config(tmp_path, stages={"iterations": {"start": "base", "pool": [], **changes}})


def test_a_player_of_an_iteration_that_comes_later_is_refused(tmp_path):
    stages = {"tournament": {"players": ["base", "iterations.1"]}, "iterations": {"start": "base"}}
    with pytest.raises(UserError, match="'iterations.1', which comes later"):
        config(tmp_path, stages=stages)
