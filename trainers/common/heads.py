"""Heads of classifiers and reward models, in float32: in 16 bits their few logits lie on steps of 1/16 or more."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled

from debate_rl.engines.weights import header, local_folder, weight_files

NAMES = ("score", "classifier")
"""Names that transformers gives a head."""


class Float32Linear(torch.nn.Linear):
    """A linear layer that computes in float32, under autocast too, whatever the type of what it reads."""

    def forward(self, input: Tensor) -> Tensor:
        """Outputs in float32, (..., out)."""
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return torch.nn.functional.linear(input.float(), self.weight.float(), bias)


def compute_in_float32(network: Any, model: str) -> None:
    """Have a network's head compute in float32, with the weights as they were saved.

    A head that is no plain linear layer stays as it is.

    Args:
        network: a classifier or reward model.
        model: folder or hub name that it was loaded from.
    """
    for name in NAMES:
        head = getattr(network, name, None)
        if type(head) is not torch.nn.Linear:
            continue
        # The class, not the method of the instance: PEFT copies a head that it trains, and a copy keeps its class.
        head.__class__ = Float32Linear
        # ZeRO-3 gathers parameters of one type only, so there the weights keep the base's.
        if head.weight.dtype != torch.float32 and not is_deepspeed_zero3_enabled():
            head.float()
            _restore(head, f"{name}.weight", model)


def _restore(head: Any, key: str, model: str) -> None:
    """Read a saved head once more: with the base it was rounded to the base's type."""
    for path in weight_files(local_folder(model)):
        if key in header(path):
            with safe_open(path, framework="pt") as file, torch.no_grad():
                head.weight.copy_(file.get_tensor(key))
