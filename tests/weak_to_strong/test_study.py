import numpy as np
import pytest

from debate_rl.records import read
from debate_rl.trainers.rows import ClassifierRow
from debate_rl.trainers.settings import Result
from debate_rl.weak_to_strong import study
from debate_rl.weak_to_strong.items import claims, split_items
from debate_rl.weak_to_strong.study import Settings, plain_contexts, run_study

SKILL = {"weak": 0.6, "strong": 0.95}


class World:
    """Stands for training: a model is as good as its size, a debate in the text or better labels help."""

    def __init__(self, splits):
        self.truth = {item.id: item.label for part in (splits.supervisor, splits.student, splits.test) for item in part}
        self.jobs = []

    def launch(self, job, accelerate_config=None):
        rows = read(job.rows, ClassifierRow)
        right = np.mean([(row.target > 0.5) == self.truth[row.id] for row in rows])
        debate = "debate" in rows[0].text
        self.jobs.append(job)
        skill = min(SKILL[job.model] + 0.25 * debate, right if right < 1 else 1)
        return Result(
            kind="classifier",
            path=f"{job.model}:{skill}:{job.seed}",
            base="b",
            rows=len(rows),
            steps=1,
            loss=0,
            seconds=0,
        )

    def predict(self, rows, model, adapter, max_length):
        _, skill, seed = model.split(":")
        drawn = np.random.default_rng(int(seed) + len(rows)).random(len(rows))
        truth = np.array([self.truth[row.id] for row in rows])
        return np.where(drawn < float(skill), 0.1 + 0.8 * truth, 0.9 - 0.8 * truth)


@pytest.fixture
def splits(question):
    asked = [question.model_copy(update={"id": f"q{i}", "group": f"g{i}", "correct": i % 2}) for i in range(300)]
    return split_items(claims(asked), 100, 100, 100)


@pytest.fixture
def world(splits, monkeypatch):
    found = World(splits)
    monkeypatch.setattr(study, "launch", found.launch)
    monkeypatch.setattr(study, "predict", found.predict)
    return found


def settings():
    return Settings(weak="weak", strong="strong", ensemble=2, seeds=2)


def test_debates_that_help_the_supervisor_help_the_student(splits, world, tmp_path):
    plain = plain_contexts(splits, 2)
    debates = [{key: text + " debate" for key, text in texts.items()} for texts in plain]
    found = run_study(splits, {"none": plain, "debate": debates}, settings(), tmp_path)
    none, debate = found["methods"]
    assert found["weak"]["value"] < none["student"]["value"] + 0.1 < debate["student"]["value"] + 0.1
    assert debate["labels"]["value"] > none["labels"]["value"]
    assert found["ceiling"]["value"] > 0.9 and (found["seeds"], found["test_items"]) == (2, 100)
    assert found["comparisons"][0]["accuracy"]["value"] > 0 and debate["pgr"]["pgr"]["value"] > 0.3


def test_the_student_learns_soft_labels_on_the_original_text(splits, world, tmp_path):
    contexts = plain_contexts(splits, 2)
    run_study(splits, {"none": contexts}, settings(), tmp_path)
    student = next(job for job in world.jobs if job.model == "strong" and "none" in job.out)
    rows = read(student.rows, ClassifierRow)
    assert [row.id for row in rows] == [item.id for item in splits.student]
    assert all(row.text == item.text for row, item in zip(rows, splits.student, strict=True))
    assert {round(row.target, 3) for row in rows} <= {0.1, 0.5, 0.9}


def test_a_stopped_study_trains_nothing_twice(splits, world, tmp_path):
    contexts = {"none": plain_contexts(splits, 2)}
    first = run_study(splits, contexts, settings(), tmp_path)
    count = len(world.jobs)
    assert count == 2 * (2 + 1 + 1)  # per seed: two supervisors, a student, a ceiling
    assert run_study(splits, contexts, settings(), tmp_path) == first and len(world.jobs) == count
