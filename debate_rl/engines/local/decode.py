"""Decode loop: one new token per active sequence and step, over keys and values that sequences share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from debate_rl.engines.local.attention import attend, forward, merge, read
from debate_rl.engines.local.prefix import Node, Wave
from debate_rl.engines.local.windows import Reading, readings

APART = 256
"""Nodes from this many tokens up are read where they are; shorter ones are copied to each row.

Copies cost memory; reading a node in place costs one call per layer."""

Span = tuple[int, int]


class Rows:
    """Rows under continuation: long nodes are read in place, the rest is copied to each row.

    Args:
        model: the model that encoded the rows.
        wave: the encoded rows.
        logits: (rows, vocabulary) at the last token of each row.
        room: tokens that may be added to each row.
    """

    def __init__(self, model: Any, wave: Wave, logits: torch.Tensor, room: int) -> None:
        self._model = model
        self.logits = logits
        self._next = [end.start + len(end.tokens) for end in wave.ends]
        """Position of each row's new token."""
        paths = [end.path for end in wave.ends]
        self._long = _long_nodes(paths)
        short: list[list[Node]] = []
        lengths: list[int] = []
        for path in paths:
            nodes = [node for node in path if len(node.tokens) < APART]
            short.append(nodes)
            lengths.append(sum(len(node.tokens) for node in nodes))
        self._filled = max(lengths)
        self.width = self._filled + room
        # Rows are padded on the left, so that the new tokens of all rows stand in one column; the bias hides the pads.
        self._bias = torch.zeros((len(paths), 1, 1, self.width), device=logits.device)
        # Position in its row of the token in each column, by which windows are measured.
        columns = torch.zeros((len(paths), self.width), dtype=torch.long)
        for row, length in enumerate(lengths):
            self._bias[row, :, :, : self._filled - length] = -torch.inf
            positions: list[int] = []
            for node in short[row]:
                positions += range(node.start, node.start + len(node.tokens))
            positions += range(self._next[row], self._next[row] + room)
            columns[row, self._filled - length :] = torch.tensor(positions, dtype=torch.long)
        self._columns = columns.to(logits.device)
        self._within: dict[int, tuple[torch.Tensor, list[Reading]]] = {}
        """What the step's tokens see in layers with a window: bias of the copies, and parts of the long nodes."""
        self._copies = _copy_nodes(short, lengths, self.width, paths[0][0])

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Add one token to each row.

        Args:
            tokens: (rows that go on,).
            going: indexes of the rows that go on, among those of the step before; None is all.
        """
        if going is not None:
            self._select(going)
        self._filled += 1
        self._within.clear()
        self.logits = forward(self._model, self, tokens, torch.tensor(self._next, device=tokens.device))
        self._next = [position + 1 for position in self._next]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None = None,
    ) -> torch.Tensor:
        """Each row's new token sees the row's copies and the long nodes above it (see `attention.Layout`)."""
        heads, count, width = query.shape
        copies = self._copies[layer]
        copies[0, :, :, self._filled - 1] = key.transpose(0, 1)
        copies[1, :, :, self._filled - 1] = value.transpose(0, 1)
        keys, values = copies[:, :, :, : self._filled]
        # Query heads that share a key-value head are one block of queries: (rows, key-value heads, group, width).
        grouped = query.transpose(0, 1).reshape(count, key.size(0), -1, width)
        bias, long_nodes = self._seen(window, query)
        out, lse = attend(grouped, keys, values, scale, bias=bias)
        out = out.reshape(count, heads, width).transpose(0, 1)
        lse = lse.reshape(count, heads).transpose(0, 1)
        # The outputs are rearranged views; `merge` changes them in place.
        if long_nodes:
            out = out.contiguous()
            lse = lse.contiguous()
        for part in long_nodes:
            (start, end), (low, high) = part.rows, part.keys
            node_keys, node_values = part.node.kv[layer][:, :, low:high]
            more, more_lse = read(query[:, start:end], node_keys, node_values, scale, part.bias)
            merge(out[:, start:end], lse[:, start:end], more, more_lse)
        return out

    def _seen(self, window: int | None, query: torch.Tensor) -> tuple[torch.Tensor, list[Reading]]:
        """Bias of the copies, and the parts of the long nodes that are read."""
        if window is None or max(self._next) < window:
            window = 1 << 62
        if window not in self._within:
            bias = self._bias[:, :, :, : self._filled]
            if max(self._next) >= window:
                next_positions = torch.tensor(self._next, device=query.device)[:, None]
                is_hidden = self._columns[:, : self._filled] <= next_positions - window
                bias = bias.masked_fill(is_hidden[:, None, None], -torch.inf)
            hidden = torch.finfo(query.dtype).min / 2
            self._within[window] = bias, readings(self._long, self._next, window, hidden, query.device)
        return self._within[window]

    def _select(self, going: torch.Tensor) -> None:
        """Drop the rows that have ended."""
        self._copies = self._copies[:, :, going]
        self._bias = self._bias[going]
        self._columns = self._columns[going]
        rows = going.tolist()
        self._next = [self._next[row] for row in rows]
        remaining: list[tuple[Node, Span]] = []
        for node, (start, end) in self._long:
            span = (_rows_before(rows, start), _rows_before(rows, end))
            if span[0] < span[1]:
                remaining.append((node, span))
        self._long = remaining


def _rows_before(rows: Sequence[int], limit: int) -> int:
    """Number of remaining rows whose index is below a limit."""
    return sum(row < limit for row in rows)


def _long_nodes(paths: Sequence[Sequence[Node]]) -> list[tuple[Node, Span]]:
    """Nodes that are read in place, each with the span of rows below it."""
    spans: dict[Node, Span] = {}
    for row, path in enumerate(paths):
        for node in path:
            if len(node.tokens) >= APART:
                # The rows of a wave are in the order of a walk, so the rows below one node are neighbours.
                first, _ = spans.get(node, (row, row))
                spans[node] = (first, row + 1)
    return list(spans.items())


def _copy_nodes(short: Sequence[Sequence[Node]], lengths: Sequence[int], width: int, sample: Node) -> torch.Tensor:
    """Copy the keys and values of each row's short nodes, padded on the left.

    Args:
        short: nodes of each row.
        lengths: tokens of each row's nodes.
        width: tokens that fit into a row.
        sample: any encoded node, for shape, dtype and device.

    Returns:
        (layers, 2, rows, key-value heads, width, head width).
    """
    assert sample.kv is not None
    layers, _, heads, _, head_width = sample.kv.shape
    copies = sample.kv.new_zeros((layers, 2, len(short), heads, width, head_width))
    longest = max(lengths)
    for row, nodes in enumerate(short):
        start = longest - lengths[row]
        for node in nodes:
            assert node.kv is not None
            end = start + len(node.tokens)
            copies[:, :, row, :, start:end] = node.kv
            start = end
    return copies
