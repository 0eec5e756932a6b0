"""The story words of the lab by kind: a word may be exchanged for another of its kind without spoiling a sentence."""

from __future__ import annotations

TIMES = ("dawn", "morning", "noon", "afternoon", "dusk", "night", "midnight")
"""The times of a day, in order."""
_THINGS = "pipe rope lamp book coat drum flag jar kite ladder map net oar plough quilt ring spade tent urn vase"
_PLACES = """
shed barn attic cellar garden kitchen mill tower stable chapel cabin dock forge hall inn library market office porch
school
"""
_PEOPLE = "ines otto mira jonas lena pavel rosa tariq vera wim anna boris clara dario elsa felix"
THINGS = tuple(_THINGS.split())
PLACES = tuple(_PLACES.split())
PEOPLE = tuple(_PEOPLE.split())
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
LOOKS = ("cold", "warm", "dark", "bright", "quiet", "noisy", "clean", "dusty")
QUALITIES = ("older", "taller", "heavier", "faster", "richer", "louder")
AMOUNTS = ("2", "3", "4", "5", "6", "7")
"""Coins of one payment."""

# The order of the kinds and of their words decides the draws of pretraining, which the shipped models depend on.
KINDS: dict[str, tuple[str, ...]] = {}
"""For each story word the words of its kind."""
for _kind in (TIMES, THINGS, PLACES, PEOPLE, COLOURS, LOOKS, QUALITIES, AMOUNTS):
    KINDS.update(dict.fromkeys(_kind, _kind))
