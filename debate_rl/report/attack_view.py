"""Attacks on a judge before and after finetuning, ready to show."""

from __future__ import annotations

from typing import NamedTuple

from debate_rl.judges.attacks.robustness import AttackRow
from debate_rl.report import figures
from debate_rl.report.chart import Figure, Labelled
from debate_rl.stages.judge import JudgeAttacks


class AttackView(NamedTuple):
    """Both judges' rows by attack, and their figure."""

    rows: tuple[tuple[str, AttackRow | None, AttackRow | None], ...]
    """Attack, its effect on the base judge, and on the finetuned one; None where it could not be measured."""
    figure: Figure | None
    """Change of accuracy when the side with the wrong answer attacks."""


def attack_view(attacks: JudgeAttacks | None) -> AttackView | None:
    """Put the tables of a judge stage side by side; None where nothing was attacked."""
    if attacks is None:
        return None
    before = {row.attack: row for row in attacks.before.rows}
    after = {row.attack: row for row in attacks.after.rows}
    names = dict.fromkeys([*before, *after])
    rows = tuple((name, before.get(name), after.get(name)) for name in names)
    bars = []
    for name, base, finetuned in rows:
        # The base judge stands under the attack's name, in grey; the finetuned one below it.
        if base is not None and base.accuracy is not None:
            bars.append(Labelled(name, base.accuracy, is_reference=True))
        if finetuned is not None and finetuned.accuracy is not None:
            bars.append(Labelled("finetuned", finetuned.accuracy))
    return AttackView(rows, figures.attack_effects(bars) if bars else None)
