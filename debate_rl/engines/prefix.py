"""Who shares what: rows of tokens grouped so that each group's common beginning is encoded once.

Rows are sorted, so those that begin alike stand together; a group is a run of neighbours that share at least half of
the shorter row. Groups are dealt into waves by a token budget, longest first, so that little is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Token ids to encode, of which the logits at the last `keep` positions are wanted.

    Example:
        Row(tokens=(1, 17, 42, 9), keep=1)
    """

    tokens: tuple[int, ...]
    keep: int


@dataclass(frozen=True)
class Group:
    """Rows (by index) that share their first `shared` tokens; every row has at least `keep` tokens after these.

    Example:
        Group(shared=117, members=(4, 5))
    """

    shared: int
    members: tuple[int, ...]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens that two rows share."""
    length = min(len(a), len(b))
    low, high = 0, length
    while low < high:  # slices compare in C, so bisecting beats a loop over thousands of tokens
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def groups(rows: Sequence[Row]) -> list[Group]:
    """Group rows that begin alike.

    Raises:
        ValueError: a row is too short to leave one shared token before those whose logits are wanted.
    """
    if any(len(row.tokens) <= row.keep for row in rows):
        raise ValueError("every row needs at least one token before the ones that are scored")
    order = sorted(range(len(rows)), key=lambda index: rows[index].tokens)
    runs: list[list[int]] = []
    for index in order:
        row = rows[index].tokens
        if runs:
            last = rows[runs[-1][-1]].tokens
            if 2 * common(last, row) >= min(len(last), len(row)):
                runs[-1].append(index)
                continue
        runs.append([index])
    return [_group(rows, run) for run in runs]


def _group(rows: Sequence[Row], members: list[int]) -> Group:
    """The group of some neighbours: what its first and last share, all share, since they are sorted."""
    shared = common(rows[members[0]].tokens, rows[members[-1]].tokens)
    shared = min(shared, *(len(rows[index].tokens) - rows[index].keep for index in members))
    return Group(max(shared, 1), tuple(members))


def waves(rows: Sequence[Row], extra: Sequence[int], budget: int) -> Iterator[list[Group]]:
    """Deal groups into waves whose padded size stays within a budget.

    Args:
        rows: what to encode.
        extra: tokens that will be added to each row (generation).
        budget: tokens in memory at once, padding and additions included; a wave holds at least one row.
    """
    pieces = sorted(groups(rows), key=lambda group: -len(rows[group.members[0]].tokens))
    wave: list[Group] = []
    shared, rest, count = 0, 0, 0
    for group in pieces:
        for index in group.members:
            shared_now = max(shared, group.shared)
            rest_now = max(rest, len(rows[index].tokens) - group.shared + extra[index])
            if wave and (count + 1) * (shared_now + rest_now) > budget:
                yield wave
                wave, count = [], 0
                shared_now, rest_now = group.shared, len(rows[index].tokens) - group.shared + extra[index]
            if wave and wave[-1].members[0] in group.members:
                wave[-1] = Group(group.shared, (*wave[-1].members, index))
            else:
                wave.append(Group(group.shared, (index,)))
            shared, rest, count = shared_now, rest_now, count + 1
    if wave:
        yield wave
