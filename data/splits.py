"""Seeded splits and samples. They do not depend on the order of a file, and a group (a story) is never cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from debate_rl.errors import UserError
from debate_rl.game.question import Question, Split
from debate_rl.records import digest

FRACTIONS: dict[Split, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""Shares of the splits, by story, for a source that comes without any (ours)."""


class Grouped(Protocol):
    """Anything that can be split: a question or an item of a task."""

    @property
    def id(self) -> str:
        """Name of the item."""
        ...

    @property
    def cluster(self) -> str:
        """Group that must not be cut: the story, otherwise the item itself."""
        ...


T = TypeVar("T", bound=Grouped)


def sample(items: Sequence[T], limit: int | None, seed: int = 0) -> list[T]:
    """Draw `limit` items and keep their order; a smaller draw is part of a larger one of the same seed."""
    if limit is None or limit >= len(items):
        return list(items)
    places = sorted(range(len(items)), key=lambda place: digest(["sample", seed, items[place].id]))
    return [items[place] for place in sorted(places[:limit])]


def divide(items: Sequence[T], fractions: Mapping[str, float], seed: int = 0) -> dict[str, list[T]]:
    """Split items by group into named parts; each part keeps the order of the items.

    Groups are put in a seeded order and cut where a part is full, so a part misses its share by less than a group.

    Example:
        >>> divide(questions, {"train": 0.8, "test": 0.2})
        {"train": [...], "test": [...]}

    Raises:
        UserError: the fractions are not positive or do not sum to 1, or a part with a share gets no group.
    """
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise UserError(f"fractions of a split must be positive and sum to 1, got {dict(fractions)}")
    sizes = Counter(item.cluster for item in items)
    part_of = _assign(sizes, fractions, seed)
    parts: dict[str, list[T]] = {name: [] for name in fractions}
    for item in items:
        parts[part_of[item.cluster]].append(item)
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise UserError(
            f"split part {empty[0]!r} is empty: {len(sizes)} groups for {len(fractions)} parts; use more data"
        )
    check_disjoint(parts)
    return parts


def parts(items: Sequence[T], fractions: Mapping[Split, float] = FRACTIONS) -> dict[str, Split]:
    """The split of each group, as `split_part` cuts; with few groups some splits have none."""
    sizes = Counter(item.cluster for item in items)
    split_named = {str(split): split for split in fractions}
    part_of = _assign(sizes, {str(split): share for split, share in fractions.items()}, 0)
    return {group: split_named[name] for group, name in part_of.items()}


def split_part(
    questions: Sequence[Question], split: Split, fractions: Mapping[Split, float] = FRACTIONS
) -> list[Question]:
    """Cut a source without splits of its own by story and return one split, the same in every run, whatever its seed.

    Raises:
        UserError: there are too few stories for the splits.
    """
    if not questions:
        return []
    part = divide(questions, {str(name): share for name, share in fractions.items()})[split]
    return [question.model_copy(update={"split": split}) for question in part]


def _assign(sizes: Mapping[str, int], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Choose the part of each group.

    Groups are laid end to end on a line in a seeded order; a group belongs to the part that its middle falls in.
    """
    names = list(fractions)
    shares = list(fractions.values())
    total = sum(sizes.values())
    ends = [sum(shares[: place + 1]) * total for place in range(len(names))]
    part_of: dict[str, str] = {}
    start = 0
    for group in sorted(sizes, key=lambda name: digest(["split", seed, name])):
        middle = start + sizes[group] / 2
        # The last part takes what a rounding error of the shares leaves over.
        part_of[group] = names[-1]
        for name, end in zip(names, ends, strict=True):
            if middle < end:
                part_of[group] = name
                break
        start += sizes[group]
    return part_of


def check_disjoint(parts: Mapping[str, Sequence[Grouped]]) -> None:
    """Check that no group stands in two parts.

    Raises:
        UserError: names a group and the two parts it is in.
    """
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for group in sorted({item.cluster for item in part}):
            if group in seen:
                raise UserError(f"group {group!r} is in both {seen[group]!r} and {name!r}; split by group (story)")
            seen[group] = name
