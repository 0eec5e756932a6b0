"""What the transformers engine holds in memory: encoded prefixes within a budget of tokens, and a count of its work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from debate_rl.engines.local.decode import APART, Rows
from debate_rl.engines.local.encoding import encode
from debate_rl.engines.local.prefix import Row, Trie, Wave, touch, waves
from debate_rl.engines.local.sampling import Alone, Continued


@dataclass
class Usage:
    """What an engine has done since it was made.

    Example:
        Usage(prompt_tokens=99214, encoded_tokens=8533, reused_tokens=8192, new_tokens=768, peak_tokens=9400,
              peak_bytes=57753600)
    """

    prompt_tokens: int = 0
    """Tokens of all prompts asked for."""
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
    """Rows after their encoding.

    Shapes: logits hold (keep, vocabulary) of each row.
    """

    members: tuple[int, ...]
    """Indexes of the rows."""
    logits: list[torch.Tensor]
    continued: Continued | None
    """The rows, ready to be continued, where that was asked for."""


class Memory:
    """Encodes rows in waves and keeps what was encoded for later calls.

    Args:
        batch_tokens: tokens in memory at once for a wave, with copies, padding and new tokens.
        cache_tokens: tokens kept beside these, from wave to wave and from call to call.
    """

    def __init__(self, batch_tokens: int, cache_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        self.cache_tokens = cache_tokens
        self.usage = Usage()
        self._trie = Trie()
        self._calls = 0

    def release(self, weights: str | None = None) -> None:
        """Let go of what is kept of some weights; None is everything."""
        if weights is None:
            self._trie = Trie()
        else:
            self._trie.forget(weights)

    def encoded(
        self, model: Any, shares: bool, weights: str, rows: Sequence[Row], extra: Sequence[int]
    ) -> Iterator[Encoded]:
        """Encode rows wave by wave; a wave is let go of when the next one is asked for.

        Args:
            model: a causal language model of transformers.
            shares: whether its rows may share what is encoded; otherwise they are taken one at a time.
            weights: name of the weights, of which the keys and values are.
            rows: what to encode.
            extra: tokens that will be added to each; 0 where only logits are wanted.
        """
        self.usage.prompt_tokens += sum(len(row.tokens) for row in rows)
        if not shares:
            for index, row in enumerate(rows):
                alone = Alone(model, row)
                self.usage.encoded_tokens += len(row.tokens)
                yield Encoded((index,), [alone.logits], alone)
            return
        ends = [self._trie.add(weights, row) for row in rows]
        nodes = {node for end in ends for node in end.path}
        self.usage.reused_tokens += sum(len(node.tokens) for node in nodes if node.held)
        self._calls += 1
        touch(ends, self._calls)
        dealt = list(waves(ends, extra, self.batch_tokens, APART))
        try:
            for number, wave in enumerate(dealt, 1):
                yield self._encode(model, rows, wave, extra)
                needed = [node for later in dealt[number : number + 1] for node in later.nodes()]
                self._trie.evict(self.cache_tokens, needed)
        finally:
            self._trie.evict(self.cache_tokens)
            self._trie.prune()

    def _encode(self, model: Any, rows: Sequence[Row], wave: Wave, extra: Sequence[int]) -> Encoded:
        """Encode one wave, and make its rows ready where they will be continued."""
        logits, tokens = encode(model, self._trie, rows, wave)
        self.usage.encoded_tokens += tokens
        room = max(extra[index] for index in wave.members)
        continued = Rows(model, wave, torch.stack([own[-1] for own in logits]), room - 1) if room else None
        self._count(wave, 0 if continued is None else continued.width * len(wave.members))
        return Encoded(wave.members, logits, continued)

    def _count(self, wave: Wave, copied: int) -> None:
        """Note how much is in memory now."""
        tokens = self._trie.tokens + copied
        kv = wave.ends[0].kv
        size = kv[..., 0, :].numel() * kv.element_size()
        self.usage.peak_tokens = max(self.usage.peak_tokens, tokens)
        self.usage.peak_bytes = max(self.usage.peak_bytes, tokens * size)
