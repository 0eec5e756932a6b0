import json

import numpy as np
import pytest

from debate_rl.data.tasks.binary_items import load
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.records import read, read_json
from debate_rl.trainers.common.rows import JudgeRow, PreferenceRow, SftRow
from debate_rl.trainers.common.settings import StudentLoss, Weights
from debate_rl.weak_to_strong.contexts import SHIPPED, Context
from debate_rl.weak_to_strong.debate_function import DebateScore
from debate_rl.weak_to_strong.labels import Labelling
from debate_rl.weak_to_strong.methods import Method, Transfer
from debate_rl.weak_to_strong.results.predictions import Hits
from debate_rl.weak_to_strong.rollout import Rollout
from debate_rl.weak_to_strong.study import Reading, recorded, run_study
from debate_rl.weak_to_strong.tasks.items import Item, items_of, split_items
from tests.weak_to_strong.world import World, said, samples, train_in


@pytest.fixture
def splits(question):
    asked = [question.model_copy(update={"id": f"q{i}", "group": f"g{i}", "correct": i % 2}) for i in range(300)]
    return split_items(items_of(asked), 100, 100, 100)


@pytest.fixture
def world(splits, monkeypatch):
    return World(splits, monkeypatch)


class Table:
    """Plays no games: samples that say what they stand for."""

    def __init__(self, splits):
        self.splits = splits
        self.asked = []

    def rules(self, context):
        return context.rules(False, lambda name: load_protocol(name or "debate"))

    def samples(self, context, items, draw, passage, told):
        self.asked.append((context, draw, passage, told))
        return samples(self.splits, f"debate {draw} by {context.debater}")


def study(splits, folder, methods, world=None, table=None, **settings):
    reading = Reading(
        weak=samples(splits, "weak"), strong=samples(splits, "strong"), contexts={**SHIPPED},
        rollout=table or Table(splits),
    )  # fmt: skip
    return run_study(splits, reading, train_in(folder, **settings), folder, methods)


def accuracy(hits, model):
    return float(np.mean(hits.right(model)))


TWO = {"none": Method(members=2), "debate": Method(context="debate", members=2)}


@pytest.mark.parametrize("readout", ["answers", "head"])
def test_debates_that_help_the_supervisor_help_the_student(splits, world, tmp_path, readout):
    found = study(splits, tmp_path, TWO, readout=readout)
    assert accuracy(found, "weak") < accuracy(found, "debate/student") > accuracy(found, "none/student")
    assert found.labels_right("debate").mean() > found.labels_right("none").mean()
    assert ("untrained" in found.test) == (readout == "answers")
    assert accuracy(found, "ceiling") > 0.9 and found.seeds == 2 and len(found.test_items) == 100
    assert Hits.model_validate(read_json(tmp_path / "hits.json")) == found
    assert {row.kind for row in world.jobs} == {"judge" if readout == "answers" else "classifier"}


def test_the_student_learns_the_mean_of_soft_labels_on_its_own_text(splits, world, tmp_path):
    study(splits, tmp_path, {"none": Method(members=2)}, seeds=1)
    student = world.jobs[-2]
    rows = read(student.rows, JudgeRow)
    assert student.model == "strong" and [row.question for row in rows] == [item.id for item in splits.student]
    assert all(" strong " in row.prompt[0]["content"] for row in rows)
    assert {round(row.target, 3) for row in rows} <= {0.1, 0.5, 0.9}


def test_a_stopped_study_trains_and_predicts_nothing_twice(splits, world, tmp_path):
    first = study(splits, tmp_path, TWO)
    jobs, scored = len(world.jobs), world.scored
    assert jobs == 2 * (2 + 2 + 2 + 1 + 1)  # per seed: supervisors, students, the strong model on D1, the ceiling
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    assert study(splits, tmp_path, TWO) == first and (len(world.jobs), world.scored) == (jobs, scored)
    assert kept == {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    # Another table of the run, in which one method is new, adds that method's student alone.
    study(splits, tmp_path, {**TWO, "same": Method(context="debate", members=1)})
    assert len(world.jobs) == jobs + 2


@pytest.mark.parametrize("fails_at", [1, 4, 7])
def test_a_killed_study_goes_on_and_ends_like_one_that_was_not(splits, world, tmp_path, fails_at):
    whole = study(splits, tmp_path / "whole", TWO)
    count = len(world.jobs)
    world.jobs.clear()
    world.fails_at = fails_at
    with pytest.raises(KeyboardInterrupt):
        study(splits, tmp_path / "cut", TWO)
    kept = {path: path.read_bytes() for path in (tmp_path / "cut").rglob("*.json*")}
    assert len(world.jobs) == fails_at and kept
    world.fails_at = None
    assert study(splits, tmp_path / "cut", TWO) == whole and len(world.jobs) == count
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_methods_share_supervisors_and_differ_in_labels_and_losses(splits, world, tmp_path):
    methods = {
        "single": Method(members=1),
        "confidence": Method(members=1, loss=StudentLoss(kind="confidence")),
        "hard": Method(members=3, combine="vote", labels=Labelling(kind="hard", errors=0.2)),
        "boosted": Method(members=3, combine="boosting"),
        "drawn": Method(members=2, bootstrap=True),
        "finetune": Method(context="debate", members=3, same_sample=True),
        "ensemble": Method(context="debate", members=3, labels=Labelling(kind="confident", share=0.4)),
        "reads": Method(context="debate", members=3, student_reads="context"),
    }
    found = study(splits, tmp_path, methods, seeds=1)
    index = read_json(tmp_path / "index.json")
    assert set(index) == {
        *(f"seed0/none/supervisor{i}" for i in range(3)), "seed0/none/boosted1", "seed0/none/boosted2",
        "seed0/debate/supervisor-same1", "seed0/debate/supervisor-same2", "seed0/ceiling", "seed0/strong",
        "seed0/none/supervisor-bootstrap0", "seed0/none/supervisor-bootstrap1",
        *(f"seed0/debate/supervisor{i}" for i in range(3)), *(f"seed0/{name}/student" for name in methods),
    }  # fmt: skip
    jobs = {job.out.rpartition("/")[2]: job for job in world.jobs}
    assert len(jobs) == len(set(index.values()))
    by = {name: jobs[content] for name, content in index.items()}
    losses = {name: job.loss.kind for name, job in by.items()}
    assert losses.pop("seed0/confidence/student") == "confidence" and set(losses.values()) == {"xent"}
    rows = {name.removeprefix("seed0/"): read(job.rows, JudgeRow) for name, job in by.items()}
    assert len(rows["ensemble/student"]) == 40 and len(rows["single/student"]) == 100
    assert {row.target for row in rows["hard/student"]} == {0, 1}
    weights = [row.weight for row in rows["none/boosted1"]]
    assert np.mean(weights) == pytest.approx(1) and len(set(weights)) == 2
    assert " debate 0 " in said(rows["debate/supervisor-same2"][0])
    assert " debate 2 " in said(rows["debate/supervisor2"][0]) and " debate 0 " in said(rows["reads/student"][0])
    drawn = [[row.question for row in rows[f"none/supervisor-bootstrap{i}"]] for i in range(2)]
    assert drawn[0] != drawn[1] and all(len(names) == 100 and len(set(names)) < 80 for names in drawn)
    assert found.label_counts["ensemble"][0] == {"items": 100, "wrong": 0, "unsure": 60, "kept": 40}
    assert found.label_counts["hard"][0]["wrong"] > 5


def test_the_debater_of_a_second_round_is_the_student_of_the_first(splits, world, tmp_path):
    table = Table(splits)
    method = Method(context="debate", members=1, transfer=Transfer(rounds=2))
    study(splits, tmp_path, {"m": method}, table=table, seeds=1)
    debaters = [(context.debater, told.student) for context, _, _, told in table.asked]
    first = [debater for debater, student in debaters if student is None]
    second = {(debater, student.model) for debater, student in debaters if student is not None}
    assert set(first) == {None} and {debater for debater, _ in second} == {"student"}
    assert all(model.startswith("strong:") for _, model in second)
    index = read_json(tmp_path / "index.json")
    assert {"seed0/m/student", "seed0/m/round2/student"} < set(index)
    assert index["seed0/debate/supervisor0"] != index["seed0/m/round2/supervisor0"]


def test_a_chain_learns_on_fresh_parts_of_d2(splits, world, tmp_path):
    found = study(splits, tmp_path, {"m": Method(members=1, transfer=Transfer(through=("middle",)))}, seeds=1)
    index, jobs = read_json(tmp_path / "index.json"), {job.out.rpartition("/")[2]: job for job in world.jobs}
    link, student = (jobs[index[f"seed0/m/{name}"]] for name in ("link0", "student"))
    parts = [{row.question for row in read(job.rows, JudgeRow)} for job in (link, student)]
    assert link.model == "middle" and not parts[0] & parts[1]
    assert parts[0] | parts[1] == {item.id for item in splits.student}
    assert len(found.labels["m"][0]) == 100
    with pytest.raises(UserError, match="a chain of 60 models|use more data"):
        study(splits, tmp_path, {"m": Method(members=1, transfer=Transfer(through=("middle",) * 60))}, seeds=1)


def test_the_strong_model_may_first_learn_to_write_the_task(splits, world, tmp_path):
    study(splits, tmp_path, {"m": Method(members=1, transfer=Transfer(generative=True))}, seeds=1)
    reader, student = [job for job in world.jobs if job.kind == "sft" or job.model.startswith("strong:")]
    texts = [row.completion for row in read(reader.rows, SftRow)]
    assert len(texts) == 100 and all(" strong q" in text for text in texts)
    assert reader.kind == "sft" and student.model.startswith("strong:0.95:")


def rollout(folder, engine, **changes):
    """Games answered by a script."""
    fields = {
        "player": lambda name: Debater(name=name, model=name), "folder": folder / "games",
        "rules": lambda context: context.rules(False, lambda name: load_protocol(name or "debate", prompts="lab")),
        "judge": lambda: Judge(model="judge"), **changes,
    }  # fmt: skip
    return Rollout(engine=engine, **fields)


@pytest.mark.parametrize("how", ["labels", "dpo"])
def test_debate_refines_the_student_by_who_wins(splits, world, tmp_path, how):
    def score(choice):
        """The judge holds that explanations for the shed win, in either order."""
        return [-0.1 if candidate == "shed" else -2.0 for candidate in choice.candidates]

    engine = ScriptedEngine(score=score)
    method = Method(members=1, transfer=Transfer(refine=how, train={"learning_rate": 1e-5}))
    study(splits, tmp_path, {"m": method}, table=rollout(tmp_path, engine), seeds=1)
    refined = world.jobs[-2]
    assert refined.kind == ("dpo" if how == "dpo" else "judge") and refined.model.startswith("strong:")
    assert refined.train["learning_rate"] == 1e-5
    wins = 1 / (1 + np.exp(-1.9))
    if how == "dpo":
        rows = read(refined.rows, PreferenceRow)
        assert {(row.chosen, row.rejected) for row in rows} == {("shed", "barn")}
        assert {round(row.p_chosen, 6) for row in rows} == {round(float(wins), 6)}
    else:
        assert {round(row.target, 6) for row in read(refined.rows, JudgeRow)} == {round(float(wins), 6)}
    assert {request.model for request in engine.requests} == {"strong", "weak"}
    listed = {"shed or barn" in choice.messages[-1].content for choice in engine.choices}
    assert listed == {True, False}  # the judge is asked in both orders
    (log,) = (tmp_path / "debate_function").iterdir()
    scores = read(log, DebateScore)
    assert len(scores) == 100 and {round(abs(score.d), 6) for score in scores} == {1.9}
    (found,) = read_json(tmp_path / "debate_function.json")
    shed = np.mean([item.question.correct == 0 for item in splits.student])
    assert found["name"] == "seed0/m/refine" and found["right"]["value"] == pytest.approx(shed)


def test_labels_that_lose_their_debate_are_left_out(splits, world, tmp_path):
    engine = ScriptedEngine(
        score=lambda choice: [-0.1 if candidate == "shed" else -2.0 for candidate in choice.candidates]
    )
    method = Method(members=1, labels=Labelling(kind="truth", debate=1.0))
    study(splits, tmp_path, {"m": method}, table=rollout(tmp_path, engine), seeds=1)
    # The judge favours the shed by 1.9: of the true labels only those for the shed win their debate.
    trained = [{row.target for row in read(job.rows, JudgeRow)} for job in world.jobs if job.model.startswith("strong")]
    assert {1.0} in trained, "the student learns the labels that won"
    (found,) = read_json(tmp_path / "debate_function.json")
    assert found["name"] == "seed0/m/labels" and found["n"] == 100
    strict = Method(members=1, labels=Labelling(kind="truth", debate=9.0))
    with pytest.raises(UserError, match="no label wins its debate by 9 log-odds; lower labels.debate"):
        study(splits, tmp_path / "two", {"m": strict}, table=rollout(tmp_path, engine), seeds=1)


def test_labels_of_a_file_supervise_without_training(tmp_path):
    rows = [{"txt": f"Q: w{i} A: x", "label": i % 2, "soft_label": [0.2, 0.8]} for i in range(60)]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    items = items_of(load("sciq", path, balanced=False).items)
    context = Context(kind="recorded", path=str(path))
    assert recorded(context, "sciq", items).tolist() == [0.8] * 60
    other = Item(question=items[0].question.model_copy(update={"id": "z"}))
    with pytest.raises(UserError, match="no soft_label for 1 of 2 items"):
        recorded(context, "sciq", [items[0], other])


def test_mistakes_in_methods_are_said_before_anything_is_trained(splits, world, tmp_path):
    with pytest.raises(UserError, match="method 'two': no context 'debat'; did you mean 'debate'"):
        study(splits, tmp_path, {"two": Method(context="debat")})
    for wrong, match in (
        ({"student_reads": "context"}, "need a context"),
        ({"transfer": {"rounds": 2}}, "need a context"),
        ({"bootstrap": True, "members": 1}, "for an ensemble"),
        ({"bootstrap": True, "combine": "boosting"}, "boosting weighs"),
    ):
        with pytest.raises(ValueError, match=match):
            Method.model_validate(wrong)
    assert not world.jobs
    with pytest.raises(UserError, match="set readout: answers, or refine: labels"):
        train_in(tmp_path, readout="head").prefer("x", Weights(model="m"), [], 0, {})
