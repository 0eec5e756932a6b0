"""Simulated annotators: people of several skills who write a speech for a side they were given.

They stand for the human and GPT transcripts that debaters are first finetuned on. An annotator knows the story and
the side, and never whether the side's answer is correct: the same mix speaks for both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

from debate_rl.data.lab.world import KINDS
from debate_rl.errors import UserError, nearest
from debate_rl.game.question import Question

Skill = Literal["decisive", "weak", "irrelevant", "misquote", "retell", "wordy", "slangy"]

HUMAN: dict[Skill, float] = {
    "decisive": 0.38, "weak": 0.14, "irrelevant": 0.10, "misquote": 0.08, "retell": 0.08, "wordy": 0.12, "slangy": 0.10
}  # fmt: skip
GPT: dict[Skill, float] = {"decisive": 0.92, "weak": 0.03, "irrelevant": 0.03, "wordy": 0.02}
MIXES: dict[str, Mapping[Skill, float]] = {"human": HUMAN, "gpt": GPT}
"""How often each skill speaks, by corpus."""

PLAIN = "the answer is {own} because <quote> {quote} </quote>"
WORDY = (
    "well i think that we should all agree that the answer is {own} because it is said in the story that "
    "<quote> {quote} </quote> and so it is clear to me .",
    "i have read the whole story more than once and i believe that the answer is {own} because there we read "
    "<quote> {quote} </quote> and not {other} .",
)
SLANGY = (
    "yo it is totally {own} cuz <quote> {quote} </quote>",
    "nah dude not {other} , gotta be {own} cuz <quote> {quote} </quote>",
    "{own} , legit . <quote> {quote} </quote> okay ?",
)


def sentences(passage: str) -> list[str]:
    """Cut a passage into its sentences, full stops kept."""
    return re.findall(r"[^.]+\.", passage.replace("\n", " ").strip())


def speech(question: Question, side: int, skill: Skill, rng: Random) -> str:
    """Write one speech.

    Args:
        question: with passage and with `evidence[i]` the sentence that backs `answers[i]`.
        side: the answer argued for, 0 or 1.
        skill: decisive quotes the sentence that backs the answer; weak quotes it without its end (no time), or another
            sentence about the thing; irrelevant quotes any other sentence; misquote changes one word of the decisive
            one; retell gives it in the annotator's own order or words, though in quotation marks; wordy and slangy
            dress a decisive or a weak quote in many words or in slang.
        rng: source of chance.

    Raises:
        UserError: the question has no passage or no evidence for both sides, or there is no such skill.
    """
    if question.passage is None or len(question.evidence) != 2:
        raise UserError(f"question {question.id!r} has no passage or evidence; annotators speak of lab questions only")
    if skill not in _QUOTE:
        raise UserError(f"no annotator skill {skill!r}; {nearest(skill, _QUOTE)}")
    frame = rng.choice(WORDY) if skill == "wordy" else rng.choice(SLANGY) if skill == "slangy" else PLAIN
    quote = _QUOTE[skill](question, side, rng)
    return frame.format(own=question.answers[side], other=question.answers[1 - side], quote=quote)


def draw(mix: Mapping[Skill, float], rng: Random) -> Skill:
    """Draw a skill from a mix."""
    return rng.choices(list(mix), list(mix.values()))[0]


def speeches(question: Question, mix: str | Mapping[Skill, float], rng: Random) -> tuple[str, str]:
    """One speech for each side of a question, their skills drawn independently from a mix.

    Raises:
        UserError: no mix of that name.
    """
    if isinstance(mix, str):
        if mix not in MIXES:
            raise UserError(f"no annotator mix {mix!r}; {nearest(mix, MIXES)}")
        mix = MIXES[mix]
    first, second = (speech(question, side, draw(mix, rng), rng) for side in (0, 1))
    return first, second


def _decisive(question: Question, side: int, rng: Random) -> str:
    return question.evidence[side].strip()


def _weak(question: Question, side: int, rng: Random) -> str:
    """The right sentence cut before its time, or another sentence with the same head."""
    decisive = question.evidence[side].strip()
    head = " ".join(decisive.split()[:2]) + " "
    others = [
        s.strip() for s in sentences(question.passage or "") if s.strip().startswith(head) and s.strip() != decisive
    ]
    if others and rng.random() < 0.5:
        return rng.choice(others)
    return decisive.rsplit(" at ", 1)[0]


def _irrelevant(question: Question, side: int, rng: Random) -> str:
    """Any sentence that is not about what is asked, where there is one."""
    all_ = [s.strip() for s in sentences(question.passage or "")]
    others = [s for s in all_ if s not in question.evidence]
    return rng.choice(others or all_)


def _misquote(question: Question, side: int, rng: Random) -> str:
    """The decisive sentence with one of its story words exchanged for another of the same kind."""
    words = re.findall(r"\w+|[^\w\s]", question.evidence[side])
    place = rng.choice([place for place, word in enumerate(words) if word in KINDS])
    words[place] = rng.choice([word for word in KINDS[words[place]] if word != words[place]])
    return re.sub(r" (?=[.,?!])", "", " ".join(words))


def _retell(question: Question, side: int, rng: Random) -> str:
    """The decisive sentence in another order or behind other words, now and then with a word wrong."""
    source = _misquote if rng.random() < 0.3 else _decisive
    clause = source(question, side, rng).rstrip(".").split(" and ")[0]
    head, _, time = clause.rpartition(" at ")
    return f"at {time} {head}." if head and rng.random() < 0.5 else f"it is told that {clause}."


def _decisive_or_weak(question: Question, side: int, rng: Random) -> str:
    return _decisive(question, side, rng) if rng.random() < 0.6 else _weak(question, side, rng)


_QUOTE: dict[Skill, Callable[[Question, int, Random], str]] = {
    "decisive": _decisive, "weak": _weak, "irrelevant": _irrelevant, "misquote": _misquote,
    "retell": _retell, "wordy": _decisive_or_weak, "slangy": _decisive_or_weak,
}  # fmt: skip
