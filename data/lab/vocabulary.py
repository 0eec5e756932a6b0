"""The story words of the lab by kind: a word may be exchanged for another of its kind without spoiling a sentence."""

from __future__ import annotations

TIMES = ("dawn", "morning", "noon", "afternoon", "dusk", "night", "midnight")
"""The times of a day, in order."""
THINGS = (
    "pipe", "rope", "lamp", "book", "coat", "drum", "flag", "jar", "kite", "ladder",
    "map", "net", "oar", "plough", "quilt", "ring", "spade", "tent", "urn", "vase",
)  # fmt: skip
PLACES = (
    "shed", "barn", "attic", "cellar", "garden", "kitchen", "mill", "tower", "stable", "chapel",
    "cabin", "dock", "forge", "hall", "inn", "library", "market", "office", "porch", "school",
)  # fmt: skip
PEOPLE = (
    "ines", "otto", "mira", "jonas", "lena", "pavel", "rosa", "tariq",
    "vera", "wim", "anna", "boris", "clara", "dario", "elsa", "felix",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
LOOKS = ("cold", "warm", "dark", "bright", "quiet", "noisy", "clean", "dusty")
QUALITIES = ("older", "taller", "heavier", "faster", "richer", "louder")
AMOUNTS = ("2", "3", "4", "5", "6", "7")
"""Coins of one payment."""
KINDS: dict[str, tuple[str, ...]] = {
    word: kind for kind in (TIMES, THINGS, PLACES, PEOPLE, COLOURS, LOOKS, QUALITIES, AMOUNTS) for word in kind
}
"""For each story word the words of its kind."""
