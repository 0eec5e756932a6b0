"""A batch in parts is learnt from as the whole is; a training within memory is left as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.trainers.common.job import open_trainer, run_job
from debate_rl.trainers.common.memory import ACTIVATIONS, GIB, PART, Training, memory, settled
from debate_rl.trainers.common.micro_batches import PARTS, PartsCollator
from debate_rl.trainers.common.model_shapes import Shape
from debate_rl.trainers.common.settings import StudentLoss

SMOLLM = Shape(layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_size=64, vocabulary=49152, tied=True)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20), budget=st.integers(1, 400))
def test_every_example_is_in_one_part_within_the_budget(lengths, budget):
    batch = PartsCollator(lambda examples: {"ids": examples}, lambda example: example, budget)(lengths)
    if len(lengths) * max(lengths) <= budget:
        assert batch == {"ids": lengths}
        return
    parts = [part["ids"] for part in batch[PARTS]]
    assert sorted(length for part in parts for length in part) == sorted(lengths)
    assert all(len(part) == 1 or len(part) * max(part) <= budget for part in parts)
    assert sum(batch["shares"]) == pytest.approx(1)


def trained(make_job, kind, budget, **options):
    """Loss, metrics and weights of two steps."""
    train = {"per_device_train_batch_size": 4, "max_steps": 2, "logging_steps": 1, "save_strategy": "no"}
    job = make_job(kind, train=train, out=f"{kind}-{budget}", **options)
    trainer = open_trainer(job, quiet=True).trainer
    trainer.budget = budget
    trainer.train()
    kept = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    return [entry for entry in trainer.state.log_history if "loss" in entry], kept


@pytest.mark.parametrize(
    ("kind", "options"),
    [("sft", {}), ("dpo", {}), ("dpo", {"share_prompt": True}), ("judge", {}), ("classifier", {}), ("reward", {})],
)
def test_a_batch_in_parts_gives_the_loss_metrics_and_weights_of_the_whole(make_job, kind, options):
    whole, weights = trained(make_job, kind, None, **options)
    parts, others = trained(make_job, kind, 1, **options)
    for first, second in zip(whole, parts, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert second[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    for name, weight in weights.items():
        assert torch.allclose(weight, others[name], atol=1e-4), name


@settings(max_examples=30)
@given(row=st.integers(50, 20_000), batch=st.integers(1, 32), half=st.booleans())
def test_a_training_on_a_cpu_keeps_its_activations_small_unless_one_row_takes_more(row, batch, half):
    plain = Training(kind="sft", shape=SMOLLM, prompt=row, speech=0, batch=batch, lora=16, half=half, on_cpu=True)
    found = settled(plain)
    one = settled(plain.model_copy(update={"batch": 1}))
    assert memory(found).activations <= max(1.01 * ACTIVATIONS, memory(one).activations) + 3 * 32 * row**2
    assert settled(plain, checkpointing=False).checkpointing is False
    assert settled(plain.model_copy(update={"on_cpu": False})).part is None
    # Long rows stand alone, without the padding that costs attention a mask.
    assert not half or row < PART or settled(plain).part <= row


def test_long_rows_are_checkpointed_and_short_ones_are_not():
    long = Training(kind="sft", shape=SMOLLM, prompt=6800, speech=200, lora=16, checkpointing=False, on_cpu=True)
    assert settled(long).checkpointing
    assert not settled(long.model_copy(update={"prompt": 300})).checkpointing
    assert memory(settled(long)).total < 6 * GIB
    assert memory(settled(long.model_copy(update={"prompt": 1800}))).total < 3 * GIB


def test_a_training_that_memory_cannot_hold_is_refused_before_the_model_is_loaded(make_job, monkeypatch):
    from debate_rl.trainers.common import job as jobs
    from debate_rl.trainers.common.memory import Card

    monkeypatch.setattr(jobs, "machine", lambda: Card(name="this machine", gib=0.1))
    with pytest.raises(UserError, match=r"training sft: needs about .* GiB .*, and 0.1 GiB of memory are free here; "):
        run_job(make_job("sft"), quiet=True)


def test_a_loss_with_a_threshold_over_its_batch_is_not_split(make_job):
    job = make_job(
        "classifier", train={"per_device_train_batch_size": 8}, loss=StudentLoss(kind="confidence"), out="confident"
    )
    assert open_trainer(job, quiet=True).trainer.budget is None


@pytest.mark.parametrize("kind", ["classifier", "judge"])
def test_under_autocast_a_head_is_read_in_float32_and_a_new_one_learns(make_job, kind):
    train = {"bf16": True, "gradient_checkpointing": True, "max_steps": 1}
    trainer = open_trainer(make_job(kind, train=train, out=f"half-{kind}"), quiet=True).trainer
    network = trainer.model.get_base_model()
    head = network.score if kind == "classifier" else network.lm_head
    seen = []
    calls = []
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    network.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    before = {name: p.detach().clone() for name, p in head.named_parameters() if p.requires_grad}
    trainer.train()
    assert set(seen) == {torch.float32}
    assert len(calls) == 2, "a checkpointed layer runs again in the backward pass"
    assert (kind == "classifier") == bool(before)
    for name, parameter in head.named_parameters():
        assert name not in before or not torch.equal(parameter, before[name])
