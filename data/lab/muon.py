"""The Muon optimizer in float32: torch's own works in bfloat16, ten times slower on processors without such units.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/): the momentum of a weight matrix is replaced by the
nearest orthogonal matrix before it is applied. Matrices of one shape are handled together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of matrices of shape (n, rows, columns) near 1 by Newton-Schulz steps."""
    # Coefficients of Jordan et al.: they never converge to 1, but come near it in five steps.
    a, b, c = 3.4445, -4.7750, 2.0315
    # x @ x.T is smaller for wide matrices.
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal, scaled to the size of an AdamW update (Liu et al. 2025, Moonlight)."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update to every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = {}
            for weight in group["params"]:
                shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                # Weights of one shape are made orthogonal in one batch: a model has many small matrices.
                momenta = [self._momentum(weight, group["momentum"]) for weight in weights]
                updates = orthogonal(torch.stack(momenta))
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-scale)

    def _momentum(self, weight: torch.Tensor, momentum: float) -> torch.Tensor:
        """Nesterov momentum of a weight's gradient."""
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        gradient = weight.grad if weight.grad is not None else torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)
