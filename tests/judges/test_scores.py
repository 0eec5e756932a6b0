import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from debate_rl.errors import UserError
from debate_rl.judges.scores import (
    JudgeScores,
    accuracy,
    brier,
    brier_parts,
    confidences,
    ece,
    judge_change,
    judge_scores,
    log_score,
    noise_floor,
    order_effect,
    reliability,
    reward,
)
from debate_rl.judges.selective import coverage

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


@settings(max_examples=50)
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


def test_the_parts_of_the_brier_score_add_up_and_mean_what_they_say():
    random = np.random.default_rng(4)
    p = random.random(400)
    calibrated = np.where(random.random(400) < p, p, 1 - p)
    found = brier_parts(calibrated)
    total = found.reliability.value - found.resolution.value + 0.25 + found.within
    assert total == pytest.approx(brier(calibrated).value)
    assert found.reliability.value < 0.01 < found.resolution.value
    sure = np.where(calibrated > 0.5, 0.97, 0.03)
    assert brier_parts(sure).reliability.low > found.reliability.high
    assert brier_parts(np.full(10, 0.5)).resolution.value == 0
    right = brier_parts(np.ones(10))
    assert (right.reliability.value, right.resolution.value) == (0, pytest.approx(0.25))


def test_the_parts_agree_with_bins_made_by_hand():
    p = np.array([0.91, 0.95, 0.93, 0.32, 0.71])  # of the correct answer; its mirror is the other answer's
    said, truth = np.concatenate([p, 1 - p]), np.repeat([1.0, 0.0], 5)
    which = np.minimum((said * 10).astype(int), 9)
    bins = [(said[which == k].mean(), truth[which == k].mean(), (which == k).sum()) for k in np.unique(which)]
    found = brier_parts(p)
    assert found.reliability.value == pytest.approx(sum(n * (f - o) ** 2 for f, o, n in bins) / 10)
    assert found.resolution.value == pytest.approx(sum(n * (o - 0.5) ** 2 for _, o, n in bins) / 10)


def test_one_probability_a_bin_leaves_nothing_within_and_agrees_with_scikit_learn():
    random = np.random.default_rng(5)
    p = random.choice([0.05, 0.25, 0.65, 0.85], 300)
    y = random.integers(0, 2, 300)
    p_correct = np.where(y == 1, p, 1 - p)
    found = brier_parts(p_correct)
    assert found.within == pytest.approx(0, abs=1e-12)
    assert found.reliability.value - found.resolution.value + 0.25 == pytest.approx(brier_score_loss(y, p))


def by_threshold(confidence, correct):
    """The area as its definition says, one threshold after the other."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(confidence), reverse=True):
        answered = confidence >= threshold
        area += accuracy_score(np.ones(answered.sum()), correct[answered]) * (answered.mean() - before)
        before = answered.mean()
    return area


def test_accuracy_at_coverage():
    confidence = np.array([0.9, 0.9, 0.8, 0.7, 0.6])
    correct = np.array([1.0, 1, 1, 0, 0])
    found = coverage(confidence, correct)
    assert [(point.coverage, point.accuracy.value) for point in found.points] == [
        (0.4, 1), (0.4, 1), (0.6, 1), (0.8, 0.75), (1, 0.6)
    ]  # fmt: skip
    assert found.points[-1].threshold == 0.6
    assert found.area.value == pytest.approx(0.6 * 1 + 0.2 * 0.75 + 0.2 * 0.6)
    assert coverage(np.full(5, 0.7), correct).area.value == pytest.approx(0.6)
    random = np.random.default_rng(6)
    sure, right = random.random(80), random.integers(0, 2, 80).astype(float)
    assert coverage(sure, right).area.value == pytest.approx(by_threshold(sure, right))
    many, hit = random.random(3000), random.integers(0, 2, 3000).astype(float)
    assert coverage(many, hit).area.value == pytest.approx(by_threshold(many, hit), abs=0.02)  # quantiles of them
    with pytest.raises(UserError, match="2 confidences and 1 outcomes"):
        coverage([0.5, 0.6], [1])


def test_a_judge_that_knows_what_it_knows_gains_by_answering_less():
    random = np.random.default_rng(7)
    p, labels = random.beta(5, 2, 400), [f"s{i // 4}" for i in range(400)]
    p_correct = np.where(random.random(400) < p, np.maximum(p, 1 - p), np.minimum(p, 1 - p))
    found = judge_scores(p_correct, labels)
    assert found.coverage.points[0].accuracy.value > found.accuracy.value
    assert found.coverage.area.low > found.accuracy.value - 0.05
    assert found.coverage.area.clusters == 100


def test_a_change_is_paired_and_has_the_sign_of_the_means():
    random = np.random.default_rng(8)
    truth = random.normal(0, 2, 300)
    old = 1 / (1 + np.exp(-3 * (0.3 * truth + random.normal(0, 1, 300))))
    new = 1 / (1 + np.exp(-truth - 0.7))
    labels = [f"s{i // 3}" for i in range(300)]
    found, before, after = judge_change(new, old, labels), judge_scores(old, labels), judge_scores(new, labels)
    for name in ("accuracy", "brier", "log_score"):
        assert getattr(found, name).value == pytest.approx(getattr(after, name).value - getattr(before, name).value)
    assert found.ece.value == pytest.approx(after.ece - before.ece)
    assert found.resolution.value == pytest.approx(after.parts.resolution.value - before.parts.resolution.value)
    assert found.area.value == pytest.approx(after.coverage.area.value - before.coverage.area.value)
    assert found.brier.high < 0 < found.log_score.low
    none = judge_change(old, old, labels)
    assert none.brier.value == none.reliability.value == none.area.value == 0
    with pytest.raises(UserError, match="paired values differ"):
        judge_change(new, old[:5])


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
