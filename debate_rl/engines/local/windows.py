"""Attention of layers that see only the last tokens of a row (sliding windows: Mistral, Gemma 3).

A token at position p sees the positions p - window + 1 to p. These may lie in several nodes of the trie, so the keys of
one piece of a node are collected from the nodes above it: at most a window and the piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from debate_rl.engines.local.prefix import Node

PIECE = 256
"""Tokens of a node that attend in one call. A longer piece needs fewer calls and does more masked work."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of a node, with the tokens that any of them sees."""

    where: Span
    """Their packed positions."""
    sees: tuple[tuple[Node, Span], ...]
    """Nodes from above down to their own, each with the span of its tokens that is seen."""


def pieces_of(nodes: Sequence[Node], spans: Mapping[Node, Span], window: int) -> list[Piece]:
    """Cut nodes into pieces.

    Args:
        nodes: nodes that are being encoded.
        spans: packed positions of each of them.
        window: positions that a token sees, its own included.
    """
    pieces = []
    for node in nodes:
        path = node.path
        start = spans[node][0]
        for offset in range(0, len(node.tokens), PIECE):
            end = min(offset + PIECE, len(node.tokens))
            # Positions in the row: from the first that the piece's first token sees, to its last token.
            first_seen = node.start + offset - window + 1
            sees = []
            for above in path:
                low = max(0, first_seen - above.start)
                high = end if above is node else len(above.tokens)
                if low < high:
                    sees.append((above, (low, high)))
            pieces.append(Piece((start + offset, start + end), tuple(sees)))
    return pieces


@lru_cache(maxsize=64)
def piece_bias(queries: int, keys: int, window: int, device: torch.device) -> torch.Tensor:
    """Bias for the last tokens of a row of keys, of which each sees itself and those before it within the window.

    Returns:
        (1, 1, queries, keys): 0 where a token sees a key, else minus infinity. Pieces of one shape share it.
    """
    key_positions = torch.arange(keys, device=device)
    query_positions = key_positions[keys - queries :, None]
    hidden = (key_positions > query_positions) | (key_positions <= query_positions - window)
    return torch.zeros(hidden.shape, device=device).masked_fill(hidden, -torch.inf)[None, None]


@dataclass(frozen=True)
class Reading:
    """Part of a long node that the new tokens of some rows read in a step of decoding."""

    node: Node
    rows: Span
    keys: Span
    """Tokens of the node that any of these rows sees."""
    bias: torch.Tensor | None
    """(rows, keys): hidden keys have a huge negative number; None where every row sees all of them."""


def readings(
    long_nodes: Sequence[tuple[Node, Span]], positions: Sequence[int], window: int, hidden: float, device: torch.device
) -> list[Reading]:
    """What the new tokens of rows see of the long nodes above them.

    Args:
        long_nodes: nodes, each with the span of rows below it.
        positions: position of each row's new token.
        window: positions that a token sees, its own included.
        hidden: bias of a hidden key. Finite, since a row that sees no key at all would have no softmax; its part then
            has no weight when the parts are merged.
        device: where the biases are needed.
    """
    readings = []
    for node, (start, end) in long_nodes:
        # For each row the first token of the node that it still sees.
        firsts = [max(0, position - window + 1 - node.start) for position in positions[start:end]]
        low, high = min(firsts), len(node.tokens)
        if low >= high:
            continue
        bias: torch.Tensor | None = None
        if max(firsts) > low:
            first_seen = torch.tensor(firsts, device=device)[:, None]
            is_hidden = torch.arange(low, high, device=device) < first_seen
            bias = torch.zeros(is_hidden.shape, device=device).masked_fill(is_hidden, hidden)
        readings.append(Reading(node, (start, end), (low, high), bias))
    return readings
