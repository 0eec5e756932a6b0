"""The curve of an online training: what was measured at a step, and the alarms that it sets off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from debate_rl.arena.ratings import rate
from debate_rl.arena.tournament import outcomes
from debate_rl.errors import UserError
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Effect, Estimate, difference, mean
from debate_rl.records import Record
from debate_rl.trainers.grpo.rewards import invalid_share
from debate_rl.trainers.grpo.selfplay import POLICY
from debate_rl.trainers.grpo.settings import Alarms

START = "start"
"""Name of what the policy started from."""


class Point(Record):
    """What was measured before a step, 0 being before the first.

    Example:
        Point(step=40, elo=Effect(value=62.0, ...), wins=Estimate(value=0.58, ...), side_a=Estimate(value=0.51, ...),
              accuracy=Estimate(value=0.74, ...), second=Estimate(value=0.71, ...), valid=Estimate(value=0.9, ...),
              tokens=Estimate(value=19.2, ...), entropy=0.31, kl=0.02, alarms=("judges part: ...",))
    """

    step: int
    elo: Effect | None = None
    """Over the start, from games with all of the pool; None where the protocol has no opponent."""
    wins: Estimate | None = None
    """Judge's mean probability for the policy: against the pool, or of consultants for the side that they argue."""
    side_a: Estimate | None = None
    """Share of the policy's games with itself that side A wins."""
    accuracy: Estimate | None = None
    """Of the training judge on the policy's games with itself, or alone."""
    accuracy_change: Effect | None = None
    """Since step 0, question by question."""
    second: Estimate | None = None
    """Accuracy of the held-out judge on the same games."""
    second_change: Effect | None = None
    judges_part: Effect | None = None
    """Training judge minus held-out judge: mean probability that they give the policy, against the start or, of
    consultants, alone; since step 0."""
    valid: Estimate | None = None
    """Share of the policy's speeches with quotes, all of them valid."""
    tokens: Estimate | None = None
    """Of a speech."""
    entropy: float | None = None
    """Of the policy, in nats a token, as training logged it last."""
    kl: float | None = None
    """To the start, a token, likewise."""
    failed: int = 0
    """Games without a verdict of either judge."""
    alarms: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, float]:
        """The values by name, for a log."""
        named = self.model_dump(exclude={"step", "alarms"}, exclude_none=True)
        found = {name: value["value"] if isinstance(value, dict) else value for name, value in named.items()}
        return {**{name: float(value) for name, value in found.items()}, "alarms": float(len(self.alarms))}


class Measured(Record):
    """One game of a measurement: the training judge's leg, and the held-out judge's.

    Example:
        Measured(leg=Leg(...), second=Leg(...))
    """

    leg: Leg
    second: Leg | None = None


def point(
    step: int, games: Sequence[Measured], before: Sequence[Measured], alarms: Alarms, ridge: float = 0.1
) -> Point:
    """Put the games of a measurement together.

    Args:
        step: when.
        games: cross-play with the pool and self-play; consultancies alone.
        before: the games of step 0, or `games` at step 0.
        alarms: their limits.
        ridge: of the ratings.
    """
    own = [game for game in games if POLICY in game.leg.transcript.players.values()]
    alone, first = _alone(own), _alone(before)
    met = [game for game in own if set(game.leg.transcript.players.values()) == {POLICY, START}] or alone
    met_first = [g for g in before if set(g.leg.transcript.players.values()) == {POLICY, START}] or first
    speeches = [
        (speech, game.leg.transcript.question.cluster)
        for game in own
        for speech in game.leg.transcript.speeches
        if speech.origin.player == POLICY
    ]
    found = Point(
        step=step,
        elo=_elo([game.leg for game in games], ridge),
        wins=_mean(_won([game.leg for game in own])),
        side_a=_mean([(float(p > 0.5), cluster) for p, cluster in _side_a(alone)]),
        accuracy=_mean(list(_hits(alone, _first).values())),
        accuracy_change=_change(_hits(alone, _first), _hits(first, _first)),
        second=_mean(list(_hits(alone, _second).values())),
        second_change=_change(_hits(alone, _second), _hits(first, _second)),
        judges_part=_change(_apart(met), _apart(met_first)),
        valid=_mean([(float(invalid_share(speech) == 0), cluster) for speech, cluster in speeches]),
        tokens=_mean([(float(speech.origin.new_tokens), cluster) for speech, cluster in speeches]),
        failed=sum(g.leg.verdict is None or (g.second is not None and g.second.verdict is None) for g in games),
    )
    return found.model_copy(update={"alarms": sounded(found, alarms)})


def sounded(found: Point, alarms: Alarms) -> tuple[str, ...]:
    """The alarms of a point, in words."""
    told = []
    part, side = found.judges_part, found.side_a
    if part is not None and part.low is not None and part.low > alarms.judges_part:
        told.append(f"judges part: the training judge gives the policy {part:.2f} more than the held-out judge")
    if side is not None and side.low is not None and side.high is not None:
        if side.low > alarms.one_side:
            told.append(f"one side: A wins {side:.2f} of the policy's games with itself")
        if side.high < 1 - alarms.one_side:
            told.append(f"one side: A wins {side:.2f} of the policy's games with itself, B the others")
    for judge, change in (("training", found.accuracy_change), ("held-out", found.second_change)):
        if change is not None and change.high is not None and change.high < -alarms.accuracy_falls:
            told.append(f"accuracy falls: of the {judge} judge by {change:.2f}")
    return tuple(told)


def _elo(legs: Sequence[Leg], ridge: float) -> Effect | None:
    """Elo of the policy over the start; None without games between players."""
    played = outcomes(legs)
    if not {POLICY, START} <= {*played.left, *played.right}:
        return None
    try:
        pairs = rate(played, ridge=ridge).pairs
    except UserError:  # who met whom is not connected: too many games failed
        return None
    for pair in pairs:
        if (pair.first, pair.second) == (POLICY, START):
            return pair.difference
        if (pair.first, pair.second) == (START, POLICY):
            turned = pair.difference
            low = None if turned.high is None else -turned.high
            high = None if turned.low is None else -turned.low
            return turned.model_copy(update={"value": -turned.value, "low": low, "high": high})
    return None


def _alone(games: Sequence[Measured]) -> list[Measured]:
    """The policy's games with itself, or alone."""
    return [game for game in games if set(game.leg.transcript.players.values()) == {POLICY}]


def _won(legs: Sequence[Leg]) -> list[tuple[float, str]]:
    """The judge's probability for the policy where it sits on one side."""
    return [
        (leg.verdict.p_side(sides[0]), leg.transcript.question.cluster)
        for leg in legs
        if leg.verdict is not None
        and len(sides := [side for side, name in leg.transcript.players.items() if name == POLICY]) == 1
    ]


def _side_a(games: Sequence[Measured]) -> list[tuple[float, str]]:
    """The judge's probability of A in games with two sides."""
    return [
        (game.leg.verdict.p[0], game.leg.transcript.question.cluster)
        for game in games
        if game.leg.verdict is not None and len(game.leg.transcript.present) == 2
    ]


Values = dict[str, tuple[float, str]]
"""By game, what was measured and the cluster."""


def _first(game: Measured) -> Leg | None:
    return game.leg


def _second(game: Measured) -> Leg | None:
    return game.second


def _hits(games: Sequence[Measured], judge: Callable[[Measured], Leg | None]) -> Values:
    """Whether a judge was right, by game; one half for one that favours neither."""
    found = {}
    for game in games:
        leg = judge(game)
        if leg is not None and leg.p_correct is not None:
            p = leg.p_correct
            hit = 0.5 if p == 0.5 else float(p > 0.5)
            found[leg.transcript.id] = (hit, leg.transcript.question.cluster)
    return found


def _apart(games: Sequence[Measured]) -> Values:
    """How much more the training judge gives the policy than the held-out one, by game."""
    found = {}
    for game in games:
        if game.second is not None:
            one, two = _won([game.leg]), _won([game.second])
            if one and two:
                found[game.leg.transcript.id] = (one[0][0] - two[0][0], one[0][1])
    return found


def _mean(values: Sequence[tuple[float, str]]) -> Estimate | None:
    return mean([value for value, _ in values], [cluster for _, cluster in values]) if values else None


def _change(now: Values, before: Values) -> Effect | None:
    """Difference of two measurements, paired by game."""
    both = [name for name in now if name in before]
    if not both:
        return None
    labels = [now[name][1] for name in both]
    return difference([now[name][0] for name in both], [before[name][0] for name in both], labels)
