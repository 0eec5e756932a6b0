"""Who answers what: texts that begin alike go to the same place, where their beginning is kept already.

A text is known by the chained hashes of its blocks, as vLLM names its cached blocks. It goes where the longest
beginning of it went before, if that is most of it and the place is not far busier than the others; else to the least
busy one. Answers do not depend on where they are made, so this may be forgotten or wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK = 512
"""Characters of a block."""
LEAST = 0.5
"""Share of a text's blocks that a place must have met to be preferred."""
REMEMBERED = 200_000
"""Blocks: some 20,000 stories."""


class Router:
    """Remembers where the beginnings of texts went.

    Args:
        places: how many there are, from 0.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._seen: OrderedDict[int, int] = OrderedDict()

    def place(self, text: str, loads: Sequence[float], slack: float) -> int:
        """Choose where a text goes, and remember it.

        Args:
            text: whole, as the model reads it.
            loads: (places,) what each has to do already; infinity leaves a place out.
            slack: a place is preferred while it has at most so much more to do than the least busy one.
        """
        blocks = _blocks(text)
        met = next((at for at in range(len(blocks), 0, -1) if blocks[at - 1] in self._seen), 0)
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


def _blocks(text: str) -> list[int]:
    """A hash for each block, of all that stands up to its end."""
    found, before = [], 0
    for start in range(0, len(text), BLOCK):
        before = hash((before, text[start : start + BLOCK]))
        found.append(before)
    return found
