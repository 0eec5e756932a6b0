"""Metrics of the stages as records: what the page reads of each metrics.json. Other fields are left alone."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from debate_rl.analysis.accuracy import CrossPlay, Difference, Row
from debate_rl.analysis.behaviour import Behaviour
from debate_rl.analysis.conduct import Conduct
from debate_rl.analysis.iterations import Point
from debate_rl.analysis.known import Known
from debate_rl.analysis.second import SecondJudge
from debate_rl.analysis.slopes import Slope
from debate_rl.arena.ratings import Ratings
from debate_rl.intervals import Effect
from debate_rl.judges.agreement import Agreement
from debate_rl.judges.robustness import AttackTable
from debate_rl.judges.scores import JudgeScores, OrderEffect
from debate_rl.trainers.curve import Point as CurvePoint


class _Metrics(BaseModel):
    """Stages may measure more than the page shows, so unknown fields are no error here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TournamentMetrics(_Metrics):
    """A round robin: ratings from cross-play, judge accuracy from self-play."""

    ratings: Ratings
    judge_accuracy: dict[str, JudgeScores] = {}
    cross_play: CrossPlay | None = None
    accuracy_over_rating: Effect | None = None
    behaviour: tuple[Behaviour, ...] = ()
    conduct: Conduct = Conduct()
    legs: int
    failed: int = 0


class OversightMetrics(_Metrics):
    """Judge accuracy by protocol and player on the same questions."""

    rows: tuple[Row, ...] = Field(min_length=1)
    differences: tuple[Difference, ...] = ()
    slopes: tuple[Slope, ...] = ()
    known: Known | None = None
    second: SecondJudge | None = None
    failed: int = 0
    left_out: dict[str, int] = {}


class Iteration(_Metrics):
    """How one iteration went."""

    iteration: int
    player: str
    learning_rate: float
    reference: str
    opponent: str
    questions: int
    met_before: int = 0
    """Of these, questions that an earlier iteration played on."""
    preferences: dict[str, Any] = {}
    training: dict[str, Any] = {}


class IterationsMetrics(_Metrics):
    """Iterated training: the curve, and how each iteration went."""

    points: tuple[Point, ...] = Field(min_length=2)
    iterations: tuple[Iteration, ...] = ()
    legs: int
    failed: int = 0


class OnlineMetrics(_Metrics):
    """Online training: who played, and the curve."""

    start: str
    protocol: str
    opponent: str
    judge: str
    second: str | None = None
    stopped: bool = False
    steps: int
    generated_tokens: int
    skipped: dict[str, int] = {}
    curve: tuple[CurvePoint, ...] = ()


class Reading(_Metrics):
    """One untrained model under one protocol."""

    model: str
    protocol: str
    scores: JudgeScores


class ReadingMetrics(_Metrics):
    """Untrained models as judges without debates."""

    rows: tuple[Reading, ...] = Field(min_length=1)
    failed: int = 0


class JudgeChange(_Metrics):
    """After minus before, paired by held-out transcript."""

    accuracy: Effect
    brier: Effect
    log_score: Effect | None = None
    ece: Effect | None = None
    reliability: Effect | None = None
    resolution: Effect | None = None
    area: Effect | None = None


class JudgeAttacks(_Metrics):
    """The same attacks on a judge before and after finetuning."""

    before: AttackTable
    after: AttackTable
    taught: tuple[str, ...] = ()
    """Attacks that the finetuned judge has learnt from."""
    rounds: tuple[tuple[str, ...], ...] = ()
    """Suffixes that were found against it in each adversarial round, and that it has learnt from."""


class JudgeMetrics(_Metrics):
    """A judge before and after finetuning, on held-out transcripts."""

    before: JudgeScores
    after: JudgeScores
    change: JudgeChange
    order_effect: OrderEffect | None = None
    humans: tuple[Agreement, ...] = ()
    """Human judges, the constant predictor and the models on the same recorded games."""
    attacks: JudgeAttacks | None = None
