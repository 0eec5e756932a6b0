import numpy as np
import pytest

from debate_rl.engines.transformers_engine import TransformersEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.records import read
from debate_rl.trainers.rows import ClassifierRow, JudgeRow
from debate_rl.trainers.settings import Result, StudentLoss
from debate_rl.weak_to_strong import study
from debate_rl.weak_to_strong.items import items_of, plain_samples, split_items
from debate_rl.weak_to_strong.labels import Labelling
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.study import Settings, run_study, score
from tests.tiny import tiny_model


def said(sample):
    """All that a model reads of a sample or row."""
    return "\n".join(message["content"] for message in sample.prompt)


SKILL = {"weak": 0.6, "strong": 0.95}


class World:
    """Stands for training: a model is as good as its size; a debate in its text or better labels help it."""

    def __init__(self, splits):
        self.truth = {item.id: item.label for item in splits.every}
        self.jobs = []

    def launch(self, job, accelerate_config=None, processes=None):
        rows = read(job.rows, JudgeRow if job.kind == "judge" else ClassifierRow)
        names = [row.question if job.kind == "judge" else row.id for row in rows]
        right = np.mean([(row.target > 0.5) == self.truth[name] for row, name in zip(rows, names, strict=True)])
        text = said(rows[0])
        self.jobs.append(job)
        skill = min(SKILL[job.model] + 0.25 * ("debate" in text), right)
        path = f"{skill}:{job.seed}"
        return Result(kind=job.kind, path=path, base="b", rows=len(rows), steps=1, loss=0, seconds=0)

    def answers(self, names, path):
        skill, seed = path.split(":")
        drawn = np.random.default_rng(int(seed) + len(names)).random(len(names))
        truth = np.array([self.truth[name] for name in names])
        return np.where(drawn < float(skill), 0.1 + 0.8 * truth, 0.9 - 0.8 * truth)

    def score(self, samples, model, adapter, engine):
        if model == "strong":
            return self.answers([said(sample).split()[-1] for sample in samples], "0.7:5")
        return self.answers([said(sample).split()[-1] for sample in samples], model)

    def predict(self, rows, model, adapter, max_length):
        return self.answers([row.id for row in rows], model)


@pytest.fixture
def splits(question):
    asked = [question.model_copy(update={"id": f"q{i}", "group": f"g{i}", "correct": i % 2}) for i in range(300)]
    return split_items(items_of(asked), 100, 100, 100)


@pytest.fixture
def world(splits, monkeypatch):
    found = World(splits)
    monkeypatch.setattr(study, "launch", found.launch)
    monkeypatch.setattr(study, "predict", found.predict)
    monkeypatch.setattr(study, "score", found.score)
    return found


def samples(splits, word=""):
    """What is read of every item, with its id at the end so that the stand-in can tell which it is."""
    plain = plain_samples(splits.every, load_protocol("blind", prompts="lab"), True)
    return {
        key: one.model_copy(update={"prompt": [{"role": "user", "content": f"{said(one)} {word} {key}"}]})
        for key, one in plain.items()
    }


def settings(**changes):
    return Settings(weak="weak", strong="strong", seeds=2, **changes)


@pytest.mark.parametrize("readout", ["answers", "head"])
def test_debates_that_help_the_supervisor_help_the_student(splits, world, tmp_path, readout):
    plain, debates = [samples(splits)] * 2, [samples(splits, "debate")] * 2
    contexts = {"none": plain, "debate": debates}
    found = run_study(splits, contexts, samples(splits), settings(readout=readout), TransformersEngine, tmp_path)
    none, debate = found["methods"]
    assert found["weak"]["value"] < debate["student"]["value"] > none["student"]["value"]
    assert debate["labels"]["value"] > none["labels"]["value"]
    assert (found["untrained"] is None) == (readout == "head")
    assert found["ceiling"]["value"] > 0.9 and (found["seeds"], found["test_items"]) == (2, 100)
    assert found["comparisons"][0]["accuracy"]["value"] > 0 and debate["pgr"]["pgr"]["value"] > 0.3


def test_the_student_learns_the_mean_of_soft_labels_on_its_own_text(splits, world, tmp_path):
    run_study(
        splits,
        {"none": [samples(splits, "weak")] * 2},
        samples(splits, "strong"),
        settings(),
        TransformersEngine,
        tmp_path,
    )
    student = next(job for job in world.jobs if job.model == "strong" and "none" in job.out)
    rows = read(student.rows, JudgeRow)
    assert [row.question for row in rows] == [item.id for item in splits.student]
    assert all(" strong " in row.prompt[0]["content"] for row in rows)
    assert {round(row.target, 3) for row in rows} <= {0.1, 0.5, 0.9}


def test_a_stopped_study_trains_nothing_twice(splits, world, tmp_path):
    arguments = (splits, {"none": [samples(splits)] * 2}, samples(splits), settings(), TransformersEngine, tmp_path)
    first = run_study(*arguments)
    count = len(world.jobs)
    assert count == 2 * (2 + 1 + 1)  # per seed: two supervisors, a student, a ceiling
    assert run_study(*arguments) == first and len(world.jobs) == count


def test_scores_are_probabilities_of_the_two_answers(splits, tmp_path):
    model = tiny_model(tmp_path, words=["shed", "barn", *[f"w{i}" for i in range(50)]], positions=2048)
    some = list(plain_samples(splits.test[:3], load_protocol("blind", prompts="lab"), True).values())
    found = score(some, model, None, TransformersEngine())
    turned = score(
        [one.model_copy(update={"candidates": one.candidates[::-1]}) for one in some], model, None, TransformersEngine()
    )
    assert np.allclose(found + turned, 1) and ((found > 0) & (found < 1)).all()


def test_methods_share_supervisors_and_differ_in_labels_and_losses(splits, world, tmp_path):
    plain, debates = [samples(splits)] * 3, [samples(splits, f"debate {draw}") for draw in range(3)]
    methods = {
        "single": Method(members=1),
        "confidence": Method(members=1, loss=StudentLoss(kind="confidence")),
        "hard": Method(members=3, combine="vote", labels=Labelling(kind="hard", errors=0.2)),
        "boosted": Method(members=3, combine="boosting"),
        "finetune": Method(context="debate", members=3, same_sample=True),
        "ensemble": Method(context="debate", members=3, labels=Labelling(kind="confident", share=0.4)),
    }
    contexts = {"none": plain, "debate": debates}
    found = run_study(splits, contexts, samples(splits), settings(), TransformersEngine, tmp_path, methods)
    jobs = {job.out.split("seed0/")[1]: job for job in world.jobs if "seed0/" in job.out}
    assert set(jobs) == {
        *(f"none/supervisor{i}" for i in range(3)), "none/boosted1", "none/boosted2", "debate/supervisor-same1",
        "debate/supervisor-same2", *(f"debate/supervisor{i}" for i in range(3)), *(f"{m}/student" for m in methods),
        "ceiling",
    }  # fmt: skip
    losses = {name: job.loss.kind for name, job in jobs.items()}
    assert losses.pop("confidence/student") == "confidence" and set(losses.values()) == {"xent"}
    rows = {name: read(job.rows, JudgeRow) for name, job in jobs.items()}
    assert len(rows["ensemble/student"]) == 40 and len(rows["single/student"]) == 100
    assert {row.target for row in rows["hard/student"]} == {0, 1}
    weights = [row.weight for row in rows["none/boosted1"]]
    assert np.mean(weights) == pytest.approx(1) and len(set(weights)) == 2
    assert " debate 0 " in said(rows["debate/supervisor-same2"][0]) and " debate 2 " in said(
        rows["debate/supervisor2"][0]
    )
    shown = {one["name"]: one for one in found["methods"]}
    assert list(shown) == list(methods) and {one["second"] for one in found["comparisons"]} == {"single"}
    assert shown["ensemble"]["label_counts"][0] == {"items": 100, "wrong": 0, "unsure": 60, "kept": 40}
    assert shown["hard"]["label_counts"][0]["wrong"] > 5


def test_a_method_that_changed_under_its_name_is_not_taken_for_trained(splits, world, tmp_path):
    arguments = (splits, {"none": [samples(splits)]}, samples(splits), settings(), TransformersEngine, tmp_path)
    run_study(*arguments, {"one": Method(members=1)})
    with pytest.raises(UserError, match="name the method anew"):
        run_study(*arguments, {"one": Method(members=1, loss=StudentLoss(kind="product"))})
    with pytest.raises(UserError, match="method 'two' reads 2 x 'none', of which there are 1"):
        run_study(*arguments, {"two": Method(members=2)})
