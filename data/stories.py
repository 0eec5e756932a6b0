"""Stories, and which of them are the same text: by id, by title, or by what is written in them.

A story is published under several ids and in several spellings (Project Gutenberg's own, QuALITY's, that of a debate
platform), so an id that differs proves nothing. Two texts count as the same story where half of the shorter one's runs
of eight words stand in the other. Among the 96 stories of Michael et al. 2023 no two share more than 0.7 %.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

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
    """Check sums of every run of so many words; of a shorter text that of the whole, of an empty one none."""
    found = words(text)
    starts = range(max(1, len(found) - length + 1)) if found else ()
    return frozenset(zlib.crc32(" ".join(found[start : start + length]).encode()) for start in starts)


def same_stories(stories: Iterable[Story], others: Iterable[Story]) -> dict[str, str]:
    """Which stories are also among the others.

    Returns:
        Id of each such story -> how it is known: `id`, `title`, or `text`.
    """
    known = list(others)
    ids, titles = {story.id for story in known}, {" ".join(words(story.title)) for story in known} - {""}
    texts = [runs(story.text) for story in known]
    holders: dict[int, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        for run in text:
            holders[run].append(place)
    found = {}
    for story in stories:
        if story.id in ids:
            found[story.id] = "id"
        elif " ".join(words(story.title)) in titles:
            found[story.id] = "title"
        elif _shared(runs(story.text), texts, holders) >= SAME:
            found[story.id] = "text"
    return found


def _shared(text: frozenset[int], texts: list[frozenset[int]], holders: Mapping[int, list[int]]) -> float:
    """The largest share of runs that a text has in common with one of the others."""
    counts = Counter(place for run in text for place in holders.get(run, ()))
    return max((count / min(len(text), len(texts[place])) for place, count in counts.items()), default=0.0)
