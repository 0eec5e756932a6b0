"""Attention of two speeches after one copy of their prompt, without a mask over the prompt.

A mask of the whole row rules out the kernels that skip future tokens: it costs half of a long prompt's time and a table
of width x width. Here only the second speech has a mask; everything before it is plain causal attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from debate_rl.errors import UserError

NAME = "sdpa_shared_prompt"


def shared_prompt_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention where the last positions have a mask of their own and those before are causal.

    Args:
        module: the attention layer.
        query: (rows, heads, width, size of a head).
        key: (rows, key heads, width, size of a head).
        value: (rows, key heads, width, size of a head).
        attention_mask: (rows, 1, tail, width), True where one of the last `tail` positions may look. A mask of every
            position, or none, is read as transformers' `sdpa` reads it.
        options: of the model's call, such as `scaling` and `dropout`.

    Returns:
        (rows, width, heads, size of a head), and None for the weights.
    """
    if attention_mask is None or attention_mask.shape[-2] == query.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    start = query.shape[2] - attention_mask.shape[-2]
    # Padding needs no mask here: it stands after the chosen speech, and the tail's own mask leaves it out.
    before = (query[:, :, :start], key[:, :, :start], value[:, :, :start])
    first, _ = sdpa_attention_forward(module, *before, None, is_causal=True, **options)
    tail, _ = sdpa_attention_forward(module, query[:, :, start:], key, value, attention_mask, **options)
    return torch.cat([first, tail], dim=1), None


AttentionInterface.register(NAME, shared_prompt_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def share_prompts(model: Any) -> None:
    """Set a model's attention to the one that reads prompts shared by two speeches.

    Raises:
        UserError: some layer does not attend to everything before, attention is not computed by SDPA, or the loss
            that balances experts is on, which counts tokens by a plain mask.
    """
    text = model.config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"} or getattr(text, "sliding_window", None) is not None:
        raise UserError(
            f"share_prompt needs full attention in every layer, which {text.model_type} has not; set share_prompt false"
        )
    if getattr(text, "output_router_logits", False):
        raise UserError(
            "share_prompt can not balance experts; set share_prompt or model_init_kwargs.output_router_logits false"
        )
    if text._attn_implementation not in ("sdpa", NAME):
        raise UserError(
            "share_prompt needs model_init_kwargs.attn_implementation 'sdpa'; set that, or share_prompt false"
        )
    model.set_attn_implementation(NAME)
