"""Reward models: a Bradley-Terry head on TRL's RewardTrainer that learns which of two replies is better.

P(first better) = sigma(r_first - r_second). Labels may be soft, as those of a weaker model are. The loss is the cross
entropy of this probability (TRL's own if the label is 1), or another loss of a student (`settings.StudentLoss`).
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
from debate_rl.trainers.common.micro_batches import InParts
from debate_rl.trainers.common.rows import RewardRow
from debate_rl.trainers.common.tokens import Encoder

_COLUMNS = ("target", "weight", "margin")
_SIDES = ("chosen_ids", "rejected_ids")


@dataclass(frozen=True)
class RewardCollator:
    """Makes a batch of n pairs: all first replies, then all second ones, laid out as a classifier's texts."""

    texts: ClassifierCollator

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch: `target`, `weight` and `margin` (n,), and `chunks` with the `order` of 2 n texts."""
        replies = self.texts(_reply_texts(examples))
        batch: dict[str, Any] = {}
        # Columns of n values first: the Trainer takes the number of examples from the first tensor of a batch.
        for column in _COLUMNS:
            batch[column] = torch.tensor([float(example[column]) for example in examples])
        batch["order"] = replies["order"]
        batch["chunks"] = replies["chunks"]
        return batch


def _reply_texts(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All first replies, then all second ones, as texts for `ClassifierCollator`."""
    texts = []
    for side in _SIDES:
        # The collator asks for target and weight of each text; those of the pair are what is read.
        texts += [{"input_ids": pair[side], "target": 0, "weight": 1} for pair in pairs]
    return texts


class PairRewardTrainer(InParts, RewardTrainer):
    """TRL's RewardTrainer on encoded pairs with soft labels and weights.

    It logs accuracy (whether the reply that the label favours has the higher reward) and the Brier score against the
    label, as for a classifier.

    Args:
        loss: function of both rewards as logits and P(first better).
    """

    _metrics: Any
    _signature_columns: Any

    def __init__(self, *args: Any, loss: Loss = xent, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss = loss
        # compute_loss returns the mean of a micro-batch, so the Trainer has to divide by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Return the rows as `encode_rewards` encoded them; TRL would drop long ones without notice."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*_SIDES, *_COLUMNS]

    def row_tokens(self, example: dict[str, Any]) -> int:
        """Tokens that the model reads of an encoded pair."""
        return 2 * max(len(example[side]) for side in _SIDES)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean weighted loss of a micro-batch of pairs, a scalar; with the rewards (n, 2) if `return_outputs`."""
        target = inputs["target"]
        rewards = pair_rewards(model, inputs)
        gap = rewards[:, 0] - rewards[:, 1]
        # Only the Bradley-Terry form of cross entropy takes a margin; `reward_trainer` refuses one with other losses.
        if self._loss is xent:
            losses = bradley_terry(gap, target, inputs["margin"])
        else:
            progress = self.state.global_step / max(self.state.max_steps, 1)
            losses = self._loss(rewards, target, progress)
        loss = (inputs["weight"] * losses).mean()
        # Eisenstein et al. 2023 (arXiv 2312.09244), equation 2: pulls the mean of the rewards to zero.
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * (rewards.sum(1) ** 2).mean()
        loss = loss * self.share
        self._note(gap, target, rewards)
        return (loss, {"logits": rewards}) if return_outputs else loss

    def _note(self, gap: Tensor, target: Tensor, rewards: Tensor) -> None:
        """Keep the metrics of a micro-batch for the log, averaged over processes."""
        with torch.no_grad():
            p = torch.sigmoid(gap)
            right = ((gap > 0) == (target > 0.5)).float()
            metrics = torch.stack([right.mean(), ((p - target) ** 2).mean(), gap.mean(), rewards.mean()])
            means = self.accelerator.reduce(metrics, "mean").tolist()
        mode = "train" if self.model.training else "eval"
        for name, value in zip(("accuracy", "brier", "margin", "mean_reward"), means, strict=True):
            self.note(self._metrics[mode][name], value)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss, rewards and labels of an evaluation batch."""
        return evaluated(self, model, inputs, prediction_loss_only)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting walks over all parameters, which costs more than a step of a small model."""
        return 0


def pair_rewards(model: Any, batch: dict[str, Any]) -> Tensor:
    """Rewards of first and second reply of each pair of a collated batch, (n, 2)."""
    return class_logits(model, batch).float().view(2, -1).T


def encode_rewards(tokenizer: Any, rows: Sequence[RewardRow]) -> list[dict[str, Any]]:
    """Encode pairs of replies.

    Returns:
        A row's `chosen_ids` and `rejected_ids` (prompt and reply each), `target`, `weight` and `margin`.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    encoder = Encoder(tokenizer)
    encoded = []
    for row in rows:
        prompt, (chosen, rejected) = encoder.encode(row.prompt, row.chosen, row.rejected)
        pair = {
            "chosen_ids": prompt + chosen,
            "rejected_ids": prompt + rejected,
            "target": row.target,
            "weight": row.weight,
            "margin": row.margin,
        }
        encoded.append(pair)
    return encoded


def cut_pairs(tokenizer: Any, encoded: Sequence[dict[str, Any]], max_length: int | None) -> list[dict[str, Any]]:
    """Cut the beginning of texts over the limit, as `cut_texts` does: the replies stand at the end."""
    pairs = [dict(pair) for pair in encoded]
    for side in _SIDES:
        texts = cut_texts(tokenizer, [{"input_ids": pair[side]} for pair in pairs], max_length)
        for pair, text in zip(pairs, texts, strict=True):
            pair[side] = text["input_ids"]
    return pairs


def reward_trainer(
    model: Any, tokenizer: Any, rows: Dataset, config: RewardConfig, loss: Loss = xent, **options: Any
) -> PairRewardTrainer:
    """Build a trainer that is ready to train.

    Args:
        model: a sequence classifier with one output.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: a Dataset of the output of `encode_rewards`.
        config: TRL's RewardConfig.
        loss: function of both rewards as logits and P(first better).
        options: further arguments of RewardTrainer, such as `peft_config`, `eval_dataset` or `callbacks`.

    Raises:
        UserError: rows have margins, which only cross entropy reads.
    """
    if loss is not xent and any(rows["margin"]):
        raise UserError("rows with a margin need loss 'xent'; leave out the margins or the loss")
    collator = RewardCollator(ClassifierCollator(tokenizer.pad_token_id, token_budget(config), in_lines(model, config)))
    trainer = PairRewardTrainer(
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        loss=loss,
        data_collator=collator,
        **options,
    )
    if not collator.texts.in_lines:  # lines have no padding
        _use_free_pad(trainer, tokenizer, rows, options.get("eval_dataset"))
    return trainer


def _use_free_pad(trainer: PairRewardTrainer, tokenizer: Any, *data: Dataset | None) -> None:
    """Pad with a token that no reply holds: the reward is read at the last token that is not padding."""
    texts = []
    for pairs in data:
        if pairs is None:
            continue
        for side in _SIDES:
            texts += [{"input_ids": ids} for ids in pairs[side]]
    pad_id = free_pad_id(tokenizer, texts)
    # Set on the finished trainer, because RewardTrainer itself sets the model's padding to the tokenizer's.
    trainer.model.config.get_text_config().pad_token_id = pad_id
    collator: ClassifierCollator = trainer.data_collator.texts
    trainer.data_collator = RewardCollator(ClassifierCollator(pad_id, collator.token_budget, collator.in_lines))


def predict_pairs(
    rows: Sequence[RewardRow],
    model: str,
    adapter: str | None = None,
    max_length: int | None = None,
    batch_tokens: int = 8192,
) -> np.ndarray:
    """Compute P(first reply better) of each pair with a finetuned reward model.

    Args:
        rows: the pairs; their targets are not read.
        model: folder of a finetuned reward model, or the base of its adapter.
        adapter: folder of the adapter.
        max_length: cut texts as in training; no pair is left out.
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
    texts = _reply_texts(cut_pairs(tokenizer, encode_rewards(tokenizer, rows), max_length))
    pad_id = free_pad_id(tokenizer, texts)
    network.config.get_text_config().pad_token_id = pad_id
    batch = ClassifierCollator(pad_id, batch_tokens)(texts)
    with torch.inference_mode():
        chunks = []
        for chunk in batch["chunks"]:
            chunks.append({name: tensor.to(device) for name, tensor in chunk.items()})
        rewards = pair_rewards(network, {"chunks": chunks, "order": batch["order"].to(device)})
    probabilities = torch.sigmoid(rewards[:, 0] - rewards[:, 1])
    return probabilities.cpu().numpy().astype(np.float64)
