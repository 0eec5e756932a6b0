"""Signs that a training taught nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.records import read_json, write
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.rows import ClassifierRow
from debate_rl.trainers.common.settings import Job
from debate_rl.trainers.common.warning_signs import is_one_class, loss_signs, said

LN2 = math.log(2)


def history(*losses):
    return [*({"step": step, "loss": loss} for step, loss in enumerate(losses, 1)), {"step": 99, "eval_loss": 9.0}]


def test_a_log_counts_for_the_steps_that_it_is_the_mean_of():
    logged = [(1, 0.69), (10, 0.69), (20, 0.69), (40, 0.3)]
    assert loss_signs([{"step": step, "loss": loss} for step, loss in logged], "judge") == ()
    logged = [(1, 0.1), (20, 0.69), (30, 0.69), (40, 0.69)]
    (sign,) = loss_signs([{"step": step, "loss": loss} for step, loss in logged], "judge")
    assert "never fell" in sign


def falling(first, last, count=12):
    return [first + (last - first) * step / (count - 1) for step in range(count)]


@pytest.mark.parametrize(
    ("losses", "parts"),
    [
        (falling(0.69, 0.3), []),
        (falling(0.69, 0.55), []),
        (falling(0.05, 0.05), []),
        (falling(0.69, 0.69), ["never fell"]),
        (falling(0.69, 0.9), ["never fell"]),
        (falling(4.0, 0.5), ["far above ln 2"]),
        (falling(4.0, 4.0), ["far above ln 2", "never fell"]),
        ([4.0, 0.5], ["far above ln 2"]),
        ([0.7, 0.7], []),
        ([], []),
    ],
)
def test_a_loss_that_starts_far_off_or_never_falls_is_told_from_one_that_learns(losses, parts):
    for kind in ("judge", "classifier", "reward"):
        signs = loss_signs(history(*losses), kind)
        assert len(signs) == len(parts) and all(part in sign for part, sign in zip(parts, signs, strict=True))
    # Losses over a vocabulary are on another scale.
    assert loss_signs(history(*losses), "sft") == ()


@given(st.lists(st.floats(0, 1), min_size=10, max_size=40), st.data())
def test_one_class_is_one_answer_to_items_that_differ(p, data):
    truth = [0, 1, *data.draw(st.lists(st.integers(0, 1), min_size=len(p) - 2, max_size=len(p) - 2))]
    sides = {0 if abs(one - 0.5) < 1e-8 else math.copysign(1, one - 0.5) for one in p}
    if not any(1e-10 < abs(one - 0.5) < 1e-8 for one in p):
        assert is_one_class(p, truth) == (len(sides) == 1)
    assert not is_one_class(p, [1] * len(p)) and not is_one_class([0.9] * 4, [0, 1, 0, 1])


def test_models_with_one_sign_share_a_line():
    signs = {f"seed{number}": ["flat"] for number in range(6)} | {"other": ["far", "flat"]}
    assert said(signs) == ("seed0, seed1, seed2, seed3 and 3 more: flat", "other: far")


def test_a_training_of_labels_that_have_nothing_to_do_with_its_texts_says_so_itself(base, tmp_path):
    rows = [ClassifierRow(id=str(n), text="the pipe was moved", target=float(n % 2)) for n in range(64)]
    write(tmp_path / "rows.jsonl", rows)
    job = Job(
        kind="classifier", model=str(base), rows=str(tmp_path / "rows.jsonl"), out=str(tmp_path / "out"), lora=None,
        probe=True, train={"per_device_train_batch_size": 4, "learning_rate": 1e-5, "max_steps": 16},
    )  # fmt: skip
    result = run_job(job, quiet=True)
    assert any("never fell" in warning for warning in result.warnings)
    assert read_json(tmp_path / "out" / "result.json")["warnings"] == list(result.warnings)
    assert run_job(job, quiet=True).warnings == result.warnings, "what is finished says it again"
