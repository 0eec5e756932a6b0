"""Effects on the judge: untrained readers, finetuning, and the protocol it judges under."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from debate_rl.analysis.behaviour.game_features import Played, listed
from debate_rl.analysis.effects.row import EffectRow, Scored, Unit, mean_rows, paired
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Estimate
from debate_rl.judges.judge import mean_probability
from debate_rl.judges.scores import confidences, ece, hits, noise_floor
from debate_rl.records import digest

Seeds = Sequence[Sequence[Played]]
"""By seed, the judged games of a stage; an empty entry where a seed has not finished it."""
READINGS = {"open_book": "open-book", "blind": "blind"}
COMPARED = ("single", "double", "ensembled")
"""Protocols that debate is compared with."""


def right(leg: Leg) -> float:
    """1 where the verdict is correct, 1/2 where it is undecided, else 0."""
    return float(hits([_p_correct(leg)])[0])


def reading_rows(seeds: Seeds) -> list[EffectRow]:
    """Accuracy of every untrained reader, with the passage and without it."""
    names = dict.fromkeys(_reader(game) for found in seeds for game in found)
    rows: list[EffectRow] = []
    for protocol, shown in READINGS.items():
        for name in names:
            read = [[game for game in found if (_reader(game), game.protocol) == (name, protocol)] for found in seeds]
            rows += mean_rows("reading", f"{name}, {shown} accuracy", "%", [_accuracy(found) for found in read])
    return rows


def _reader(game: Played) -> str:
    return game.leg.verdict.judge if game.leg.verdict else "-"


def _accuracy(found: Sequence[Played]) -> list[Scored]:
    return [Scored(right(game.leg), game.cluster) for game in found]


def _p_correct(leg: Leg) -> float:
    if leg.p_correct is None:
        raise ValueError("a leg without a verdict or a correct answer")
    return leg.p_correct


def _brier(leg: Leg) -> float:
    return (1 - _p_correct(leg)) ** 2


def _order_hits(leg: Leg) -> list[float]:
    """Whether the raw verdict is correct in each presentation order alone."""
    if leg.verdict is None:
        raise ValueError("a leg without a verdict")
    p = [mean_probability(leg.verdict, order) for order in ((0, 1), (1, 0))]
    return hits(p if leg.transcript.question.correct == 0 else [1 - x for x in p]).tolist()


def _right_in_one_order(leg: Leg) -> float:
    """As `right`, in one presentation order, drawn by the game's id: the mean of both hides what the order does."""
    return _order_hits(leg)[int(digest(["order", leg.transcript.id]), 16) % 2]


def _order_effect(leg: Leg) -> float:
    """1 where the two orders pick different answers."""
    one, two = _order_hits(leg)
    return abs(one - two)


MEASURES: tuple[tuple[str, Unit, Unit, Callable[[Leg], float], int], ...] = (
    ("Brier", "Brier", "Brier", _brier, -1),
    ("accuracy, mean of both orders", "%", "points", right, 1),
    ("accuracy, one order", "%", "points", _right_in_one_order, 1),
    ("order effect", "%", "points", _order_effect, 0),
)
"""What is measured of a judge: name, unit, unit of a difference, of a leg, and the claimed sign of after - before."""


def judge_rows(before: Seeds, after: Seeds) -> list[EffectRow]:
    """The judge before and after finetuning, on the same held-out games."""
    old, new = _by_id(before), _by_id(after)
    both = [one.keys() & two.keys() for one, two in zip(old, new, strict=True)]
    old, new = (
        [{key: game for key, game in found.items() if key in kept} for found, kept in zip(side, both, strict=True)]
        for side in (old, new)
    )
    rows: list[EffectRow] = []
    for name, unit, change, measure, claim in MEASURES:
        first, second = _scored(old, measure), _scored(new, measure)
        rows += mean_rows("judge", f"{name}: before finetuning", unit, [list(found.values()) for found in first])
        rows += mean_rows("judge", f"{name}: after finetuning", unit, [list(found.values()) for found in second])
        pairs = [paired(two, one) for one, two in zip(first, second, strict=True)]
        rows += mean_rows("judge", f"{name}: after - before", change, pairs, claim)
    return rows + _ece_row("before", old) + _ece_row("after", new)


def _by_id(seeds: Seeds) -> list[dict[str, Played]]:
    """Games by id."""
    return [{game.leg.transcript.id: game for game in found} for found in seeds]


def _scored(seeds: Sequence[Mapping[str, Played]], measure: Callable[[Leg], float]) -> list[dict[str, Scored]]:
    """A measure of every game."""
    return [
        {key: Scored(measure(game.leg), game.cluster) for key, game in found.items() if _both_orders(game)}
        for found in seeds
    ]


def _both_orders(game: Played) -> bool:
    return game.leg.verdict is not None and {ask.order for ask in game.leg.verdict.asks} == {(0, 1), (1, 0)}


def _ece_row(when: str, seeds: Sequence[Mapping[str, Played]]) -> list[EffectRow]:
    """ECE with its noise floor, each the mean of the seeds' own: verdicts of several seeds on a question are alike,
    and of verdicts that are alike the floor is not known."""
    games = [list(found.values()) for found in seeds]
    judged = [confidences([_p_correct(game.leg) for game in found]) for found in games if found]
    if not judged:
        return []
    values = iter([ece(confidence, correct) for confidence, correct in judged])
    by_seed = tuple(next(values) if found else None for found in games)
    floors = [noise_floor(confidence) for confidence, _ in judged]
    estimate = Estimate(
        value=float(np.mean([value for value in by_seed if value is not None])),
        n=sum(len(found) for found in games),
        clusters=len({game.cluster for found in games for game in found}),
    )
    chance, high = np.mean([floor.median for floor in floors]), np.mean([floor.high for floor in floors])
    note = f"by chance {chance:.3f}, below {high:.3f} 19 times in 20"
    return [
        EffectRow(
            group="judge", name=f"ECE: {when} finetuning", estimate=estimate, seeds=by_seed, unit="ECE", note=note
        )
    ]


def protocol_rows(seeds: Seeds, order: Sequence[str] = ()) -> list[EffectRow]:
    """Judge accuracy under each protocol for the last listed player, and what debate adds, question by question.

    Args:
        seeds: by seed, the games of an oversight stage.
        order: players as the stage lists them; empty takes the order of their first games.
    """
    every = [game for found in seeds for game in found]
    if not every:
        return []
    player = (listed(every, order) or ["-"])[-1]
    names = list(dict.fromkeys(game.protocol for game in every))
    scores = {name: [_by_question(found, name, player) for found in seeds] for name in names}
    rows: list[EffectRow] = []
    for name in names:
        rows += mean_rows("protocols", f"{name}, {player}", "%", [list(found.values()) for found in scores[name]])
    for name in COMPARED if "debate" in scores else ():
        pairs = [paired(one, two) for one, two in zip(scores["debate"], scores.get(name, []), strict=False)]
        rows += mean_rows("protocols", f"debate - {name}, {player}", "points", pairs, 1)
    return rows


def _by_question(found: Sequence[Played], protocol: str, player: str) -> dict[str, Scored]:
    """Whether the judge was right about each question, with this player or none."""
    return {
        game.question: Scored(right(game.leg), game.cluster)
        for game in found
        if game.protocol == protocol and game.players in ((player,), ())
    }
