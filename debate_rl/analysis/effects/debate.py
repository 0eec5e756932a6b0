"""Effects on the debaters: how truly they quote, how strong they are, and how judge accuracy moves with strength."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from debate_rl.analysis.behaviour.game_features import Played, Said, listed
from debate_rl.analysis.effects.judge import Seeds, under, where
from debate_rl.analysis.effects.row import EffectRow, Scored, Unit, mean_rows, paired, scaled, shown
from debate_rl.analysis.iterations import over
from debate_rl.analysis.slopes import Rated, measure, stories_of
from debate_rl.arena.bradley_terry import RIDGE
from debate_rl.arena.ratings import RESAMPLES, Ratings, rate
from debate_rl.arena.tournament import outcomes
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Estimate, Replicates
from debate_rl.players.debater import read_name


def plain(players: Sequence[str]) -> list[str]:
    """Players that do not choose among several speeches."""
    return [name for name in players if "@" not in name]


def steps(players: Sequence[str], siblings: Collection[str] = ()) -> list[tuple[str, str]]:
    """Pairs of plain players to compare: each with the one before it.

    Siblings (trained from the same start) are compared with the last player that is no sibling, not with each other.

    Example:
        steps(["base", "sft", "dpo", "dpo_binary"], {"dpo", "dpo_binary"}) ==
            [("base", "sft"), ("sft", "dpo"), ("sft", "dpo_binary")]
    """
    pairs, last = [], None
    for name in plain(players):
        if last is not None:
            pairs.append((last, name))
        if name not in siblings or last is None:
            last = name
    return pairs


def quote_rows(seeds: Seeds, order: Sequence[str] = (), siblings: Collection[str] = ()) -> list[EffectRow]:
    """Share of speeches whose quotes are all valid, and words a speech, in debates of players with themselves.

    Args:
        seeds: by seed, the games of a tournament or oversight stage.
        order: players as the stage lists them; empty takes the order of their first games.
        siblings: players that are not compared with each other (see `steps`).
    """
    self_play = where(seeds, _is_two_sided_self_play)
    protocols = list(dict.fromkeys(game.protocol for game in chain.from_iterable(self_play)))
    protocol = protocols[0] if protocols else ""
    # Players quote and speak differently under each protocol: rows of several would be averages of unlike things.
    if "debate" in protocols:
        protocol = "debate"
    self_play = under(self_play, protocol)
    players = listed(chain.from_iterable(self_play), order)
    pairs = steps(players, siblings)
    rows: list[EffectRow] = []
    for name in players:
        valid = _values(self_play, name, valid_quotes)
        rows += mean_rows("quotes", f"{name}, speeches with valid quotes only", "%", valid)
    for low, high in pairs:
        what = "speeches with valid quotes only"
        rows += said_row("quotes", self_play, low, high, what, "points", valid_quotes, 1)
    for name in players:
        rows += mean_rows("quotes", f"{name}, words a speech", "words", _values(self_play, name, words))
    for low, high in pairs:
        rows += said_row("quotes", self_play, low, high, "words a speech", "words", words, 0)
    return rows


def _is_two_sided_self_play(game: Played) -> bool:
    return len(game.leg.transcript.players) == 2 and len(game.players) == 1


def valid_quotes(said: Said) -> float:
    """1 if a speech quotes, and only validly, else 0."""
    return float(said.valid)


def words(said: Said) -> float:
    """Words in a speech."""
    return float(said.words)


def _speeches(games: Sequence[Played], player: str, of: Callable[[Said], float]) -> dict[tuple[str, str, int], Scored]:
    """A number of every speech of a player, by question, side and turn."""
    scores = {}
    for game in games:
        for speech in game.said:
            if speech.player == player:
                scores[game.question, speech.side, speech.turn] = Scored(of(speech), game.cluster)
    return scores


def _values(seeds: Seeds, player: str, of: Callable[[Said], float]) -> list[list[Scored]]:
    return [list(_speeches(games, player, of).values()) for games in seeds]


def said_row(
    group: str, seeds: Seeds, low: str, high: str, what: str, unit: Unit, of: Callable[[Said], float], claim: int
) -> list[EffectRow]:
    """Two players compared, speech by speech."""
    pairs = [paired(_speeches(games, high, of), _speeches(games, low, of)) for games in seeds]
    return mean_rows(group, f"{high} - {low}, {what}", unit, pairs, claim)


class Fits(NamedTuple):
    """Ratings over the games of all seeds, and of each seed alone (without intervals; None if it has no games)."""

    pooled: Ratings
    single: list[Ratings | None]


def fits(seeds: Seeds, ridge: float, resamples: int) -> Fits | None:
    """Rate the players of all seeds together and of each alone; None if no two players met.

    A player is its recipe, whatever the seed: the legs of all seeds make one Bradley-Terry fit, whose resamples draw
    the games of a story together.
    """
    cross_play = where(seeds, _is_cross_play)
    every = list(chain.from_iterable(cross_play))
    if not every:
        return None
    single = [_rate(games, ridge, 0) if games else None for games in cross_play]
    return Fits(_rate(every, ridge, resamples), single)


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
        ridge: ridge of the fit.
        resamples: number of resamples of stories.
        order: players as the stage lists them, the weakest first; empty takes the order of their first games.
        siblings: players that are not compared with each other (see `steps`).
    """
    ratings = fits(seeds, ridge, resamples)
    if ratings is None:
        return []
    players = listed(chain.from_iterable(where(seeds, _is_cross_play)), order)
    rows = [skill_row("skill", low, high, ratings) for low, high in steps(players, siblings)]
    for base in dict.fromkeys(name.partition("@")[0] for name in players):
        family = [name for name in players if _is_of_stage(name, base)]
        # dpo, dpo@4, dpo@16: each is compared with the next smaller number of speeches.
        family.sort(key=lambda name: read_name(name).best_of)
        rows += [skill_row("best-of-n", low, high, ratings) for low, high in pairwise(family)]
    return rows


def _is_cross_play(game: Played) -> bool:
    return len(game.players) == 2


def _is_of_stage(player: str, stage: str) -> bool:
    """Whether a player is of this stage and writes without critiques."""
    name = read_name(player)
    return name.stage == stage and name.refine == 0


def _rate(games: Sequence[Played], ridge: float, resamples: int) -> Ratings:
    # All pairs are needed: players are compared as the stage lists them, not as neighbours in the table.
    legs = [game.leg for game in games]
    return rate(outcomes(legs), ridge=ridge, resamples=resamples, all_pairs=2 * len(legs))


def _difference(ratings: Ratings, high: str, low: str) -> Estimate:
    """Elo of one player minus that of another, without a p-value."""
    return scaled(over(ratings, high, low), 1)


def skill_row(group: str, low: str, high: str, ratings: Fits) -> EffectRow:
    """Elo of one player minus that of another; the claim is that it is above 0."""
    estimate = _difference(ratings.pooled, high, low)
    by_seed = tuple(_difference(seed, high, low).value if seed else None for seed in ratings.single)
    return EffectRow(
        group=group,
        name=f"{high} over {low}, Elo",
        estimate=estimate,
        seeds=by_seed,
        unit="Elo",
        shown=shown(estimate, 1),
    )


def oversight_rows(
    tournament: Seeds, oversight: Seeds, ridge: float = RIDGE, resamples: int = RESAMPLES
) -> list[EffectRow]:
    """Judge accuracy in self-play against the debaters' rating: slope under each protocol, and their difference.

    Each resample of stories refits the ratings and recomputes the accuracies. Only stories that stand in both stages
    are used; fewer than three rated players make no rows.

    Args:
        tournament: by seed, the games that rate the players.
        oversight: by seed, the games that give the judge's accuracy.
        ridge: ridge of the ratings.
        resamples: number of resamples of stories.
    """
    every_rating_game = list(chain.from_iterable(tournament))
    every_game = list(chain.from_iterable(oversight))
    players = set(listed(every_rating_game)) & set(listed(every_game))
    # Of two players a slope is their difference in other words.
    if len(players) < 3:
        return []
    played = {game.protocol for game in every_game}
    protocols = sorted(played, key=lambda name: (name != "debate", name != "single", name))
    pooled = _slopes(every_rating_game, every_game, protocols, ridge, resamples)
    single = []
    for rating_games, games in zip(tournament, oversight, strict=True):
        single.append(_slopes(rating_games, games, protocols, ridge, 0))
    rows = []
    for name, replicates in pooled.items():
        estimate = scaled(replicates.estimate(), 100)
        by_seed = tuple(100 * slopes[name].value if name in slopes else None for slopes in single)
        # The others claim nothing: under a consultancy accuracy may rise or fall with the consultant's skill.
        claim = 1 if name.startswith("debate") else 0
        row = EffectRow(
            group="oversight",
            name=f"judge accuracy over debater rating, {name}",
            estimate=estimate,
            seeds=by_seed,
            unit="points per 100 Elo",
            shown=shown(estimate, claim),
        )
        rows.append(row)
    return rows


def _slopes(
    tournament: Sequence[Played], oversight: Sequence[Played], protocols: Sequence[str], ridge: float, resamples: int
) -> dict[str, Replicates]:
    """Slope by protocol, and "debate - single" over the stories that both have."""
    rated = Rated([game.leg for game in tournament], ridge, resamples)
    legs: dict[str, list[JudgedDebate]] = {name: [] for name in protocols}
    for game in oversight:
        if game.protocol in legs:
            legs[game.protocol].append(game.leg)
    slopes: dict[str, Replicates] = {}
    for name, protocol_legs in legs.items():
        slope = measure(rated, protocol_legs)
        if slope is not None and len(slope.players) > 2:
            slopes[name] = slope.replicates
    if "debate" not in slopes or "single" not in slopes:
        return slopes
    # Measured again over the shared stories: only slopes over the same draws can be subtracted.
    shared = stories_of(legs["debate"]) & stories_of(legs["single"])
    debate, single = measure(rated, legs["debate"], shared), measure(rated, legs["single"], shared)
    if debate is None or single is None or debate.replicates.clusters != single.replicates.clusters:
        return slopes
    difference = debate.replicates.minus(single.replicates)
    slopes["debate - single"] = difference._replace(rows=debate.replicates.rows + single.replicates.rows)
    return slopes
