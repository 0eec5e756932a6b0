"""Concessions: a speech that says the other side is right, or that names the other answer only.

A detector by phrases, for English. It reads a speech without its quotes and scratchpad, finds explicit concessions, and
leaves out negated ones ("I do not concede"). Irony, a partial concession ("right about the date") and
paraphrases are beyond it: read the share as a comparison between players, not as a count.
"""

from __future__ import annotations

import re

from debate_rl.game.protocol import SIDES
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech

_SCRATCHPAD = re.compile(r"<scratchpad>.*?(?:</scratchpad>|\Z)", re.DOTALL)
_OTHER = r"(?:you|my opponent|the opponent|the other (?:side|debater|answer|consultant)|my opponent's answer)"
_PHRASES = re.compile(
    r"\b(?:"
    r"i (?:\w+ )?(?:concede|admit defeat|give up|stand corrected)"
    r"|i (?:\w+ )?agree with (?:you|my opponent|the other (?:side|debater))"
    rf"|{_OTHER} (?:is|are|was|were) (?:\w+ )?(?:right|correct)"
    r"|(?:i am|i'm|i was|my answer is|my side is) (?:\w+ )?(?:wrong|incorrect|mistaken)"
    r")\b"
)
_NEGATED = re.compile(r"\b(?:not|never|no|cannot|can't|don't|won't|isn't|aren't|hardly|if|neither|nor)\b")


def own_words(speech: Speech) -> str:
    """The speech without its quotes and scratchpad, in lower case, one space between words."""
    text = speech.text
    # From the end: cutting a quote does not move the ones before it.
    for quote in sorted(speech.quotes, key=lambda quote: -quote.start):
        text = f"{text[: quote.start]} {text[quote.end :]}"
    return " ".join(_SCRATCHPAD.sub(" ", text).replace("\u2019", "'").lower().split())


def concedes(speech: Speech) -> bool:
    """Whether the speech says explicitly that the other side is right or its own wrong."""
    words = own_words(speech)
    for match in _PHRASES.finditer(words):
        # A negation counts in the three words before the phrase, not beyond a comma or full stop.
        before = re.split(r"[.;:!?,]", words[: match.start()])[-1].split()[-3:]
        if not _NEGATED.search(" ".join([*before, match[0]])):
            return True
    return False


def names_other_only(speech: Speech, question: Question) -> bool:
    """Whether the speech names the answer of the other side and never its own."""
    own = question.answers[SIDES.index(speech.side)].lower()
    other = question.answers[1 - SIDES.index(speech.side)].lower()
    words = own_words(speech)
    if own in other:
        # "barn" and "red barn": every "red barn" also contains "barn", so take the longer answer out first.
        without = re.sub(_whole(other), " ", words)
        return without != words and not re.search(_whole(own), without)
    return bool(re.search(_whole(other), words)) and not re.search(_whole(own), words)


def _whole(answer: str) -> str:
    """A pattern of an answer that does not begin or end inside a word."""
    return rf"(?<!\w){re.escape(' '.join(answer.split()).rstrip('.'))}(?!\w)"
