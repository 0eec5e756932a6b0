"""Encoding the rows of a wave over a trie: every node's tokens once, all nodes packed in one row.

The last layer attends only where logits are wanted: of all other tokens its keys and values alone are used again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from debate_rl.engines.local.attention import attend, forward, merge, read
from debate_rl.engines.local.prefix import Node, Row, Trie, Wave

BLOCK = 256
"""Subtrees of up to so many tokens are attended to in one masked call; there a call costs more than what it masks."""
_STEP = 64
"""Blocks are padded to multiples of this, so that several are one call."""

Span = tuple[int, int]


class Packed:
    """The tokens of a wave that are to be encoded, packed in one row: a node's tokens, then those of its descendants.

    Args:
        nodes: of the wave, in the order of `Wave.nodes`.
        fresh: those to encode.
        rows: the node with which each row ends, and how many of its last tokens' logits are wanted.
        model: what encodes them.
    """

    def __init__(
        self, nodes: Sequence[Node], fresh: Collection[Node], rows: Sequence[tuple[Node, int]], model: Any
    ) -> None:
        self.fresh = [node for node in nodes if node in fresh]
        self.spans: dict[Node, Span] = {}
        self.tokens = 0
        for node in self.fresh:
            self.spans[node] = (self.tokens, self.tokens + len(node.tokens))
            self.tokens += len(node.tokens)
        below = _below(nodes, self.spans)
        heads = _heads(self.fresh, self.spans, below)
        whole = {node: (self.spans[node][0], below[node][1]) for node in heads}
        small = {node: span for node, span in whole.items() if span[1] - span[0] <= BLOCK}
        self._alone = [self.spans[node] for node in heads if node not in small]
        self._blocks = [block.to(model.device) for block in _blocks(list(small.values()), self.spans, below)]
        masked = {node for node in self.fresh if node not in whole or node in small}
        self._read = [(node, span) for node, span in below.items() if span[0] < span[1] and node not in masked]
        self.last = [_last(self.spans, end, keep) for end, keep in rows]
        """Packed places of each row's wanted tokens."""
        self._places = sorted({place for own in self.last for place in own})
        self.wanted = torch.tensor(self._places, device=model.device)
        """Packed places of all of them, sorted."""
        self._layers = model.config.get_text_config().num_hidden_layers
        self._kv: dict[Node, torch.Tensor] = {}

    def ids(self) -> list[int]:
        """Token ids, packed."""
        return [token for node in self.fresh for token in node.tokens]

    def positions(self) -> list[int]:
        """Each token's place in its own row."""
        return [place for node in self.fresh for place in range(node.start, node.start + len(node.tokens))]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Tokens see those before them in their node or block, then all that stands above (see `attention.Layout`)."""
        group = query.size(0) // key.size(0)
        out = torch.zeros_like(query)
        lse = torch.zeros(query.shape[:2], dtype=torch.float32, device=query.device)
        parts = (query, key.repeat_interleave(group, 0), value.repeat_interleave(group, 0))
        for span in self._alone:
            at = self._queries(span, layer)
            if at is None:
                continue
            keys, values = (part[None, :, slice(*span)] for part in parts[1:])
            bias = None if isinstance(at, slice) else _causal(at, span)
            own, own_lse = attend(query[None, :, at], keys, values, scale, causal=bias is None, bias=bias)
            out[:, at], lse[:, at] = own[0], own_lse[0]
        for block in self._blocks:
            some, keys, values = (part[:, block.places].transpose(0, 1) for part in parts)
            own, own_lse = attend(some, keys, values, scale, bias=block.bias)
            written = block.places[block.real]
            out[:, written] = own.transpose(0, 1)[:, block.real]
            lse[:, written] = own_lse.transpose(0, 1)[:, block.real]
        for node, span in self._read:
            at = self._queries(span, layer)
            if at is None:
                continue
            some, some_lse = out[:, at], lse[:, at]
            merge(some, some_lse, *read(query[:, at], *self._of(node, layer, key, value), scale))
            if not isinstance(at, slice):  # copies then
                out[:, at], lse[:, at] = some, some_lse
        self._note(layer, key, value)
        return out

    def _queries(self, span: Span, layer: int) -> slice | torch.Tensor | None:
        """The places of a span that attend in a layer: all, in the last one those that are wanted, if there are any."""
        if layer < self._layers - 1:
            return slice(*span)
        inside = slice(*(bisect_left(self._places, place) for place in span))
        return self.wanted[inside] if inside.start < inside.stop else None

    def _of(self, node: Node, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a node in a layer, encoded now or before."""
        if node in self.spans:
            start, end = self.spans[node]
            return key[:, start:end], value[:, start:end]
        assert node.kv is not None
        return node.kv[layer, 0], node.kv[layer, 1]

    def _note(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copy each node's keys and values of one layer."""
        for node, (start, end) in self.spans.items():
            if node not in self._kv:
                self._kv[node] = key.new_empty((self._layers, 2, key.size(0), end - start, key.size(2)))
            self._kv[node][layer, 0] = key[:, start:end]
            self._kv[node][layer, 1] = value[:, start:end]

    def keep(self, trie: Trie) -> None:
        """Hand each node what was encoded."""
        for node in self.fresh:
            trie.hold(node, self._kv[node])


def _below(nodes: Sequence[Node], spans: dict[Node, Span]) -> dict[Node, Span]:
    """For each node the span of packed tokens below it, which may be empty."""
    found: dict[Node, Span] = {}
    open_: list[tuple[Node, int]] = []
    at = 0

    def close(until: Node | None) -> None:
        while open_ and open_[-1][0] is not until:
            node, start = open_.pop()
            found[node] = (start, at)

    for node in nodes:
        close(node.parent)
        at = spans[node][1] if node in spans else at
        open_.append((node, at))
    close(None)
    return found


def _heads(fresh: Sequence[Node], spans: dict[Node, Span], below: dict[Node, Span]) -> list[Node]:
    """Nodes that open a block, with all that is below them if that is at most `BLOCK` tokens, else alone."""
    heads = []
    covered = 0
    for node in fresh:
        start, own_end = spans[node]
        if start >= covered:
            heads.append(node)
            covered = below[node][1] if below[node][1] - start <= BLOCK else own_end
    return heads


@dataclass(frozen=True)
class _Block:
    """Pieces of a packed row that are attended to in one call, padded to one length on the right."""

    places: torch.Tensor
    """(pieces, length): packed places; 0 where it is padding."""
    real: torch.Tensor
    """(pieces, length): whether it is not."""
    bias: torch.Tensor
    """(pieces, 1, length, length): 0 where a token sees another, else minus infinity."""

    def to(self, device: torch.device) -> _Block:
        """The block on a device."""
        return _Block(self.places.to(device), self.real.to(device), self.bias.to(device))


def _blocks(pieces: Sequence[Span], spans: dict[Node, Span], below: dict[Node, Span]) -> list[_Block]:
    """Pieces of about one length are one block; a token sees those before it on its own way from the root."""
    sizes: dict[int, list[Span]] = {}
    for start, end in pieces:
        sizes.setdefault(-(-(end - start) // _STEP) * _STEP, []).append((start, end))
    hidden: dict[Span, list[tuple[Span, int]]] = {}
    inside = iter(sorted(pieces))
    piece = next(inside, None)
    for node, span in spans.items():
        while piece is not None and span[0] >= piece[1]:
            piece = next(inside, None)
        if piece is not None and span[0] >= piece[0]:
            hidden.setdefault(piece, []).append((span, below[node][1]))
    blocks = []
    for size, some in sizes.items():
        places = torch.zeros((len(some), size), dtype=torch.long)
        real = torch.zeros((len(some), size), dtype=torch.bool)
        sees = torch.ones((len(some), size, size), dtype=torch.bool).tril()
        for at, (start, end) in enumerate(some):
            places[at, : end - start] = torch.arange(start, end)
            real[at, : end - start] = True
            for (first, last), until in hidden[(start, end)]:
                sees[at, until - start : end - start, first - start : last - start] = False
        blocks.append(_Block(places, real, torch.zeros(sees.shape).masked_fill(~sees, -torch.inf)[:, None]))
    return blocks


def encode(model: Any, trie: Trie, rows: Sequence[Row], wave: Wave) -> tuple[list[torch.Tensor], int]:
    """Encode what the rows of a wave need and no one has encoded yet, in one pass.

    The last tokens of a row are encoded in any case, since their logits are wanted.

    Args:
        model: a causal language model of transformers whose attention is `attention.NAME`.
        trie: keeps what is encoded.
        rows: all rows; the wave names its own by index.
        wave: the rows to encode.

    Returns:
        For each row of the wave its logits (keep, vocabulary), and how many tokens were encoded.
    """
    tails = {
        node
        for index, end in zip(wave.members, wave.ends, strict=True)
        for node in end.path
        if node.start >= len(rows[index].tokens) - rows[index].keep
    }
    nodes = wave.nodes()
    ends = [(end, rows[index].keep) for index, end in zip(wave.members, wave.ends, strict=True)]
    packed = Packed(nodes, {node for node in nodes if not node.held or node in tails}, ends, model)
    device = model.device
    logits = forward(
        model, packed, torch.tensor(packed.ids(), device=device), torch.tensor(packed.positions(), device=device),
        packed.wanted,
    )  # fmt: skip
    packed.keep(trie)
    row_of = {place: at for at, place in enumerate(packed.wanted.tolist())}
    return [logits[[row_of[place] for place in own]] for own in packed.last], packed.tokens


def _causal(places: torch.Tensor, span: Span) -> torch.Tensor:
    """Bias with which some tokens of a span see those before them and themselves: (1, 1, places, tokens)."""
    hidden = torch.arange(*span, device=places.device) > places[:, None]
    return torch.zeros(hidden.shape, device=places.device).masked_fill(hidden, -torch.inf)[None, None]


def _last(spans: dict[Node, Span], end: Node, keep: int) -> list[int]:
    """Packed places of the last tokens of a row."""
    places: list[int] = []
    for node in end.path[::-1]:
        if len(places) >= keep:
            break
        start, stop = spans[node]
        places = [*range(start, stop), *places]
    return places[-keep:]
