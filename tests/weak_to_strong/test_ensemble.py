import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from debate_rl.errors import UserError
from debate_rl.weak_to_strong.ensemble import boost, combine

MEMBERS = [[0.9, 0.4, 0.5], [0.6, 0.4, 0.5], [0.2, 0.9, 0.5]]


def test_combinations_by_hand():
    assert combine(MEMBERS, "mean") == pytest.approx([1.7 / 3, 1.7 / 3, 0.5])
    assert combine(MEMBERS, "vote") == pytest.approx([2 / 3, 1 / 3, 0.5])
    first = (0.8 * 0.9 + 0.2 * 0.6 + 0.6 * 0.2) / 1.6
    second = (0.2 * 0.4 + 0.2 * 0.4 + 0.8 * 0.9) / 1.2
    assert combine(MEMBERS, "confidence") == pytest.approx([first, second, 0.5])
    sigma = 1 / (1 + np.exp([-1.0, 1.0, 0.0]))
    assert combine(MEMBERS, "boosting", [1.0, 1.0, 1.0]) == pytest.approx(sigma)


@given(
    members=st.integers(1, 8).flatmap(lambda k: arrays(float, (k, 5), elements=st.floats(0, 1))),
    how=st.sampled_from(["mean", "vote", "confidence"]),
)
def test_labels_are_probabilities_and_answers_can_be_swapped(members, how):
    found = combine(members, how)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all()
    assert combine(1 - members, how) == pytest.approx(1 - found, abs=1e-6)


def test_one_member_is_its_own_mean():
    assert combine(MEMBERS[:1], "mean").tolist() == MEMBERS[0]
    assert combine(MEMBERS[:1], "confidence") == pytest.approx(MEMBERS[0])


def test_boosting_is_adaboost():
    """Algorithm 10.1 by hand: one of four equally weighted rows wrong, vote log 3, its weight tripled."""
    weights, vote = boost(np.ones(4), [0.9, 0.8, 0.3, 0.6], [1, 1, 0, 0])
    assert vote == pytest.approx(np.log(3))
    assert weights == pytest.approx(np.array([1, 1, 1, 3]) * 4 / 6)
    # The same member is at chance on the new weights: that is what makes the next one differ.
    assert boost(weights, [0.9, 0.8, 0.3, 0.6], [1, 1, 0, 0])[1] == 0


def test_boosting_at_its_edges():
    weights, vote = boost(np.array([2.0, 0.0]), [0.9, 0.1], [1, 0])
    assert vote == pytest.approx(np.log(99)) and weights.tolist() == [2.0, 0.0]  # all right: finite, weights stay
    assert boost(np.array([2.0, 0.5]), [0.1, 0.1], [1, 0]) == (pytest.approx([1, 1]), 0.0)


@pytest.mark.parametrize(
    ("members", "how", "votes", "match"),
    [
        ([[0.5]] * 9, "mean", None, "1 to 8 members"),
        ([], "mean", None, "1 to 8 members"),
        ([[0.5], [0.5, 0.6]], "mean", None, "different numbers of items"),
        ([[1.2]], "vote", None, "not a probability"),
        ([[float("nan")]], "vote", None, "not a probability"),
        ([[0.5], [0.5]], "boosting", [1.0], "one vote for each of its 2 members"),
    ],
)
def test_mistakes_are_said(members, how, votes, match):
    with pytest.raises(UserError, match=match):
        combine(members, how, votes)
