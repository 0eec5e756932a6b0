"""Effects of weak-to-strong: what help adds to weak labels, to the student, and to the gap recovered.

The training seeds of all runs are stacked; seeds and test items are resampled together (`weak_to_strong.crossed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from debate_rl.analysis.effects.row import EffectRow, Unit, scaled, shown
from debate_rl.intervals import Effect, Estimate
from debate_rl.weak_to_strong.results.pgr import Recovered, compare_pgr, recovered
from debate_rl.weak_to_strong.results.predictions import Hits, stacked
from debate_rl.weak_to_strong.results.seed_item_bootstrap import Crossed

GROUP = "weak-to-strong"
Seeds = Sequence[Hits | None]
"""By run, what its study found; None where a run has not finished it."""


def transfer_rows(seeds: Seeds) -> list[EffectRow]:
    """Accuracies, differences of consecutive models, and PGR.

    Raises:
        UserError: the runs' items differ.
    """
    held = [found for found in seeds if found is not None]
    if not held:
        return []
    every = stacked(held)
    return _accuracy_rows(seeds, every) + _difference_rows(seeds, every) + _pgr_rows(seeds, every)


def _value(found: Hits | None, name: str) -> float | None:
    """Accuracy in one run, in percent."""
    return None if found is None or name not in found.test else 100 * float(found.right(name).mean())


def _row(name: str, unit: Unit, estimate: Estimate | None, values: Sequence[float | None], claim: int) -> EffectRow:
    return EffectRow(
        group=GROUP, name=name, estimate=estimate, seeds=tuple(values), unit=unit, shown=shown(estimate, claim)
    )


def _recovered(found: Hits, method: str) -> Recovered:
    weak, student, ceiling = (found.right(name) for name in ("weak", f"{method}/student", "ceiling"))
    return recovered(weak, student, ceiling, found.test_clusters)


def _accuracy_rows(seeds: Seeds, every: Hits) -> list[EffectRow]:
    """Weak model, labels and student of each method, the strong model's own ends."""
    rows = [_accuracy_row("weak alone", "weak", seeds, every)]
    for method in every.methods:
        labels = Crossed([every.labels_right(method)], every.label_clusters).contrast(1).estimate()
        values = [None if one is None else 100 * float(np.mean(one.labels_right(method))) for one in seeds]
        rows.append(_row(f"labels, {method}", "%", scaled(labels, 100), values, 0))
        rows.append(_accuracy_row(f"student, {method}", f"{method}/student", seeds, every))
    ends = {"strong, untrained": "untrained", "strong on D1": "strong", "ceiling": "ceiling"}
    return [*rows, *(_accuracy_row(shown, name, seeds, every) for shown, name in ends.items() if name in every.test)]


def _accuracy_row(shown_name: str, name: str, seeds: Seeds, every: Hits) -> EffectRow:
    estimate = Crossed([every.right(name)], every.test_clusters).contrast(1).estimate()
    return _row(shown_name, "%", scaled(estimate, 100), [_value(found, name) for found in seeds], 0)


def _difference_rows(seeds: Seeds, every: Hits) -> list[EffectRow]:
    """Each model minus the one before it: weak, students, ceiling."""
    chain = {"weak": "weak", **{f"{m}/student": f"{m} student" for m in every.methods}, "ceiling": "ceiling"}
    rows = []
    for low, high in pairwise(chain):
        effect = Crossed([every.right(high), every.right(low)], every.test_clusters).contrast(1, -1).effect()
        pairs = [(_value(found, high), _value(found, low)) for found in seeds]
        values = [None if one is None or two is None else one - two for one, two in pairs]
        rows.append(_row(f"{chain[high]} - {chain[low]}", "points", scaled(effect, 100), values, 1))
    return rows


def _pgr_rows(seeds: Seeds, every: Hits) -> list[EffectRow]:
    """PGR of each method, and of each but the first minus the first."""
    rows, first, gap = [], None, None
    for method in every.methods:
        found = _recovered(every, method)
        values = [_pgr(one, method) for one in seeds]
        rows.append(_pgr_row(f"PGR, {method}", found.pgr, values, found.gap, 0))
        first, gap = first or method, found.gap
    for method in every.methods[1:]:
        weak, ceiling = every.right("weak"), every.right("ceiling")
        one, two = (every.right(f"{name}/student") for name in (method, first))
        effect = compare_pgr(weak, one, two, ceiling, every.test_clusters).pgr
        pairs = [(_pgr(found, method), _pgr(found, str(first))) for found in seeds]
        values = [None if a is None or b is None else a - b for a, b in pairs]
        assert gap is not None  # there is a method
        rows.append(_pgr_row(f"PGR, {method} - {first}", effect, values, gap, 1))
    return rows


def _pgr_row(
    name: str, estimate: Estimate | None, values: Sequence[float | None], gap: Effect, claim: int
) -> EffectRow:
    """A row that says why it is undefined where it is."""
    note = "" if estimate else f"undefined: ceiling - weak = {scaled(gap, 100):.1f} points is not above 0"
    plain = scaled(estimate, 1) if estimate else None
    return _row(name, "PGR", plain, values if estimate else [None] * len(values), claim).model_copy(
        update={"note": note}
    )


def _pgr(found: Hits | None, method: str) -> float | None:
    """PGR of one run; None where its own gap is not above 0."""
    pgr = None if found is None else _recovered(found, method).pgr
    return None if pgr is None else pgr.value
