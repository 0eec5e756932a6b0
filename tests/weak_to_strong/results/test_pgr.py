import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.weak_to_strong.results.pgr import PgrDifference, Recovered, compare_pgr, pgr, recovered

LANG = [  # Lang et al. 2025, table 1: weak, student, ceiling (accuracy, %), PGR (%)
    (90.0, 91.5, 93.4, 44.1), (90.0, 92.6, 93.4, 76.5), (86.0, 88.7, 89.9, 69.2), (87.5, 88.8, 89.8, 56.5),
    (48.8, 50.2, 50.8, 70.0), (86.0, 87.6, 89.9, 41.0), (87.5, 87.9, 89.8, 17.4),
]  # fmt: skip


def study(seeds, items, accuracies, spread=0.1, seed=0):
    """Right and wrong answers of models by seed and item: items differ in difficulty, seeds shift a model's skill."""
    random = np.random.default_rng([seed, 1])
    ease = random.normal(0, 1, items)
    tables = []
    for skill in accuracies:
        z = 1.5 * ease + skill + spread * random.normal(size=(seeds, 1))
        tables.append((random.random((seeds, items)) < 1 / (1 + np.exp(-z))).astype(float))
    return tables


@pytest.mark.parametrize(("weak", "student", "ceiling", "expected"), LANG)
def test_published_values(weak, student, ceiling, expected):
    assert 100 * pgr(weak, student, ceiling) == pytest.approx(expected, abs=0.05)
    assert np.isnan(pgr(1, 2, 1))


def test_the_value_is_the_ratio_of_the_means_and_the_interval_holds_it():
    weak, student, ceiling = study(5, 400, (0.5, 1.0, 1.5))
    result = recovered(weak, student, ceiling)
    assert result.pgr.value == pytest.approx(pgr(weak.mean(), student.mean(), ceiling.mean()))
    assert result.pgr.low < result.pgr.value < result.pgr.high
    assert result.student.value == pytest.approx(student.mean())
    assert (result.pgr.n, result.pgr.clusters, result.seeds) == (400, 400, 5)
    assert "5 seeds" in str(result)
    assert Recovered.model_validate_json(result.model_dump_json()) == result


def test_bounds_of_no_and_full_recovery():
    weak, student, ceiling = study(3, 300, (0.3, 1.0, 1.8))
    nothing, everything = recovered(weak, weak, ceiling).pgr, recovered(weak, ceiling, ceiling).pgr
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert (everything.value, everything.low, everything.high) == pytest.approx((1, 1, 1))
    one = recovered(weak, student, ceiling)
    mixed = recovered(weak, (weak + student) / 2, ceiling)
    assert mixed.pgr.value == pytest.approx(one.pgr.value / 2)


def test_a_gap_that_may_be_zero_leaves_it_undefined():
    weak, student, ceiling = study(3, 60, (1.0, 1.02, 1.04))
    result = recovered(weak, student, ceiling)
    assert result.pgr is None
    assert "PGR undefined: the gap" in str(result)
    assert recovered(ceiling, student, weak).pgr is None
    assert recovered(weak, student, ceiling, ["one story"] * 60).pgr is None
    comparison = compare_pgr(weak, student, weak, ceiling)
    assert comparison.pgr is None
    assert "undefined" in str(comparison)


@pytest.mark.parametrize("spread", [0.02, 0.4])
def test_intervals_over_seeds_and_items_cover(spread):
    skills = (0.5, 1.0, 1.8)
    truth = np.mean([[t.mean() for t in study(200, 4000, skills, spread, 500 + s)] for s in range(3)], axis=0)
    gap, student, ratio = [], [], []
    known = pgr(*truth)
    for seed in range(100):
        result = recovered(*study(3, 300, skills, spread, seed), resamples=300, seed=seed)
        gap.append(result.gap.low <= truth[2] - truth[0] <= result.gap.high)
        student.append(result.student.low <= truth[1] <= result.student.high)
        if result.pgr is not None:
            ratio.append(result.pgr.low <= known <= result.pgr.high)
    assert np.mean(gap) >= 0.9
    assert np.mean(student) >= 0.9
    assert np.mean(ratio) >= 0.9 and len(ratio) > 60


def test_resampling_items_alone_misses_the_noise_of_training():
    skills, spread = (0.5, 1.0, 1.8), 0.4
    several = [recovered(*study(5, 300, skills, spread, s), resamples=300).gap for s in range(10)]
    alone = [recovered(*[t[:1] for t in study(5, 300, skills, spread, s)], resamples=300).gap for s in range(10)]
    error = np.std([gap.value for gap in alone])
    assert np.median([gap.high - gap.low for gap in alone]) / 4 < 0.7 * error
    assert np.median([gap.high - gap.low for gap in several]) / 4 > error / np.sqrt(5)
    assert "1 seed: training noise not included" in str(recovered(*[t[:1] for t in study(5, 900, skills)]))


def test_clusters_widen_the_interval():
    tables = [np.repeat(table, 4, axis=1) for table in study(4, 150, (0.3, 1.0, 1.8))]
    labels = np.repeat(np.arange(150), 4)
    alone, together = recovered(*tables).pgr, recovered(*tables, labels).pgr
    assert together.high - together.low > 1.1 * (alone.high - alone.low)
    assert (together.n, together.clusters) == (600, 150)


def test_two_methods_are_compared_on_the_same_draws():
    weak, first, second, ceiling = study(5, 500, (0.3, 1.3, 0.9, 1.8), spread=0.02)
    result = compare_pgr(weak, first, second, ceiling)
    one, two = recovered(weak, first, ceiling).pgr, recovered(weak, second, ceiling).pgr
    assert result.pgr.value == pytest.approx(one.value - two.value)
    assert result.accuracy.value == pytest.approx(first.mean() - second.mean())
    assert result.pgr.p < 0.05
    assert result.pgr.high - result.pgr.low < (one.high - one.low) + (two.high - two.low)
    assert PgrDifference.model_validate_json(result.model_dump_json()) == result
    swapped = compare_pgr(weak, second, first, ceiling)
    assert (swapped.pgr.low, swapped.pgr.p) == pytest.approx((-result.pgr.high, result.pgr.p))


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 4))
def test_order_of_items_does_not_matter_where_stories_are_named(seed, seeds):
    tables = study(seeds, 60, (0.0, 1.0, 2.5), seed=seed)
    labels = np.arange(60) // 4
    turned = np.random.default_rng(seed).permutation(60)
    one = recovered(*tables, labels, resamples=60)
    two = recovered(*[table[:, turned] for table in tables], labels[turned], resamples=60)
    assert one.gap.model_dump() == pytest.approx(two.gap.model_dump())


def test_one_weak_model_serves_all_seeds():
    weak, student, ceiling = study(4, 300, (0.3, 1.0, 1.8))
    one = recovered(weak[0], student, ceiling)
    assert one.weak.value == pytest.approx(weak[0].mean())
    assert one.seeds == 4
    assert one.pgr.model_dump() == pytest.approx(recovered(np.tile(weak[0], (4, 1)), student, ceiling).pgr.model_dump())


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (([[1, 0]], [[1, 0, 1]], [[1, 1]]), r"differ in \(seeds, items\): \(1, 2\), \(1, 3\), \(1, 2\)"),
        (([], [], []), "test items: no rows"),
        (([[1, np.nan]], [[1, 0]], [[1, 1]]), "undefined"),
    ],
)
def test_mistakes_end_in_one_line(tables, message):
    with pytest.raises(UserError, match=message):
        recovered(*tables)


def test_a_gap_above_zero_but_too_near_it_has_no_ratio_either():
    tables = study(2, 60, (0.5, 0.8, 1.3), 0.3, 11)
    found = recovered(*tables, resamples=300)
    assert found.gap.low > 0 and found.pgr is None and found.text.endswith("is too near 0")
    assert compare_pgr(tables[0], tables[1], tables[0], tables[2], resamples=300).pgr is None
