"""Student losses against re-computations in numpy, and at the edges of labels, ramps and thresholds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.records import read_json, write
from debate_rl.trainers.common.binary_trainer import student_loss, xent
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.losses import confidence_ramp, hardened, product_target
from debate_rl.trainers.common.settings import StudentLoss
from tests.trainers.tiny import judge_examples, text_examples

batches = st.lists(
    st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.sampled_from([0.0, 0.03, 0.3, 0.5, 0.8, 1.0])),
    min_size=1, max_size=12,
)  # fmt: skip


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_numpy(z, w, kind, c, a=1.0, b=1.0):
    """The loss of each row, written from the formulas and not from the module."""
    p = softmax(z)
    w2 = np.stack([w, 1 - w], 1)
    if kind == "confidence":
        count = int(np.floor(len(w) * w.mean() + 0.5))
        own = np.zeros_like(w2)
        order = sorted(range(len(w)), key=lambda i: -(z[i, 0] - z[i, 1]))
        own[:, 1] = 1
        own[order[:count]] = [1, 0]
        w2 = (1 - c) * w2 + c * own
    if kind == "product":
        t = p**b * w2**a
        w2 = t / t.sum(1, keepdims=True)
    cross = -(w2 * np.log(p)).sum(1)
    return (1 - c) * cross - c * (p * np.log(p)).sum(1) if kind == "entropy" else cross


@pytest.mark.parametrize("kind", ["xent", "confidence", "product", "entropy"])
@given(rows=batches, progress=st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.7, 1.0]))
def test_losses_are_those_of_the_formulas(kind, rows, progress):
    z, w = np.array([row[:2] for row in rows]), np.array([row[2] for row in rows])
    gaps = z[:, 0] - z[:, 1]
    if len(np.unique(gaps)) < len(gaps):
        return  # ties are below
    loss = student_loss(StudentLoss(kind=kind, weight=0.5, warmup=0.2, label_power=1.5, own_power=0.5))
    c = 0.5 * min(1.0, progress / 0.2)
    found = loss(torch.tensor(z), torch.tensor(w), progress)
    assert found.numpy() == pytest.approx(by_numpy(z, w, kind, c, 1.5, 0.5), abs=1e-6)


def test_the_ramp_is_a_line_to_the_end_of_the_warm_up_and_flat_after():
    """A public implementation jumps from .05 to .5 there."""
    found = [confidence_ramp(s, 0.5, 0.2) for s in (0.0, 0.1, 0.19999, 0.2, 0.20001, 1.0)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.5, 0.5, 0.5], abs=1e-4)
    assert confidence_ramp(0.0, 0.75, 0.0) == 0.75 and confidence_ramp(1.0, 0.5, 1.0) == 0.5


@given(rows=batches)
def test_hard_self_labels_keep_the_class_prior(rows):
    z, w = torch.tensor([row[:2] for row in rows]), torch.tensor([row[2] for row in rows])
    own = hardened(z, w)
    assert own.sum().item() == pytest.approx(np.floor(w.double().mean().item() * len(rows) + 0.5), abs=1e-4)
    gap = z[:, 0] - z[:, 1]
    assert all(own[i] >= own[j] for i in range(len(rows)) for j in range(len(rows)) if gap[i] > gap[j])


def test_thresholds_at_their_edges():
    z = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert hardened(z, torch.zeros(4)).tolist() == [0, 0, 0, 0]  # not one row above a quantile of 1
    assert hardened(z, torch.ones(4)).tolist() == [1, 1, 1, 1]
    assert hardened(z, torch.tensor([0.0, 0.0, 1.0, 1.0])).tolist() == [1, 1, 0, 0]
    assert hardened(torch.zeros(4, 2), torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist() == [0.25] * 4  # all tied


@pytest.mark.parametrize("kind", ["xent", "confidence", "product", "entropy"])
def test_labels_and_probabilities_of_0_and_1_stay_finite(kind):
    z = torch.tensor([[90.0, -90.0], [-90.0, 90.0], [90.0, -90.0], [0.0, 0.0]], requires_grad=True)
    loss = student_loss(StudentLoss(kind=kind))(z, torch.tensor([1.0, 1.0, 0.0, 0.0]), 1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(z.grad).all()


def test_product_of_hard_labels_is_cross_entropy_and_its_target_is_no_path_for_gradients():
    z, hard = torch.randn(6, 2, generator=torch.manual_seed(0)), torch.tensor([1.0, 0, 0, 1, 1, 0])
    product = student_loss(StudentLoss(kind="product", label_power=2, own_power=3))
    assert torch.equal(product(z, hard, 0.5), xent(z, hard, 0.5))
    soft = torch.full((6,), 0.3)
    assert torch.allclose(student_loss(StudentLoss(kind="product", own_power=0))(z, soft, 0.5), xent(z, soft, 0.5))
    z.requires_grad_()
    product(z, soft, 0.5).sum().backward()
    aim = product_target(z, soft, 2, 3)
    assert torch.allclose(z.grad[:, 0], torch.softmax(z, 1)[:, 0] - aim, atol=1e-6) and not aim.requires_grad


def test_entropy_sharpens_and_a_detached_target_would_not():
    z = torch.tensor([[0.5, 0.0]], requires_grad=True)
    student_loss(StudentLoss(kind="entropy", weight=1, warmup=0))(z, torch.tensor([0.5]), 0.0).sum().backward()
    assert z.grad[0, 0] < 0  # a step downhill raises the likelier outcome


@pytest.mark.parametrize("kind", ["classifier", "judge"])
def test_weights_of_rows_scale_their_losses(make_job, tmp_path, kind):
    rows = text_examples(8) if kind == "classifier" else judge_examples(8, long=True)
    losses = {}
    for name, weights in {"all": [1] * 8, "half": [2, 0] * 4, "other": [0, 2] * 4}.items():
        write(
            tmp_path / "r.jsonl", [row.model_copy(update={"weight": w}) for row, w in zip(rows, weights, strict=True)]
        )
        train = {"max_steps": 1, "per_device_train_batch_size": 8}
        job = make_job(kind, out=name, rows=str(tmp_path / "r.jsonl"), train=train)
        losses[name] = run_job(job, quiet=True).loss
    assert losses["all"] == pytest.approx((losses["half"] + losses["other"]) / 2, abs=1e-5)
    assert losses["half"] != pytest.approx(losses["other"], abs=1e-5)


def test_a_job_trains_with_the_loss_it_names(make_job):
    train = {"max_steps": 2, "per_device_train_batch_size": 8, "logging_steps": 1}
    jobs = {
        kind: make_job("classifier", out=kind, train=train, loss={"kind": kind, "warmup": 0.5})
        for kind in ("xent", "confidence", "product", "entropy")
    }
    first, second = {}, {}
    for kind, job in jobs.items():
        run_job(job, quiet=True)
        first[kind], second[kind] = (entry["loss"] for entry in read_json(f"{job.out}/history.json")[:2])
    assert first["xent"] == pytest.approx(first["confidence"]) == pytest.approx(first["entropy"])  # c starts at 0
    assert len({round(loss, 5) for loss in second.values()}) == 4


def test_a_threshold_over_a_small_batch_is_refused(make_job):
    job = make_job("classifier", train={"per_device_train_batch_size": 4}, loss={"kind": "confidence"})
    with pytest.raises(UserError, match="per_device_train_batch_size to 8 or more"):
        run_job(job, quiet=True)
