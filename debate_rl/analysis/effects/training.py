"""Effects of training: each iteration against the one before it, and each target of DPO against the binary one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from debate_rl.analysis.behaviour.game_features import Played
from debate_rl.analysis.effects.debate import fits, said_row, skill_row, valid_quotes, words
from debate_rl.analysis.effects.judge import Seeds, is_consultancy, is_self_play, right, where
from debate_rl.analysis.effects.row import EffectRow, Scored, mean_rows, paired
from debate_rl.arena.bradley_terry import RIDGE
from debate_rl.arena.ratings import RESAMPLES

PLAIN_TARGET = "binary"
"""The target with which the others are compared: only which speech is better, as in plain DPO."""


def iteration_rows(
    seeds: Seeds, players: Sequence[str], ridge: float = RIDGE, resamples: int = RESAMPLES
) -> list[EffectRow]:
    """Each iteration minus the one before it: rating, judge accuracy, valid quotes and words.

    A rating that rises while quotes, or the judge's accuracy, fall is the sign of a collapse.

    Args:
        seeds: by seed, the games of an iterations stage.
        players: the start, then each iteration's debater.
        ridge: ridge of the ratings.
        resamples: number of resamples of stories.
    """
    group, pairs = "iterations", list(pairwise(players))
    ratings = fits(seeds, ridge, resamples)
    rows = []
    if ratings is not None:
        rows += [skill_row(group, low, high, ratings) for low, high in pairs]
        # Several small steps up and down: the whole way says whether training helped.
        if len(players) > 2:
            rows.append(skill_row(group, players[0], players[-1], ratings))
    self_play = where(seeds, is_self_play)
    consultancies = where(self_play, is_consultancy)
    for low, high in pairs:
        rows += mean_rows(group, f"{high} - {low}, judge accuracy", "points", minus(self_play, high, low, right_of))
    for low, high in pairs:
        name = f"{high} - {low}, judge's probability for the consultant"
        rows += mean_rows(group, name, "points", minus(consultancies, high, low, persuaded), 1)
    for low, high in pairs:
        rows += said_row(group, self_play, low, high, "speeches with valid quotes only", "points", valid_quotes, 0)
    for low, high in pairs:
        rows += said_row(group, self_play, low, high, "words a speech", "words", words, 0)
    return rows


def right_of(game: Played) -> float:
    """Whether the judge was right."""
    return right(game.leg)


def persuaded(game: Played) -> float:
    """The judge's probability for the side of a debater who argues alone."""
    verdict = game.leg.verdict
    if verdict is None:
        raise ValueError("a leg without a verdict")
    return verdict.p_side(game.leg.transcript.present[0])


def minus(seeds: Seeds, high: str, low: str, of: Callable[[Played], float]) -> list[list[Scored]]:
    """By seed, a number of one player's games minus that of another's, question by question.

    Args:
        seeds: games of players with themselves or alone.
        high: the first player.
        low: the player that is subtracted.
        of: the number.
    """
    return [paired(_by_question(games, high, of), _by_question(games, low, of)) for games in seeds]


def _by_question(games: Sequence[Played], player: str, of: Callable[[Played], float]) -> dict[str, Scored]:
    """A number of each of a player's games with itself, by question."""
    return {game.question: Scored(of(game), game.cluster) for game in games if game.players == (player,)}


def target_rows(
    seeds: Seeds, targets: Mapping[str, str], ridge: float = RIDGE, resamples: int = RESAMPLES
) -> list[EffectRow]:
    """Debaters trained on the same preferences with different targets, each against the one with the binary target.

    Args:
        seeds: by seed, the games of a tournament.
        targets: target of each debater; without a binary one there are no rows.
        ridge: ridge of the ratings.
        resamples: number of resamples of stories.
    """
    plain = next((name for name, target in targets.items() if target == PLAIN_TARGET), None)
    if plain is None or len(targets) < 2:
        return []
    ratings = fits(seeds, ridge, resamples)
    if ratings is None:
        return []
    rows = []
    for name, target in targets.items():
        if name != plain:
            row = skill_row("targets", plain, name, ratings)
            rows.append(row.model_copy(update={"note": f"target {target}"}))
    return rows
