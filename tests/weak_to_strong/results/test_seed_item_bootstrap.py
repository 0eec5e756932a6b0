import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from debate_rl.weak_to_strong.results.seed_item_bootstrap import Crossed, _areas, placements


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(4, 40), st.sampled_from([2, 5, 1000]))
def test_areas_are_those_of_scikit_learn_with_ties_and_weights(seed, items, values):
    random = np.random.default_rng(seed)
    p, truth = random.integers(0, values, items) / values, np.arange(items) % 2
    weights = random.integers(0, 3, (5, items)).astype(float)
    weights[:, :2] += 1  # both classes
    found = _areas(p, truth, weights)
    assert found == pytest.approx([roc_auc_score(truth, p, sample_weight=row) for row in weights])
    table = np.stack([p, 1 - p])
    assert placements(table, truth).mean(axis=1) == pytest.approx([roc_auc_score(truth, row) for row in table])


def test_an_area_without_both_classes_is_undefined():
    assert np.isnan(_areas(np.array([0.1, 0.9]), [0, 1], np.array([[1.0, 0.0]])))[0]


def test_the_interval_of_an_area_covers():
    random = np.random.default_rng(0)
    truth, inside = np.arange(160) % 2, []
    p = np.array([random.normal(truth, 1.2) for _ in range(3000)])
    true = np.mean([roc_auc_score(truth, row) for row in p[:400]])
    for trial in range(100):
        table = p[400 + 3 * trial : 403 + 3 * trial]
        table = (table - p.min()) / (p.max() - p.min())
        found = Crossed([placements(table, truth)], resamples=300, seed=trial).auroc(0, table, truth).estimate()
        inside.append(found.low <= true <= found.high)
    assert np.mean(inside) >= 0.9


def test_shares_of_none_are_undefined_and_others_are_ratios():
    some, none = [[1, 0, 1, 0]], [[0, 0, 0, 0]]
    assert np.isnan(Crossed([none, none]).share((1, 0), (0, 1)).value)
    sample = Crossed([some, [[1, 1, 1, 0]]])
    found = sample.share((1, 0), (0, 1))
    assert found.value == pytest.approx(2 / 3) and (np.isnan(found.values) | (found.values <= 1)).all()
