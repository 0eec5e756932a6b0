import numpy as np
import pytest
from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.weak_to_strong.labels import Labelling, label

P = [0.9, 0.5, 0.2, 0.55, 1.0, 0.0]
TRUTH = [1, 0, 1, 1, 1, 0]
NAMES = [f"q{i}" for i in range(6)]


def made(p=P, names=NAMES, truth=TRUTH, **how):
    return label(p, truth, names, Labelling(**how))


def test_soft_hard_and_true_labels():
    assert made().targets == tuple(P) and made().weights == (1.0,) * 6
    assert made(kind="hard").targets == (1, 0.5, 0, 1, 1, 0)
    assert made(kind="truth").targets == tuple(TRUTH)


def test_confident_labels_are_those_above_a_threshold_or_the_top_share_and_are_counted():
    found = made(kind="confident", threshold=0.8)
    assert found.kept == (0, 4, 5) and found.targets == (0.9, 1.0, 0.0)
    assert found.counts == {"items": 6, "wrong": 0, "unsure": 3, "kept": 3}
    assert made(kind="confident", threshold=0).kept == tuple(range(6))
    assert made(kind="confident", threshold=1).kept == (4, 5)
    assert made(kind="confident", share=0.5).kept == (0, 4, 5)
    assert made(kind="confident", share=1.0).kept == tuple(range(6))
    assert len(made(kind="confident", share=0.001).kept) == 1
    assert made([0.7] * 6, kind="confident", share=0.5).kept == (0, 1, 2)  # ties by order


def test_weights_are_confidences_with_mean_one():
    weights = np.array(made(kind="weighted").weights)
    assert weights.mean() == pytest.approx(1)
    assert weights / weights[4] == pytest.approx([0.8, 0, 0.6, 0.1, 1, 1])


def test_errors_come_at_the_rate_that_is_asked_for():
    names = [f"q{i}" for i in range(4000)]
    p = np.full(4000, 0.9)
    found = made(p, names, [1] * 4000, errors=0.2)
    assert np.mean(np.array(found.targets) < 0.5) == pytest.approx(0.2, abs=0.02)
    assert found.counts["wrong"] == sum(target < 0.5 for target in found.targets)
    mixed = made(p, names, [1] * 4000, errors=0.2, error_kind="mix")
    assert mixed.targets[0] == pytest.approx(0.74)
    assert made(errors=1.0, kind="truth").targets == tuple(1 - t for t in TRUTH)


def test_mistakes_are_said():
    with pytest.raises(UserError, match="2 labels for 6 items"):
        made([0.1, 0.2])
    with pytest.raises(UserError, match=r"labels of shape \(6, 2\) for 6 items; give one"):
        made([[0.1, 0.9]] * 6)
    with pytest.raises(UserError, match="lower labels.threshold"):
        made([0.6] * 6, kind="confident", threshold=0.9)
    with pytest.raises(UserError, match="take soft labels"):
        made([0.5] * 6, kind="weighted")
    for wrong in ({"kind": "confident"}, {"threshold": 0.5}, {"kind": "confident", "threshold": 0.5, "share": 0.5}):
        with pytest.raises(ValidationError, match="need either"):
            Labelling(**wrong)
