"""Sends texts that begin alike to the same place, whose prefix cache holds their beginning already.

A text is known by the chained hashes of its blocks, as vLLM names its cached blocks. It goes where its longest known
beginning went before, if that is most of the text and the place is not far busier than the others; else to the least
busy place. Answers do not depend on the place, so this memory may be forgotten or wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK = 512
"""Characters of a block."""
LEAST = 0.5
"""Share of a text's blocks that a place must have met to be preferred."""
REMEMBERED = 200_000
"""Blocks that are remembered: some 20,000 stories."""


class Router:
    """Remembers where the beginnings of texts went.

    Args:
        places: how many places there are; they are numbered from 0.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._seen: OrderedDict[int, int] = OrderedDict()
        """Place by block, the longest unused block first."""

    def place(self, text: str, loads: Sequence[float], slack: float) -> int:
        """Choose the place for a text, and remember it.

        Args:
            text: the whole text, as the model reads it.
            loads: (places,) work that each place has to do already; infinity leaves a place out.
            slack: a known place is preferred while its load exceeds the smallest one by at most this.
        """
        blocks = _blocks(text)
        met = self._known_blocks(blocks)
        chosen = min(range(self.places), key=loads.__getitem__)
        if met and met >= LEAST * len(blocks):
            known = self._seen[blocks[met - 1]]
            if loads[known] <= loads[chosen] + slack:
                chosen = known
        for block in blocks:
            self._seen[block] = chosen
            self._seen.move_to_end(block)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return chosen

    def _known_blocks(self, blocks: Sequence[int]) -> int:
        """Length of the longest known beginning, in blocks."""
        for count in range(len(blocks), 0, -1):
            if blocks[count - 1] in self._seen:
                return count
        return 0


def _blocks(text: str) -> list[int]:
    """One hash for each block, of all text up to its end: equal hashes mean equal beginnings."""
    hashes = []
    before = 0
    for start in range(0, len(text), BLOCK):
        before = hash((before, text[start : start + BLOCK]))
        hashes.append(before)
    return hashes
