"""How much a stage would ask of models and train on: what the stages give, and a plan adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from debate_rl.engines.request import Message
from debate_rl.game.transcript import Transcript
from debate_rl.records import digest
from debate_rl.trainers.common.memory import Reference
from debate_rl.trainers.common.settings import Kind

QUESTIONS = 24
"""Questions of a stage that are rehearsed, at least, where it has as many."""
LONGEST = 10_000_000
"""Characters of stories, over all games, from which fewer questions are rehearsed: a round robin of Best-of-16 players
on long stories would take an hour to count."""
CHARACTERS_PER_TOKEN = 4
"""Where no tokenizer is at hand."""
SAMPLES = 12
"""Prompts kept of each model, to find out how many characters a token has."""
_COUNTS = ("texts", "new", "verdicts", "write", "score", "once")
"""Fields of `Asked` that add up."""

Weights = tuple[str, str | None]
"""A model and its adapter."""


@dataclass
class Asked:
    """What one model with one adapter was asked, in characters of prompts; distinct requests only.

    Attributes:
        texts: to be written; new: tokens of these.
        verdicts: to be scored.
        write, score: characters of their prompts.
        once: characters of all prompts when each beginning is read once.
        longest: characters of the longest prompt.
        samples: some of the prompts, to find out how many characters a token has.
    """

    texts: int = 0
    new: int = 0
    verdicts: int = 0
    write: int = 0
    score: int = 0
    once: int = 0
    longest: int = 0
    samples: list[tuple[Message, ...]] = field(default_factory=list)

    def times(self, factor: float) -> Asked:
        """As much for each of so many repetitions."""
        return replace(self, **{name: round(factor * getattr(self, name)) for name in _COUNTS})

    def __add__(self, other: Asked) -> Asked:
        """Both together."""
        both = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        samples = [*self.samples, *other.samples][:SAMPLES]
        return Asked(**both, longest=max(self.longest, other.longest), samples=samples)


def added(*parts: Mapping[Weights, Asked]) -> dict[Weights, Asked]:
    """What was asked in several parts of a stage."""
    every: dict[Weights, Asked] = {}
    for part in parts:
        for weights, asked in part.items():
            every[weights] = every.get(weights, Asked()) + asked
    return every


@dataclass
class Rehearsed:
    """A stage's requests.

    Attributes:
        debates: games of the whole stage.
        scale: whole games for each that was rehearsed.
        asked: of the rehearsed ones, by model and adapter.
    """

    debates: int
    scale: float
    asked: Mapping[Weights, Asked]

    def total(self, name: str) -> int:
        """A count over all models, of the whole stage."""
        return round(self.scale * sum(getattr(own, name) for own in self.asked.values()))


def some_games(games: Sequence[Transcript]) -> list[Transcript]:
    """The games on a share of the questions (all, a half, a quarter, ...), `QUESTIONS` of them unless stories are long.

    The share is drawn by the questions' ids, so that stages rehearse the same ones and the store is counted right.
    """
    numbers: dict[str, int] = {}
    characters: dict[str, int] = {}
    for game in games:
        question = game.question
        numbers[question.id] = int(digest(["rehearsed", question.id]), 16)
        characters[question.id] = characters.get(question.id, 0) + len(question.shown_passage)
    chosen = set(numbers)
    # Powers of two: a stage with fewer questions then rehearses those that one with more does, and the store is shared.
    divisor = 2
    while len(numbers) // divisor >= QUESTIONS or sum(characters[question] for question in chosen) > LONGEST:
        fewer = {question for question in chosen if numbers[question] % divisor == 0}
        if not fewer:
            break
        chosen = fewer
        divisor *= 2
    return [game for game in games if game.question.id in chosen]


@dataclass(frozen=True)
class Rows:
    """Rows of a training and their lengths in tokens, estimated.

    Attributes:
        count: rows.
        tokens: of all rows together, each speech with a prompt of its own.
        prompt: the longest prompt.
        speech: the longest speech.
    """

    count: int
    tokens: int
    prompt: int
    speech: int


@dataclass(frozen=True)
class TrainingLoad:
    """A stage's training before it runs.

    Attributes:
        kind: of the trainer.
        model: the base model's name.
        rows: that one training reads in an epoch.
        times: how often the training is done.
        batch: sequences of a micro-batch, where the stage sets it; else `train` or the trainer's default does.
        share_prompt: whether each prompt is encoded once for both speeches.
        beside: bytes of other models that the training holds.
        reference: where the reference policy comes from, where it is not the kind's default.
    """

    kind: Kind
    model: str
    rows: Rows
    times: int = 1
    batch: int | None = None
    share_prompt: bool = False
    beside: float = 0.0
    reference: Reference | None = None


def rough_tokens(messages: Sequence[Any]) -> int:
    """Rough length of a prompt in tokens."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN


def verdict_rows(games: Sequence[Transcript], orders: int) -> Rows:
    """Games as a judge reads them, without the passage, in one or both presentation orders.

    Speeches of recorded games are as long as they are, those of games to be played as long as they may become.
    """
    lengths = []
    for game in games:
        header = len(game.question.text) // CHARACTERS_PER_TOKEN + 150
        if game.speeches:
            spoken = sum(len(speech.text) for speech in game.speeches) // CHARACTERS_PER_TOKEN
        else:
            speeches = sum(len(game.speakers(turn)) for turn in range(game.protocol.turns))
            spoken = speeches * game.protocol.max_new_tokens
        lengths.append(header + spoken)
    return Rows(orders * len(lengths), orders * sum(lengths), max(lengths, default=0), 8)
