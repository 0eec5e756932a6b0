"""Effects of online training: each trained debater against its start, and the tokens that the training generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from debate_rl.analysis.effects.debate import fits, said_row, skill_row, valid_quotes
from debate_rl.analysis.effects.judge import Seeds, is_consultancy, is_self_play, under, where
from debate_rl.analysis.effects.row import EffectRow, mean_rows
from debate_rl.analysis.effects.training import minus, persuaded, right_of
from debate_rl.arena.bradley_terry import RIDGE
from debate_rl.arena.ratings import RESAMPLES

GROUP = "online"


def online_rows(
    seeds: Seeds, start: str, trained: Mapping[str, int | None], ridge: float = RIDGE, resamples: int = RESAMPLES
) -> list[EffectRow]:
    """Debaters trained online, and others with the same start, each against that start.

    Args:
        seeds: by seed, the games of a tournament.
        start: the debater from which they were trained.
        trained: tokens generated for each one's training, per seed; None if not known.
        ridge: ridge of the ratings.
        resamples: number of resamples of stories.
    """
    ratings = fits(seeds, ridge, resamples)
    if ratings is None:
        return []
    rows = []
    for name, tokens in trained.items():
        note = "" if tokens is None else f"{tokens:,} tokens generated"
        rows.append(skill_row(GROUP, start, name, ratings).model_copy(update={"note": note}))
    self_play = where(seeds, is_self_play)
    for name in trained:
        rows += said_row(GROUP, self_play, start, name, "speeches with valid quotes only", "points", valid_quotes, 0)
    return rows


def judged_rows(seeds: Seeds, start: str, trained: Sequence[str], judge: str) -> list[EffectRow]:
    """Accuracy of a judge about each trained debater minus that about the start, by protocol and question.

    Args:
        seeds: by seed, the games of an oversight stage with this judge's verdicts.
        start: the debater from which the others were trained.
        trained: the debaters.
        judge: name of the judge in the rows.
    """
    protocols: dict[str, None] = {}
    for games in seeds:
        protocols.update(dict.fromkeys(game.protocol for game in games))
    rows: list[EffectRow] = []
    for protocol in protocols:
        played = under(seeds, protocol)
        for name in trained:
            what = f"{name} - {start}, {protocol}, accuracy of the {judge} judge"
            rows += mean_rows(GROUP, what, "points", minus(played, name, start, right_of))
        consultancies = where(played, is_consultancy)
        for name in trained:
            what = f"{name} - {start}, {protocol}, probability of its side by the {judge} judge"
            rows += mean_rows(GROUP, what, "points", minus(consultancies, name, start, persuaded))
    return rows
