"""Effects of weak-to-strong: accuracy of labels and students of each method, and the gap that they recover.

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
"""Correct predictions of each run; None where a run has not finished the stage."""


def transfer_rows(seeds: Seeds) -> list[EffectRow]:
    """Accuracies, differences of consecutive models, and PGR.

    Raises:
        UserError: the runs' items differ.
    """
    finished = [hits for hits in seeds if hits is not None]
    if not finished:
        return []
    pooled = stacked(finished)
    return _accuracy_rows(seeds, pooled) + _difference_rows(seeds, pooled) + _pgr_rows(seeds, pooled)


def _row(name: str, unit: Unit, estimate: Estimate | None, by_seed: Sequence[float | None], claim: int) -> EffectRow:
    return EffectRow(
        group=GROUP, name=name, estimate=estimate, seeds=tuple(by_seed), unit=unit, shown=shown(estimate, claim)
    )


def _accuracy(hits: Hits | None, model: str) -> float | None:
    """Accuracy in one run, in percent; None where the run has no such model."""
    if hits is None or model not in hits.test:
        return None
    return 100 * float(hits.right(model).mean())


def _accuracy_rows(seeds: Seeds, pooled: Hits) -> list[EffectRow]:
    """Weak model, labels and student of each method, and the strong model untrained, on D1 and as the ceiling."""
    rows = [_accuracy_row("weak alone", "weak", seeds, pooled)]
    for method in pooled.methods:
        labels = Crossed([pooled.labels_right(method)], pooled.label_clusters).contrast(1).estimate()
        by_seed = [None if hits is None else 100 * float(np.mean(hits.labels_right(method))) for hits in seeds]
        rows.append(_row(f"labels, {method}", "%", scaled(labels, 100), by_seed, 0))
        rows.append(_accuracy_row(f"student, {method}", f"{method}/student", seeds, pooled))
    for name, model in {"strong, untrained": "untrained", "strong on D1": "strong", "ceiling": "ceiling"}.items():
        # The strong model's other ends are measured only if the stage asks for them.
        if model in pooled.test:
            rows.append(_accuracy_row(name, model, seeds, pooled))
    return rows


def _accuracy_row(name: str, model: str, seeds: Seeds, pooled: Hits) -> EffectRow:
    estimate = Crossed([pooled.right(model)], pooled.test_clusters).contrast(1).estimate()
    return _row(name, "%", scaled(estimate, 100), [_accuracy(hits, model) for hits in seeds], 0)


def _difference_rows(seeds: Seeds, pooled: Hits) -> list[EffectRow]:
    """Each model minus the one before it: weak, students, ceiling."""
    names = {"weak": "weak"}
    for method in pooled.methods:
        names[f"{method}/student"] = f"{method} student"
    names["ceiling"] = "ceiling"
    rows = []
    for low, high in pairwise(names):
        effect = Crossed([pooled.right(high), pooled.right(low)], pooled.test_clusters).contrast(1, -1).effect()
        by_seed = [_minus(_accuracy(hits, high), _accuracy(hits, low)) for hits in seeds]
        rows.append(_row(f"{names[high]} - {names[low]}", "points", scaled(effect, 100), by_seed, 1))
    return rows


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _pgr_rows(seeds: Seeds, pooled: Hits) -> list[EffectRow]:
    """PGR of each method, and of each but the first minus the first."""
    if not pooled.methods:
        return []
    rows = []
    for method in pooled.methods:
        recovered = _recovered(pooled, method)
        by_seed = [_pgr(hits, method) for hits in seeds]
        rows.append(_pgr_row(f"PGR, {method}", recovered.pgr, by_seed, recovered.gap, 0))
    # The gap is that of weak model and ceiling, the same for every method.
    first, gap = pooled.methods[0], recovered.gap
    weak, ceiling = pooled.right("weak"), pooled.right("ceiling")
    first_student = pooled.right(f"{first}/student")
    for method in pooled.methods[1:]:
        student = pooled.right(f"{method}/student")
        effect = compare_pgr(weak, student, first_student, ceiling, pooled.test_clusters).pgr
        by_seed = [_minus(_pgr(hits, method), _pgr(hits, first)) for hits in seeds]
        rows.append(_pgr_row(f"PGR, {method} - {first}", effect, by_seed, gap, 1))
    return rows


def _recovered(hits: Hits, method: str) -> Recovered:
    weak, student, ceiling = (hits.right(model) for model in ("weak", f"{method}/student", "ceiling"))
    return recovered(weak, student, ceiling, hits.test_clusters)


def _pgr(hits: Hits | None, method: str) -> float | None:
    """PGR of one run; None where its own gap is not above 0."""
    pgr = None if hits is None else _recovered(hits, method).pgr
    return None if pgr is None else pgr.value


def _pgr_row(
    name: str, estimate: Estimate | None, by_seed: Sequence[float | None], gap: Effect, claim: int
) -> EffectRow:
    """A row that says why it is undefined where it is."""
    # A ratio over a gap that may be 0 is meaningless, so the note gives the gap itself.
    if estimate is None:
        note = f"undefined: ceiling - weak = {scaled(gap, 100):.1f} points is not above 0"
        return _row(name, "PGR", None, [None] * len(by_seed), claim).model_copy(update={"note": note})
    return _row(name, "PGR", scaled(estimate, 1), by_seed, claim)
