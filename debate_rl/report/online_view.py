"""Online training, ready to show: the curve of ratings, both judges and behaviour over steps, and alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from debate_rl.intervals import Estimate
from debate_rl.report import plots
from debate_rl.report.plots import Scatter, Write
from debate_rl.stages.grpo import GrpoResult
from debate_rl.trainers.grpo.eval_metrics import Point


class OnlineView(NamedTuple):
    """One online training."""

    stage: str
    found: GrpoResult
    unit: str
    figures: tuple[tuple[Scatter, str], ...]
    """Plots over steps with their captions."""
    alarms: tuple[tuple[int, str], ...]
    """Step and what was heard."""


def online_view(stage: str, key: str, found: GrpoResult, unit: str) -> OnlineView:
    """Lay out the curve of a stage.

    Args:
        stage: its name.
        key: of it, for ids of the page.
        found: what it measured.
        unit: what intervals are over.
    """
    wanted: list[tuple[str, str, Callable[[Point], Estimate | None], Write]] = [
        ("elo", f"Elo over {found.start}", lambda point: point.elo, plots.whole),
        ("wins", "judge's probability for the policy", lambda point: point.wins, plots.percent),
        ("accuracy", f"accuracy of {found.judge}, which trains", lambda point: point.accuracy, plots.percent),
        ("second", f"accuracy of {found.second}, held out", lambda point: point.second, plots.percent),
        ("side", "games with itself that side A wins", lambda point: point.side_a, plots.percent),
        ("valid", "speeches with valid quotes only", lambda point: point.valid, plots.percent),
        ("tokens", "tokens of a speech", lambda point: point.tokens, plots.plain),
    ]
    figures = []
    for name, caption, value, write in wanted:
        drawn = _over_steps(f"{name}-{key}", caption, found.curve, value, write)
        if drawn is not None and not (name == "wins" and found.curve[0].elo is not None):
            figures.append((drawn, caption))
    alarms = tuple((point.step, alarm) for point in found.curve for alarm in point.alarms)
    return OnlineView(stage, found, unit, tuple(figures), alarms)


def _over_steps(
    id: str, caption: str, curve: Sequence[Point], value: Callable[[Point], Estimate | None], write: Write
) -> Scatter | None:
    """A line over the points at which something was measured; None for fewer than two."""
    seen = {f"step {point.step}": found for point in curve if (found := value(point)) is not None}
    return plots.climb(id, caption, ("measurement", caption), seen, write) if len(seen) > 1 else None
