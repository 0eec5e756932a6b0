"""Where the names of a plot's dots stand: beside their dot, and not on one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

HEIGHT = 13.0
"""Of a line of text."""
ASIDE = 8.0
"""Between a dot and its name."""
RADIUS = 5.0
"""Of a dot."""
SHIFTS = (-7.0, 17.0, -22.0, 32.0, -37.0, 47.0)
"""Of a name's line from its dot, downwards, as tried: the nearest place that is free is taken."""


class Named(NamedTuple):
    """Where a name stands."""

    x: float
    y: float
    left: bool
    """Whether it ends at x, at the left of its dot, else it begins there."""
    far: bool
    """Whether a line should lead to it."""


class _Box(NamedTuple):
    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        """Whether two boxes overlap."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


def place_names(dots: Sequence[tuple[float, float]], widths: Sequence[float], room: tuple[float, float]) -> list[Named]:
    """A place for each dot's name, the first dots first.

    Args:
        dots: (n,) x and y of each.
        widths: (n,) of the names.
        room: width and height in which names may stand.

    Returns:
        (n,) places. Where none is free a name stands at its first.
    """
    taken = [_Box(x - RADIUS, x + RADIUS, y - RADIUS, y + RADIUS) for x, y in dots]
    found = []
    for number, ((x, y), width) in enumerate(zip(dots, widths, strict=True)):
        others = [box for place, box in enumerate(taken) if place != number]
        tries = (_named(x, y, shift, left) for shift in SHIFTS for left in (False, True))
        free = (one for one in tries if _fits(_box(one, width), room, others))
        best = next(free, _named(x, y, SHIFTS[0], x + ASIDE + width > room[0]))
        taken.append(_box(best, width))
        found.append(best)
    return found


def _named(x: float, y: float, shift: float, left: bool) -> Named:
    return Named(x - ASIDE if left else x + ASIDE, y + shift, left, abs(shift) > 2 * HEIGHT - ASIDE)


def _box(name: Named, width: float) -> _Box:
    start = name.x - width if name.left else name.x
    return _Box(start, start + width, name.y - HEIGHT + 3, name.y + 3)


def _fits(box: _Box, room: tuple[float, float], others: Sequence[_Box]) -> bool:
    inside = box.left >= 0 and box.right <= room[0] and box.top >= 0 and box.bottom <= room[1]
    return inside and not any(box.meets(other) for other in others)
