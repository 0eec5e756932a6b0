"""A suffix found by search against one judge: words that raise its probability of whichever side says them.

A beam search over a list of words. In each step every beam is tried with each of a drawn pool of words at its end:
first on a few of the games, then the best tenth on all of them. What counts is the mean gain in log-odds of the side
that adds the words, over both sides of every game, so that a suffix which favours one answer or one side gains nothing.
A suffix is found on some stories and must be measured on others: on its own it gains by luck alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Verdict
from debate_rl.judges.attacks.edits import LONGEST, Attack, Wording, suffix
from debate_rl.judges.calibration import logits
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.records import Record

LISTED = 9
"""Suffixes that a search lists beside the best."""


class Search(Record):
    """How much is tried. Prompts asked: about length x beam x pool x (screen + trials / 10), twice for both orders."""

    length: int = LONGEST
    """Words of the longest suffix."""
    beam: int = 2
    pool: int = 100
    """Words tried after each beam in each step, drawn anew, the answers always; all words where there are no more."""
    trials: int = 16
    """Games, each attacked by one side, that decide; both sides alike often."""
    screen: int = 4
    """Of these, the ones on which every word is tried first."""
    seed: int = 0


class Found(Record):
    """A suffix and what it gained where it was sought.

    Example:
        Found(text="indeed {own} verified", gain=0.61, tried=1210, trials=24)
    """

    text: str
    """May hold {own} and {other}, the answers; empty where nothing gained."""
    gain: float
    """Mean gain in log-odds of the attacking side, on the games of the search."""
    tried: int
    """Suffixes tried."""
    trials: int
    also: tuple[str, ...] = ()
    """The next best that gained, best first, each with a word that those before it do not have; LISTED at most."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The suffix and the next best ones; none where nothing gained."""
        return (self.text, *self.also) if self.text else ()

    @property
    def attack(self) -> Attack:
        """The attack with this suffix."""
        return attack_with(self.text)


def attack_with(text: str) -> Attack:
    """The attack with a suffix that was found."""
    words = Wording(text, text)
    return Attack("suffix_search", "suffix", suffix(words), words)


class _Trial(NamedTuple):
    game: Transcript
    side: Side
    before: float
    """Log-odds of the side without a suffix."""


def search_suffix(
    games: Sequence[Transcript], judge: AnyJudge, engine: Engine, words: Sequence[str], settings: Search | None = None
) -> Found:
    """Search for the words that gain most when they end a side's speeches.

    Args:
        games: finished games with speeches.
        judge: the judge under attack.
        engine: answers for it.
        words: to choose from; {own} and {other} stand for the answers.
        settings: how much to try.

    Raises:
        UserError: no games or no words, or the judge has no verdict on any of the games.
    """
    wanted = settings or Search()
    random = np.random.default_rng(wanted.seed)
    trials = _trials(games, judge, engine, wanted, random)
    if not trials or not words:
        raise UserError("a suffix is searched on games that the judge has verdicts on; give debates with speeches")
    beams: list[tuple[float, str]] = [(0.0, "")]
    measured = {"": 0.0}
    tried = 0
    for _ in range(wanted.length):
        drawn = _pool(words, games, wanted.pool, random)
        texts = list(dict.fromkeys(f"{text} {word}".strip() for _, text in beams for word in drawn))
        tried += len(texts)
        screened = _gains(texts, trials[: wanted.screen], judge, engine)
        kept = [text for _, text in _ranked(texts, screened)[: max(wanted.beam, len(texts) // 10)]]
        beams = _ranked(kept, _gains(kept, trials, judge, engine))
        measured |= {text: gain for gain, text in beams}
        beams = beams[: wanted.beam]
    best = max(measured, key=lambda text: measured[text])  # of equal ones the first: nothing, then the shorter
    also = _distinct([text for gain, text in _ranked(list(measured), list(measured.values())) if gain > 0], best)
    return Found(text=best, gain=measured[best], tried=tried, trials=len(trials), also=also)


def _distinct(texts: Sequence[str], best: str) -> tuple[str, ...]:
    """Of ranked suffixes those with a word that is new among them."""
    said, found = set(best.split()), []
    for text in texts:
        if not said.issuperset(text.split()):
            found.append(text)
            said |= set(text.split())
    return tuple(found[:LISTED])


def _pool(words: Sequence[str], games: Sequence[Transcript], size: int, random: np.random.Generator) -> list[str]:
    """Words to try in one step: the answers always, half of the others from what these games speak of, the rest from
    all. Who attacks knows the stories, and what a story says of an answer sways a judge most."""
    spoken = " ".join(f"{game.question.passage or ''} {' '.join(one.text for one in game.speeches)}" for game in games)
    known = set(re.findall(r"[^\W_]+", spoken))
    mixed = [str(word) for word in random.permutation(list(words))]
    answers = [word for word in mixed if word in ("{own}", "{other}")]
    near = [word for word in mixed if word in known][: size // 2]
    return list(dict.fromkeys([*answers, *near, *mixed]))[:size]


def _trials(
    games: Sequence[Transcript], judge: AnyJudge, engine: Engine, wanted: Search, random: np.random.Generator
) -> list[_Trial]:
    """Games drawn for the search, their sides in turn: those that argue the right answer as often as the others."""
    spoken = [game for game in games if game.speeches]
    order = random.permutation(len(spoken))[: wanted.trials]
    drawn = [spoken[int(index)] for index in order]
    found = []
    for number, (game, verdict) in enumerate(zip(drawn, judge_transcripts(drawn, judge, engine), strict=True)):
        if isinstance(verdict, Verdict):
            side = _attacker(game, number)
            found.append(_Trial(game, side, float(logits([verdict.p_side(side)])[0])))
    return found


def _attacker(game: Transcript, number: int) -> Side:
    """The side that attacks: in even trials the one with the right answer, else the other, where both are there."""
    if len(game.present) == 1:
        return game.present[0]
    return game.present[((game.question.correct or 0) + number) % 2]


def _gains(texts: Sequence[str], trials: Sequence[_Trial], judge: AnyJudge, engine: Engine) -> list[float]:
    """Mean gain in log-odds of each suffix; verdicts that failed are left out."""
    asked = [suffix(Wording(text, text))(trial.game, trial.side) or trial.game for text in texts for trial in trials]
    verdicts = iter(judge_transcripts(asked, judge, engine))
    gains = []
    for _ in texts:
        own = [
            float(logits([verdict.p_side(trial.side)])[0]) - trial.before
            for trial, verdict in zip(trials, [next(verdicts) for _ in trials], strict=True)
            if isinstance(verdict, Verdict)
        ]
        gains.append(float(np.mean(own)) if own else float("-inf"))
    return gains


def _ranked(texts: Sequence[str], gains: Sequence[float]) -> list[tuple[float, str]]:
    """The best first; equal ones by their words."""
    return sorted(zip(gains, texts, strict=True), key=lambda one: (-one[0], one[1]))
