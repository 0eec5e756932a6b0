"""Rows of a wave that are being continued, one token a row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from debate_rl.engines.local.attention import attend, forward, merge, read
from debate_rl.engines.local.prefix import Node, Wave

APART = 256
"""Nodes of so many tokens are read in place; shorter ones are copied to each row.

Copies cost memory, and reading in place costs a call for each node and layer."""

Span = tuple[int, int]


class Rows:
    """Rows that are being continued: long nodes are read in place, the rest is copied to each row.

    Args:
        model: the model that encoded them.
        wave: its rows, encoded.
        logits: (rows, vocabulary) at the last token of each.
        room: tokens that may be added to each.
    """

    def __init__(self, model: Any, wave: Wave, logits: torch.Tensor, room: int) -> None:
        self._model = model
        self.logits = logits
        self._positions = torch.tensor([end.start + len(end.tokens) for end in wave.ends], device=logits.device)
        paths = [end.path for end in wave.ends]
        self._long = _in_place(paths)
        short = [[node for node in path if len(node.tokens) < APART] for path in paths]
        lengths = [sum(len(node.tokens) for node in own) for own in short]
        self._filled = max(lengths)
        self.width = self._filled + room
        self._bias = torch.zeros((len(paths), 1, 1, self.width), device=logits.device)
        for row, length in enumerate(lengths):
            self._bias[row, :, :, : self._filled - length] = -torch.inf
        self._own = _copied(short, lengths, self.width, paths[0][0])

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Add a token to each row.

        Args:
            tokens: (rows still going,).
            going: indexes of the rows that go on, among those of the step before; None is all.
        """
        if going is not None:
            self._select(going)
        self._filled += 1
        self.logits = forward(self._model, self, tokens, self._positions)
        self._positions = self._positions + 1

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Every row's new token sees the row's own tokens and the long nodes above it (see `attention.Layout`)."""
        heads, count, width = query.shape
        own = self._own[layer]
        own[0, :, :, self._filled - 1] = key.transpose(0, 1)
        own[1, :, :, self._filled - 1] = value.transpose(0, 1)
        keys, values = own[:, :, :, : self._filled]
        grouped = query.transpose(0, 1).reshape(count, key.size(0), -1, width)
        out, lse = attend(grouped, keys, values, scale, bias=self._bias[:, :, :, : self._filled])
        out, lse = out.reshape(count, heads, width).transpose(0, 1), lse.reshape(count, heads).transpose(0, 1)
        if self._long:
            out, lse = out.contiguous(), lse.contiguous()
        for node, (start, end) in self._long:
            above, of_above = node.kv[layer]
            merge(out[:, start:end], lse[:, start:end], *read(query[:, start:end], above, of_above, scale))
        return out

    def _select(self, going: torch.Tensor) -> None:
        """Keep some rows only."""
        self._own = self._own[:, :, going]
        self._bias, self._positions = self._bias[going], self._positions[going]
        kept = going.tolist()
        spans = [(node, (_before(kept, start), _before(kept, end))) for node, (start, end) in self._long]
        self._long = [(node, span) for node, span in spans if span[0] < span[1]]


def _before(kept: Sequence[int], row: int) -> int:
    """How many of the kept rows stand before a row."""
    return sum(index < row for index in kept)


def _in_place(paths: Sequence[Sequence[Node]]) -> list[tuple[Node, Span]]:
    """Long nodes with the rows below each; these stand together."""
    found: dict[Node, Span] = {}
    for row, path in enumerate(paths):
        for node in path:
            if len(node.tokens) >= APART:
                found[node] = (found.get(node, (row, row))[0], row + 1)
    return list(found.items())


def _copied(short: Sequence[Sequence[Node]], lengths: Sequence[int], width: int, sample: Node) -> torch.Tensor:
    """Keys and values of the rows' short nodes, padded on the left: (layers, 2, rows, heads, width, head width)."""
    assert sample.kv is not None
    layers, _, heads, _, head_width = sample.kv.shape
    found = sample.kv.new_zeros((layers, 2, len(short), heads, width, head_width))
    widest = max(lengths)
    for row, nodes in enumerate(short):
        at = widest - lengths[row]
        for node in nodes:
            assert node.kv is not None
            found[:, :, row, :, at : at + len(node.tokens)] = node.kv
            at += len(node.tokens)
    return found
