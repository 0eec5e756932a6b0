"""Steps on batches that do not fit in memory at once: forward and backward run on one part of a batch after the other.

Gradients of the parts add up to the batch's, so a step learns what it would have learnt from the whole. A batch within
the budget is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from debate_rl.trainers.common.packing import pack

PARTS = "parts"
"""Key of a batch that holds its parts."""


@dataclass(frozen=True)
class PartsCollator:
    """Makes a batch of examples, in parts where it is over the budget.

    Example (three rows of which the last is long):
        {"labels": (T,), "parts": [{"input_ids": (2, 40), ...}, {"input_ids": (1, 900), ...}], "shares": [2/3, 1/3]}
    """

    whole: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Makes one batch of some examples."""
    tokens: Callable[[dict[str, Any]], int]
    """Tokens that the model reads of an example."""
    budget: int
    """Most tokens of a part, padding included; a longer row is alone."""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch, or its parts and the share of the examples that each part has."""
        lengths = [self.tokens(example) for example in examples]
        if len(examples) * max(lengths) <= self.budget:
            return self.whole(examples)
        parts = []
        shares = []
        for rows in pack(lengths, self.budget):
            parts.append(self.whole([examples[row] for row in rows]))
            shares.append(len(rows) / len(examples))
        batch: dict[str, Any] = {}
        if "labels" in parts[0]:
            # The Trainer counts the labelled tokens of a whole step here. Rows begin with a prompt, so the one label
            # that it leaves out, the first, is never learnt.
            labels = torch.cat([part["labels"].flatten() for part in parts])
            batch["labels"] = labels
            shares = [((part["labels"] != -100).sum() / (labels != -100).sum()).item() for part in parts]
        return {**batch, PARTS: parts, "shares": shares}


class InParts(Trainer):
    """A Trainer that takes the batches of `PartsCollator`; stands before TRL's trainer among the bases of a class.

    `compute_loss` multiplies a mean over rows by `share`, and notes its metrics by `note`.
    """

    budget: int | None = None
    """Most tokens of a part; None runs every batch whole."""
    data_collator: Any
    share = 1.0
    """Share of the part that is being computed in its batch."""
    _first_part = True

    def row_tokens(self, example: dict[str, Any]) -> int:
        """Tokens that the model reads of an encoded row."""
        return len(example["input_ids"])

    def get_train_dataloader(self) -> Any:
        """Batches in parts; evaluation keeps no activations, so its batches stay whole."""
        whole = self.data_collator
        if self.budget is not None:
            self.data_collator = PartsCollator(whole, self.row_tokens, self.budget)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = whole

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of a batch, part by part; the loss of the whole, a scalar."""
        if PARTS not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        losses: list[Tensor] = []
        for part, share in zip(inputs[PARTS], inputs["shares"], strict=True):
            self.share = share
            self._first_part = not losses
            losses.append(super().training_step(model, part, num_items_in_batch))
        self.share = 1.0
        self._first_part = True
        return torch.stack(losses).sum()

    def note(self, kept: list[Any], means: Any) -> None:
        """Keep the means of a part's metrics, so that those of a batch are one entry."""
        if self._first_part:
            kept.append(means * self.share)
        else:
            kept[-1] = kept[-1] + means * self.share
