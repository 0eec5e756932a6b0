import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from debate_rl.errors import UserError
from debate_rl.intervals import (
    Effect,
    Estimate,
    Replicates,
    bootstrap,
    bootstrap_totals,
    clusters,
    difference,
    freedom,
    mean,
    resample,
)

rows = st.lists(st.floats(-100, 100, allow_nan=False), min_size=2, max_size=20)
quick = settings(max_examples=30)


def draw(count, seed, size=4):
    """Values of `count` clusters of 1 to `size` rows each, alike inside a cluster, with mean 0."""
    random = np.random.default_rng([seed, 1])  # not the stream that the bootstrap draws from
    labels = np.repeat(np.arange(count), random.integers(1, size + 1, count))
    return random.normal(size=count)[labels] + random.normal(size=len(labels)), labels.tolist()


def test_clusters_follow_the_labels_not_the_order_of_rows():
    assert clusters(["b", "a", "b"], 3).tolist() == [1, 0, 1]
    assert clusters(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="2 cluster labels for 3 rows"):
        clusters(["a", "b"], 3)
    with pytest.raises(UserError, match="no rows"):
        clusters([], 0)


def test_resamples_draw_as_many_clusters_as_there_are(monkeypatch):
    whole = np.concatenate(list(resample(7, 50, seed=3)))
    assert whole.shape == (50, 7)
    assert (whole.sum(axis=1) == 7).all()
    assert len(np.unique(whole, axis=0)) > 40
    monkeypatch.setattr("debate_rl.intervals.BLOCK", 21)
    blocks = list(resample(7, 50, seed=3))
    assert len(blocks) == 17
    assert (np.concatenate(blocks) == whole).all()


def test_the_mean_agrees_with_the_bootstrap_of_scipy():
    values = np.random.default_rng(0).normal(size=300)
    ours = mean(values, resamples=5000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.008)
    assert (ours.n, ours.clusters) == (300, 300)


def test_the_mean_agrees_with_a_loop_over_rows():
    values, labels = draw(12, seed=5)
    values = np.exp(values)
    weights = np.random.default_rng(1).random(len(values))
    ours = mean(values, labels, weights, resamples=300)
    by_hand = []
    codes = clusters(labels, len(labels))
    for counts in np.concatenate(list(resample(12, 300))):
        drawn = np.concatenate([np.flatnonzero(codes == c) for c in range(12) for _ in range(int(counts[c]))])
        by_hand.append(np.average(values[drawn], weights=weights[drawn]))
    sizes = np.bincount(codes, weights=weights)
    k = sizes.sum() ** 2 / (sizes**2).sum()
    z, a = np.sqrt(k / (k - 1)) * stats.t(k - 1).ppf(0.025), stats.skew(by_hand) / 6
    tails = [stats.norm.cdf(a + (a + end) / (1 - a * (a + end))) for end in (z, -z)]
    assert abs(a) > 0.005
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(by_hand, tails)))


def test_a_statistic_of_sums_agrees_with_one_of_rows():
    values, labels = draw(12, seed=5)
    rows = bootstrap(lambda w: np.average(values, weights=w), len(values), labels, resamples=300)
    columns = np.column_stack([values, np.ones(len(values))])
    sums = bootstrap_totals(lambda found: found[:, 0] / found[:, 1], columns, labels, resamples=300)
    assert sums.values == pytest.approx(rows.values)
    assert sums.effect().model_dump() == pytest.approx(rows.effect().model_dump())
    none = sums.minus(rows)
    assert (none.value, none.values) == (pytest.approx(0), pytest.approx(np.zeros(300)))
    with pytest.raises(UserError, match="2 cluster labels for 3 rows"):
        bootstrap_totals(lambda found: found[:, 0], [[1], [2], [3]], ["a", "b"])


def test_few_skewed_clusters_move_the_interval_and_a_story_that_outweighs_the_others_widens_it():
    skewed = np.random.default_rng(0).exponential(size=10)
    found = mean(skewed)
    assert found.high - found.value > 1.2 * (found.value - found.low)
    mirrored = mean(-skewed)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert freedom([3] * 10) == pytest.approx(9)
    assert freedom([30, 3, 3, 3]) < 1.7
    assert freedom([1000, 1]) == 1


@pytest.mark.parametrize(("count", "least"), [(10, 0.915), (40, 0.925)])
def test_a_nominal_95_percent_interval_covers_about_95_percent(count, least):
    found = [mean(*draw(count, seed), resamples=1000, seed=seed) for seed in range(600)]
    covered = np.mean([estimate.low <= 0 <= estimate.high for estimate in found])
    assert least < covered < 0.975


def test_resampling_rows_instead_of_clusters_covers_too_little():
    found = [mean(draw(40, seed, size=12)[0], resamples=300, seed=seed) for seed in range(200)]
    assert np.mean([estimate.low <= 0 <= estimate.high for estimate in found]) < 0.75


def test_p_values_are_about_uniform_under_the_null_and_agree_with_the_interval():
    found = []
    for seed in range(500):
        values, labels = draw(15, seed)
        found.append(difference(values, np.zeros(len(values)), labels, resamples=400, seed=seed))
    p = np.array([effect.p for effect in found])
    assert 0.03 < np.mean(p < 0.05) < 0.08
    assert 0.4 < np.mean(p < 0.5) < 0.6
    outside = np.array([effect.low > 0 or effect.high < 0 for effect in found])
    clear = abs(p - 0.05) > 0.02  # within the grid of 400 draws the two may differ
    assert ((p < 0.05) == outside)[clear].all()


def test_p_values_are_never_zero_and_know_few_clusters():
    sure = difference(np.ones(500), np.zeros(500))
    assert 0 < sure.p < 0.002
    assert difference([1, 1, 1], [0, 0, 0]).p > 0.05
    assert difference([1, 2, 3, 4], [1, 2, 3, 4]).p == 1
    one_of_many = difference([1] + [0] * 99, np.zeros(100))
    assert one_of_many.p > 0.3


@quick
@given(rows, st.floats(-50, 50), st.integers(0, 5))
def test_a_shift_of_the_values_shifts_the_interval(values, shift, seed):
    old = mean(values, seed=seed, resamples=50)
    new = mean(np.array(values) + shift, seed=seed, resamples=50)
    assert (new.value, new.low, new.high) == pytest.approx(
        (old.value + shift, old.low + shift, old.high + shift), abs=1e-9
    )


@quick
@given(rows, st.randoms())
def test_swapping_the_conditions_negates_the_difference(values, random):
    other = [random.uniform(-1, 1) for _ in values]
    labels = [random.choice("abcd") for _ in values]
    one, two = difference(values, other, labels, resamples=51), difference(other, values, labels, resamples=51)
    assert one.value == pytest.approx(-two.value)
    assert (one.p is None) == (two.p is None)
    if one.p is not None:
        assert one.p == pytest.approx(two.p, rel=1e-9)  # sums run in another order
    if one.low is not None:
        assert (one.low, one.high) == pytest.approx((-two.high, -two.low), abs=1e-9)


@quick
@given(rows, st.randoms())
def test_the_order_of_rows_and_a_doubling_of_weights_change_nothing(values, random):
    labels = [random.choice("abcdef") for _ in values]
    shuffled = random.sample(range(len(values)), len(values))
    first = mean(values, labels, resamples=50).model_dump()
    moved = mean([values[i] for i in shuffled], [labels[i] for i in shuffled], resamples=50).model_dump()
    assert moved == pytest.approx(first, abs=1e-9)
    assert mean(values, labels, np.full(len(values), 2.0), resamples=50).model_dump() == pytest.approx(first, abs=1e-9)


def test_one_cluster_has_no_interval_and_says_so():
    estimate = mean([0, 1, 1], ["a", "a", "a"])
    assert (estimate.low, estimate.high) == (None, None)
    assert str(estimate) == "0.667 [no interval] (n 3, 1 cluster)"
    assert difference([1, 2], [0, 0], ["a", "a"]).p is None


def test_estimates_print_and_survive_json():
    estimate = Estimate(value=0.8442, low=0.781, high=0.902, n=154, clusters=77)
    assert str(estimate) == "0.844 [0.781, 0.902] (n 154, 77 clusters)"
    assert f"{estimate:.1f}" == "0.8 [0.8, 0.9]"
    assert Estimate.model_validate_json(estimate.model_dump_json()) == estimate
    effect = Effect(value=0.0412, low=0.008, high=0.075, n=433, clusters=96, p=0.0173)
    assert str(effect) == "0.041 [0.008, 0.075], p 0.017 (n 433, 96 clusters)"


def test_undefined_resamples_are_left_out_until_they_are_half():
    values = np.arange(100.0)
    few = np.where(values < 40, np.nan, values)
    assert Replicates(70, few, 100, 50).estimate().low == pytest.approx(41.4, abs=0.5)
    assert Replicates(70, np.where(values < 50, np.nan, values), 100, 50).estimate().low is None
    assert Replicates(70, np.where(values > 90, np.inf, values), 100, 50).estimate().high is None
    never_both = mean([1, 5], ["a", "b"], [0, 1], resamples=400)
    assert (never_both.value, never_both.low, never_both.high) == (5, 5, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "no rows"),
        (lambda: mean([0.5, float("nan")]), "1 of 2 rows are undefined"),
        (lambda: mean([1, 2], weights=[1]), "1 weights for 2 rows"),
        (lambda: mean([1, 2], weights=[0, 0]), "not all 0"),
        (lambda: mean([1, 2], weights=[2, -1]), "none negative"),
        (lambda: difference([1, 2], [1]), "paired values differ in number"),
        (lambda: mean([1, 2], level=95), "between 0 and 1"),
    ],
)
def test_mistakes_end_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("noise", [1.1e-16, -1.1e-16, 3e-13, -3e-13])
def test_what_rounding_leaves_is_neither_above_nor_below_0(noise):
    found = Replicates(noise, np.full(500, noise), 100, 50).effect()
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.p == 1
    real = Replicates(1e-3, np.full(500, 1e-3), 100, 50).effect()
    assert real.low > 0 and real.p < 0.05


def test_a_difference_of_numbers_that_are_equal_but_for_rounding_is_0():
    random = np.random.default_rng(0)
    parts = random.random((60, 3))
    one, two = parts[:, 0] + parts[:, 1] + parts[:, 2], parts[:, 2] + parts[:, 1] + parts[:, 0]
    assert (one != two).any()
    found = difference(one, two)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    always = difference(np.full(60, 0.1 + 0.2), np.full(60, 0.3))
    assert (always.low, always.high, always.p) == (0, 0, 1)
