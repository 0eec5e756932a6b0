"""Attacks on a judge before and after finetuning, ready to show."""

from __future__ import annotations

from typing import NamedTuple

from debate_rl.judges.attacks.robustness import AttackRow
from debate_rl.report import plots
from debate_rl.report.plots import Row, RowPlot
from debate_rl.stages.judge import JudgeAttacks


class AttackView(NamedTuple):
    """Both judges' rows by attack, and their plot."""

    rows: tuple[tuple[str, AttackRow | None, AttackRow | None], ...]
    """Attack, what it does to the base judge, and to the finetuned one; None where it could not be measured."""
    plot: RowPlot | None
    """Change of accuracy when the side with the wrong answer attacks."""


def attack_view(id: str, found: JudgeAttacks | None) -> AttackView | None:
    """Put the two tables side by side; None where nothing was attacked.

    Args:
        id: of the plot, unique in the page.
        found: the tables of a judge stage.
    """
    if found is None:
        return None
    before, after = ({row.attack: row for row in table.rows} for table in (found.before, found.after))
    rows = tuple((name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after]))
    return AttackView(rows, _plot(id, rows))


def _plot(id: str, rows: tuple[tuple[str, AttackRow | None, AttackRow | None], ...]) -> RowPlot | None:
    """The base judge in grey, under the attack's name; the finetuned one below it."""
    shown = [
        Row(name if soft else "finetuned", row.accuracy, soft=soft)
        for name, before, after in rows
        for soft, row in ((True, before), (False, after))
        if row is not None and row.accuracy is not None
    ]
    if not shown:
        return None
    title = "Change of accuracy when the wrong side attacks, in points"
    return plots.rows(id, title, shown, plots.points, plots.short_points, reference=(0.0, "none"), within=(-1, 1))
