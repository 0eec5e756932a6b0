"""Memory of the local engine: encoded prefixes within a budget of tokens, and a count of the work done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from debate_rl.engines.local.decode import APART, Rows
from debate_rl.engines.local.encoding import encode
from debate_rl.engines.local.prefix import Node, Row, Trie, Wave, touch, waves
from debate_rl.engines.local.sampling import Alone, Continued


@dataclass
class Usage:
    """Work of an engine since it was created.

    Example:
        Usage(prompt_tokens=99214, encoded_tokens=8533, reused_tokens=8192, new_tokens=768, peak_tokens=9400,
              peak_bytes=57753600)
    """

    prompt_tokens: int = 0
    """Tokens of all prompts."""
    encoded_tokens: int = 0
    """Prompt tokens that the model read."""
    reused_tokens: int = 0
    """Distinct prompt tokens that an earlier call had encoded and memory still held."""
    new_tokens: int = 0
    """Tokens generated."""
    peak_tokens: int = 0
    """The most tokens whose keys and values were in memory at once, padding included."""
    peak_bytes: int = 0
    """The same in bytes."""


@dataclass
class Encoded:
    """A wave of encoded rows."""

    members: tuple[int, ...]
    """Indexes of the rows."""
    logits: list[torch.Tensor]
    """(keep, vocabulary) for each row."""
    continued: Continued | None
    """The rows ready for decoding; None if only logits were requested."""


class Memory:
    """Encodes rows in waves and keeps their keys and values for later calls.

    Args:
        batch_tokens: tokens in memory at once for a wave, with copies, padding and new tokens.
        cache_tokens: tokens kept besides these, from wave to wave and from call to call.
    """

    def __init__(self, batch_tokens: int, cache_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        self.cache_tokens = cache_tokens
        self.usage = Usage()
        self._trie = Trie()
        self._calls = 0

    def release(self, weights: str | None = None) -> None:
        """Free the keys and values of some weights; None frees everything."""
        if weights is None:
            self._trie = Trie()
        else:
            self._trie.forget(weights)

    def encoded(
        self, model: Any, shares: bool, weights: str, rows: Sequence[Row], extra: Sequence[int]
    ) -> Iterator[Encoded]:
        """Encode rows wave by wave; a wave is freed when the next one is requested.

        Args:
            model: a causal language model of transformers.
            shares: whether its rows may share keys and values; otherwise they are taken one at a time.
            weights: fingerprint of the weights, to which the keys and values belong.
            rows: what to encode.
            extra: tokens that will be added to each row; 0 if only its logits are used.
        """
        self.usage.prompt_tokens += sum(len(row.tokens) for row in rows)
        if not shares:
            for members in self._alike(rows, extra):
                row = rows[members[0]]
                alone = Alone(model, row, len(members))
                self.usage.encoded_tokens += len(row.tokens)
                yield Encoded(members, [alone.row_logits] * len(members), alone)
            return
        ends = [self._trie.add(weights, row) for row in rows]
        # After all rows are added: a later row may split the nodes of an earlier one.
        nodes: set[Node] = set()
        for end in ends:
            nodes.update(end.path)
        self.usage.reused_tokens += sum(len(node.tokens) for node in nodes if node.held)
        self._calls += 1
        touch(ends, self._calls)
        planned = list(waves(ends, extra, self.batch_tokens, APART))
        try:
            for number, wave in enumerate(planned):
                yield self._encode(model, rows, wave, extra)
                upcoming = planned[number + 1].nodes() if number + 1 < len(planned) else []
                self._trie.evict(self.cache_tokens, upcoming)
        finally:
            # Also if the caller stops early or the GPU runs out of memory: the next call must find room.
            self._trie.evict(self.cache_tokens)
            self._trie.prune()

    def _alike(self, rows: Sequence[Row], extra: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield the indexes of equal rows, as many together as fit into the budget."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(row.tokens, []).append(index)
        for tokens, indexes in groups.items():
            longest = len(tokens) + max(extra[index] for index in indexes)
            # Every row has a copy of the prompt's keys and values.
            size = max(1, self.batch_tokens // longest)
            for start in range(0, len(indexes), size):
                yield tuple(indexes[start : start + size])

    def _encode(self, model: Any, rows: Sequence[Row], wave: Wave, extra: Sequence[int]) -> Encoded:
        """Encode one wave, and prepare its rows for decoding if any will be continued."""
        logits, encoded_tokens = encode(model, self._trie, rows, wave)
        self.usage.encoded_tokens += encoded_tokens
        room = max(extra[index] for index in wave.members)
        continued: Rows | None = None
        copied = 0
        if room:
            # The last new token is drawn but never read, so it needs no room.
            continued = Rows(model, wave, torch.stack([row_logits[-1] for row_logits in logits]), room - 1)
            copied = continued.width * len(wave.members)
        tokens = self._trie.tokens + copied
        kv = wave.ends[0].kv
        bytes_per_token = kv[..., 0, :].numel() * kv.element_size()
        self.usage.peak_tokens = max(self.usage.peak_tokens, tokens)
        self.usage.peak_bytes = max(self.usage.peak_bytes, tokens * bytes_per_token)
        return Encoded(wave.members, logits, continued)
