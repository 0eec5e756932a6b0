"""Reward models: TRL's loss with hard labels and margins, the formula's with soft ones, learnt and read back."""

import math

import numpy as np
import pytest
import torch

from debate_rl.errors import UserError
from debate_rl.records import read_json, write
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.load import load_model
from debate_rl.trainers.common.losses import bradley_terry
from debate_rl.trainers.common.rows import RewardRow
from debate_rl.trainers.reward import cut_pairs, encode_rewards, predict_pairs
from tests.trainers.tiny import ask, make_tokenizer, reward_examples

FIRST = {"max_steps": 1, "per_device_train_batch_size": 8, "logging_steps": 1, "disable_dropout": True}


def first(job):
    """What the first step logged."""
    run_job(job, quiet=True)
    return read_json(f"{job.out}/history.json")[0]


def hard(count, margins=True):
    return [
        row.model_copy(update={"target": 1.0, "margin": 0.25 * (i % 3) if margins else 0.0})
        for i, row in enumerate(reward_examples(count))
    ]


@pytest.mark.parametrize("margins", [False, True])
def test_hard_labels_give_the_loss_of_trl(make_job, base, tmp_path, margins):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = hard(8, margins)
    write(tmp_path / "rows.jsonl", rows)
    ours = first(make_job("reward", rows=str(tmp_path / "rows.jsonl"), lora=None, seed=3, train=FIRST))
    tokenizer = make_tokenizer("chatml")
    encoded = encode_rewards(tokenizer, rows)
    columns = ["chosen_ids", "rejected_ids", *(["margin"] if margins else [])]
    config = RewardConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None,
        report_to="none", save_strategy="no", disable_tqdm=True, **FIRST,
    )  # fmt: skip
    torch.manual_seed(3)
    model = load_model(base, "reward")
    data = Dataset.from_list([{name: row[name] for name in columns} for row in encoded])
    trainer = RewardTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    theirs = trainer.state.log_history[0]
    for name in ("loss", "accuracy", "margin", "grad_norm"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name


def test_the_loss_is_the_formula_s():
    gap = torch.tensor([-3.0, 0.0, 0.4, 60.0])
    target, margin = torch.tensor([0.0, 0.3, 1.0, 0.9]), torch.tensor([0.0, 0.5, 1.0, 0.0])
    expected = [
        -t * math.log(1 / (1 + math.exp(-(d - m)))) + (1 - t) * math.log1p(math.exp(d + m))
        for d, t, m in zip(gap.tolist(), target.tolist(), margin.tolist(), strict=True)
    ]
    found = bradley_terry(gap, target, margin)
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)
    # Which reply is called the first makes no difference.
    assert torch.allclose(bradley_terry(-gap, 1 - target, margin), found)


def test_soft_labels_are_learnt_and_predicted_in_order(make_job, base):
    rows = reward_examples(30)
    train = {"max_steps": 60, "per_device_train_batch_size": 10, "learning_rate": 1e-2}
    job = make_job("reward", 30, train=train)
    result = run_job(job, quiet=True)
    p = predict_pairs(rows, base, result.path)
    assert np.abs(p - [row.target for row in rows]).max() < 0.15
    swapped = [row.model_copy(update={"chosen": row.rejected, "rejected": row.chosen}) for row in rows]
    assert np.allclose(predict_pairs(swapped[::-1], base, result.path, batch_tokens=60)[::-1], 1 - p, atol=1e-5)
    logged = read_json(f"{job.out}/history.json")
    assert logged[-2]["accuracy"] > 0.9 and {"brier", "margin", "mean_reward"} <= logged[0].keys()
    assert len(predict_pairs([], base)) == 0


def test_chunks_and_lines_log_the_same(make_job):
    rows = {"max_steps": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-2}
    lined = run_job(make_job("reward", out="a", train=rows), quiet=True)
    padded = run_job(make_job("reward", out="b", train={**rows, "gradient_checkpointing": True}), quiet=True)
    assert lined.loss == pytest.approx(padded.loss, abs=1e-4)


@pytest.mark.parametrize("kind", ["confidence", "product", "entropy"])
def test_students_of_rewards_have_the_losses_of_students(make_job, kind):
    loss = {"kind": kind, "warmup": 0.0}
    result = run_job(make_job("reward", train={"per_device_train_batch_size": 8}, loss=loss), quiet=True)
    assert math.isfinite(result.loss)


def test_margins_go_with_cross_entropy_only(make_job, tmp_path):
    write(tmp_path / "rows.jsonl", hard(8))
    job = make_job("reward", rows=str(tmp_path / "rows.jsonl"), loss={"kind": "product"})
    with pytest.raises(UserError, match="rows with a margin need loss 'xent'"):
        run_job(job, quiet=True)


def test_long_pairs_are_cut_at_their_beginning_and_counted(make_job):
    job = make_job("reward", train={"max_length": 12})
    result = run_job(job, quiet=True)
    tokens = read_json(f"{job.out}/tokens.json")
    assert result.too_long == tokens["over_long"]["rows"] > 0 and tokens["trained"] == 8
    tokenizer = make_tokenizer("chatml")
    encoded = encode_rewards(tokenizer, [RewardRow(prompt=ask("a b"), chosen="yes", rejected="no")])
    (row,) = cut_pairs(tokenizer, encoded, 3)
    assert tokenizer.convert_ids_to_tokens(row["chosen_ids"])[-2:] == ["yes", "<|im_end|>"]


def test_pairs_of_people_train_a_reward_model(make_job, base, shared_data, tmp_path):
    """Real rows of Anthropic HH; the tiny model's words are few, so only that they are read, trained on and scored."""
    from debate_rl.data.tasks.reward_pairs import load_pairs

    found = load_pairs("hh", shared_data / "binary_tasks/hh_harmless_test.jsonl", limit=24)
    rows = [
        RewardRow(id=pair.id, prompt=pair.prompt, chosen=pair.chosen, rejected=pair.rejected, group=pair.group)
        for pair in found.pairs
    ]
    write(tmp_path / "rows.jsonl", rows)
    job = make_job("reward", rows=str(tmp_path / "rows.jsonl"), train={"max_length": 128})
    result = run_job(job, quiet=True)
    assert result.rows == 24
    p = predict_pairs(rows, base, result.path, max_length=128)
    assert p.shape == (24,) and ((p > 0) & (p < 1)).all()
