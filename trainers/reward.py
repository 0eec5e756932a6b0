"""Reward models: a Bradley-Terry head that scores replies, learnt from which of two is better, by TRL's RewardTrainer.

P(first better) = sigma(r_first - r_second). The label may be soft, as a weaker model's is: the loss is then the cross
entropy of this probability, or another loss of a student (`settings.StudentLoss`), and TRL's own with label 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from trl import RewardConfig, RewardTrainer

from debate_rl.errors import UserError
from debate_rl.trainers.classifier import ClassifierCollator, class_logits, cut_texts, free_pad_id
from debate_rl.trainers.common.binary_trainer import Loss, evaluated, in_lines, token_budget, xent
from debate_rl.trainers.common.load import load_model, load_tokenizer
from debate_rl.trainers.common.losses import bradley_terry
from debate_rl.trainers.common.rows import RewardRow
from debate_rl.trainers.common.tokens import Encoder

_COLUMNS = ("target", "weight", "margin")
_SIDES = ("chosen_ids", "rejected_ids")


@dataclass(frozen=True)
class RewardCollator:
    """Makes a batch of n pairs: the first replies, then the second ones, in lines or chunks as a classifier's texts."""

    texts: ClassifierCollator

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch: `target`, `weight` and `margin` (n,), and `chunks` with the `order` of 2 n texts."""
        rows = [{"input_ids": example[side], "target": 0, "weight": 1} for side in _SIDES for example in examples]
        read = self.texts(rows)
        found = {name: torch.tensor([float(example[name]) for example in examples]) for name in _COLUMNS}
        return {**found, "order": read["order"], "chunks": read["chunks"]}


class PairRewardTrainer(RewardTrainer):
    """TRL's RewardTrainer on encoded pairs with soft labels and weights.

    Accuracy (the side that the label favours) and Brier score against the label are logged, as for a classifier.
    """

    _metrics: Any
    _signature_columns: Any

    def __init__(self, *args: Any, loss: Loss = xent, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss = loss
        # compute_loss returns the mean of a micro-batch, so the Trainer has to divide by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Rows come encoded by `encode_rewards`; TRL would drop long ones without a word."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*_SIDES, *_COLUMNS]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean weighted loss of a micro-batch of pairs, a scalar; with the rewards (n, 2) where asked for."""
        target, margin = inputs["target"], inputs["margin"]
        rewards = pair_rewards(model, inputs)
        gap = rewards[:, 0] - rewards[:, 1]
        if self._loss is xent:
            losses = bradley_terry(gap, target, margin)
        else:
            losses = self._loss(rewards, target, self.state.global_step / max(self.state.max_steps, 1))
        loss = (inputs["weight"] * losses).mean()
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * (rewards.sum(1) ** 2).mean()
        with torch.no_grad():
            p, right = torch.sigmoid(gap), ((gap > 0) == (target > 0.5)).float()
            noted = torch.stack([right.mean(), ((p - target) ** 2).mean(), gap.mean(), rewards.mean()])
            noted = self.accelerator.reduce(noted, "mean")
        kept = self._metrics["train" if self.model.training else "eval"]
        for name, value in zip(("accuracy", "brier", "margin", "mean_reward"), noted.tolist(), strict=True):
            kept[name].append(value)
        return (loss, {"logits": rewards}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss, rewards and labels of an evaluation batch."""
        return evaluated(self, model, inputs, prediction_loss_only)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: the walk over all parameters costs more than a step of a small model."""
        return 0


def pair_rewards(model: Any, batch: dict[str, Any]) -> Tensor:
    """Rewards of first and second reply of each pair of a collated batch, (n, 2)."""
    return class_logits(model, batch).float().view(2, -1).T


def encode_rewards(tokenizer: Any, rows: Sequence[RewardRow]) -> list[dict[str, Any]]:
    """Token ids of prompt and reply, twice a row, with label, weight and margin.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    encoder, found = Encoder(tokenizer), []
    for row in rows:
        start, replies = encoder.encode(row.prompt, row.chosen, row.rejected)
        ids = {side: start + reply for side, reply in zip(_SIDES, replies, strict=True)}
        found.append({**ids, "target": row.target, "weight": row.weight, "margin": row.margin})
    return found


def cut_pairs(tokenizer: Any, encoded: Sequence[dict[str, Any]], max_length: int | None) -> list[dict[str, Any]]:
    """All pairs, texts over the limit without their beginning, as `cut_texts` cuts: the replies stand at the end."""
    rows = list(encoded)
    for side in _SIDES:
        cut = cut_texts(tokenizer, [{"input_ids": row[side]} for row in rows], max_length)
        rows = [{**row, side: text["input_ids"]} for row, text in zip(rows, cut, strict=True)]
    return rows


def reward_trainer(
    model: Any, tokenizer: Any, rows: Dataset, config: RewardConfig, loss: Loss = xent, **options: Any
) -> PairRewardTrainer:
    """A trainer ready to train.

    Args:
        model: a sequence classifier with one output.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: a Dataset of what `encode_rewards` gave.
        config: TRL's RewardConfig.
        loss: what to minimise, given both rewards as logits and P(first better).
        options: further arguments of RewardTrainer, such as `peft_config`, `eval_dataset` or `callbacks`.

    Raises:
        UserError: rows have margins, which only cross entropy reads.
    """
    if loss is not xent and any(rows["margin"]):
        raise UserError("rows with a margin need loss 'xent'; leave out the margins or the loss")
    collator = RewardCollator(ClassifierCollator(tokenizer.pad_token_id, token_budget(config), in_lines(model, config)))
    trainer = PairRewardTrainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer, loss=loss, data_collator=collator,
        **options,
    )  # fmt: skip
    if not collator.texts.in_lines:
        _use_free_pad(trainer, tokenizer, rows, options.get("eval_dataset"))
    return trainer


def _use_free_pad(trainer: PairRewardTrainer, tokenizer: Any, *data: Dataset | None) -> None:
    """Pad with a token that no reply holds: the reward is read at the last token that is not padding."""
    texts = [[{"input_ids": ids} for side in _SIDES for ids in one[side]] for one in data if one is not None]
    old: ClassifierCollator = trainer.data_collator.texts
    pad_id = free_pad_id(tokenizer, *texts)
    trainer.model.config.get_text_config().pad_token_id = pad_id
    trainer.data_collator = RewardCollator(ClassifierCollator(pad_id, old.token_budget, old.in_lines))


def predict_pairs(
    rows: Sequence[RewardRow],
    model: str,
    adapter: str | None = None,
    max_length: int | None = None,
    batch_tokens: int = 8192,
) -> np.ndarray:
    """P(first reply better) of each pair, by a finetuned reward model.

    Args:
        rows: the pairs; their targets are not read.
        model: folder of a finetuned reward model, or the base of its adapter.
        adapter: folder of the adapter.
        max_length: cut texts as in training; none is left out.
        batch_tokens: tokens in memory at once, padding included.

    Returns:
        (n,) probabilities.

    Raises:
        UserError: no such model or adapter.
    """
    if not rows:
        return np.zeros(0)
    tokenizer = load_tokenizer(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_model(model, "reward", adapter, trainable=False).to(device).eval()
    encoded = cut_pairs(tokenizer, encode_rewards(tokenizer, rows), max_length)
    texts = [{"input_ids": row[side], "target": 0, "weight": 1} for side in _SIDES for row in encoded]
    network.config.get_text_config().pad_token_id = pad_id = free_pad_id(tokenizer, texts)
    batch = ClassifierCollator(pad_id, batch_tokens)(texts)
    with torch.inference_mode():
        chunks = [{name: ids.to(device) for name, ids in chunk.items()} for chunk in batch["chunks"]]
        rewards = pair_rewards(network, {"chunks": chunks, "order": batch["order"].to(device)})
    return torch.sigmoid(rewards[:, 0] - rewards[:, 1]).cpu().numpy().astype(np.float64)
