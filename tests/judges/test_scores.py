import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from debate_rl.errors import UserError
from debate_rl.judges.scores import (
    JudgeScores,
    accuracy,
    brier,
    confidences,
    ece,
    ece_interval,
    judge_scores,
    log_score,
    noise_floor,
    order_effect,
    reliability,
    reward,
)

probability = st.floats(0, 1)
verdicts = st.lists(probability, min_size=1, max_size=40)


@pytest.fixture
def published(shared_data):
    return json.loads((shared_data / "ratings/calibration_expected.json").read_text())


def test_published_calibration_error(published):
    case = published["torchmetrics_doc"]
    assert ece(case["preds"], case["target"], case["n_bins"]) == pytest.approx(case["l1"], abs=5e-5)


def test_published_brier_and_curve(published):
    case = published["sklearn_brier_doc"]
    p_correct = [p if y else 1 - p for p, y in zip(case["y_prob"], case["y_true"], strict=True)]
    assert brier(p_correct).value == pytest.approx(case["brier"])
    case = published["sklearn_calibration_curve_doc"]
    table = reliability(case["y_prob"], case["y_true"], bins=case["n_bins"])
    assert [row.accuracy.value for row in table] == pytest.approx(case["prob_true"])
    assert [row.confidence for row in table] == pytest.approx(case["prob_pred"])
    assert [row.n for row in table] == [3, 2, 4]


def test_published_noise_floors(published):
    random = np.random.default_rng(0)
    for name, (median, high) in published["null_ece_uniform_p_median_q95"].items():
        n, bins = (int(part.split("=")[1]) for part in name.split(","))
        floors = [noise_floor(random.random(n), bins, simulations=400, seed=i) for i in range(8)]
        assert np.mean([floor.median for floor in floors]) == pytest.approx(median, rel=0.05)
        assert np.mean([floor.high for floor in floors]) == pytest.approx(high, rel=0.05)


def test_scores_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    p, y = random.random(500), random.integers(0, 2, 500)
    p_correct = np.where(y == 1, p, 1 - p)
    assert brier(p_correct).value == pytest.approx(brier_score_loss(y, p))
    assert log_score(p_correct).value == pytest.approx(-log_loss(y, p) / np.log(2))
    true, predicted = calibration_curve(y, p, n_bins=10)
    table = reliability(p, y)
    assert [row.accuracy.value for row in table] == pytest.approx(true.tolist())
    assert [row.confidence for row in table] == pytest.approx(predicted.tolist())
    weights = np.array([row.n for row in table]) / 500
    assert ece(p, y) == pytest.approx(weights @ abs(true - predicted))


def test_the_floor_holds_for_a_calibrated_judge_and_not_for_a_confident_one():
    random = np.random.default_rng(1)
    over = 0
    for seed in range(100):
        p = random.uniform(0.5, 1, 120)
        over += ece(p, random.random(120) < p) > noise_floor(p, simulations=300, seed=seed).high
    assert over <= 12
    p = random.uniform(0.5, 1, 300)
    sure = 0.5 + (p - 0.5) ** 0.3 * 0.5**0.7
    assert ece(sure, random.random(300) < p) > noise_floor(sure).high
    assert ece_interval(sure, random.random(300) < p).low > noise_floor(sure).median


@settings(max_examples=50, deadline=None)
@given(verdicts)
def test_scores_keep_their_bounds_and_mirror_when_the_answers_swap(p):
    other = [1 - x for x in p]
    assert accuracy(p).value + accuracy(other).value == pytest.approx(1)
    assert 0 <= brier(p).value <= 1
    assert -20 < log_score(p).value <= 0
    confidence, correct = confidences(p)
    assert (confidence >= 0.5).all()
    assert 0 <= ece(confidence, correct) <= 1
    assert sum(row.n for row in reliability(p, correct)) == len(p)
    assert reward(p, np.zeros(len(p))).value == pytest.approx(log_score(p).value)


def test_always_saying_half():
    p = np.full(20, 0.5)
    assert (accuracy(p).value, brier(p).value, log_score(p).value) == (0.5, 0.25, -1)
    assert reward(p, np.full(20, 3)).value == pytest.approx(-1.15)
    assert ece(*confidences(p)) == 0


def test_an_impossible_truth_costs_a_finite_amount():
    assert log_score([0.0]).value == pytest.approx(np.log2(1e-6))
    assert log_score([1.0]).value == 0


def test_order_effect_finds_a_judge_that_favours_the_first():
    random = np.random.default_rng(0)
    logit = random.normal(0, 1.5, 200)
    first, second = (1 / (1 + np.exp(-(logit + shift))) for shift in (0.6, -0.6))
    found = order_effect(first, second, np.arange(200) // 2)
    assert found.first.value == pytest.approx(np.mean(first - second))
    assert found.first.low > 0
    assert found.first.p < 0.01
    assert found.flips.value == pytest.approx(np.mean((first > 0.5) != (second > 0.5)))
    fair = order_effect([0.7, 0.2, 0.6], [0.7, 0.2, 0.5])
    assert fair.flips.value == pytest.approx(0.5 / 3)
    with pytest.raises(UserError, match="paired values differ"):
        order_effect([0.5], [0.5, 0.5])


def test_all_scores_at_once():
    random = np.random.default_rng(3)
    p, labels = random.beta(4, 2, 300), [f"story-{i // 3}" for i in range(300)]
    scores = judge_scores(p, labels, rounds=np.full(300, 2))
    assert scores.accuracy.clusters == scores.reward.clusters == 100
    assert scores.reward.value == pytest.approx(scores.log_score.value - 0.1)
    assert scores.brier.low < scores.brier.value < scores.brier.high
    assert {row.low for row in scores.reliability} == {0.5, 0.6, 0.7, 0.8, 0.9}
    assert all(row.low <= row.confidence <= row.high for row in scores.reliability)
    assert JudgeScores.model_validate_json(scores.model_dump_json()) == scores
    assert "ECE" in str(scores)
    assert judge_scores(p).reward is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy([]), "no rows"),
        (lambda: brier([0.5, 1.2]), r"1.2 is not between 0 and 1 \(1 of 2 rows\)"),
        (lambda: log_score([float("nan")]), "1 of 1 rows are undefined"),
        (lambda: ece([0.5, 0.5], [1]), "give one outcome each"),
        (lambda: ece([0.5], [1], bins=0), "one bin or more"),
        (lambda: accuracy([0.5], ["a", "b"]), "2 cluster labels for 1 rows"),
    ],
)
def test_mistakes_end_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()
