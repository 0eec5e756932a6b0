"""Effects on the judge: untrained readers, finetuning, and the protocol it judges under."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from debate_rl.analysis.behaviour.game_features import Played, listed
from debate_rl.analysis.effects.row import EffectRow, Scored, Unit, mean_rows, paired
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Estimate
from debate_rl.judges.judge import mean_probability
from debate_rl.judges.scores import confidences, ece, hits, noise_floor
from debate_rl.records import digest

Seeds = Sequence[Sequence[Played]]
"""Judged games of a stage by seed; the entry of a seed that has not finished the stage is empty."""
READINGS = {"open_book": "open-book", "blind": "blind"}
COMPARED = ("single", "double", "ensembled")
"""Protocols with which debate is compared."""


def where(seeds: Seeds, condition: Callable[[Played], bool]) -> list[list[Played]]:
    """By seed, the games that meet a condition."""
    return [list(filter(condition, games)) for games in seeds]


def under(seeds: Seeds, protocol: str) -> list[list[Played]]:
    """By seed, the games under one protocol."""
    return where(seeds, lambda game: game.protocol == protocol)


def is_self_play(game: Played) -> bool:
    """Whether one player speaks for both sides, or alone. Against others, what it says depends on the opponent."""
    return len(game.players) == 1


def is_consultancy(game: Played) -> bool:
    """Whether a side argues alone."""
    return len(game.leg.transcript.players) == 1


def right(leg: JudgedDebate) -> float:
    """1 where the verdict is correct, 1/2 where it is undecided, else 0."""
    return float(hits([_p_correct(leg)])[0])


def reading_rows(seeds: Seeds) -> list[EffectRow]:
    """Accuracy of every untrained reader, with the passage and without it."""
    readers = dict.fromkeys(_reader(game) for game in chain.from_iterable(seeds))
    rows: list[EffectRow] = []
    for protocol, shown in READINGS.items():
        for reader in readers:
            scores = [_reading_scores(games, reader, protocol) for games in seeds]
            rows += mean_rows("reading", f"{reader}, {shown} accuracy", "%", scores)
    return rows


def _reading_scores(games: Sequence[Played], reader: str, protocol: str) -> list[Scored]:
    """Whether one reader was right, game by game."""
    scores = []
    for game in games:
        if _reader(game) == reader and game.protocol == protocol:
            scores.append(Scored(right(game.leg), game.cluster))
    return scores


def _reader(game: Played) -> str:
    return game.leg.verdict.judge if game.leg.verdict else "-"


def _p_correct(leg: JudgedDebate) -> float:
    if leg.p_correct is None:
        raise ValueError("a leg without a verdict or a correct answer")
    return leg.p_correct


def brier(leg: JudgedDebate) -> float:
    """Squared distance of the verdict from the truth."""
    return (1 - _p_correct(leg)) ** 2


def _order_hits(leg: JudgedDebate) -> list[float]:
    """Whether the raw verdict is correct in each presentation order alone."""
    if leg.verdict is None:
        raise ValueError("a leg without a verdict")
    p_first_answer = [mean_probability(leg.verdict, order) for order in ((0, 1), (1, 0))]
    if leg.transcript.question.correct == 0:
        return hits(p_first_answer).tolist()
    return hits([1 - p for p in p_first_answer]).tolist()


def _right_in_one_order(leg: JudgedDebate) -> float:
    """Like `right`, in one presentation order, drawn by the game's id."""
    # The mean of both orders hides the order effect: one order is what a judge that is asked once would score.
    return _order_hits(leg)[int(digest(["order", leg.transcript.id]), 16) % 2]


def order_effect(leg: JudgedDebate) -> float:
    """1 where the two orders pick different answers."""
    first, second = _order_hits(leg)
    return abs(first - second)


class _Measure(NamedTuple):
    """A number of a judged leg."""

    name: str
    unit: Unit
    difference_unit: Unit
    of: Callable[[JudgedDebate], float]
    claim: int
    """Claimed sign of after - before."""


MEASURES = (
    _Measure("Brier", "Brier", "Brier", brier, -1),
    _Measure("accuracy, mean of both orders", "%", "points", right, 1),
    _Measure("accuracy, one order", "%", "points", _right_in_one_order, 1),
    _Measure("order effect", "%", "points", order_effect, 0),
)
"""How a judge is measured before and after finetuning."""


def judge_rows(before: Seeds, after: Seeds, group: str = "judge", training: str = "finetuning") -> list[EffectRow]:
    """The judge before and after a training, on the same held-out games.

    Args:
        before: by seed, the games with the verdicts of the judge before.
        after: the same games with the verdicts of the judge after.
        group: group of the rows.
        training: what the training is called.
    """
    old, new = [], []
    for before_games, after_games in zip(before, after, strict=True):
        # Only games that both judges judged: otherwise the change would hold the difference of the games.
        old.append(_those_in(before_games, after_games))
        new.append(_those_in(after_games, before_games))
    rows: list[EffectRow] = []
    for name, unit, difference_unit, measure, claim in MEASURES:
        first, second = _scored(old, measure), _scored(new, measure)
        rows += mean_rows(group, f"{name}: before {training}", unit, [list(scores.values()) for scores in first])
        rows += mean_rows(group, f"{name}: after {training}", unit, [list(scores.values()) for scores in second])
        pairs = list(map(paired, second, first))
        rows += mean_rows(group, f"{name}: after - before", difference_unit, pairs, claim)
    return rows + _ece_row(group, f"before {training}", old) + _ece_row(group, f"after {training}", new)


def _those_in(games: Sequence[Played], others: Sequence[Played]) -> dict[str, Played]:
    """Games by id, those that are among the others as well."""
    shared = {game.leg.transcript.id for game in others}
    by_id = {game.leg.transcript.id: game for game in games}
    return {id_: game for id_, game in by_id.items() if id_ in shared}


def _scored(seeds: Sequence[Mapping[str, Played]], measure: Callable[[JudgedDebate], float]) -> list[dict[str, Scored]]:
    """A measure of every game that was judged in both presentation orders."""
    by_seed = []
    for games in seeds:
        scored = {}
        for id_, game in games.items():
            if both_orders(game):
                scored[id_] = Scored(measure(game.leg), game.cluster)
        by_seed.append(scored)
    return by_seed


def both_orders(game: Played) -> bool:
    """Whether the judge was asked in both presentation orders."""
    return game.leg.verdict is not None and {ask.order for ask in game.leg.verdict.asks} == {(0, 1), (1, 0)}


def _ece_row(group: str, when: str, seeds: Sequence[Mapping[str, Played]]) -> list[EffectRow]:
    """ECE with its noise floor, as the mean over seeds."""
    # Verdicts of several seeds on one question are alike, and the noise floor holds for independent verdicts only. So
    # ECE and floor are taken within each seed and averaged.
    by_seed: list[float | None] = []
    floors = []
    for games in seeds:
        if not games:
            by_seed.append(None)
            continue
        confidence, correct = confidences([_p_correct(game.leg) for game in games.values()])
        by_seed.append(ece(confidence, correct))
        floors.append(noise_floor(confidence))
    if not floors:
        return []
    every = list(chain.from_iterable(games.values() for games in seeds))
    estimate = Estimate(
        value=float(np.mean([value for value in by_seed if value is not None])),
        n=len(every),
        clusters=len({game.cluster for game in every}),
    )
    chance, high = np.mean([floor.median for floor in floors]), np.mean([floor.high for floor in floors])
    row = EffectRow(
        group=group,
        name=f"ECE: {when}",
        estimate=estimate,
        seeds=tuple(by_seed),
        unit="ECE",
        note=f"by chance {chance:.3f}, below {high:.3f} 19 times in 20",
    )
    return [row]


def protocol_rows(seeds: Seeds, order: Sequence[str] = ()) -> list[EffectRow]:
    """Judge accuracy under each protocol for the last listed player, and debate minus other protocols.

    Differences are taken question by question.

    Args:
        seeds: by seed, the games of an oversight stage.
        order: players as the stage lists them; empty takes the order of their first games.
    """
    every = list(chain.from_iterable(seeds))
    if not every:
        return []
    # The last listed player is the most trained one.
    player = (listed(every, order) or ["-"])[-1]
    protocols = list(dict.fromkeys(game.protocol for game in every))
    scores = {}
    for name in protocols:
        scores[name] = [_by_question(games, name, player) for games in seeds]
    rows: list[EffectRow] = []
    for name in protocols:
        by_seed = [list(seed_scores.values()) for seed_scores in scores[name]]
        rows += mean_rows("protocols", f"{name}, {player}", "%", by_seed)
    for name in COMPARED:
        if "debate" in scores and name in scores:
            pairs = list(map(paired, scores["debate"], scores[name]))
            rows += mean_rows("protocols", f"debate - {name}, {player}", "points", pairs, 1)
    return rows


def _by_question(games: Sequence[Played], protocol: str, player: str) -> dict[str, Scored]:
    """Whether the judge was right about each question, with this player or with none."""
    scores = {}
    for game in games:
        if game.protocol == protocol and game.players in ((player,), ()):
            scores[game.question] = Scored(right(game.leg), game.cluster)
    return scores
