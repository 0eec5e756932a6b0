"""What the judge and the classifier share: two logits a row, a soft target, cross entropy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from debate_rl.trainers.losses import soft_cross_entropy

Loss = Callable[[Tensor, Tensor, float], Tensor]
"""(logits (n, 2), target (n,) = wanted probability of column 0, share of the training done) -> (n,) losses."""


def xent(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """Cross entropy with the soft target, (n,); the same at any time of the training."""
    return soft_cross_entropy(logits, target)


class BinaryTrainer(Trainer):
    """A transformers Trainer for rows with two outcomes; subclasses say where the two logits come from.

    A batch holds `target` (n,) and whatever `outcome_logits` reads. Accuracy (of the likelier outcome) and Brier score
    are logged beside the loss; they are kept as tensors until then, so that a step never waits for the device.
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
        """Mean loss of a micro-batch, a scalar; with the logits where asked for."""
        inputs = dict(inputs)
        target = inputs.pop("target")
        logits = self.outcome_logits(model, inputs).float()
        progress = self.state.global_step / max(self.state.max_steps, 1)
        loss = self._loss(logits, target, progress).mean()
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


def pad_rows(rows: list[list[int]], value: int, left: bool) -> tuple[Tensor, Tensor]:
    """Pad token ids on one side: (n, longest) ids and the mask of real tokens."""
    width = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        gap = width - len(row)
        ids.append([value] * gap + row if left else row + [value] * gap)
        mask.append([0] * gap + [1] * len(row) if left else [1] * len(row) + [0] * gap)
    return torch.tensor(ids), torch.tensor(mask)
