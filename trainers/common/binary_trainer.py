"""The trainer that judge and classifier share: two logits for each row, a soft target, cross entropy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from debate_rl.trainers.common.losses import (
    auxiliary_confidence,
    confidence_ramp,
    confident_entropy,
    product_target,
    soft_cross_entropy,
)
from debate_rl.trainers.common.micro_batches import InParts
from debate_rl.trainers.common.packing import packable
from debate_rl.trainers.common.settings import StudentLoss

Loss = Callable[[Tensor, Tensor, float], Tensor]
"""(logits (n, 2), target (n,) = probability of column 0, share of the training done) -> (n,) losses.

The n rows are one micro-batch of one device."""


def xent(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """Cross entropy with the soft target, (n,), throughout the training."""
    return soft_cross_entropy(logits, target)


def student_loss(settings: StudentLoss) -> Loss:
    """The loss that the settings describe."""

    def confidence(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        return auxiliary_confidence(logits, target, confidence_ramp(progress, settings.weight, settings.warmup))

    def entropy(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        return confident_entropy(logits, target, confidence_ramp(progress, settings.weight, settings.warmup))

    def product(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        label = product_target(logits, target, settings.label_power, settings.own_power)
        return soft_cross_entropy(logits, label)

    return {"xent": xent, "confidence": confidence, "entropy": entropy, "product": product}[settings.kind]


def evaluated(
    trainer: Trainer, model: Any, inputs: dict[str, Any], prediction_loss_only: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss, logits and targets of an evaluation batch, for a trainer whose rows have a `target`."""
    inputs = trainer._prepare_inputs(inputs)
    with torch.no_grad(), trainer.compute_loss_context_manager():
        loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True)
    if prediction_loss_only:
        return loss, None, None
    return loss, outputs["logits"], inputs["target"]


class BinaryTrainer(InParts):
    """A transformers Trainer for rows with two outcomes; subclasses define `outcome_logits`.

    A batch holds `target` (n,), `weight` (n,) of the rows' losses, and the inputs of `outcome_logits`. Accuracy (of
    the more probable outcome) and Brier score are logged beside the loss, without the rows' weights.
    """

    def __init__(self, *args: Any, loss: Loss = xent, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss = loss
        # Kept as tensors until they are logged: a step that reads a number from the device waits for it.
        self._scores: dict[str, list[Tensor]] = defaultdict(list)
        # compute_loss returns the mean of a micro-batch, so the Trainer has to divide by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def outcome_logits(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The (n, 2) logits of the outcomes; the target is the probability of column 0."""
        raise NotImplementedError

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean weighted loss of a micro-batch, a scalar, and the logits if `return_outputs`."""
        inputs = dict(inputs)
        target = inputs.pop("target")
        weight = inputs.pop("weight")
        logits = self.outcome_logits(model, inputs).float()
        progress = self.state.global_step / max(self.state.max_steps, 1)
        loss = (weight * self._loss(logits, target, progress)).mean() * self.share
        with torch.no_grad():
            p = torch.softmax(logits, dim=-1)[:, 0]
            right = ((p > 0.5) == (target > 0.5)).float().mean()
            brier = ((p - target) ** 2).mean()
            self.note(self._scores["train" if model.training else "eval"], torch.stack([right, brier]))
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss, logits and targets of an evaluation batch."""
        return evaluated(self, model, inputs, prediction_loss_only)

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


def token_budget(config: Any) -> int | None:
    """Most tokens of a chunk or line; None where batches are not divided.

    On a CPU padding costs as much as text, so dividing pays there.
    """
    # Several processes could make different numbers of chunks, and each forward of a sharded model needs all of them.
    if config.device.type == "cpu" and config.world_size == 1:
        return 4096
    return None


def in_lines(model: Any, config: Any) -> bool:
    """Whether a trainer lays its batches in lines (see `packing`) instead of padding them."""
    return token_budget(config) is not None and packable(model)
