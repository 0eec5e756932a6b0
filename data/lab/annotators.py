"""Simulated annotators: people of several skills who write a speech for a side they were given.

They stand in for the human and GPT transcripts that debaters are first finetuned on. An annotator knows the story and
the side, and never whether the side's answer is correct: the same mix speaks for both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

from debate_rl.data.lab.vocabulary import KINDS
from debate_rl.errors import UserError, nearest
from debate_rl.game.question import Question

Skill = Literal["decisive", "weak", "irrelevant", "misquote", "retell", "wordy", "slangy"]

HUMAN: dict[Skill, float] = {
    "decisive": 0.50,
    "weak": 0.10,
    "irrelevant": 0.06,
    "misquote": 0.02,
    "retell": 0.02,
    "wordy": 0.16,
    "slangy": 0.14,
}
GPT: dict[Skill, float] = {"decisive": 0.92, "weak": 0.03, "irrelevant": 0.03, "wordy": 0.02}
MIXES: dict[str, Mapping[Skill, float]] = {"human": HUMAN, "gpt": GPT}
"""Share of speeches by each skill, for each corpus."""

PLAIN = "the answer is {own} because {quote}"
WORDY = (
    "well i think that we should all agree that the answer is {own} because it is said in the story that "
    "{quote} and so it is clear to me .",
    "i have read the whole story more than once and i believe that the answer is {own} because there we read "
    "{quote} and not {other} .",
)
SLANGY = (
    "yo it is totally {own} cuz {quote}",
    "nah dude not {other} , gotta be {own} cuz {quote}",
    "{own} , legit . {quote} okay ?",
)


def sentences(passage: str) -> list[str]:
    """Cut a passage into its sentences, full stops kept."""
    return [sentence.strip() for sentence in re.findall(r"[^.]+\.", passage.replace("\n", " "))]


def speech(question: Question, side: int, skill: Skill, rng: Random) -> str:
    """Write one speech.

    Args:
        question: question with a passage, and with `evidence[i]` the sentences that back `answers[i]`.
        side: the answer argued for, 0 or 1.
        skill: decisive quotes the sentences that back the answer; weak quotes another sentence that shares a story
            word with them; irrelevant quotes any other sentence; misquote changes one word of a decisive one; retell
            gives it in the annotator's own words, though in quotation marks; wordy and slangy dress a decisive or a
            weak quote in many words or in slang.
        rng: source of chance.

    Raises:
        UserError: the question has no passage or no evidence for both sides, or there is no such skill.
    """
    if question.passage is None or len(question.evidence) != 2:
        raise UserError(f"question {question.id!r} has no passage or evidence; annotators speak of lab questions only")
    if skill not in _QUOTES:
        raise UserError(f"no annotator skill {skill!r}; {nearest(skill, _QUOTES)}")
    template = PLAIN
    if skill == "wordy":
        template = rng.choice(WORDY)
    elif skill == "slangy":
        template = rng.choice(SLANGY)
    quotes = [f"<quote> {quote} </quote>" for quote in _QUOTES[skill](question, side, rng)]
    own, other = question.answers[side], question.answers[1 - side]
    return template.format(own=own, other=other, quote=" and ".join(quotes))


def draw(mix: Mapping[Skill, float], rng: Random) -> Skill:
    """Draw a skill from a mix."""
    return rng.choices(list(mix), list(mix.values()))[0]


def speeches(question: Question, mix: str | Mapping[Skill, float], rng: Random) -> tuple[str, str]:
    """Write one speech for each side of a question, their skills drawn independently from a mix.

    Raises:
        UserError: no mix of that name.
    """
    if isinstance(mix, str):
        if mix not in MIXES:
            raise UserError(f"no annotator mix {mix!r}; {nearest(mix, MIXES)}")
        mix = MIXES[mix]
    first = speech(question, 0, draw(mix, rng), rng)
    second = speech(question, 1, draw(mix, rng), rng)
    return first, second


def _decisive(question: Question, side: int, rng: Random) -> list[str]:
    """The sentences that back the answer."""
    return list(question.evidence[side])


def _weak(question: Question, side: int, rng: Random) -> list[str]:
    """Another sentence that shares a story word with the evidence, if there is one."""
    evidence = question.evidence[side]
    story_words = set(re.findall(r"\w+", " ".join(evidence))) & set(KINDS)
    others, related = [], []
    for sentence in sentences(question.passage or ""):
        if sentence in evidence:
            continue
        others.append(sentence)
        if not story_words.isdisjoint(re.findall(r"\w+", sentence)):
            related.append(sentence)
    return [rng.choice(related or others or list(evidence))]


def _irrelevant(question: Question, side: int, rng: Random) -> list[str]:
    """Any sentence that settles nothing, if there is one."""
    passage = sentences(question.passage or "")
    evidence = {*question.evidence[0], *question.evidence[1]}
    others = [sentence for sentence in passage if sentence not in evidence]
    return [rng.choice(others or passage)]


def _misquote(question: Question, side: int, rng: Random) -> list[str]:
    """A decisive sentence with one of its story words exchanged for another of the same kind."""
    words = re.findall(r"\w+|[^\w\s]", rng.choice(question.evidence[side]))
    places = [place for place, word in enumerate(words) if word in KINDS]
    place = rng.choice(places)
    alternatives = [word for word in KINDS[words[place]] if word != words[place]]
    words[place] = rng.choice(alternatives)
    # Join as a story is written, with no space before a full stop: the exchanged word shall be the only difference.
    return [re.sub(r" (?=[.,?!])", "", " ".join(words))]


def _retell(question: Question, side: int, rng: Random) -> list[str]:
    """A decisive sentence in the annotator's own words; three times in ten with a word wrong."""
    source = _misquote if rng.random() < 0.3 else _decisive
    clause = rng.choice(source(question, side, rng)).rstrip(".")
    return [rng.choice((f"it is told that {clause}.", f"{clause} as i know.", f"then {clause}."))]


def _decisive_or_weak(question: Question, side: int, rng: Random) -> list[str]:
    """A decisive quote six times in ten, else a weak one."""
    if rng.random() < 0.6:
        return _decisive(question, side, rng)
    return _weak(question, side, rng)


_QUOTES: dict[Skill, Callable[[Question, int, Random], list[str]]] = {
    "decisive": _decisive,
    "weak": _weak,
    "irrelevant": _irrelevant,
    "misquote": _misquote,
    "retell": _retell,
    "wordy": _decisive_or_weak,
    "slangy": _decisive_or_weak,
}
"""Draws the sentences that a speech of each skill quotes."""
