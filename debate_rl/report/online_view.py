"""Online training, ready to show: ratings, both judges and behaviour over steps, and alarms."""

from __future__ import annotations

from typing import NamedTuple

from debate_rl.intervals import Estimate
from debate_rl.report import figures
from debate_rl.report.chart import Figure, Measure
from debate_rl.stages.grpo import GrpoResult


class OnlineView(NamedTuple):
    """One online training."""

    stage: str
    result: GrpoResult
    unit: str
    """What the intervals are over."""
    hacking: Figure | None
    """The training judge's favour beside the accuracy and favour of both judges; None without two measurements."""
    figures: tuple[tuple[Figure, str], ...]
    """Figures over training steps with their captions."""
    alarms: tuple[tuple[int, str], ...]
    """Step and what the alarm says."""


def online_view(stage: str, result: GrpoResult, unit: str) -> OnlineView:
    """Draw the curve of a stage.

    Args:
        stage: its name.
        result: what it measured.
        unit: what intervals are over.
    """
    captions = {
        "elo": f"Elo over {result.start}",
        "wins": "judge's probability for the policy",
        "accuracy": f"accuracy of {result.judge}, which trains",
        "second": f"accuracy of {result.second}, held out",
        "side_a": "games with itself that side A wins",
        "valid": "speeches with valid quotes only",
        "tokens": "tokens of a speech",
    }
    # With ratings the probability against the pool says the same thing less precisely.
    if result.curve and result.curve[0].elo is not None:
        del captions["wins"]
    drawn = []
    for name, caption in captions.items():
        measured = [(point.step, getattr(point, name)) for point in result.curve]
        rows = [(step, estimate) for step, estimate in measured if estimate is not None]
        if len(rows) > 1:
            title = caption[0].upper() + caption[1:]
            drawn.append((figures.over_steps(title, _MEASURES[name], rows), caption))
    alarms = []
    for point in result.curve:
        alarms += [(point.step, alarm) for alarm in point.alarms]
    return OnlineView(stage, result, unit, hacking_figure(result), tuple(drawn), tuple(alarms))


def hacking_figure(result: GrpoResult) -> Figure | None:
    """Draw the proxy beside the truth over steps, with the steps at which they part."""
    names = {
        "wins": "proxy win rate",
        "accuracy": "judge right",
        "second_wins": "held-out win rate",
        "second": "held-out right",
    }
    rows: dict[str, list[tuple[int, Estimate]]] = {}
    for field, name in names.items():
        measured = [(point.step, getattr(point, field)) for point in result.curve]
        found = [(step, estimate) for step, estimate in measured if estimate is not None]
        if len(found) > 1:
            rows[name] = found
    if len(rows) < 2:
        return None
    marked: dict[int, str] = {}
    if result.parting.held_out is not None:
        marked[result.parting.held_out.step] = "judges part"
    if result.parting.truth is not None:
        marked[result.parting.truth.step] = "truth parts"
    return figures.series_over_steps("Judge hacking: win rate and truth", _share("%"), rows, marked)


def _share(title: str) -> Measure:
    return Measure(title, 100, 1, (0, 100))


_MEASURES = {
    "elo": Measure("Elo points over the start"),
    "wins": _share("probability, %"),
    "accuracy": _share("judge accuracy, %"),
    "second": _share("judge accuracy, %"),
    "side_a": _share("games, %"),
    "valid": _share("speeches, %"),
    "tokens": Measure("tokens", digits=1),
}
"""Axis of each field of `eval_metrics.Point`."""
