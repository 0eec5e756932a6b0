"""Effects on the debaters: how truly they quote, how strong they are, and what their strength does to the judge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

from debate_rl.analysis.behaviour.game_features import Played, Said, listed
from debate_rl.analysis.effects.judge import Seeds
from debate_rl.analysis.effects.row import EffectRow, Scored, Unit, mean_rows, paired, scaled, shown
from debate_rl.analysis.slopes import Rated, measure, stories_of
from debate_rl.arena.bradley_terry import RIDGE
from debate_rl.arena.ratings import RESAMPLES, Ratings, rate
from debate_rl.arena.tournament import outcomes
from debate_rl.intervals import Estimate, Replicates
from debate_rl.players.debater import read_name

SLOPES = ("debate", "single")
"""Protocols whose accuracy is set against the debaters' rating."""


def plain(players: Sequence[str]) -> list[str]:
    """The players that do not choose among several speeches."""
    return [name for name in players if "@" not in name]


def steps(players: Sequence[str], siblings: Collection[str] = ()) -> list[tuple[str, str]]:
    """Which plain players are compared, each with the one before it; siblings with the last one that is none.

    Example:
        steps(["base", "sft", "dpo", "dpo_binary"], {"dpo", "dpo_binary"}) ==
            [("base", "sft"), ("sft", "dpo"), ("sft", "dpo_binary")]
    """
    found, last = [], None
    for name in plain(players):
        if last is not None:
            found.append((last, name))
        if name not in siblings or last is None:
            last = name
    return found


def quote_rows(seeds: Seeds, order: Sequence[str] = (), siblings: Collection[str] = ()) -> list[EffectRow]:
    """Share of speeches whose quotes are all valid and words a speech, in the debates of players with themselves.

    Args:
        seeds: by seed, the games of a tournament or oversight stage.
        order: players as the stage lists them; empty takes the order of their first games.
        siblings: players of which none comes after another (see `steps`).
    """
    alone = [[game for game in found if _self_play(game)] for found in seeds]
    protocols = list(dict.fromkeys(game.protocol for found in alone for game in found))
    first = "debate" if "debate" in protocols else next(iter(protocols), "")
    alone = [[game for game in found if game.protocol == first] for found in alone]
    players = listed((game for found in alone for game in found), order)
    rows: list[EffectRow] = []
    for name in players:
        rows += mean_rows("quotes", f"{name}, speeches with valid quotes only", "%", _values(alone, name, valid_quotes))
    pairs = steps(players, siblings)
    for low, high in pairs:
        rows += said_row("quotes", alone, low, high, "speeches with valid quotes only", "points", valid_quotes, 1)
    for name in players:
        rows += mean_rows("quotes", f"{name}, words a speech", "words", _values(alone, name, words))
    for low, high in pairs:
        rows += said_row("quotes", alone, low, high, "words a speech", "words", words, 0)
    return rows


def _self_play(game: Played) -> bool:
    return len(game.leg.transcript.players) == 2 and len(game.players) == 1


def valid_quotes(said: Said) -> float:
    """1 where a speech quotes, and only validly."""
    return float(said.valid)


def words(said: Said) -> float:
    """Words in a speech."""
    return float(said.words)


def _speeches(found: Sequence[Played], player: str, of: Callable[[Said], float]) -> dict[tuple[str, str, int], Scored]:
    """A number of every speech of a player, by question, side and turn."""
    return {
        (game.question, said.side, said.turn): Scored(of(said), game.cluster)
        for game in found
        for said in game.said
        if said.player == player
    }


def _values(seeds: Seeds, player: str, of: Callable[[Said], float]) -> list[list[Scored]]:
    return [list(_speeches(found, player, of).values()) for found in seeds]


def said_row(
    group: str, seeds: Seeds, low: str, high: str, what: str, unit: Unit, of: Callable[[Said], float], claim: int
) -> list[EffectRow]:
    """Two players compared, speech by speech."""
    pairs = [paired(_speeches(found, high, of), _speeches(found, low, of)) for found in seeds]
    return mean_rows(group, f"{high} - {low}, {what}", unit, pairs, claim)


class Fits(NamedTuple):
    """Ratings over the games of all seeds, and of each seed alone (without intervals; None where it has no games)."""

    pooled: Ratings
    single: list[Ratings | None]


def fits(seeds: Seeds, ridge: float, resamples: int) -> Fits | None:
    """Rate the players of all seeds together and of each alone; None where nobody met another.

    A player is its recipe, whatever the seed: the legs of all seeds make one Bradley-Terry fit, whose resamples draw
    the games of a story together.
    """
    cross = [[game for game in found if len(game.players) == 2] for found in seeds]
    every = [game for found in cross for game in found]
    if not every:
        return None
    return Fits(_rate(every, ridge, resamples), [_rate(found, ridge, 0) if found else None for found in cross])


def skill_rows(
    seeds: Seeds,
    ridge: float = RIDGE,
    resamples: int = RESAMPLES,
    order: Sequence[str] = (),
    siblings: Collection[str] = (),
) -> list[EffectRow]:
    """Rating differences of consecutive players, and of a player with itself choosing among more speeches.

    The difference is taken within each resample (see `fits`).

    Args:
        seeds: by seed, the games of a tournament.
        ridge: of the fit.
        resamples: of stories.
        order: players as the stage lists them, the weakest first; empty takes the order of their first games.
        siblings: players of which none comes after another (see `steps`).
    """
    found = fits(seeds, ridge, resamples)
    if found is None:
        return []
    players = listed((game for games in seeds for game in games if len(game.players) == 2), order)
    rows = [skill_row("skill", low, high, found) for low, high in steps(players, siblings)]
    for base in dict.fromkeys(name.partition("@")[0] for name in players):
        same = sorted((name for name in players if _plain(name, base)), key=lambda name: read_name(name).best_of)
        rows += [skill_row("best-of-n", low, high, found) for low, high in pairwise(same)]
    return rows


def _plain(player: str, stage: str) -> bool:
    """Whether a player is of this stage and writes without critiques."""
    found = read_name(player)
    return found.stage == stage and found.refine == 0


def _rate(games: Sequence[Played], ridge: float, resamples: int) -> Ratings:
    # Players are compared as the stage lists them, whoever stands between them in the table.
    legs = [game.leg for game in games]
    return rate(outcomes(legs), ridge=ridge, resamples=resamples, all_pairs=2 * len(legs))


def _difference(ratings: Ratings, high: str, low: str) -> Estimate:
    """Elo of one player minus that of another."""
    pair = next(pair for pair in ratings.pairs if {pair.first, pair.second} == {high, low})
    return scaled(pair.difference, 1 if pair.first == high else -1)


def skill_row(group: str, low: str, high: str, found: Fits) -> EffectRow:
    """How much higher one player is rated than another, which is the claim."""
    estimate = _difference(found.pooled, high, low)
    values = tuple(_difference(one, high, low).value if one else None for one in found.single)
    return EffectRow(
        group=group, name=f"{high} over {low}, Elo", estimate=estimate, seeds=values, unit="Elo",
        shown=shown(estimate, 1),
    )  # fmt: skip


def oversight_rows(
    tournament: Seeds, oversight: Seeds, ridge: float = RIDGE, resamples: int = RESAMPLES
) -> list[EffectRow]:
    """Judge accuracy in self-play against the debaters' rating: slope under each protocol, and their difference.

    In each resample of stories both the ratings and the accuracies are made anew. Only stories that stand in both
    stages are used; fewer than three rated players make no rows.

    Args:
        tournament: by seed, the games that rate the players.
        oversight: by seed, the games that the judge's accuracy is taken from.
        ridge: of the ratings.
        resamples: of stories.
    """
    if len(_rated(tournament, oversight)) < 3:
        return []
    protocols = [name for name in SLOPES if any(game.protocol == name for found in oversight for game in found)]
    pooled = _slopes(_flat(tournament), _flat(oversight), protocols, ridge, resamples)
    single = [_slopes(one, two, protocols, ridge, 0) for one, two in zip(tournament, oversight, strict=True)]
    rows = []
    for name, replicates in pooled.items():
        estimate = scaled(replicates.estimate(), 100)
        values = tuple(100 * found[name].value if name in found else None for found in single)
        rows.append(
            EffectRow(
                group="oversight",
                name=f"judge accuracy over debater rating, {name}",
                estimate=estimate,
                seeds=values,
                unit="points per 100 Elo",
                shown=shown(estimate, 0 if name == "single" else 1),
            )
        )
    return rows


def _flat(seeds: Seeds) -> list[Played]:
    return [game for found in seeds for game in found]


def _rated(tournament: Seeds, oversight: Seeds) -> list[str]:
    """Players of both stages."""
    rated = set(listed(_flat(tournament)))
    return [name for name in listed(_flat(oversight)) if name in rated]


def _slopes(
    tournament: Sequence[Played], oversight: Sequence[Played], protocols: Sequence[str], ridge: float, resamples: int
) -> dict[str, Replicates]:
    """Slope by protocol, and "debate - single" over the stories that both have."""
    rated = Rated([game.leg for game in tournament], ridge, resamples)
    alone = {name: [game.leg for game in oversight if game.protocol == name] for name in protocols}
    slopes: dict[str, Replicates] = {}
    for name, legs in alone.items():
        slope = measure(rated, legs)
        if slope is not None and len(slope.players) > 2:
            slopes[name] = slope.replicates
    if set(SLOPES) <= slopes.keys():
        shared = set.intersection(*(stories_of(alone[name]) for name in SLOPES))
        one, two = (measure(rated, alone[name], shared) for name in SLOPES)
        if one is not None and two is not None and one.replicates.clusters == two.replicates.clusters:
            gap = one.replicates.minus(two.replicates)
            slopes["debate - single"] = gap._replace(rows=one.replicates.rows + two.replicates.rows)
    return slopes
