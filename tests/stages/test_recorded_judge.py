"""A judge stage that learns from recorded human judgements, on real debates, without training a model."""

import json

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.plan.training_cost import estimates
from debate_rl.records import read
from debate_rl.runs.run import Run
from debate_rl.stages import recorded_judge
from debate_rl.trainers.common.rows import JudgeRow
from tests.stages.test_judge import TRAINED


def config(path, runs, source="nyu", **stage):
    return parse_config(
        {
            "name": "x", "runs": str(runs), "questions": {"source": source, "path": str(path), "train": 1, "test": 1},
            "tracking": {"mode": "disabled"},
            "stages": {"judge": {"from": "recorded", "questions": 12, **stage}},
        }
    )  # fmt: skip


@pytest.fixture
def small(shared_data, tmp_path):
    """Forty of the recorded games with their stories."""
    folder = shared_data / "nyu_2023"
    lines = (folder / "debates.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line).get("includedInPaper")][::10]
    (tmp_path / "debates.jsonl").write_text("\n".join(kept) + "\n")
    (tmp_path / "stories.jsonl").symlink_to((folder / "stories.jsonl").resolve())
    return tmp_path


def test_human_confidences_are_learnt_on_some_stories_and_predicted_on_others(small, tmp_path, monkeypatch):
    taught = []

    def train(run, stage, kind, rows, out, base):
        taught.extend(rows)
        return {**TRAINED, "rows": len(rows)}

    monkeypatch.setattr(recorded_judge, "train", train)
    found = config(small, tmp_path)
    run = Run(found, engine=ScriptedEngine())
    out = tmp_path / "out"
    out.mkdir()
    assert found.stages["judge"].games(run) == []
    (planned,) = estimates(run)
    metrics = found.stages["judge"].execute(run, out).model_dump(mode="json")
    assert all(isinstance(row, JudgeRow) for row in taught)
    assert any(row.target not in (0, 1) for row in taught)
    assert planned.rows == len(taught)
    humans, models = read(out / "human_debates.jsonl", JudgedDebate), read(out / "test_debates.jsonl", JudgedDebate)
    assert {leg.verdict.p for leg in models} == {(0.5, 0.5)}
    assert all(leg.verdict.judge.startswith("human/") for leg in humans)
    assert not {row.group for row in taught} & {leg.transcript.question.cluster for leg in humans}
    rows = {row["judge"]: row for row in metrics["humans"]}
    assert {"all human judges", "constant", "untrained judge", "finetuned judge"} <= set(rows)
    assert rows["all human judges"]["distance"] is None
    assert rows["finetuned judge"]["over_constant"]["n"] == len(humans) == rows["constant"]["n"]
    assert sum(row["n"] for name, row in rows.items() if name.endswith("(human judge)")) == len(humans)
    assert metrics["after"]["accuracy"]["value"] == 0.5


def test_the_constant_knows_who_speaks_and_nothing_else(question):
    found = []
    for players, p in (({"A": "GPT-4"}, 0.8), ({"B": "GPT-4"}, 0.4), ({"A": "human", "B": "human"}, 0.99)):
        game = Transcript(question=question, protocol=load_protocol("debate"), players=players)
        found.append(JudgedDebate(transcript=game, verdict=Verdict(judge="human/x", p=(p, 1 - p))))
    assert recorded_judge.constants(found) == {("A",): pytest.approx(0.7), ("B",): pytest.approx(0.3)}
    assert recorded_judge.constants(found[2:]) == {("A",): 0.5, ("B",): 0.5}


@pytest.mark.parametrize(("name", "value"), [("players", ["base"]), ("attacks", True), ("calibrate_lone", False)])
def test_settings_of_games_that_are_played_are_refused(tmp_path, name, value):
    with pytest.raises(UserError, match=f"{name} is for from: self_play"):
        config(tmp_path, tmp_path, **{name: value})


def test_another_source_is_refused_in_one_line(tmp_path):
    found = config(tmp_path, tmp_path, source="file")
    with pytest.raises(UserError, match="`from: recorded` reads questions: {source: nyu"):
        recorded_judge.execute(found.stages["judge"], Run(found, engine=ScriptedEngine()), tmp_path, 0.25)
