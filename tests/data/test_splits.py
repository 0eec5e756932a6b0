import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.splits import FRACTIONS, check_disjoint, divide, sample, split_part
from debate_rl.errors import UserError
from debate_rl.game.question import Question


def question(number: int, group: str = "") -> Question:
    return Question(id=f"q{number}", text="where ?", answers=("here", "there"), group=group)


def questions(stories: int, per_story: int = 2) -> list[Question]:
    return [question(s * per_story + i, f"story-{s}") for s in range(stories) for i in range(per_story)]


def ids(items):
    return [item.id for item in items]


@given(sizes=st.lists(st.integers(1, 5), min_size=20, max_size=60), seed=st.integers(0, 9))
def test_divide_cuts_no_story_loses_nothing_and_is_near_its_shares(sizes, seed):
    items = [question(100 * s + i, f"s{s}") for s, size in enumerate(sizes) for i in range(size)]
    parts = divide(items, {"train": 0.5, "test": 0.5}, seed)
    check_disjoint(parts)
    assert sorted(ids(parts["train"] + parts["test"])) == sorted(ids(items))
    assert abs(len(parts["train"]) - len(items) / 2) <= max(sizes) / 2


def test_divide_ignores_the_order_of_items_but_keeps_it_in_the_parts():
    items = questions(30)
    shuffled = random.Random(1).sample(items, len(items))
    first, second = divide(items, FRACTIONS, seed=3), divide(shuffled, FRACTIONS, seed=3)
    for name in FRACTIONS:
        assert set(ids(first[name])) == set(ids(second[name]))
        assert ids(second[name]) == [i for i in ids(shuffled) if i in set(ids(first[name]))]


def test_another_seed_splits_otherwise():
    items = questions(30)
    assert ids(divide(items, FRACTIONS, 0)["test"]) != ids(divide(items, FRACTIONS, 1)["test"])


def test_an_item_without_a_group_is_its_own_cluster():
    parts = divide([question(i) for i in range(10)], {"a": 0.5, "b": 0.5})
    assert {name: len(part) for name, part in parts.items()} == {"a": 5, "b": 5}


def test_check_disjoint_names_the_group_and_both_parts():
    with pytest.raises(UserError, match=r"group 'tale' is in both 'train' and 'test'"):
        check_disjoint({"train": [question(0, "tale"), question(1, "other")], "test": [question(2, "tale")]})


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5, "b": 0.6}, {"a": 1.2, "b": -0.2}])
def test_divide_refuses_shares_that_are_not_shares(fractions):
    with pytest.raises(UserError, match="positive and sum to 1"):
        divide(questions(4), fractions)


def test_divide_refuses_an_empty_part():
    with pytest.raises(UserError, match=r"split part '.*' is empty: 1 groups for 2 parts"):
        divide(questions(1), {"train": 0.9, "test": 0.1})


def test_split_part_labels_its_questions_and_the_parts_share_no_story():
    parts = {name: split_part(questions(40), name) for name in FRACTIONS}
    check_disjoint(parts)
    assert all(q.split == name for name, part in parts.items() for q in part)
    assert sum(map(len, parts.values())) == 80
    assert split_part([], "test") == []


@given(few=st.integers(0, 10), more=st.integers(0, 10))
def test_a_smaller_sample_is_part_of_a_larger_one(few, more):
    items = questions(10)
    few, more = sorted((few, more))
    assert set(ids(sample(items, few, 5))) <= set(ids(sample(items, more, 5)))
    assert len(sample(items, few, 5)) == few


def test_sample_keeps_the_order_and_depends_on_the_seed_alone():
    items = questions(20)
    drawn = sample(items, 7, 1)
    assert ids(drawn) == [i for i in ids(items) if i in set(ids(drawn))]
    assert set(ids(sample(items[::-1], 7, 1))) == set(ids(drawn)) != set(ids(sample(items, 7, 2)))
    assert sample(items, None) == items == sample(items, 99)
