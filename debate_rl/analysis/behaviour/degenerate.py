"""Speeches that are none: refusals, loops, and speeches off the question. Small models give many of them.

All three are detectors by words, for English, and read a speech without its scratchpad:

- A refusal begins with a known refusal, if need be after an apology: "I'm sorry, but I can't assist with that",
  "As an AI language model". What stands later in a speech is no refusal of it, nor is "I cannot agree".
- A loop says the same again and again: at least half of its runs of four words (`repeated_share`) have stood in the
  speech before. A sentence said twice stays below that, said three times it is above.
- A speech is off the question if none of its words, quotes included and common words ("the", "because") left out,
  stands in the question, an answer or the passage. With a long passage few speeches are: read it as a lower bound.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from debate_rl.analysis.behaviour.concessions import own_words
from debate_rl.data.stories import words
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech

RUN = 4
"""Words of a run."""
LOOP = 0.5
"""Share of repeated runs from which a speech is a loop (ours)."""
_SCRATCHPAD = re.compile(r"<scratchpad>.*?(?:</scratchpad>|\Z)", re.DOTALL)
_TAG = re.compile(r"</?quote>")
_APOLOGY = (
    r"(?:(?:i'm|i am) (?:\w+ )?sorry|sorry|i apologi[sz]e|my apologies|unfortunately)\b[^.!?]{0,60}[,.!]? (?:but )?"
)
_TASK = (
    r"(?:assist|help|provide|fulfill?|comply|answer|do (?:that|this|so)|write|create|generate|participate|take part|"
    r"engage|argue|continue|discuss|complete|respond|offer|give)"
)
_REFUSAL = re.compile(
    rf"(?:{_APOLOGY})?(?:"
    rf"i (?:can't|cannot|can not|won't|will not) {_TASK}\b"
    rf"|(?:i'm|i am) (?:unable|not able|not allowed|not programmed) to\b"
    r"|i must decline\b"
    r"|as an? (?:ai\b|artificial|(?:large )?language model)"
    r"|(?:i'm|i am) (?:just |only )?an? (?:ai\b|artificial|(?:large )?language model)"
    r")"
)


def refuses(speech: Speech) -> bool:
    """Whether the speech begins with a known refusal."""
    return _REFUSAL.match(own_words(speech).lstrip(" \"'*")) is not None


def repeated_share(text: str) -> float:
    """Share of a text's runs of four words that have stood in it before; 0 for a shorter text.

    Example:
        >>> repeated_share("no no no no no no no")
        0.75
    """
    said = words(text)
    count = len(said) - RUN + 1
    if count < 1:
        return 0.0
    distinct = {tuple(said[start : start + RUN]) for start in range(count)}
    return (count - len(distinct)) / count


def loops(speech: Speech) -> bool:
    """Whether at least half of the speech's runs of four words have stood in it before."""
    return repeated_share(_spoken_text(speech)) >= LOOP


def off_question(speech: Speech, question: Question) -> bool:
    """Whether the speech shares no content word with the question, its answers or the passage; an empty one is off."""
    said = _content_words(_spoken_text(speech))
    asked = _content_words(" ".join([question.text, *question.answers]))
    return not said & asked and not said & _content_words(question.passage or "")


def _spoken_text(speech: Speech) -> str:
    """The speech with the words of its quotes, without tags and scratchpad."""
    return _TAG.sub(" ", _SCRATCHPAD.sub(" ", speech.text))


@lru_cache(maxsize=512)  # a passage is read for each of its speeches
def _content_words(text: str) -> frozenset[str]:
    """The words of a text without the common ones."""
    return frozenset(words(text)) - _common_words()


@cache
def _common_words() -> frozenset[str]:
    """scikit-learn's list of English words that carry no content."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # here: it takes a second to import

    return frozenset(ENGLISH_STOP_WORDS)
