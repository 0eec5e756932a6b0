import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from debate_rl.analysis.significance import Comparison, Condition, compare
from debate_rl.errors import UserError


def study(questions, gain, seed=0):
    """Two protocols on the same questions, of which some are hard for both; three questions a story."""
    random = np.random.default_rng([seed, 1])
    ease = random.beta(2, 1, questions)
    names, labels = [f"q{i}" for i in range(questions)], [f"s{i // 3}" for i in range(questions)]
    scores = [np.clip(ease + shift + random.normal(0, 0.05, questions), 0, 1) for shift in (gain, 0)]
    return [Condition(name, names, values, labels) for name, values in zip(("debate", "single"), scores, strict=True)]


def test_pairing_finds_what_unpaired_means_can_not():
    result = compare(*study(90, 0.03))
    assert result.difference.low > 0
    assert result.difference.p < 0.01
    assert result.first_mean.low < result.second_mean.high
    assert (result.difference.n, result.difference.clusters, result.unmatched) == (90, 30, 0)
    paired = stats.ttest_rel(*[c.values for c in study(90, 0.03)])
    assert result.difference.value == pytest.approx(
        paired.confidence_interval().low / 2 + paired.confidence_interval().high / 2
    )
    assert "debate" in str(result)
    assert Comparison.model_validate_json(result.model_dump_json()) == result


def test_no_difference_is_found_where_there_is_none():
    p = np.array([compare(*study(60, 0, seed), resamples=400, seed=seed).difference.p for seed in range(200)])
    assert np.mean(p < 0.05) < 0.1
    assert 0.35 < np.mean(p < 0.5) < 0.65


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(-1, 1)), min_size=8, max_size=30), st.randoms())
def test_swapping_and_shuffling(rows, random):
    rows += [(0, True, 0.1), (0, False, 0.2)]

    def condition(which, order):
        kept = [row for row in order if row[1] == which]
        return Condition(str(which), [f"q{q}" for q, _, _ in kept], [v for *_, v in kept], [q // 2 for q, _, _ in kept])

    shuffled = random.sample(rows, len(rows))
    one = compare(condition(True, rows), condition(False, rows), resamples=51)
    two = compare(condition(False, shuffled), condition(True, shuffled), resamples=51)
    assert one.difference.value == pytest.approx(-two.difference.value, abs=1e-9)
    assert one.unmatched == two.unmatched
    assert one.difference.value == pytest.approx(one.first_mean.value - one.second_mean.value, abs=1e-9)


def test_rows_of_a_question_are_averaged_and_the_rest_is_counted():
    first = Condition("a", ["q1", "q1", "q2", "q3"], [1, 0, 1, 1])
    second = Condition("b", ["q2", "q1", "q4"], [0, 0, 1])
    result = compare(first, second)
    assert (result.first_mean.value, result.second_mean.value, result.unmatched) == (0.75, 0, 2)
    assert "2 unmatched questions left out" in str(result)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare(Condition("a", ["q1"], [1]), Condition("b", ["q2"], [1])), "'a' and 'b' share no question"),
        (lambda: compare(Condition("a", [], []), Condition("b", ["q2"], [1])), "a: no rows"),
        (lambda: compare(Condition("a", ["q1"], [1, 2]), Condition("b", ["q2"], [1])), "differ in length"),
        (
            lambda: compare(Condition("a", ["q1"], [1], ["x"]), Condition("b", ["q1"], [1], ["y"])),
            "'q1' has cluster 'x' in 'a' and 'y' in 'b'",
        ),
        (
            lambda: compare(Condition("a", ["q1", "q1"], [1, 1], ["x", "y"]), Condition("b", ["q1"], [1], ["x"])),
            "question 'q1' has clusters 'x' and 'y'",
        ),
    ],
)
def test_mistakes_end_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()
