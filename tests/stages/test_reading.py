import pytest

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.verdict import JudgedDebate
from debate_rl.plan.plan import plan
from debate_rl.records import read
from debate_rl.runs.execute import needed
from debate_rl.runs.run import Run


@pytest.fixture
def config(tmp_path, question):
    """Eight test questions about a file's stories; the shed is always right."""
    every = [
        question.model_copy(update={"id": f"q{i}", "group": f"g{i}", "passage": f"{question.passage} day {i}."})
        for i in range(60)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(one.model_dump_json() for one in every))
    source = {"source": "file", "path": str(tmp_path / "q.jsonl"), "train": 2, "test": 8}
    stages = {"reading": {"models": ["big", "small"]}, "tournament": {"players": ["base", "base@2"]}}
    tree = {"runs": str(tmp_path / "runs"), "questions": source, "protocol": {"prompts": "lab"}, "stages": stages}
    return parse_config(tree)


def reader(choice):
    """The big model reads; the small one and all without a passage do not know; one answer is no number."""
    shown = " ".join(message.content for message in choice.messages)
    knows = choice.model == "big" and "moved to the shed at dusk" in shown
    return [-0.1 if knows and answer == "shed" else -1.0 for answer in choice.candidates]


def rows(metrics):
    return {(row["model"], row["protocol"]): row["scores"] for row in metrics["rows"]}


def test_models_are_scored_with_the_passage_and_without(config, tmp_path):
    run = Run(config, ScriptedEngine(score=reader), say=lambda line: None)
    found = rows(config.stages["reading"].execute(run, tmp_path).model_dump(mode="json"))
    assert [found[key]["accuracy"]["value"] for key in (("big", "open_book"), ("big", "blind"))] == [1, 0.5]
    assert found["small", "open_book"]["accuracy"]["value"] == 0.5
    assert found["big", "open_book"]["brier"]["value"] < found["big", "blind"]["brier"]["value"] == 0.25
    assert found["big", "open_book"]["accuracy"]["clusters"] == 8
    legs = read(tmp_path / "debates.jsonl", JudgedDebate)
    assert len(legs) == 2 * 2 * 8 and {leg.verdict.judge for leg in legs} == {"big", "small"}


def test_what_can_not_be_read_is_a_failure_and_no_wrong_answer(config, tmp_path):
    asked = []

    def score(choice):
        asked.append(choice)
        if len(asked) == 1:
            raise ValueError("too long")
        return reader(choice)

    run = Run(config, ScriptedEngine(score=score), say=lambda line: None)
    metrics = config.stages["reading"].execute(run, tmp_path).model_dump(mode="json")
    scored = rows(metrics)["big", "open_book"]
    assert (metrics["failed"], scored["n"], scored["accuracy"]["value"]) == (1, 7, 1)


def test_a_plan_counts_what_is_asked_and_no_speech(config):
    one = config.model_copy(
        update={"stages": {"reading": config.stages["reading"].model_copy(update={"questions": 3})}}
    )
    planned = plan(Run(one))[0]
    assert (planned.debates, planned.speeches, planned.note) == (2 * 2 * 3, 0, "verdicts alone")
    assert needed(config, "reading") == {"reading"} and "reading" not in needed(config, "tournament")
