"""What the judge and the classifier share: two logits a row, a soft target, cross entropy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from debate_rl.trainers.losses import (
    auxiliary_confidence,
    confidence_ramp,
    confident_entropy,
    product_target,
    soft_cross_entropy,
)
from debate_rl.trainers.settings import StudentLoss

Loss = Callable[[Tensor, Tensor, float], Tensor]
"""(logits (n, 2), target (n,) = wanted probability of column 0, share of the training done) -> (n,) losses.

The n rows are those of one device and micro-batch."""


FORWARD = 64
"""Tokens that cost what a forward and backward cost besides their tokens."""


def xent(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """Cross entropy with the soft target, (n,); the same at any time of the training."""
    return soft_cross_entropy(logits, target)


def student_loss(wanted: StudentLoss) -> Loss:
    """The loss that the settings describe."""

    def ramped(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        c = confidence_ramp(progress, wanted.weight, wanted.warmup)
        return (auxiliary_confidence if wanted.kind == "confidence" else confident_entropy)(logits, target, c)

    def product(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        return soft_cross_entropy(logits, product_target(logits, target, wanted.label_power, wanted.own_power))

    if wanted.kind == "xent":
        return xent
    return product if wanted.kind == "product" else ramped


class BinaryTrainer(Trainer):
    """A transformers Trainer for rows with two outcomes; subclasses say where the two logits come from.

    A batch holds `target` (n,), `weight` (n,) of the rows' losses, and whatever `outcome_logits` reads. Accuracy (of
    the likelier outcome) and Brier score are logged beside the loss, over all rows alike; they are kept as tensors
    until then, so that a step never waits for the device.
    """

    def __init__(self, *args: Any, loss: Loss = xent, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss = loss
        self._scores: dict[str, list[Tensor]] = defaultdict(list)
        # compute_loss returns the mean of a micro-batch, so the Trainer has to divide by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def outcome_logits(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The (n, 2) logits of the outcomes; the target is the probability of column 0."""
        raise NotImplementedError

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean weighted loss of a micro-batch, a scalar; with the logits where asked for."""
        inputs = dict(inputs)
        target, weight = inputs.pop("target"), inputs.pop("weight")
        logits = self.outcome_logits(model, inputs).float()
        progress = self.state.global_step / max(self.state.max_steps, 1)
        loss = (weight * self._loss(logits, target, progress)).mean()
        with torch.no_grad():
            p = torch.softmax(logits, dim=-1)[:, 0]
            right = ((p > 0.5) == (target > 0.5)).float().mean()
            self._scores["train" if model.training else "eval"].append(torch.stack([right, ((p - target) ** 2).mean()]))
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss, logits and targets of an evaluation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        return (loss, None, None) if prediction_loss_only else (loss, outputs["logits"], inputs["target"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean accuracy and Brier score since the last log, over all processes."""
        mode = "train" if self.model.training else "eval"
        scores = self._scores.pop(mode, [])
        if scores:
            right, brier = self.accelerator.reduce(torch.stack(scores).mean(0), "mean").tolist()
            prefix = "" if mode == "train" else "eval_"
            logs |= {f"{prefix}accuracy": right, f"{prefix}brier": brier}
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: the walk over all parameters costs more than a step of a small model."""
        return 0


def pack(lengths: Sequence[int], budget: int | None) -> list[list[int]]:
    """Deal the rows of a batch into chunks of similar length: little is then padding, and the batch stays whole.

    Rows are sorted by length and cut where padding and the fixed cost of a forward and backward together are least.

    Args:
        lengths: (n,) tokens of each row.
        budget: most tokens of a chunk, padding included (a longer row is alone); None keeps one chunk in given order.

    Returns:
        The rows of each chunk; every row is in one.
    """
    if budget is None:
        return [list(range(len(lengths)))]
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    best: list[tuple[int, int]] = [(0, 0)]  # by the rows packed so far: least cost, and where its last chunk starts
    for end in range(1, len(order) + 1):
        width = lengths[order[end - 1]]
        least = max(0, end - max(1, budget // max(width, 1)))
        best.append(min((best[start][0] + (end - start) * width + FORWARD, start) for start in range(least, end)))
    chunks, end = [], len(order)
    while end:
        chunks.append(order[best[end][1] : end])
        end = best[end][1]
    return chunks[::-1]


def token_budget(config: Any) -> int | None:
    """Tokens of a chunk where packing pays.

    On CPU padding costs as much as text; several forwards before one backward are for a single process only.
    """
    return 2048 if config.device.type == "cpu" and config.world_size == 1 else None


def back_in_order(chunks: Sequence[Sequence[int]]) -> Tensor:
    """(n,) places of the batch's rows in the concatenated chunks."""
    return torch.tensor([row for chunk in chunks for row in chunk]).argsort()


def pad_rows(rows: list[list[int]], value: int, left: bool) -> tuple[Tensor, Tensor]:
    """Pad token ids on one side: (n, longest) ids and the mask of real tokens."""
    width = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        gap = width - len(row)
        ids.append([value] * gap + row if left else row + [value] * gap)
        mask.append([0] * gap + [1] * len(row) if left else [1] * len(row) + [0] * gap)
    return torch.tensor(ids), torch.tensor(mask)
