"""Metrics of an online training: the points of its curve, and the alarms that they set off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from debate_rl.arena.ratings import rate
from debate_rl.arena.tournament import outcomes
from debate_rl.errors import UserError
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import Failure, JudgedDebate, Verdict
from debate_rl.intervals import Effect, Estimate, difference, mean
from debate_rl.records import Record
from debate_rl.trainers.grpo.groups import POLICY
from debate_rl.trainers.grpo.rewards import invalid_share
from debate_rl.trainers.grpo.settings import Alarms

START = "start"
"""Name of the policy before training."""


def logged_numbers(measured: Record, alarms: Sequence[str]) -> dict[str, float]:
    """The values of a point of a curve by name, for a log, and how many alarms it set off."""
    fields = measured.model_dump(exclude={"step", "alarms"}, exclude_none=True)
    numbers = {}
    for name, value in fields.items():
        # Estimates and effects are logged without their intervals.
        number = value["value"] if isinstance(value, dict) else value
        numbers[name] = float(number)
    numbers["alarms"] = float(len(alarms))
    return numbers


class Point(Record):
    """One measurement of the curve: the policy after `step` steps, 0 being before training.

    Example:
        Point(step=40, elo=Effect(value=62.0, ...), wins=Estimate(value=0.58, ...), side_a=Estimate(value=0.51, ...),
              accuracy=Estimate(value=0.74, ...), second=Estimate(value=0.71, ...), valid=Estimate(value=0.9, ...),
              tokens=Estimate(value=19.2, ...), entropy=0.31, kl=0.02, alarms=("judges part: ...",))
    """

    step: int
    elo: Effect | None = None
    """Rating over the start, from games with the whole pool; None if the protocol has no opponent."""
    wins: Estimate | None = None
    """Judge's mean probability for the policy against the pool; for the argued side in consultancies."""
    wins_change: Effect | None = None
    """Change since step 0, paired by game."""
    second_wins: Estimate | None = None
    """The held-out judge's mean probability for the policy in the same games."""
    second_wins_change: Effect | None = None
    """Change since step 0, paired by game."""
    side_a: Estimate | None = None
    """Share of the policy's self-play games that side A wins."""
    accuracy: Estimate | None = None
    """Accuracy of the training judge on the policy's self-play games or consultancies."""
    accuracy_change: Effect | None = None
    """Change since step 0, paired by game."""
    second: Estimate | None = None
    """Accuracy of the held-out judge on the same games."""
    second_change: Effect | None = None
    """Change since step 0, paired by game."""
    judges_part: Effect | None = None
    """How far the judges part: the training judge's mean probability for the policy minus the held-out judge's, in
    games against the start or in consultancies; change since step 0."""
    valid: Estimate | None = None
    """Share of the policy's speeches that have quotes, all of them valid."""
    tokens: Estimate | None = None
    """Mean tokens of the policy's speeches."""
    entropy: float | None = None
    """Entropy of the policy in nats per token, from training's last log."""
    kl: float | None = None
    """KL divergence from the start per token, from training's last log."""
    failed: int = 0
    """Games without a verdict of the training judge or of the held-out judge."""
    alarms: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, float]:
        """The values by name, for a log."""
        return logged_numbers(self, self.alarms)


class Measured(Record):
    """One game of a measurement, as the training judge and the held-out judge saw it.

    Example:
        Measured(leg=JudgedDebate(...), second=JudgedDebate(...))
    """

    leg: JudgedDebate
    """With the training judge's verdict."""
    second: JudgedDebate | None = None
    """The same game with the held-out judge's verdict."""


def point(
    step: int, games: Sequence[Measured], before: Sequence[Measured], alarms: Alarms, ridge: float = 0.1
) -> Point:
    """Compute the point of a measurement from its games.

    Args:
        step: training steps so far.
        games: cross-play with the pool and self-play; consultancies alone.
        before: the games of step 0, or `games` at step 0.
        alarms: limits of the alarms.
        ridge: regularisation of the ratings.
    """
    policy_games = [game for game in games if POLICY in _players(game)]
    alone = _between(policy_games, {POLICY})
    alone_before = _between(before, {POLICY})
    # The start is the fixed opponent of every training; consultancies have none, and their own games serve instead.
    against_start = _between(policy_games, {POLICY, START}) or alone
    against_start_before = _between(before, {POLICY, START}) or alone_before
    speeches = _policy_speeches(policy_games)
    valid = [(float(invalid_share(speech) == 0), cluster) for speech, cluster in speeches]
    tokens = [(float(speech.origin.new_tokens), cluster) for speech, cluster in speeches]
    values, values_before = game_values(games), game_values(before)

    def mean_of(name: str) -> Estimate | None:
        return mean_value(list(values[name].values()))

    def change_of(name: str) -> Effect | None:
        return paired_change(values[name], values_before[name])

    measured = Point(
        step=step,
        elo=_elo([game.leg for game in games], ridge),
        wins=mean_of("wins"),
        wins_change=change_of("wins"),
        second_wins=mean_of("second_wins"),
        second_wins_change=change_of("second_wins"),
        side_a=mean_value(_side_a_wins(alone)),
        accuracy=mean_of("accuracy"),
        accuracy_change=change_of("accuracy"),
        second=mean_of("second"),
        second_change=change_of("second"),
        judges_part=paired_change(_judge_gaps(against_start), _judge_gaps(against_start_before)),
        valid=mean_value(valid),
        tokens=mean_value(tokens),
        failed=sum(_lacks_verdict(game) for game in games),
    )
    return measured.model_copy(update={"alarms": sounded(measured, alarms)})


def game_values(games: Sequence[Measured]) -> dict[str, dict[str, Value]]:
    """By the names of `Point`, each game's probability for the policy and whether each judge was right, by game."""
    alone = _between(games, {POLICY})
    return {
        "wins": _policy_probabilities(games, _training_leg),
        "second_wins": _policy_probabilities(games, _held_out_leg),
        "accuracy": _hits(alone, _training_leg),
        "second": _hits(alone, _held_out_leg),
    }


def judged_leg(game: Transcript, verdict: Verdict | Failure) -> JudgedDebate:
    """A game with the verdict or failure of a judge."""
    if isinstance(verdict, Verdict):
        return JudgedDebate(transcript=game, verdict=verdict)
    return JudgedDebate(transcript=game, failure=verdict)


def sounded(measured: Point, limits: Alarms) -> tuple[str, ...]:
    """The alarms that a point sets off, in words; each needs the whole interval past its limit."""
    # The value alone would cross its limit by chance sooner or later: it is looked at again and again.
    alarms = []
    part = measured.judges_part
    if part is not None and part.low is not None and part.low > limits.judges_part:
        alarms.append(f"judges part: the training judge gives the policy {part:.2f} more than the held-out judge")
    side = measured.side_a
    if side is not None and side.low is not None and side.high is not None:
        if side.low > limits.one_side:
            alarms.append(f"one side: A wins {side:.2f} of the policy's games with itself")
        if side.high < 1 - limits.one_side:
            alarms.append(f"one side: A wins {side:.2f} of the policy's games with itself, B the others")
    for judge, change in (("training", measured.accuracy_change), ("held-out", measured.second_change)):
        if change is not None and change.high is not None and change.high < -limits.accuracy_falls:
            alarms.append(f"accuracy falls: of the {judge} judge by {change:.2f}")
    return tuple(alarms)


def _elo(legs: Sequence[JudgedDebate], ridge: float) -> Effect | None:
    """Elo of the policy over the start; None without games between players."""
    results = outcomes(legs)
    if not {POLICY, START} <= {*results.left, *results.right}:
        return None
    # All games count, those of the pool among itself too: they tie the ratings of the policy's opponents together.
    try:
        pairs = rate(results, ridge=ridge).pairs
    except UserError:  # too many games failed: no chain of games connects all players
        return None
    for pair in pairs:
        if (pair.first, pair.second) == (POLICY, START):
            return pair.difference
        if (pair.first, pair.second) == (START, POLICY):
            return _negated(pair.difference)
    return None


def _negated(effect: Effect) -> Effect:
    """An effect with the opposite sign; the ends of its interval change places."""
    low = None if effect.high is None else -effect.high
    high = None if effect.low is None else -effect.low
    return effect.model_copy(update={"value": -effect.value, "low": low, "high": high})


def _players(game: Measured) -> set[str]:
    """Names of a game's players."""
    return set(game.leg.transcript.players.values())


def _between(games: Sequence[Measured], players: set[str]) -> list[Measured]:
    """Games of exactly these players; {POLICY} selects self-play and consultancies."""
    return [game for game in games if _players(game) == players]


def _lacks_verdict(game: Measured) -> bool:
    """Whether one of the judges that were asked gave no verdict."""
    if game.leg.verdict is None:
        return True
    return game.second is not None and game.second.verdict is None


Value = tuple[float, str]
"""A number and its cluster (`Question.cluster`)."""


def _policy_speeches(games: Sequence[Measured]) -> list[tuple[Speech, str]]:
    """The policy's speeches, each with its cluster."""
    speeches = []
    for game in games:
        transcript = game.leg.transcript
        for speech in transcript.speeches:
            if speech.origin.player == POLICY:
                speeches.append((speech, transcript.question.cluster))
    return speeches


def _policy_probability(leg: JudgedDebate) -> float | None:
    """The judge's probability for the policy; None without a verdict, or if the policy does not have one side."""
    sides = [side for side, name in leg.transcript.players.items() if name == POLICY]
    if leg.verdict is None or len(sides) != 1:
        return None
    return leg.verdict.p_side(sides[0])


def _policy_probabilities(
    games: Sequence[Measured], judged: Callable[[Measured], JudgedDebate | None]
) -> dict[str, Value]:
    """A judge's probability for the policy, by game, in the games in which the policy has one side."""
    values = {}
    for game in games:
        leg = judged(game)
        probability = None if leg is None else _policy_probability(leg)
        if probability is not None:
            transcript = game.leg.transcript
            values[transcript.id] = (probability, transcript.question.cluster)
    return values


def _side_a_wins(games: Sequence[Measured]) -> list[Value]:
    """Whether side A wins, for games with two sides."""
    values = []
    for game in games:
        leg = game.leg
        if leg.verdict is not None and len(leg.transcript.present) == 2:
            values.append((float(leg.verdict.p[0] > 0.5), leg.transcript.question.cluster))
    return values


def _training_leg(game: Measured) -> JudgedDebate | None:
    return game.leg


def _held_out_leg(game: Measured) -> JudgedDebate | None:
    return game.second


def _hits(games: Sequence[Measured], judged: Callable[[Measured], JudgedDebate | None]) -> dict[str, Value]:
    """Whether a judge was right, by game; one half if it favours neither answer."""
    hits = {}
    for game in games:
        leg = judged(game)
        if leg is None or leg.p_correct is None:
            continue
        hit = 0.5 if leg.p_correct == 0.5 else float(leg.p_correct > 0.5)
        hits[leg.transcript.id] = (hit, leg.transcript.question.cluster)
    return hits


def _judge_gaps(games: Sequence[Measured]) -> dict[str, Value]:
    """Training judge's probability for the policy minus the held-out judge's, by game."""
    gaps = {}
    for game in games:
        if game.second is None:
            continue
        training = _policy_probability(game.leg)
        held_out = _policy_probability(game.second)
        if training is not None and held_out is not None:
            transcript = game.leg.transcript
            gaps[transcript.id] = (training - held_out, transcript.question.cluster)
    return gaps


def mean_value(values: Sequence[Value]) -> Estimate | None:
    """Mean with its interval over clusters; None without values."""
    if not values:
        return None
    numbers = [number for number, _ in values]
    clusters = [cluster for _, cluster in values]
    # Questions on one story depend on each other, so the interval is taken over clusters and not over games.
    return mean(numbers, clusters)


def paired_change(now: Mapping[str, Value], before: Mapping[str, Value]) -> Effect | None:
    """Mean difference of two measurements, paired by game; None if they share no game."""
    # The same games (question, seats, seed) at both steps: their difficulty cancels, and the interval is narrower.
    new_values = []
    old_values = []
    clusters = []
    for game, (number, cluster) in now.items():
        if game in before:
            new_values.append(number)
            old_values.append(before[game][0])
            clusters.append(cluster)
    if not clusters:
        return None
    return difference(new_values, old_values, clusters)
