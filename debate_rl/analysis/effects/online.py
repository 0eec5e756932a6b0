"""Effects of online training: each trained debater against what it started from, at the tokens that it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from debate_rl.analysis.behaviour.game_features import Played
from debate_rl.analysis.effects.debate import fits, said_row, skill_row, valid_quotes
from debate_rl.analysis.effects.judge import Seeds
from debate_rl.analysis.effects.row import EffectRow, Scored, mean_rows, paired
from debate_rl.analysis.effects.training import persuaded, right_of
from debate_rl.arena.bradley_terry import RIDGE
from debate_rl.arena.ratings import RESAMPLES

GROUP = "online"


def online_rows(
    seeds: Seeds, start: str, trained: Mapping[str, int | None], ridge: float = RIDGE, resamples: int = RESAMPLES
) -> list[EffectRow]:
    """Debaters trained online, and others that started where they did, each against that start.

    Args:
        seeds: by seed, the games of a tournament.
        start: what they were trained from.
        trained: tokens generated for each one's training, a seed; None where that is not known.
        ridge: of the ratings.
        resamples: of stories.
    """
    found = fits(seeds, ridge, resamples)
    if found is None:
        return []
    rows = []
    for name, tokens in trained.items():
        note = "" if tokens is None else f"{tokens:,} tokens generated"
        rows.append(skill_row(GROUP, start, name, found).model_copy(update={"note": note}))
    alone = [[game for game in games if len(game.players) == 1] for games in seeds]
    for name in trained:
        rows += said_row(GROUP, alone, start, name, "speeches with valid quotes only", "points", valid_quotes, 0)
    return rows


def judged_rows(seeds: Seeds, start: str, trained: Sequence[str], judge: str) -> list[EffectRow]:
    """Accuracy of a judge about each trained debater minus that about the start, by protocol and question.

    Args:
        seeds: by seed, the games of an oversight stage before this judge.
        start: what the debaters were trained from.
        trained: the debaters.
        judge: how the rows call it.
    """
    rows: list[EffectRow] = []
    protocols = dict.fromkeys(game.protocol for games in seeds for game in games)
    for protocol in protocols:
        of = [[game for game in games if game.protocol == protocol] for games in seeds]
        for name in trained:
            pairs = [paired(_scored(games, name, right_of), _scored(games, start, right_of)) for games in of]
            rows += mean_rows(GROUP, f"{name} - {start}, {protocol}, accuracy of the {judge} judge", "points", pairs)
        lone = [[game for game in games if len(game.leg.transcript.players) == 1] for games in of]
        for name in trained:
            pairs = [paired(_scored(games, name, persuaded), _scored(games, start, persuaded)) for games in lone]
            what = f"{name} - {start}, {protocol}, probability of its side by the {judge} judge"
            rows += mean_rows(GROUP, what, "points", pairs)
    return rows


def _scored(games: Sequence[Played], player: str, of: Callable[[Played], float]) -> dict[str, Scored]:
    """A number of each of a player's games."""
    return {game.question: Scored(of(game), game.cluster) for game in games if game.players == (player,)}
