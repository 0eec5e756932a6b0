"""Statements of a judge: the probability that it writes down, and how it is told apart from other numbers in a text.

Three forms are read. Each is a form of its own, so that no number in a piece of reasoning passes for a statement:

- `P(A) = 65%`: of the answer listed first, anywhere in the text.
- `<answer>B</answer> ... <confidence>0.8</confidence>`: the form of RLCR (Damani et al. 2025, 2507.16806).
- a line of its own with an answer and its probability, such as `Answer: B, 80%`, or `shed 80 %` on the lab's models.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_STATED = re.compile(
    r"P\s*\(\s*A\s*\)\s*=\s*"  # tokenizers of whole words put spaces between the marks
    + _NUMBER
    + r"(\s*%|(?![\d.%]|[^\W_]))"  # a letter goes on with the number: 0.5e-3
    r"(?!\s*(?:[-\u2010-\u2015\u2212~\u00b1/*\u00d7^]|to\b)\s*\.?\d)",  # a range or a calculation: 0.6-0.7
    re.IGNORECASE,
)
_TAGGED = re.compile(
    r"<answer>\s*(.*?)\s*</answer>.*?<confidence>\s*" + _NUMBER + r"(\s*%)?\s*</confidence>", re.IGNORECASE | re.DOTALL
)
_BEFORE = r"\W{0,6}(?:(?:the\s+)?(?:final\s+)?answer\s*(?:is|:|=)?\W{0,6})?"
_BETWEEN = r"[\s,;:.=()*]{0,4}(?:(?:with\s+)?(?:confidence|probability|p)\s*(?:of|is|:|=)?\s*)?"


class Stated(NamedTuple):
    """What a judge stated.

    Example:
        Stated(p_first=0.2, first=False)   # "Answer: B, 80%"
    """

    p_first: float
    """Probability that the answer listed first is correct."""
    first: bool | None
    """Whether it chose the answer listed first; None if it chose neither (a probability of 1/2 and no answer)."""

    @property
    def confidence(self) -> float:
        """Probability of the answer that it chose."""
        return 1 - self.p_first if self.first is False else self.p_first


def read_statement(text: str) -> float | None:
    """Read the probability that a text states; None if it states none, or two that differ.

    Accepted are `P(A) = 65%` and `P(A) = 0.65`. Not read are a bare `65`, a bare `1` (all, or a hundredth?), anything
    above 100 %, a range (`0.6-0.7`) and an exponent (`0.5e-3`).

    Example:
        >>> read_statement("P(A) = 65%"), read_statement("P(A) = 65"), read_statement("about 65%")
        (0.65, None, None)
    """
    stated = set()
    for number, unit in _STATED.findall(text):
        p = _probability(number, unit)
        if p is None:
            return None
        stated.add(p)
    return stated.pop() if len(stated) == 1 else None


def read_stated(text: str, answers: tuple[str, str]) -> Stated | None:
    """Read what a judge states, in any of the forms of this module; None if it states nothing, or two things.

    Args:
        text: what it wrote.
        answers: how it names the answers, in the order in which they were listed: ("A", "B"), or their own words.

    Example:
        >>> read_stated("P(A) = 65%", ("A", "B"))
        Stated(p_first=0.65, first=True)
        >>> read_stated("The quote of B is not in the text. Answer: B (80%)", ("A", "B")) is None   # no line of its own
        True
        >>> read_stated("barn 75 %", ("shed", "barn"))
        Stated(p_first=0.25, first=False)
    """
    p = read_statement(text)
    if p is not None:
        return Stated(p, None if p == 0.5 else p > 0.5)
    if _STATED.search(text):
        return None  # it states P(A) in a way that can not be read; another number of it would be a guess
    stated = {_of_answer(name, number, unit, answers) for name, number, unit in _TAGGED.findall(text)}
    if not stated:
        stated = _lines(text, answers)
    return stated.pop() if len(stated) == 1 else None


def statement(p_first: float, answers: tuple[str, str]) -> str:
    """The statement that a judge would write, in whole percent: of the answer listed first where answers have letters.

    Args:
        p_first: probability that the answer listed first is correct.
        answers: see `read_stated`.

    Example:
        >>> statement(0.2, ("A", "B")), statement(0.2, ("shed", "barn"))
        ('P(A) = 20%', 'barn 80 %')
    """
    if answers == ("A", "B"):
        return f"P(A) = {round(100 * p_first)}%"
    if p_first >= 0.5:
        return f"{answers[0]} {round(100 * p_first)} %"
    return f"{answers[1]} {round(100 * (1 - p_first))} %"


def _lines(text: str, answers: tuple[str, str]) -> set[Stated | None]:
    """Statements that stand on a line of their own."""
    stated: set[Stated | None] = set()
    for name in answers:
        words = r"\s+".join(re.escape(word) for word in name.split())
        line = re.compile(_BEFORE + r"(?:\b|(?<=\W))" + words + _BETWEEN + _NUMBER + r"(\s*%)?\W*", re.IGNORECASE)
        for candidate in text.splitlines():
            match = line.fullmatch(candidate.strip())
            if match:
                stated.add(_of_answer(name, match[1], match[2] or "", answers))
    return stated


def _of_answer(name: str, number: str, unit: str, answers: tuple[str, str]) -> Stated | None:
    """A statement about one answer; None if it names neither, or no probability."""
    p = _probability(number, unit)
    spelled = [" ".join(answer.split()).casefold() for answer in answers]
    named = " ".join(name.strip(" ().").split()).casefold()
    if p is None or named not in spelled:
        return None
    first = spelled.index(named) == 0
    return Stated(p if first else round(1 - p, 9), first)


def _probability(number: str, unit: str) -> float | None:
    """A number with its unit as a probability; None without a unit, or above 1."""
    if unit.strip() == "%":
        p = float(number) / 100
    elif "." in number:
        p = float(number)
    else:
        return None
    return p if p <= 1 else None
