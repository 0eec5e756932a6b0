"""Encode the rows of a wave over a trie: the tokens of every node once, all nodes packed into one sequence.

The last layer computes attention only where logits are requested. From all other tokens later calls use the keys and
values alone, and those of the last layer do not depend on its attention.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from debate_rl.engines.local.attention import attend, forward, merge, read
from debate_rl.engines.local.prefix import Node, Row, Trie, Wave
from debate_rl.engines.local.windows import Piece, piece_bias, pieces_of

BLOCK = 256
"""Subtrees of up to this many tokens are one masked call: there a call costs more than the masked work in it."""
_STEP = 64
"""Blocks are padded to multiples of this, so that several of them share one call."""

Span = tuple[int, int]
"""First packed position, and the one after the last."""


class Packed:
    """The tokens of a wave to encode, packed into one sequence: a node's tokens, then those of its descendants.

    Args:
        nodes: nodes of the wave, in the order of `Wave.nodes`.
        fresh: the nodes to encode.
        rows: for each row its last node, and for how many of its last tokens logits are requested.
        model: the model that encodes them.
    """

    def __init__(
        self, nodes: Sequence[Node], fresh: Collection[Node], rows: Sequence[tuple[Node, int]], model: Any
    ) -> None:
        self.fresh = [node for node in nodes if node in fresh]
        self.spans: dict[Node, Span] = {}
        self.tokens = 0
        for node in self.fresh:
            end = self.tokens + len(node.tokens)
            self.spans[node] = (self.tokens, end)
            self.tokens = end
        below = _spans_below(nodes, self.spans)
        self._alone: list[Span] = []
        """Spans of nodes that attend to themselves in a call of their own."""
        blocks: list[Span] = []
        """Spans of small subtrees, each attended in one masked call."""
        heads = _block_heads(self.fresh, self.spans, below)
        # Nodes inside a block need no further call: its mask lets their descendants see them.
        masked = set(self.fresh) - set(heads)
        for head in heads:
            block = (self.spans[head][0], below[head][1])
            if block[1] - block[0] <= BLOCK:
                blocks.append(block)
                masked.add(head)
            else:
                self._alone.append(self.spans[head])
        self._blocks = [block.to(model.device) for block in _build_blocks(blocks, self.spans, below)]
        self._read_from_below: list[tuple[Node, Span]] = []
        """Nodes with the span of packed tokens below them, which see all their keys."""
        for node, (start, end) in below.items():
            if start < end and node not in masked:
                self._read_from_below.append((node, (start, end)))
        self.last = [_last_positions(self.spans, end, keep) for end, keep in rows]
        """For each row the packed positions of its last tokens, for which logits are requested."""
        requested: set[int] = set()
        for positions in self.last:
            requested.update(positions)
        self._requested = sorted(requested)
        self.logit_positions = torch.tensor(self._requested, device=model.device)
        """Packed positions of all requested logits, sorted."""
        self._layers = model.config.get_text_config().num_hidden_layers
        self._kv: dict[Node, torch.Tensor] = {}
        self._pieces: dict[int, list[Piece]] = {}
        """Pieces of the nodes for each width of a window."""
        self._longest = max(end.start + len(end.tokens) for end, _ in rows)

    def ids(self) -> list[int]:
        """Token ids, packed."""
        ids: list[int] = []
        for node in self.fresh:
            ids += node.tokens
        return ids

    def positions(self) -> list[int]:
        """Position of each packed token in its own row."""
        positions: list[int] = []
        for node in self.fresh:
            positions += range(node.start, node.start + len(node.tokens))
        return positions

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None = None,
    ) -> torch.Tensor:
        """Tokens see those before them in their node or block, then all nodes above (see `attention.Layout`)."""
        # A window that is wider than every row hides nothing.
        if window is not None and window < self._longest:
            return self._attend_within(window, layer, query, key, value, scale)
        out = torch.zeros_like(query)
        lse = torch.zeros(query.shape[:2], dtype=torch.float32, device=query.device)
        group = query.size(0) // key.size(0)
        wide_key = key.repeat_interleave(group, 0)
        wide_value = value.repeat_interleave(group, 0)
        for start, end in self._alone:
            where = self._attending((start, end), layer)
            if where is None:
                continue
            bias = None if isinstance(where, slice) else _causal_bias(where, (start, end))
            keys = wide_key[None, :, start:end]
            values = wide_value[None, :, start:end]
            part, part_lse = attend(query[None, :, where], keys, values, scale, causal=bias is None, bias=bias)
            out[:, where] = part[0]
            lse[:, where] = part_lse[0]
        for block in self._blocks:
            queries, keys, values = (x[:, block.positions].transpose(0, 1) for x in (query, wide_key, wide_value))
            part, part_lse = attend(queries, keys, values, scale, bias=block.bias)
            written = block.positions[block.real]
            out[:, written] = part.transpose(0, 1)[:, block.real]
            lse[:, written] = part_lse.transpose(0, 1)[:, block.real]
        # After the loops above, because a merge needs the log-sum-exp of what each token has seen so far.
        for node, span in self._read_from_below:
            where = self._attending(span, layer)
            if where is None:
                continue
            node_keys, node_values = self._keys_of(node, layer, key, value)
            part, part_lse = out[:, where], lse[:, where]
            merge(part, part_lse, *read(query[:, where], node_keys, node_values, scale))
            # A slice is a view that `merge` has changed in place; indexing by a tensor made copies.
            if not isinstance(where, slice):
                out[:, where] = part
                lse[:, where] = part_lse
        self._record(layer, key, value)
        return out

    def _attend_within(
        self, window: int, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Tokens see those in a window before them, piece by piece (see `windows`)."""
        out = torch.zeros_like(query)
        group = query.size(0) // key.size(0)
        if window not in self._pieces:
            self._pieces[window] = pieces_of(self.fresh, self.spans, window)
        for piece in self._pieces[window]:
            if self._attending(piece.where, layer) is None:
                continue
            start, end = piece.where
            seen_keys, seen_values = [], []
            for node, (low, high) in piece.sees:
                node_keys, node_values = self._keys_of(node, layer, key, value)
                seen_keys.append(node_keys[:, low:high])
                seen_values.append(node_values[:, low:high])
            keys = torch.cat(seen_keys, 1).repeat_interleave(group, 0)[None]
            values = torch.cat(seen_values, 1).repeat_interleave(group, 0)[None]
            bias = piece_bias(end - start, keys.size(2), window, query.device)
            out[:, start:end] = attend(query[None, :, start:end], keys, values, scale, bias=bias)[0][0]
        self._record(layer, key, value)
        return out

    def _attending(self, span: Span, layer: int) -> slice | torch.Tensor | None:
        """Positions of a span that attend in a layer: all; in the last layer those with logits, None without any."""
        start, end = span
        if layer < self._layers - 1:
            return slice(start, end)
        first = bisect_left(self._requested, start)
        last = bisect_left(self._requested, end)
        return self.logit_positions[first:last] if first < last else None

    def _keys_of(
        self, node: Node, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a node in a layer, from this pass or from memory."""
        if node in self.spans:
            start, end = self.spans[node]
            return key[:, start:end], value[:, start:end]
        assert node.kv is not None
        return node.kv[layer, 0], node.kv[layer, 1]

    def _record(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copy the keys and values of one layer out of the pass, node by node."""
        for node, (start, end) in self.spans.items():
            if node not in self._kv:
                self._kv[node] = key.new_empty((self._layers, 2, key.size(0), end - start, key.size(2)))
            self._kv[node][layer, 0] = key[:, start:end]
            self._kv[node][layer, 1] = value[:, start:end]

    def keep(self, trie: Trie) -> None:
        """Give every node its keys and values."""
        for node in self.fresh:
            trie.hold(node, self._kv[node])


def _spans_below(nodes: Sequence[Node], spans: dict[Node, Span]) -> dict[Node, Span]:
    """For each node the span of packed tokens below it, which may be empty."""
    below: dict[Node, Span] = {}
    open_nodes: list[tuple[Node, int]] = []
    position = 0

    def close_until(parent: Node | None) -> None:
        while open_nodes and open_nodes[-1][0] is not parent:
            node, start = open_nodes.pop()
            below[node] = (start, position)

    # Descendants stand right behind their node, so a node's span ends where the first node outside it begins.
    for node in nodes:
        close_until(node.parent)
        if node in spans:
            position = spans[node][1]
        open_nodes.append((node, position))
    close_until(None)
    return below


def _block_heads(fresh: Sequence[Node], spans: dict[Node, Span], below: dict[Node, Span]) -> list[Node]:
    """Nodes that open a block: with all nodes below them if these are at most `BLOCK` tokens, else alone."""
    heads = []
    covered = 0
    for node in fresh:
        start, end = spans[node]
        if start < covered:
            continue
        heads.append(node)
        subtree_end = below[node][1]
        covered = subtree_end if subtree_end - start <= BLOCK else end
    return heads


@dataclass(frozen=True)
class _Block:
    """Subtrees of a packed sequence that are attended in one call, padded to one length on the right."""

    positions: torch.Tensor
    """(subtrees, length): packed positions; 0 for padding."""
    real: torch.Tensor
    """(subtrees, length): False for padding."""
    bias: torch.Tensor
    """(subtrees, 1, length, length): 0 where a token sees another, else minus infinity."""

    def to(self, device: torch.device) -> _Block:
        """The block on a device."""
        return _Block(self.positions.to(device), self.real.to(device), self.bias.to(device))


def _build_blocks(subtrees: Sequence[Span], spans: dict[Node, Span], below: dict[Node, Span]) -> list[_Block]:
    """Batch subtrees of similar length; a token sees the tokens before it on its own path from the root."""
    by_length: dict[int, list[Span]] = {}
    for start, end in subtrees:
        padded = -(-(end - start) // _STEP) * _STEP
        by_length.setdefault(padded, []).append((start, end))
    nodes_of = _nodes_of_subtrees(subtrees, spans)
    blocks = []
    for length, batch in by_length.items():
        positions = torch.zeros((len(batch), length), dtype=torch.long)
        real = torch.zeros((len(batch), length), dtype=torch.bool)
        sees = torch.ones((len(batch), length, length), dtype=torch.bool).tril()
        for index, (start, end) in enumerate(batch):
            positions[index, : end - start] = torch.arange(start, end)
            real[index, : end - start] = True
            for node in nodes_of[start, end]:
                first, last = spans[node]
                after = below[node][1]
                # What stands behind a node's last descendant is on another branch, and must not see it.
                sees[index, after - start : end - start, first - start : last - start] = False
        bias = torch.zeros(sees.shape).masked_fill(~sees, -torch.inf)[:, None]
        blocks.append(_Block(positions, real, bias))
    return blocks


def _nodes_of_subtrees(subtrees: Sequence[Span], spans: dict[Node, Span]) -> dict[Span, list[Node]]:
    """The nodes inside each subtree; both come in packed order, so one pass finds them."""
    nodes_of: dict[Span, list[Node]] = {}
    remaining = iter(sorted(subtrees))
    subtree = next(remaining, None)
    for node, (start, _) in spans.items():
        while subtree is not None and start >= subtree[1]:
            subtree = next(remaining, None)
        if subtree is not None and start >= subtree[0]:
            nodes_of.setdefault(subtree, []).append(node)
    return nodes_of


def encode(model: Any, trie: Trie, rows: Sequence[Row], wave: Wave) -> tuple[list[torch.Tensor], int]:
    """Encode in one pass what the rows of a wave need and the trie does not hold.

    Args:
        model: a causal language model of transformers whose attention is `attention.NAME`.
        trie: keeps what is encoded.
        rows: all rows; the wave refers to them by index.
        wave: the rows to encode.

    Returns:
        For each row of the wave its logits (keep, vocabulary), and the number of encoded tokens.
    """
    ends: list[tuple[Node, int]] = []
    tails: set[Node] = set()
    for index, end in zip(wave.members, wave.ends, strict=True):
        row = rows[index]
        ends.append((end, row.keep))
        # Keys and values may be held, but logits are not: the last tokens of a row are encoded in any case.
        tails.update(node for node in end.path if node.start >= len(row.tokens) - row.keep)
    nodes = wave.nodes()
    fresh = {node for node in nodes if not node.held or node in tails}
    packed = Packed(nodes, fresh, ends, model)
    ids = torch.tensor(packed.ids(), device=model.device)
    positions = torch.tensor(packed.positions(), device=model.device)
    logits = forward(model, packed, ids, positions, packed.logit_positions)
    packed.keep(trie)
    index_of = {position: index for index, position in enumerate(packed.logit_positions.tolist())}
    row_logits = []
    for last in packed.last:
        row_logits.append(logits[[index_of[position] for position in last]])
    return row_logits, packed.tokens


def _causal_bias(positions: torch.Tensor, span: Span) -> torch.Tensor:
    """Bias with which some tokens of a span see themselves and those before them: (1, 1, positions, tokens)."""
    hidden = torch.arange(*span, device=positions.device) > positions[:, None]
    return torch.zeros(hidden.shape, device=positions.device).masked_fill(hidden, -torch.inf)[None, None]


def _last_positions(spans: dict[Node, Span], end: Node, keep: int) -> list[int]:
    """Packed positions of the last tokens of a row."""
    positions: list[int] = []
    for node in reversed(end.path):
        if len(positions) >= keep:
            break
        positions = [*range(*spans[node]), *positions]
    return positions[-keep:]
