"""Packing inside a batch: every row once, within the budget, similar lengths together."""

from hypothesis import given
from hypothesis import strategies as st

from debate_rl.trainers.binary import FORWARD, back_in_order, pack


@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=40), budget=st.sampled_from([1, 64, 500, 2048]))
def test_every_row_is_packed_once_within_the_budget(lengths, budget):
    chunks = pack(lengths, budget)
    flat = [row for chunk in chunks for row in chunk]
    assert sorted(flat) == list(range(len(lengths)))
    assert [flat[place] for place in back_in_order(chunks).tolist()] == list(range(len(lengths)))
    for chunk in chunks:
        assert len(chunk) == 1 or len(chunk) * max(lengths[row] for row in chunk) <= budget
    assert [lengths[row] for row in flat] == sorted(lengths)


def test_a_long_row_stands_alone_and_equal_ones_together():
    assert pack([10, 500, 10, 10], 2048) == [[0, 2, 3], [1]]
    assert pack([20] * 32, 2048) == [list(range(32))]
    assert pack([5, 6], None) == [[0, 1]]
    assert pack([1, 2 + FORWARD], 2048) == [[0], [1]] and len(pack([1, FORWARD], 2048)) == 1
