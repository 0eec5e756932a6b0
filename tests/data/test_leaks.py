import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.leaks import answer_leak, joined_groups, near_duplicates
from debate_rl.data.tasks.binary_items import BinaryItem, load
from debate_rl.errors import UserError

LONG = [f"w{n}" for n in range(60)]
ASKED = "What term means the {} by mass of each element in a compound?"


def item(number, answer, label, group=None):
    return BinaryItem(id=f"i{number}", text="t", label=label, group=group or f"g{number}", task="t", answer=answer)


def test_small_changes_are_seen_and_other_questions_are_not():
    texts = [ASKED.format("percent"), ASKED.format("percentage"), "What term means the heat of a star in its core?"]
    assert near_duplicates(texts, ["a", "b", "c"]) == [(0, 1)]
    assert near_duplicates(texts, ["a", "a", "c"]) == []
    half = " ".join(LONG[:40]) + " other words at the end of it"
    assert near_duplicates([" ".join(LONG), half, " ".join(reversed(LONG))], ["a", "b", "c"]) == [(0, 1)]


def test_wording_that_many_groups_share_is_no_copy():
    texts = [f"which of the following is the name of thing {n}" for n in range(80)]
    assert near_duplicates(texts, [str(n) for n in range(80)]) == []
    assert near_duplicates(["", ""], ["a", "b"]) == []


@given(order=st.permutations(range(6)))
def test_joined_groups_are_the_same_in_any_order(order):
    texts = [ASKED.format("percent"), ASKED.format("percentage"), ASKED.format("percents"), "a b c", "d e f", "g h i"]
    groups = ["z", "y", "x", "c", "d", "d"]
    texts, groups = [texts[i] for i in order], [groups[i] for i in order]
    found = joined_groups(groups, near_duplicates(texts, groups))
    assert dict(zip(order, found, strict=True)) == {0: "x", 1: "x", 2: "x", 3: "c", 4: "d", 5: "d"}


def test_a_leak_by_form_is_found():
    coin = random.Random(0)
    made = [
        item(n, coin.choice(["Iron", "Zinc"]) if n % 2 else coin.choice(["iron", "zinc"]), n % 2) for n in range(80)
    ]
    leak = answer_leak(made)
    assert leak.leaks and leak.form.value == 1 and leak.chance == 0.5
    assert "label from the answer alone, above chance (0.500): by form 1.000" in str(leak)


def test_a_leak_by_words_is_found_and_not_by_form():
    made = [item(n, ["right one", "wrong one", "right two", "wrong two"][n % 4], (n + 1) % 2) for n in range(80)]
    leak = answer_leak(made)
    assert leak.words.value == 1 and leak.leaks
    assert leak.form.value < 0.7


def test_answers_drawn_without_regard_to_the_label_do_not_leak():
    coin = random.Random(1)
    leak = answer_leak([item(n, f"word{coin.randrange(20)}", n % 2) for n in range(300)])
    assert not leak.leaks and "not above chance" in str(leak)


def test_items_of_one_group_are_in_one_fold():
    # the answer names the group and all of a group have one label: only a fold that cuts groups could tell it
    made = [item(n, f"name{n // 10}", (n // 10) % 2, f"g{n // 10}") for n in range(400)]
    assert answer_leak(made).words.value < 0.75


def test_items_without_answers_or_of_one_class():
    assert answer_leak([item(n, "", n % 2) for n in range(20)]) is None
    with pytest.raises(UserError, match="20 items with label 0 and 0 with label 1 in 20 groups; give at least 5"):
        answer_leak([item(n, "a", 0) for n in range(20)])


def test_the_real_answers(shared_data):
    sciq = answer_leak(load("sciq", shared_data / "binary_tasks/sciq_test.jsonl", limit=400).items)
    assert sciq.form.value < 0.65
    hh = load("hh", shared_data / "binary_tasks/hh_harmless_test.jsonl").items
    assert all(one.text.endswith(one.answer) and one.answer != one.text for one in hh)
