"""Shorten passages to a number of tokens: whole paragraphs give way to a mark, never those that a game quotes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from random import Random

MARK = "[...]"
"""Stands where text was left out."""
PARAGRAPH = re.compile(r"\S.*?(?=\s*\n\s*\n|\s*\Z)", re.DOTALL)


def shorten(
    passage: str, quoted: Sequence[tuple[int, int]], limit: int, count: Callable[[str], int], seed: str = ""
) -> str:
    """Leave out paragraphs, drawn by seed, until a passage is short enough; `[...]` marks each gap.

    The draw does not look at where the quotes stand, except that their paragraphs stay: a passage cut round them would
    tell a speaker what to quote.

    Args:
        passage: the text, with a blank line between paragraphs.
        quoted: spans of characters whose paragraphs stay.
        limit: most tokens, marks and blank lines included. If the quoted paragraphs alone are longer, only they are
            left.
        count: counts the tokens of a text.
        seed: seed of the draw.

    Example:
        >>> shorten("One.\\n\\nTwo.\\n\\nThree.", [(0, 4)], 3, lambda text: len(text.split()), "q1")
        'One.\\n\\n[...]\\n\\nThree.'
    """
    if count(passage) <= limit:
        return passage
    spans = [match.span() for match in PARAGRAPH.finditer(passage)]
    sizes = [count(passage[start:end]) for start, end in spans]
    removable = [place for place, span in enumerate(spans) if not _overlaps(span, quoted)]
    Random(f"shorten/{seed}").shuffle(removable)
    mark_size = count(MARK)
    stays = [True] * len(spans)
    for place in removable:
        if sum(stays) == 1:
            break  # an empty passage would be no passage
        stays[place] = False
        size = sum(itertools.compress(sizes, stays))
        gaps = sum(not stay for stay, _ in itertools.groupby(stays))
        # The sum is quick, but has no blank lines in it: a passage that passes is counted as it will stand.
        if size + gaps * mark_size <= limit and count(_joined(passage, spans, stays)) <= limit:
            break
    return _joined(passage, spans, stays)


def _overlaps(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    """Whether a span of characters overlaps any of the others."""
    start, end = span
    return any(start < other_end and other_start < end for other_start, other_end in others)


def _joined(passage: str, spans: Sequence[tuple[int, int]], stays: Sequence[bool]) -> str:
    """Join the paragraphs that stay, with a mark in each gap."""
    pieces: list[str] = []
    for (start, end), stay in zip(spans, stays, strict=True):
        if stay:
            pieces.append(passage[start:end])
        elif not pieces or pieces[-1] != MARK:
            pieces.append(MARK)
    return "\n\n".join(pieces)
