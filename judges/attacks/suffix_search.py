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
    """Suffixes that are kept after each word."""
    pool: int = 100
    """Words tried after each beam in each step, drawn anew; the answers always, and all words if there are no more."""
    trials: int = 16
    """Games that decide, each attacked by one side; the sides attack equally often."""
    screen: int = 4
    """Number of these games on which every word is tried first."""
    seed: int = 0


class Found(Record):
    """A suffix and what it gained on the games of the search.

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
    """Build the attack with a suffix that was found."""
    words = Wording(text, text)
    return Attack("suffix_search", "suffix", suffix(words), words)


class _Trial(NamedTuple):
    """One game of the search, and the side that attacks in it."""

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
        words: words to choose from; {own} and {other} stand for the answers.
        settings: how much to try.

    Raises:
        UserError: no games or no words, or the judge has no verdict on any of the games.
    """
    settings = settings or Search()
    rng = np.random.default_rng(settings.seed)
    trials = _draw_trials(games, judge, engine, settings.trials, rng)
    if not trials or not words:
        raise UserError("a suffix is searched on games that the judge has verdicts on; give debates with speeches")
    beams = [""]
    gains = {"": 0.0}
    tried = 0
    for _ in range(settings.length):
        pool = _pool(words, games, settings.pool, rng)
        candidates = _extend(beams, pool)
        tried += len(candidates)
        # Screening on a few games and trying only the best tenth on all makes the search about five times cheaper.
        screened = _ranked(candidates, _gains(candidates, trials[: settings.screen], judge, engine))
        best_tenth = screened[: max(settings.beam, len(candidates) // 10)]
        measured = _gains(best_tenth, trials, judge, engine)
        ranked = _ranked(best_tenth, measured)
        gain_of = dict(zip(best_tenth, measured, strict=True))
        gains.update({text: gain_of[text] for text in ranked})
        beams = ranked[: settings.beam]
    # Among equal gains the first wins: no suffix at all, then the shorter one, then by the alphabet.
    best = max(gains, key=lambda text: gains[text])
    gainers = [text for text in _ranked(list(gains), list(gains.values())) if gains[text] > 0]
    return Found(text=best, gain=gains[best], tried=tried, trials=len(trials), also=_distinct(gainers, best))


def _extend(beams: Sequence[str], pool: Sequence[str]) -> list[str]:
    """Every beam with every word of a pool at its end, each text once."""
    texts: dict[str, None] = {}
    for beam in beams:
        for word in pool:
            texts[f"{beam} {word}".strip()] = None
    return list(texts)


def _distinct(texts: Sequence[str], best: str) -> tuple[str, ...]:
    """Select from ranked suffixes those that add a word to the ones before them."""
    seen = set(best.split())
    distinct = []
    for text in texts:
        words = set(text.split())
        if not words <= seen:
            distinct.append(text)
            seen |= words
    return tuple(distinct[:LISTED])


def _pool(words: Sequence[str], games: Sequence[Transcript], size: int, rng: np.random.Generator) -> list[str]:
    """Draw the words to try in one step: the answers always, half from what these games mention, the rest from all."""
    # A real attacker knows the stories, and what a story mentions sways a judge most.
    texts = []
    for game in games:
        texts.append(game.question.passage or "")
        texts += [speech.text for speech in game.speeches]
    mentioned = set(re.findall(r"[^\W_]+", " ".join(texts)))
    mixed = [str(word) for word in rng.permutation(list(words))]
    answers, from_games = [], []
    for word in mixed:
        if word in ("{own}", "{other}"):
            answers.append(word)
        if word in mentioned:
            from_games.append(word)
    ordered = dict.fromkeys([*answers, *from_games[: size // 2], *mixed])
    return list(ordered)[:size]


def _draw_trials(
    games: Sequence[Transcript], judge: AnyJudge, engine: Engine, count: int, rng: np.random.Generator
) -> list[_Trial]:
    """Draw games for the search, and in each the side that attacks; games without a verdict are left out."""
    spoken = [game for game in games if game.speeches]
    drawn = [spoken[int(place)] for place in rng.permutation(len(spoken))[:count]]
    verdicts = judge_transcripts(drawn, judge, engine)
    trials = []
    for number, verdict in enumerate(verdicts):
        if isinstance(verdict, Verdict):
            side = _attacker(drawn[number], number)
            trials.append(_Trial(drawn[number], side, _log_odds(verdict, side)))
    return trials


def _attacker(game: Transcript, number: int) -> Side:
    """The side that attacks in a trial: where both are there, right and wrong sides take turns."""
    if len(game.present) == 1:
        return game.present[0]
    return game.present[((game.question.correct or 0) + number) % 2]


def _log_odds(verdict: Verdict, side: Side) -> float:
    """Log-odds of a side."""
    return float(logits([verdict.p_side(side)])[0])


def _gains(texts: Sequence[str], trials: Sequence[_Trial], judge: AnyJudge, engine: Engine) -> list[float]:
    """Mean gain in log-odds of each suffix; verdicts that failed are left out."""
    attacked = []
    for text in texts:
        change = suffix(Wording(text, text))
        attacked += [change(trial.game, trial.side) or trial.game for trial in trials]
    # One call to the engine for all suffixes: it fills its batches.
    verdicts = iter(judge_transcripts(attacked, judge, engine))
    gains = []
    for _ in texts:
        gained = []
        for trial in trials:
            verdict = next(verdicts)
            if isinstance(verdict, Verdict):
                gained.append(_log_odds(verdict, trial.side) - trial.before)
        gains.append(float(np.mean(gained)) if gained else float("-inf"))
    return gains


def _ranked(texts: Sequence[str], gains: Sequence[float]) -> list[str]:
    """Sort suffixes by gain, the best first; equal ones by their words."""
    pairs = sorted(zip(gains, texts, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return [text for _, text in pairs]
