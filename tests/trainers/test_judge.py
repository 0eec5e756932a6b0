"""The judge learns exactly the probabilities that an engine's `choose` reads."""

import math

import pytest

from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Choice, Message
from debate_rl.judges.readout import read_scores
from debate_rl.records import read_json, write
from debate_rl.trainers.common.job import run_job
from tests.trainers.tiny import judge_examples


def chosen(rows, model, adapter=None):
    """P(candidate 0) of each row, by an engine."""
    choices = [
        Choice(messages=[Message(**m) for m in row.prompt], model=model, adapter=adapter, candidates=row.candidates)
        for row in rows
    ]
    scores = TransformersEngine(device="cpu").choose(choices)
    return [1 / (1 + math.exp(s.logprobs[1] - s.logprobs[0])) for s in scores]


def cross_entropy(rows, p):
    pairs = list(zip([row.target for row in rows], p, strict=True))
    return sum(-t * math.log(q) - (1 - t) * math.log(1 - q) for t, q in pairs) / len(pairs)


@pytest.mark.parametrize("long", [False, True])
def test_first_loss_is_that_of_choose_and_training_moves_choose(make_job, base, tmp_path, long):
    rows = judge_examples(8, long)
    write(tmp_path / "rows.jsonl", rows)
    train = {"max_steps": 30, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1}
    job = make_job("judge", rows=str(tmp_path / "rows.jsonl"), train=train)
    result = run_job(job, quiet=True)
    before = chosen(rows, base)
    history = read_json(f"{job.out}/history.json")
    assert history[0]["loss"] == pytest.approx(cross_entropy(rows, before), abs=1e-5)
    right = sum((p > 0.5) == (row.target > 0.5) for p, row in zip(before, rows, strict=True)) / len(rows)
    assert history[0]["accuracy"] == pytest.approx(right)
    assert history[0]["brier"] == pytest.approx(
        sum((p - row.target) ** 2 for p, row in zip(before, rows, strict=True)) / len(rows), abs=1e-5
    )
    after = chosen(rows, base, result.path)
    assert cross_entropy(rows, after) < 0.5 * cross_entropy(rows, before) + 0.2


def test_ways_to_save_memory_leave_the_training_as_it_is(make_job):
    one = run_job(make_job("judge", out="a", train={"per_device_train_batch_size": 4}), quiet=True)
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "gradient_checkpointing": True}
    two = run_job(make_job("judge", out="b", train=options), quiet=True)
    assert two.loss == pytest.approx(one.loss, abs=1e-5)


def test_evaluation_rows_are_scored(make_job, tmp_path):
    write(tmp_path / "eval.jsonl", judge_examples(5))
    job = make_job("judge", eval_rows=str(tmp_path / "eval.jsonl"), train={"max_steps": 2})
    run_job(job, quiet=True)
    scored = [entry for entry in read_json(f"{job.out}/history.json") if "eval_loss" in entry]
    assert len(scored) == 1
    assert set(scored[0]) == {"eval_loss", "eval_accuracy", "eval_brier", "epoch", "step"}


def test_rows_by_the_token_learn_the_mean_log_probability(make_job, base, tmp_path):
    rows = [row.model_copy(update={"per_token": True}) for row in judge_examples(8, True)]
    write(tmp_path / "rows.jsonl", rows)
    train = {"max_steps": 1, "per_device_train_batch_size": 8, "logging_steps": 1}
    job = make_job("judge", rows=str(tmp_path / "rows.jsonl"), train=train)
    run_job(job, quiet=True)
    choices = [
        Choice(messages=[Message(**m) for m in row.prompt], model=base, candidates=row.candidates) for row in rows
    ]
    p = []
    for scores in TransformersEngine(device="cpu").choose(choices):
        first, second = read_scores(scores, "answers")
        p.append(1 / (1 + math.exp(second - first)))
    assert len({len(candidate.split()) for row in rows for candidate in row.candidates}) > 1
    assert read_json(f"{job.out}/history.json")[0]["loss"] == pytest.approx(cross_entropy(rows, p), abs=1e-5)
