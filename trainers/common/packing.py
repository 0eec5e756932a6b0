"""Lay the rows of a batch in lines without padding; each row attends to itself and to the beginning that all share.

Rows are sorted by length inside their batch, never across batches, so a step learns from the same rows as without
packing. Linear layers see every real token once, and tokens with which all rows of a line begin once for all. Attention
runs on groups of rows of similar length. Loss and gradient are those of one row at a time, up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
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
"""Model types that are known to pass the options of a call on to their attention."""
FORWARD = 64
"""Fixed cost of a forward and backward, in tokens."""
GROUP = 16
"""Fixed cost of a group of rows in a line, in tokens: one more call of attention in each layer (ours, measured)."""
SHARED = 128
"""Least tokens that a shared beginning has to save; below it sharing costs more than it saves (ours, measured)."""


def pack(lengths: Sequence[int], budget: int | None, fixed: int = FORWARD) -> list[list[int]]:
    """Divide the rows of a batch into chunks of similar length, so that little is padding.

    Rows are sorted by length and cut where padding and the fixed cost of a chunk together are least.

    Args:
        lengths: (n,) tokens of each row.
        budget: most tokens of a chunk, padding included (a longer row is alone); None keeps one chunk in given order.
        fixed: fixed cost of a chunk, in tokens.

    Returns:
        The rows of each chunk; every row is in one.
    """
    if budget is None:
        return [list(range(len(lengths)))]
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    # Dynamic programming: best[end] is the least cost of the first `end` rows, and where their last chunk starts.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(order) + 1):
        width = lengths[order[end - 1]]
        first_start = max(0, end - max(1, budget // max(width, 1)))
        options = [(best[start][0] + (end - start) * width + fixed, start) for start in range(first_start, end)]
        best.append(min(options))
    chunks = []
    end = len(order)
    while end:
        start = best[end][1]
        chunks.append(order[start:end])
        end = start
    return chunks[::-1]


def lines(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Divide the rows of a batch, sorted by length, into lines within a budget of tokens; a longer row is alone."""
    filled: list[list[int]] = [[]]
    room = budget
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if filled[-1] and lengths[row] > room:
            filled.append([])
            room = budget
        filled[-1].append(row)
        room -= lengths[row]
    return filled


def deal(lengths: Sequence[int], budget: int | None, in_lines: bool) -> list[list[int]]:
    """Divide the rows of a batch into lines or into padded chunks; see `lines` and `pack`."""
    if in_lines and budget is not None:
        return lines(lengths, budget)
    return pack(lengths, budget)


def back_in_order(chunks: Sequence[Sequence[int]]) -> Tensor:
    """(n,) index that puts the concatenated rows of the chunks back into the batch's order."""
    order: list[int] = []
    for chunk in chunks:
        order.extend(chunk)
    return torch.tensor(order).argsort()


def pad_rows(rows: list[list[int]], value: int, left: bool) -> tuple[Tensor, Tensor]:
    """Pad token ids on one side: (n, longest) ids and the mask of real tokens."""
    width = max(len(row) for row in rows)
    ids = []
    mask = []
    for row in rows:
        gap = width - len(row)
        if left:
            ids.append([value] * gap + row)
            mask.append([0] * gap + [1] * len(row))
        else:
            ids.append(row + [value] * gap)
            mask.append([1] * len(row) + [0] * gap)
    return torch.tensor(ids), torch.tensor(mask)


@dataclass(frozen=True)
class Line:
    """Rows one after the other: the beginning that all share, then the rest of each, padded to its group's width.

    Example (rows [5, 7, 8], [5, 7, 9, 6] and [5, 7, 9, 1], read after their last token, if SHARED were 2):
        Line(input_ids=[[5, 7, 8, 8, 9, 6, 9, 1]], position_ids=[[0, 1, 2, 3, 2, 3, 2, 3]], shared=2,
             groups=((3, 2),), wanted=[2, 5, 7])
    """

    input_ids: Tensor
    """(1, T)."""
    position_ids: Tensor
    """(1, T), from 0 in each row."""
    shared: int
    """Tokens of the shared beginning."""
    groups: tuple[tuple[int, int], ...]
    """(rows, width) of each group that attends together, without the shared beginning."""
    wanted: Tensor
    """(W,) indices of the tokens after which the model is read, row after row."""


def make_line(rows: Sequence[list[int]], read: int = 1) -> Line:
    """Lay rows, shortest first, in one line.

    Args:
        rows: token ids of each row, sorted by length.
        read: after how many of a row's last tokens the model is read; where a row has fewer, its first stands for those
            that are missing.
    """
    shared = _shared_beginning(rows, read)
    ids = list(rows[0][:shared])
    positions = list(range(shared))
    wanted: list[int] = []
    groups = []
    # One line has room for all rows, so only the cost of a group against its padding decides the cut.
    no_limit = sum(map(len, rows)) * len(rows)
    for group in pack([len(row) - shared for row in rows], no_limit, GROUP):
        width = len(rows[group[-1]]) - shared
        groups.append((len(group), width))
        for index in group:
            row = rows[index]
            start = len(ids)
            length = len(row) - shared
            wanted += [start + max(length - back, 0) for back in range(read, 0, -1)]
            ids += row[shared:]
            ids += row[-1:] * (width - length)
            positions += range(shared, shared + width)
    return Line(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        shared=shared,
        groups=tuple(groups),
        wanted=torch.tensor(wanted),
    )


def _shared_beginning(rows: Sequence[list[int]], read: int) -> int:
    """Tokens with which all rows begin, or 0 where sharing them does not pay."""
    # In alphabetical order, whatever the first and the last row begin with, all rows between begin with too.
    first = min(rows)
    last = max(rows)
    # The tokens that are read differ between rows in what follows them, so they are never shared.
    limit = max(min(len(row) for row in rows) - read, 0)
    count = 0
    while count < limit and first[count] == last[count]:
        count += 1
    saved = count * (len(rows) - 1)
    return count if saved >= SHARED else 0


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    line: Line | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row of a line, and from each row to the shared beginning.

    Args:
        module: the attention layer.
        query: (1, heads, T, size of a head).
        key: (1, key heads, T, size of a head).
        value: (1, key heads, T, size of a head).
        attention_mask: used where there is no line, as transformers' `sdpa` uses it.
        line: the rows.
        options: of the model's call, such as `scaling` and `dropout`.

    Returns:
        (1, T, heads, size of a head), and None for the weights.
    """
    if line is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    sizes = [line.shared] + [rows * width for rows, width in line.groups]
    beginning_query, queries = _split_tokens(query, sizes)
    beginning_key, keys = _split_tokens(key, sizes)
    beginning_value, values = _split_tokens(value, sizes)
    outputs = []
    if line.shared:
        outputs.append(_attend(module, (beginning_query, beginning_key, beginning_value), None, options))
    for (rows, width), *tokens in zip(line.groups, queries, keys, values, strict=True):
        group_query, group_key, group_value = (part.unflatten(0, (rows, -1)).transpose(1, 2) for part in tokens)
        mask = None
        if line.shared:
            # SDPA's own causal flag aligns queries and keys at the first token, here they align at the last. Padding
            # needs no mask: it ends its row, so no real token looks at it.
            mask = torch.ones(width, line.shared + width, dtype=torch.bool).tril(line.shared)[None, None]
            group_key = torch.cat([beginning_key.expand(rows, -1, -1, -1), group_key], 2)
            group_value = torch.cat([beginning_value.expand(rows, -1, -1, -1), group_value], 2)
        outputs.append(_attend(module, (group_query, group_key, group_value), mask, options))
    joined = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return joined[None], None


def _split_tokens(states: Tensor, sizes: list[int]) -> tuple[Tensor, list[Tensor]]:
    """Cut (1, heads, T, size) along T: the shared beginning (1, heads, shared, size), and (tokens, heads, size) of each
    group.
    """
    # split, not slices: its backward is one copy, where each slice's would add to a table of all tokens.
    beginning, *groups = states[0].transpose(0, 1).split(sizes)
    return beginning.transpose(0, 1)[None], groups


def _attend(
    module: torch.nn.Module, states: tuple[Tensor, Tensor, Tensor], mask: Tensor | None, options: dict[str, Any]
) -> Tensor:
    """Attention of query, key and value, (rows, heads, width, size) each: (rows x width, heads, size)."""
    output, _ = sdpa_attention_forward(module, *states, mask, is_causal=mask is None, **options)
    return output.flatten(0, 1)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def packable(model: Any) -> bool:
    """Whether a model's rows can be laid in lines: a known family, full attention in every layer, by SDPA."""
    text = model.config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    full = layers == {"full_attention"} and getattr(text, "sliding_window", None) is None
    return text.model_type in FAMILIES and full and text._attn_implementation in ("sdpa", NAME)


def body_of(model: Any) -> tuple[Any, Any]:
    """A model without the PeftModel around it, and its body: the decoder without a head."""
    network = model.get_base_model() if isinstance(model, PeftModel) else model
    return network, getattr(network, network.base_model_prefix)


def read_line(body: Any, line: Line) -> Tensor:
    """The hidden states at the wanted tokens of a line, (W, size).

    Args:
        body: the decoder of a `packable` model.
        line: the rows.
    """
    if body.config._attn_implementation != NAME:
        body.set_attn_implementation(NAME)
    output = body(
        input_ids=line.input_ids,
        position_ids=line.position_ids,
        # transformers passes a mask of four dimensions on unchanged, and `packed_attention` ignores it: without one,
        # transformers would build a causal mask over the whole line.
        attention_mask=line.input_ids[None, None],
        line=line,
        use_cache=False,
    )
    return output.last_hidden_state[0].index_select(0, line.wanted)
