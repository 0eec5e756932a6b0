"""The rows of a batch without padding: one line of tokens, in which a row attends to itself and to what all share.

Rows are sorted by length inside their batch, never across batches, so the same rows make a step as without packing.
Linear layers see every real token once, and tokens with which all rows of a line begin once for all; attention runs on
groups of rows of similar length; of the last layer only the outputs that are read are computed. Loss and gradient are
those of one row at a time, but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_packed"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers are known here: norm, attention with `o_proj`, residual, norm, `mlp`, residual."""
FORWARD = 64
"""Tokens that cost what a forward and backward cost besides their tokens."""
GROUP = 16
"""Tokens that cost what a group of rows in a line costs: one more call of attention in each layer (ours, measured)."""
SHARED = 128
"""Tokens that sharing a beginning has to save: below it costs more than it saves (ours, measured)."""


def pack(lengths: Sequence[int], budget: int | None, fixed: int = FORWARD) -> list[list[int]]:
    """Deal the rows of a batch into chunks of similar length: little is then padding, and the batch stays whole.

    Rows are sorted by length and cut where padding and the fixed cost of a forward and backward together are least.

    Args:
        lengths: (n,) tokens of each row.
        budget: most tokens of a chunk, padding included (a longer row is alone); None keeps one chunk in given order.
        fixed: tokens that cost what a chunk costs besides its tokens.

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
        best.append(min((best[start][0] + (end - start) * width + fixed, start) for start in range(least, end)))
    chunks, end = [], len(order)
    while end:
        chunks.append(order[best[end][1] : end])
        end = best[end][1]
    return chunks[::-1]


def lines(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Deal the rows of a batch into lines of at most so many tokens, sorted by length; a longer row is alone."""
    found: list[list[int]] = [[]]
    room = budget
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if found[-1] and lengths[row] > room:
            found.append([])
            room = budget
        found[-1].append(row)
        room -= lengths[row]
    return found


def deal(lengths: Sequence[int], budget: int | None, in_lines: bool) -> list[list[int]]:
    """The rows of a batch in lines, or in padded chunks; see `lines` and `pack`."""
    return lines(lengths, budget) if in_lines and budget is not None else pack(lengths, budget)


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


@dataclass(frozen=True)
class Line:
    """Rows one after the other: what all begin with, then the rest of each, padded to the width of its group.

    Example (rows [5, 7, 8], [5, 7, 9, 6] and [5, 7, 9, 1], their last token read, were a share of 2 worth it):
        Line(input_ids=[[5, 7, 8, 9, 6, 9, 1]], position_ids=[[0, 1, 2, 2, 3, 2, 3]], shared=2,
             groups=((1, 1), (2, 2)), wanted=[2, 4, 6])
    """

    input_ids: Tensor
    """(1, T)."""
    position_ids: Tensor
    """(1, T), from 0 in each row."""
    shared: int
    """Tokens of the shared beginning."""
    groups: tuple[tuple[int, int], ...]
    """(rows, width) of each group that attends together, the shared beginning left out."""
    wanted: Tensor
    """(W,) the places after which the model is read, row after row."""
    read: int = 1
    """How many of them in a row."""


def make_line(rows: Sequence[list[int]], read: int = 1) -> Line:
    """Lay rows, shortest first, in one line.

    Args:
        rows: token ids of each row, sorted by length.
        read: after how many of a row's last tokens the model is read; where a row has fewer, its first stands for those
            that are missing.
    """
    shared = _common(rows, read)
    ids, positions, wanted, groups = list(rows[0][:shared]), list(range(shared)), [], []
    for group in pack([len(row) - shared for row in rows], sum(map(len, rows)) * len(rows), GROUP):
        width = len(rows[group[-1]]) - shared
        groups.append((len(group), width))
        for row in group:
            start, own = len(ids), len(rows[row]) - shared
            wanted += [start + max(own - back, 0) for back in range(read, 0, -1)]
            ids += [*rows[row][shared:], *rows[row][-1:] * (width - own)]
            positions += range(shared, shared + width)
    return Line(
        input_ids=torch.tensor([ids]), position_ids=torch.tensor([positions]), shared=shared, groups=tuple(groups),
        wanted=torch.tensor(wanted), read=read,
    )  # fmt: skip


def _common(rows: Sequence[list[int]], read: int) -> int:
    """Tokens with which all rows begin, where sharing them pays; what is read is never shared."""
    # Sorted rows: what the first and the last in order begin with, all between begin with.
    first, last = min(rows), max(rows)
    most = min(len(row) for row in rows) - read
    count = next((at for at in range(max(most, 0)) if first[at] != last[at]), max(most, 0))
    return count if count * (len(rows) - 1) >= SHARED else 0


def packed_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    line: Line | None = None, wanted: list[Tensor] | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Causal attention within each row of a line and to what the rows share.

    Args:
        module: the attention layer.
        query: (1, heads, T, size of a head).
        key: (1, key heads, T, size of a head).
        value: as key.
        attention_mask: read where there is no line, as transformers' `sdpa` reads it.
        line: the rows.
        wanted: in the last layer, takes the outputs of the wanted places, (1, W, heads x size); nothing else is
            computed then, and what is returned only has the right shape.
        options: of the model's call, such as `scaling` and `dropout`.

    Returns:
        (1, T, heads, size of a head), and None for the weights.
    """
    if line is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    # split, not slices: its backward is one copy, where each slice's would add to a table of all places.
    sizes = [line.shared, *(rows * width for rows, width in line.groups)]
    queries, keys, values = (list(one[0].transpose(0, 1).split(sizes)) for one in (query, key, value))
    before = [one.pop(0).transpose(0, 1)[None] for one in (queries, keys, values)]
    if wanted is not None:
        last = query[0].transpose(0, 1).index_select(0, line.wanted)
        queries = list(last.split([rows * line.read for rows, _ in line.groups]))
    found = [] if wanted is not None or not line.shared else [_attend(module, before, None, options)]
    masks = _masks(line, wanted is not None)
    for (rows, _), mask, *block in zip(line.groups, masks, queries, keys, values, strict=True):
        own = [one.unflatten(0, (rows, -1)).transpose(1, 2) for one in block]
        if line.shared:
            pairs = zip(before[1:], own[1:], strict=True)
            own[1:] = [torch.cat([first.expand(rows, -1, -1, -1), one], 2) for first, one in pairs]
        found.append(_attend(module, own, mask, options))
    outputs = torch.cat(found) if len(found) > 1 else found[0]
    if wanted is None:
        return outputs[None], None
    wanted.append(outputs.flatten(1)[None])
    return query.detach().transpose(1, 2), None


def _masks(line: Line, only_wanted: bool) -> Iterator[Tensor | None]:
    """What the tokens of each group may see; None where causality says it. Padding stands where no token looks."""
    ends = line.position_ids[0, line.wanted] if only_wanted else None
    for rows, width in line.groups:
        if ends is not None:
            own, ends = ends[: rows * line.read], ends[rows * line.read :]
            yield torch.arange(line.shared + width) <= own.view(rows, 1, line.read, 1)
        elif line.shared:
            yield torch.ones(width, line.shared + width, dtype=torch.bool).tril(line.shared)[None, None]
        else:
            yield None


def _attend(module: torch.nn.Module, states: list[Tensor], mask: Tensor | None, options: dict[str, Any]) -> Tensor:
    """Attention of query, key and value, (rows, heads, width, size) each: (rows x width, heads, size)."""
    found, _ = sdpa_attention_forward(module, *states, mask, is_causal=mask is None, **options)
    return found.flatten(0, 1)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def packable(model: Any) -> bool:
    """Whether rows can be laid in lines for a model: a known family, full attention in every layer, by SDPA."""
    text = model.config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    full = layers == {"full_attention"} and getattr(text, "sliding_window", None) is None
    return text.model_type in FAMILIES and full and text._attn_implementation in ("sdpa", NAME)


def body_of(model: Any) -> tuple[Any, Any]:
    """A model without a PeftModel around it, and its body: the decoder without a head."""
    network = model.get_base_model() if isinstance(model, PeftModel) else model
    return network, getattr(network, network.base_model_prefix)


def read_line(body: Any, line: Line) -> Tensor:
    """The hidden states at the wanted places of a line, (W, size).

    Args:
        body: the decoder of a `packable` model, without gradient checkpointing, whose second forward would not know
            what is wanted.
        line: the rows.
    """
    if body.config._attn_implementation != NAME:
        body.set_attn_implementation(NAME)
    with _only_wanted(body.layers[-1], line):
        # A mask of four dimensions is taken as it is: the line says who sees whom.
        found = body(
            input_ids=line.input_ids, position_ids=line.position_ids, attention_mask=line.input_ids[None, None],
            line=line, use_cache=False,
        )  # fmt: skip
    return found.last_hidden_state[0]


@contextmanager
def _only_wanted(layer: Any, line: Line) -> Iterator[None]:
    """The last layer for the tokens that are read: all others are there for their keys and values alone."""

    found: list[Tensor] = []

    def take(module: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (found.pop(),)

    def forward(hidden_states: Tensor, **options: Any) -> Tensor:
        # As in all FAMILIES, with the residual of the wanted places.
        kept = hidden_states.index_select(1, line.wanted)
        attended, _ = layer.self_attn(layer.input_layernorm(hidden_states), wanted=found, **options)
        kept = kept + attended
        return kept + layer.mlp(layer.post_attention_layernorm(kept))

    hook = layer.self_attn.o_proj.register_forward_pre_hook(take)
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        hook.remove()
