"""Stories, and which of them are the same text: by id, by title, or by their words.

A story is published under several ids and in several spellings (Project Gutenberg's own, QuALITY's, that of a debate
platform), so a different id proves nothing. Two texts count as the same story if half of the shorter one's runs of
eight words stand in the other. Among the 96 stories of Michael et al. 2023 no two share more than 0.7 %.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from debate_rl.records import Record

RUN = 8
"""Words of a run."""
SAME = 0.5
"""Share of the shorter text's runs from which two texts are the same story (ours)."""

_WORD = re.compile(r"[^\W_]+")


class Story(Record):
    """A story that questions are asked about.

    Example:
        Story(id="51461", title="A Pail of Air", text="Pa had sent me out to get an extra pail of air. ...")
    """

    id: str
    title: str = ""
    text: str = ""


def words(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation.

    Example:
        >>> words("A Pail of Air!")
        ['a', 'pail', 'of', 'air']
    """
    return _WORD.findall(text.casefold())


def runs(text: str, length: int = RUN) -> frozenset[int]:
    """Checksums of all runs of `length` words; a shorter text is one run, an empty one has none."""
    # Checksums take a tenth of the memory of the words; a rare collision does not matter for shares.
    checksums = [zlib.crc32(word.encode()) for word in words(text)]
    if 0 < len(checksums) < length:
        return frozenset([hash(tuple(checksums))])
    return frozenset(map(hash, zip(*(checksums[start:] for start in range(length)), strict=False)))


def same_stories(stories: Iterable[Story], others: Iterable[Story]) -> dict[str, str]:
    """Find the stories that are also among the others.

    Returns:
        Id of each of these stories -> how it was recognised: `id`, `title`, or `text`.
    """
    known = list(others)
    known_ids = {story.id for story in known}
    known_titles = {_plain_title(story) for story in known} - {""}
    known_runs = [runs(story.text) for story in known]
    every_run = frozenset().union(*known_runs)
    recognised = {}
    for story in stories:
        if story.id in known_ids:
            recognised[story.id] = "id"
        elif _plain_title(story) in known_titles:
            recognised[story.id] = "title"
        else:
            text = runs(story.text)
            common = text & every_run  # few, unless the text is one of the others
            if any(len(common & other) >= max(1, SAME * min(len(text), len(other))) for other in known_runs):
                recognised[story.id] = "text"
    return recognised


def _plain_title(story: Story) -> str:
    """A title in small letters, without punctuation."""
    return " ".join(words(story.title))
