"""Attention over a trie of tokens: keys shared by many rows are read once for all of them.

Many rows are packed into one sequence, without padding. The tokens of a node attend to one another causally, and all
tokens below a node attend to its keys in one multiplication. The parts are merged by their log-sum-exps, which gives
exactly the softmax over all keys (Juravsky et al. 2024, "Hydragen", arXiv 2402.05099, section 3.1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import torch

NAME = "debate_rl_trie"
"""Name of this attention in transformers."""

_CHUNK = 1 << 24
"""Attention scores in memory at once if there is no fused kernel."""


class Layout(Protocol):
    """Decides what each token of a forward pass sees."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None = None,
    ) -> torch.Tensor:
        """Attention of the packed tokens in one layer.

        Args:
            layer: number of the layer.
            query: (heads, tokens, width).
            key: (key-value heads, tokens, width) of the same tokens; the layout copies what it needs later.
            value: like key.
            scale: factor of the scores.
            window: positions that a token sees in this layer, its own included; None is all before it.

        Returns:
            (heads, tokens, width).
        """
        ...


_LAYOUT: ContextVar[Layout | None] = ContextVar("layout", default=None)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool = False,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the log-sum-exp of its scores, by which `merge` combines parts.

    Args:
        query: (batch, heads, queries, width).
        key: (batch, heads, keys, width).
        value: like key.
        scale: factor of the scores.
        causal: query i sees keys 0 to i.
        bias: (batch, 1, 1 or queries, keys), added to the scores.

    Returns:
        Outputs shaped like query, and log-sum-exps (batch, heads, queries) in float32.
    """
    # F.scaled_dot_product_attention runs these same kernels but drops the log-sum-exps.
    if query.device.type == "cpu":
        shape = (query.size(0), query.size(1), query.size(2), key.size(2))
        mask = None if bias is None else bias.to(query.dtype).expand(shape)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=mask, scale=scale
        )
    if query.device.type == "cuda" and bias is None:
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, causal, scale=scale
        )
        # The kernel pads the log-sum-exps to a multiple of its block size.
        return out, lse[..., : query.size(2)]
    return attend_in_pieces(query, key, value, scale, causal, bias)


def attend_in_pieces(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool = False,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same as `attend` by plain multiplications, some queries at a time."""
    size = max(1, _CHUNK // (query.size(0) * query.size(1) * key.size(2)))
    outs = []
    lses = []
    for start in range(0, query.size(2), size):
        piece = query[:, :, start : start + size]
        scores = torch.matmul(piece, key.transpose(-1, -2)).float() * scale
        if bias is not None:
            scores += bias if bias.size(2) == 1 else bias[:, :, start : start + size]
        if causal:
            query_positions = torch.arange(start, start + piece.size(2), device=key.device)
            key_positions = torch.arange(key.size(2), device=key.device)
            scores.masked_fill_(query_positions[:, None] < key_positions, -torch.inf)
        lse = scores.logsumexp(-1)
        outs.append(torch.matmul((scores - lse[..., None]).exp().to(value.dtype), value))
        lses.append(lse)
    return torch.cat(outs, 2), torch.cat(lses, 2)


def merge(out: torch.Tensor, lse: torch.Tensor, more: torch.Tensor, more_lse: torch.Tensor) -> None:
    """Add the attention over further keys to what was attended so far, in place.

    Args:
        out: (heads, queries, width).
        lse: (heads, queries).
        more: like out, over the further keys.
        more_lse: like lse.
    """
    # exp(lse - total) is the share of the softmax that falls on each part's keys.
    total = torch.logaddexp(lse, more_lse)
    out.mul_((lse - total).exp()[..., None]).add_(more * (more_lse - total).exp()[..., None])
    lse.copy_(total)


def read(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in which all queries see all keys, unless a bias hides some.

    Args:
        query: (heads, queries, width).
        key: (key-value heads, keys, width).
        value: like key.
        scale: factor of the scores.
        bias: (queries, keys), added to the scores.

    Returns:
        Outputs (heads, queries, width) and log-sum-exps (heads, queries).
    """
    heads, count, width = query.shape
    # Query heads that share a key-value head become one block of queries, so the keys are not repeated.
    together = query.reshape(1, key.size(0), -1, width)
    if bias is not None:
        bias = bias.repeat(heads // key.size(0), 1)[None, None]
    out, lse = attend(together, key[None], value[None], scale, bias=bias)
    return out.reshape(heads, count, width), lse.reshape(heads, count)


def _trie_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function that transformers calls in every layer: the layout's, or sdpa if there is no layout.

    Raises:
        ValueError: the model needs a kind of attention that is not supported here (soft caps, sinks, biases).
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    layout = _LAYOUT.get()
    if layout is None:
        # A model that is held for training runs its ordinary passes through this function as well.
        plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return plain(module, query, key, value, attention_mask, scaling=scaling, **options)
    extras = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if extras:
        raise ValueError(f"attention with {extras[0]} is not shared between rows")
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    out = layout.attend(module.layer_idx, query[0], key[0], value[0], scale, options.get("sliding_window"))
    return out.transpose(0, 1)[None].contiguous(), None


def register() -> None:
    """Register the attention with transformers; without a layout it behaves like sdpa."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _trie_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@contextlib.contextmanager
def _over(layout: Layout) -> Iterator[None]:
    """Use a layout in the forward passes of the block."""
    token = _LAYOUT.set(layout)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


@torch.inference_mode()
def forward(
    model: Any, layout: Layout, ids: torch.Tensor, positions: torch.Tensor, logits_at: torch.Tensor | None = None
) -> torch.Tensor:
    """Run one pass over packed tokens.

    Args:
        model: a causal language model of transformers whose attention is `NAME`.
        layout: decides what each token sees.
        ids: (tokens,).
        positions: (tokens,), each token's position in its own row.
        logits_at: packed positions of the requested logits; None is all.

    Returns:
        Logits (requested positions, vocabulary).
    """
    # A mask of four dimensions is passed through unchanged; without one transformers builds a mask for one plain row.
    mask = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=ids.device)
    with _over(layout):
        out = model(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=0 if logits_at is None else logits_at,
        )
    return out.logits[0]
