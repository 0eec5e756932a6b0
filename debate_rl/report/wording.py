"""Numbers and names as the page writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from debate_rl.arena import progress
from debate_rl.intervals import Estimate
from debate_rl.judges.scores import JudgeScores

_UNPRINTABLE = {code: "\ufffd" for code in (*range(32), 127, 0xFFFE, 0xFFFF) if code not in (9, 10)}


_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Controls of the direction of writing: with them a text can look like another one."""


def bidi_shown(text: str) -> str:
    """Text in which controls of the direction of writing are written out, as in "[U+202E]"."""
    return _BIDI.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)


def debates_link(stage: str, **filters: str) -> str:
    """Address of a stage's debates in the page, those that match.

    Example:
        >>> debates_link("oversight", protocol="debate", player="dpo@4")
        '#debates?stage=oversight&protocol=debate&player=dpo%404'
    """
    return f"#debates?{urlencode({'stage': stage, **filters})}"


def printable(text: str) -> str:
    """Text with control characters and unpaired surrogates replaced; tabs and line ends stay.

    A debater can write any of them, and with one in it the page would not be valid text.
    """
    return text.translate(_UNPRINTABLE).encode("utf-8", "replace").decode("utf-8")


def fixed(value: float, digits: int) -> str:
    """A number with fixed digits, a true minus sign, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    # -0.04 rounds to "-0.0".
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", "\u2212")


def number(value: float | None, digits: int = 3, plus: bool = False) -> str:
    """A number with fixed digits, a plus sign if `plus`; a dash for None."""
    if value is None:
        return "\u2013"
    text = fixed(value, digits)
    is_positive = float(f"{value:.{digits}f}") > 0
    return f"+{text}" if plus and is_positive else text


def percent(value: float) -> str:
    """0.75 as "75.0 %"."""
    return f"{fixed(100 * value, 1)} %"


def significant(value: float) -> str:
    """A number to four significant digits, with a true minus sign."""
    return f"{value:.4g}".replace("-", "\u2212")


def count(value: float) -> str:
    """A number in a list of facts: whole ones in full with narrow spaces, others to four significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "\u2212")
    return significant(value)


def duration(seconds: float) -> str:
    """Seconds as people say them: "4.8 s", "48 s", "12 min 5 s", "3 h 20 min"."""
    return f"{seconds:.1f} s" if seconds < 10 else progress.duration(seconds)


def floor_text(scores: JudgeScores) -> str:
    """ECE beside the ECE that a perfectly calibrated judge would show by chance."""
    return (
        f"ECE {number(scores.ece)}; a perfectly calibrated judge with these confidences shows "
        f"{number(scores.floor.median)} by chance, and stays below {number(scores.floor.high)} 19 times in 20"
    )


def units(estimates: Sequence[Estimate], unit: str = "clusters") -> str:
    """What a group of intervals rests on: "80 stories", or "78 to 80 stories" where the counts differ."""
    counts = sorted({estimate.clusters for estimate in estimates})
    if not counts:
        return unit
    if len(counts) == 1:
        return f"{counts[0]} {unit}"
    return f"{counts[0]} to {counts[-1]} {unit}"


def slug(name: str) -> str:
    """A name that can stand in an id of the page; different names give different ids."""
    return re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):x}_", name)
