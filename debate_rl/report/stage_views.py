"""Finished stages, ready to show: each stage's metrics as a record, beside the figures drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from debate_rl.analysis.oversight import Oversight
from debate_rl.arena.ratings import Ratings
from debate_rl.intervals import Effect, Estimate
from debate_rl.judges.scores import JudgeScores
from debate_rl.report import figures
from debate_rl.report.attack_view import AttackView, attack_view
from debate_rl.report.chart import Figure, Labelled, Measure, ProtocolAccuracy, RatedAccuracy
from debate_rl.report.debates import Legs
from debate_rl.report.online_view import OnlineView, online_view
from debate_rl.report.run_folder import Stage
from debate_rl.report.training_log import logged_series
from debate_rl.report.wording import debates_link
from debate_rl.stages.grpo import GrpoResult
from debate_rl.stages.iterations import IterationsResult
from debate_rl.stages.judge import JudgeResult
from debate_rl.stages.reading import ReadingResult
from debate_rl.stages.tournament import TournamentResult


class RatingsView(NamedTuple):
    """A tournament."""

    stage: str
    result: TournamentResult
    unit: str
    """What the intervals are over: stories, questions, or both."""
    elo: Figure
    valid: Figure | None
    """Share of speeches whose quotes are all valid, by player."""
    wins: Figure | None
    """Win matrix; None where the stage's legs are not in the folder."""
    against_rating: Figure | None
    slope: Effect | None
    """Judge accuracy for 100 Elo points."""


class IterationsView(NamedTuple):
    """Iterated training."""

    stage: str
    result: IterationsResult
    unit: str
    elo: Figure | None
    """Elo over the start; None where the protocol has no opponent."""
    persuasion: Figure | None


class OversightView(NamedTuple):
    """Judge accuracy by protocol."""

    stage: str
    result: Oversight
    unit: str
    accuracy: Figure
    over_rating: Figure | None
    """Accuracy over the debaters' rating, one line a protocol; None without a tournament of two of them."""
    calibration: list[Figure]
    """In the order of the rows."""


class ReadingView(NamedTuple):
    """Untrained readers."""

    stage: str
    result: ReadingResult
    accuracy: Figure | None


class JudgeView(NamedTuple):
    """A finetuned judge."""

    stage: str
    result: JudgeResult
    calibration: Figure
    """Before and after finetuning."""
    before: Figure
    after: Figure
    coverage_before: Figure | None
    coverage_after: Figure | None
    attacks: AttackView | None


class TrainingView(NamedTuple):
    """What a training stage logged."""

    stage: str
    kind: str
    numbers: dict[str, float]
    curves: list[Figure]
    left_out: list[str]
    """Names of the numbers that were logged and are not drawn."""
    warnings: list[str]


def ratings_view(stage: Stage, legs: Legs | None) -> RatingsView:
    """Draw ratings, games between players, and judge accuracy against ratings."""
    result = stage.read(TournamentResult)
    standings = {row.player: row.rating for row in result.ratings.standings}
    rated = [
        RatedAccuracy("self-play", name, standings[name], scores.accuracy, _self_play_link(stage, name))
        for name, scores in result.judge_accuracy.items()
        if name in standings
    ]
    wins = []
    for rate in legs.win_rates(list(standings)) if legs else ():
        wins.append(rate._replace(link=debates_link(stage.name, player=rate.player, other=rate.opponent)))
    rows = []
    for name, rating in standings.items():
        rows.append(Labelled(name, rating, link=debates_link(stage.name, player=name)))
    valid = []
    for row in result.behaviour or ():
        valid.append(Labelled(row.player, row.valid, link=debates_link(stage.name, player=row.player)))
    return RatingsView(
        stage=stage.name,
        result=result,
        unit=_unit(legs),
        elo=figures.ratings(rows),
        valid=figures.valid_quotes(valid) if valid else None,
        wins=figures.win_matrix(wins) if wins else None,
        against_rating=figures.accuracy_over_rating("Judge accuracy against rating", rated) if len(rated) > 1 else None,
        # With two players the slope would only be their difference in other words.
        slope=result.accuracy_over_rating if len(rated) > 2 else None,
    )


def _self_play_link(stage: Stage, player: str) -> str:
    return debates_link(stage.name, player=player, other=player)


def iterations_view(stage: Stage, legs: Legs | None) -> IterationsView:
    """Draw the curve of ratings, and for consultants that of persuasion."""
    result = stage.read(IterationsResult)
    start, *later = result.points
    links = {point.player: debates_link(stage.name, player=point.player) for point in result.points}
    elo, persuaded = [], []
    for point in later:
        if point.over_start is not None:
            elo.append(Labelled(point.player, point.over_start, link=links[point.player]))
    for point in result.points:
        if point.persuaded is not None:
            persuaded.append(Labelled(point.player, point.persuaded, link=links[point.player]))
    elo_figure, persuasion_figure = None, None
    if elo:
        rows = [Labelled(start.player, Estimate(value=0.0, n=0, clusters=0)), *elo]
        measure = Measure("Elo points over the start")
        elo_figure = figures.over_iterations("Elo over the start by iteration", measure, rows)
    if persuaded:
        measure = Measure("probability, %", 100, 1, (0, 100))
        persuasion_figure = figures.over_iterations("The judge's probability for the consultant", measure, persuaded)
    return IterationsView(stage.name, result, _unit(legs), elo_figure, persuasion_figure)


def grpo_view(stage: Stage, legs: Legs | None) -> OnlineView:
    """Draw the curve of an online training."""
    return online_view(stage.name, stage.read(GrpoResult), _unit(legs))


def oversight_view(stage: Stage, legs: Legs | None, ratings: Mapping[str, Ratings]) -> OversightView:
    """Draw judge accuracy and calibration under each protocol.

    Args:
        stage: an oversight stage.
        legs: its legs, if it has any.
        ratings: the run's tournaments by stage.
    """
    result = stage.read(Oversight)
    several_players = len({row.player for row in result.rows}) > 1
    names = [f"{row.protocol} \u00b7 {row.player}" if several_players else row.protocol for row in result.rows]
    links = [_protocol_link(stage, row.protocol, row.player) for row in result.rows]
    rows = []
    for row, link in zip(result.rows, links, strict=True):
        rows.append(ProtocolAccuracy(row.protocol, row.player, row.scores.accuracy, link))
    calibration = []
    for name, row, link in zip(names, result.rows, links, strict=True):
        calibration.append(figures.calibration(name, row.scores, link))
    return OversightView(
        stage=stage.name,
        result=result,
        unit=_unit(legs),
        accuracy=figures.accuracy_by_protocol("Judge accuracy by protocol", rows),
        over_rating=_over_rating(stage, result, ratings),
        calibration=calibration,
    )


def _protocol_link(stage: Stage, protocol: str, player: str) -> str:
    """Debates of one row of an oversight stage; a protocol without players has "-" for one."""
    return debates_link(stage.name, protocol=protocol, **({} if player == "-" else {"player": player}))


def _over_rating(stage: Stage, result: Oversight, tournaments: Mapping[str, Ratings]) -> Figure | None:
    """Judge accuracy over rating under every protocol that has a slope."""
    ratings = tournaments.get(result.rated_by or "")
    if ratings is None:
        return None
    standings = {row.player: row.rating for row in ratings.standings}
    rated_players = {slope.protocol: slope.players for slope in result.slopes}
    rows = []
    for row in result.rows:
        if row.player in standings and row.player in rated_players.get(row.protocol, ()):
            link = _protocol_link(stage, row.protocol, row.player)
            rows.append(RatedAccuracy(row.protocol, row.player, standings[row.player], row.scores.accuracy, link))
    if len(rows) < 2:
        return None
    return figures.accuracy_over_rating("Judge accuracy over the debaters' rating", rows)


def reading_view(stage: Stage) -> ReadingView:
    """Draw how often untrained readers are right."""
    result = stage.read(ReadingResult)
    rows = []
    for row in result.rows:
        link = debates_link(stage.name, protocol=row.protocol)
        rows.append(ProtocolAccuracy(row.protocol, row.model, row.scores.accuracy, link))
    figure = figures.accuracy_by_protocol("Accuracy of untrained readers", rows) if rows else None
    return ReadingView(stage.name, result, figure)


def judge_view(stage: Stage) -> JudgeView:
    """Draw a judge's calibration before and after finetuning, its surest verdicts, and attacks on it."""
    result = stage.read(JudgeResult)
    before, after = (debates_link(judge_debates(stage.name, when)) for when in ("before", "after"))
    return JudgeView(
        stage=stage.name,
        result=result,
        calibration=figures.calibration_change(
            "Calibration of the judge before and after finetuning",
            {"before": (result.before, before), "after": (result.after, after)},
        ),
        before=figures.calibration("Before finetuning", result.before, before),
        after=figures.calibration("After finetuning", result.after, after),
        coverage_before=_coverage("before", result.before),
        coverage_after=_coverage("after", result.after),
        attacks=attack_view(result.attacks),
    )


def judge_debates(stage: str, when: str) -> str:
    """What the page calls the test debates with a judge's verdicts before or after its training."""
    return f"{stage}, {when} finetuning"


def _coverage(when: str, scores: JudgeScores) -> Figure | None:
    """Accuracy where the judge is surest, one row for each share of the verdicts."""
    if not scores.coverage or not scores.coverage.points:
        return None
    rows = []
    for point in scores.coverage.points:
        rows.append(Labelled(f"{point.coverage:.0%}, from {point.threshold:.2f}", point.accuracy))
    return figures.judge_accuracy(f"Accuracy of the surest verdicts {when} finetuning", rows)


def training_view(stage: Stage) -> TrainingView:
    """Draw the numbers that a training stage logged."""
    series, left_out = logged_series(stage.history)
    curves = [figures.training_curve(line.name, line.points) for line in series]
    return TrainingView(stage.name, stage.kind, stage.numbers, curves, left_out, stage.metrics.get("warnings", []))


def _unit(legs: Legs | None) -> str:
    return legs.unit if legs else "clusters"
