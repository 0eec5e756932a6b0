"""Pairs of replies as a weak-to-strong task: reward models all the way, on real rows."""

import numpy as np
import pytest

from debate_rl.data.models import model_path
from debate_rl.data.tasks.reward_pairs import RewardPair, load_pairs
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.results.results import results
from debate_rl.weak_to_strong.study import Reading, run_study
from debate_rl.weak_to_strong.tasks.items import items_of, split_items
from debate_rl.weak_to_strong.tasks.pairs import conversation, pair_questions, pair_samples, reward_rows
from debate_rl.weak_to_strong.training_cache import Settings, Trainings

PROMPT = [
    {"role": "user", "content": "Hot?\n\nReally: hot?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Why?"},
]


def pair(number, **fields):
    given = {"id": f"p{number}", "prompt": PROMPT, "chosen": f"good {number}", "rejected": "bad", "group": f"g{number}"}
    return RewardPair(**{**given, **fields})


def test_a_conversation_comes_back_as_it_was():
    (question,) = pair_questions([pair(0)])
    assert conversation(question.text) == PROMPT
    assert conversation("no speakers here") == [{"role": "user", "content": "no speakers here"}]


def test_sides_are_drawn_and_the_better_reply_stays_known():
    asked = pair_questions([pair(i) for i in range(200)], 1)
    assert all(one.answers[one.correct].startswith("good") for one in asked)
    assert 0.4 < np.mean([one.correct for one in asked]) < 0.6
    assert asked == pair_questions([pair(i) for i in range(200)], 1) != pair_questions([pair(i) for i in range(200)], 2)


def test_rows_hold_both_replies_and_the_label_of_the_first():
    items = items_of(pair_questions([pair(i) for i in range(6)]))
    rows = reward_rows(items, pair_samples(items), [0.25] * 6, [2.0] * 6)
    assert [(row.chosen, row.rejected) for row in rows] == [item.question.answers for item in items]
    assert {(row.target, row.weight) for row in rows} == {(0.25, 2.0)} and rows[0].prompt == PROMPT


def test_a_study_of_real_pairs(shared_data, tmp_path):
    """Weak labels of pairs teach a student; lab models know few of the words, so only that every step is done."""
    found = load_pairs("hh", shared_data / "binary_tasks/hh_harmless_test.jsonl", limit=120)
    splits = split_items(items_of(pair_questions(found.pairs)), 24, 32, 32)
    samples = pair_samples(splits.every)
    train = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "max_length": 96}
    settings = Settings(
        weak=model_path("lab-small"), strong=model_path("lab-base"), readout="reward", seeds=1, train=train
    )
    trainings = Trainings(settings, lambda: pytest.fail("no engine is asked"), tmp_path)
    reading = Reading(weak=samples, strong=samples, contexts={})
    hits = run_study(splits, reading, trainings, tmp_path, {"none": Method(members=1)})
    assert set(hits.test) == {"weak", "strong", "ceiling", "none/supervisor", "none/student"}
    assert len(hits.labels["none"][0]) == 32 and results(hits).methods[0].name == "none"
