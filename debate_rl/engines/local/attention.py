"""Attention over a trie of tokens, so that keys shared by many rows are read once for all of them.

Many rows are one packed row here, without padding and without masks. The tokens of a node attend to one another
causally, and all tokens below a node attend to the node's keys in one multiplication; the parts are put together by
their log-sum-exps, exactly as one softmax over all keys would be (Juravsky et al. 2024, "Hydragen", arXiv 2402.05099,
section 3.1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import torch

NAME = "debate_rl_trie"
"""Under which transformers knows this attention."""

_CHUNK = 1 << 24
"""Scores in memory at once where there is no fused kernel."""


class Layout(Protocol):
    """What the tokens of a forward pass may see."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Attention of the packed tokens in one layer.

        Args:
            layer: its number.
            query: (heads, tokens, width).
            key: (key-value heads, tokens, width), of the same tokens; the layout keeps what is needed later.
            value: as key.
            scale: of the scores.

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
    """Attention together with the log-sum-exp of the scores, which lets parts be put together.

    Args:
        query: (batch, heads, queries, width).
        key: (batch, heads, keys, width).
        value: as key.
        scale: of the scores.
        causal: query i sees keys 0 to i.
        bias: (batch, 1, 1 or queries, keys), added to the scores.

    Returns:
        Outputs as query, and log-sum-exps (batch, heads, queries) in float32.
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
    """The same as `attend` by plain multiplications, some queries at a time."""
    size = max(1, _CHUNK // (query.size(0) * query.size(1) * key.size(2)))
    outs, lses = [], []
    for start in range(0, query.size(2), size):
        piece = query[:, :, start : start + size]
        scores = torch.matmul(piece, key.transpose(-1, -2)).float() * scale
        if bias is not None:
            scores += bias if bias.size(2) == 1 else bias[:, :, start : start + size]
        if causal:
            own = torch.arange(start, start + piece.size(2), device=key.device)
            scores.masked_fill_(own[:, None] < torch.arange(key.size(2), device=key.device), -torch.inf)
        lse = scores.logsumexp(-1)
        outs.append(torch.matmul((scores - lse[..., None]).exp().to(value.dtype), value))
        lses.append(lse)
    return torch.cat(outs, 2), torch.cat(lses, 2)


def merge(out: torch.Tensor, lse: torch.Tensor, more: torch.Tensor, more_lse: torch.Tensor) -> None:
    """Put another part of the keys to what was attended so far, in place.

    Args:
        out: (heads, queries, width).
        lse: (heads, queries).
        more: as out, over other keys.
        more_lse: as lse.
    """
    total = torch.logaddexp(lse, more_lse)
    out.mul_((lse - total).exp()[..., None]).add_(more * (more_lse - total).exp()[..., None])
    lse.copy_(total)


def read(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """All queries see all keys; query heads that share a key-value head are one block of queries.

    Args:
        query: (heads, queries, width).
        key: (key-value heads, keys, width).
        value: as key.
        scale: of the scores.

    Returns:
        (heads, queries, width) and (heads, queries).
    """
    heads, count, width = query.shape
    together = query.reshape(1, key.size(0), -1, width)
    out, lse = attend(together, key[None], value[None], scale)
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
    """What transformers calls in every layer: the layout's attention, or its own where there is no layout.

    Raises:
        ValueError: the model wants something of its attention that is not done here (soft caps, sinks, biases).
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    layout = _LAYOUT.get()
    if layout is None:
        plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return plain(module, query, key, value, attention_mask, scaling=scaling, **options)
    extras = [name for name in ("softcap", "s_aux", "position_bias", "sliding_window") if options.get(name) is not None]
    if extras:
        raise ValueError(f"attention with {extras[0]} is not shared between rows")
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    out = layout.attend(module.layer_idx, query[0], key[0], value[0], scale)
    return out.transpose(0, 1)[None].contiguous(), None


def register() -> None:
    """Make the attention known to transformers; without a layout it is transformers' own."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _trie_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@contextlib.contextmanager
def _over(layout: Layout) -> Iterator[None]:
    token = _LAYOUT.set(layout)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


@torch.inference_mode()
def forward(
    model: Any, layout: Layout, ids: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """One pass over packed tokens.

    Args:
        model: a causal language model of transformers whose attention is `NAME`.
        layout: what each token sees.
        ids: (tokens,).
        positions: (tokens,), each token's place in its own row.
        wanted: which tokens' logits are wanted; None is all.

    Returns:
        (wanted, vocabulary).
    """
    # A mask of four dimensions is handed through as it is; without one a mask for one plain row would be made.
    mask = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=ids.device)
    with _over(layout):
        out = model(
            input_ids=ids[None], position_ids=positions[None], attention_mask=mask, use_cache=False,
            logits_to_keep=0 if wanted is None else wanted,
        )  # fmt: skip
    return out.logits[0]
