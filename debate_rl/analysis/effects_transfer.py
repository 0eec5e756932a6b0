"""Effects of weak-to-strong: what debates add to weak labels, to the student, and to the gap recovered.

The training seeds of all runs are stacked; seeds and test items are resampled together (`weak_to_strong.pgr`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from debate_rl.analysis.effect_row import EffectRow, Unit, scaled, shown
from debate_rl.errors import UserError
from debate_rl.intervals import Estimate, Floats, mean
from debate_rl.weak_to_strong.hits import Hits
from debate_rl.weak_to_strong.pgr import Recovered, compare_pgr, pgr, recovered

GROUP = "weak-to-strong"


def transfer_rows(seeds: Sequence[Hits | None]) -> list[EffectRow]:
    """Accuracies, differences of consecutive models, and PGR.

    Args:
        seeds: by run, what its study found; None where a run has not finished it.

    Raises:
        UserError: the runs' items differ.
    """
    held = [found for found in seeds if found is not None]
    if not held:
        return []
    _check_same(held)
    return _accuracy_rows(seeds, held) + _difference_rows(seeds, held) + _pgr_rows(seeds, held)


def _check_same(held: Sequence[Hits]) -> None:
    """Refuse to stack tables of different items."""
    for other in held[1:]:
        if (other.test_items, other.label_items) != (held[0].test_items, held[0].label_items):
            raise UserError(
                "weak-to-strong items differ between the runs; give all the same questions.seed, as a study does"
            )


def _stacked(held: Sequence[Hits], name: str) -> Floats:
    """(seeds of all runs, items) hits of a model on the test items."""
    return np.concatenate([np.array(found.test[name]) for found in held])


def _value(found: Hits | None, name: str) -> float | None:
    """Accuracy in one run, in percent."""
    return None if found is None or name not in found.test else 100 * float(np.mean(found.test[name]))


def _row(name: str, unit: Unit, estimate: Estimate | None, values: Sequence[float | None], claim: int) -> EffectRow:
    return EffectRow(
        group=GROUP, name=name, estimate=estimate, seeds=tuple(values), unit=unit, shown=shown(estimate, claim)
    )


def _recovered(held: Sequence[Hits], method: str) -> Recovered:
    weak, student, ceiling = (_stacked(held, name) for name in ("weak", f"{method}/student", "ceiling"))
    return recovered(weak, student, ceiling, held[0].test_clusters)


def _accuracy_rows(seeds: Sequence[Hits | None], held: Sequence[Hits]) -> list[EffectRow]:
    """Weak model, labels and student of each method, ceiling."""
    found = {method: _recovered(held, method) for method in held[0].labels}
    ends = next(iter(found.values()))
    rows = [_accuracy_row("weak alone", "weak", ends.weak, seeds)]
    for method, one in found.items():
        labels = np.concatenate([np.array(hits.labels[method]) for hits in held])
        values = [None if hits is None else 100 * float(np.mean(hits.labels[method])) for hits in seeds]
        estimate = scaled(mean(labels.mean(axis=0), held[0].label_clusters), 100)
        rows.append(_row(f"labels, {method}", "%", estimate, values, 0))
        rows.append(_accuracy_row(f"student, {method}", f"{method}/student", one.student, seeds))
    if all("untrained" in hits.test for hits in held):
        alone = mean(_stacked(held, "untrained").mean(axis=0), held[0].test_clusters)
        rows.append(_accuracy_row("strong, untrained", "untrained", alone, seeds))
    return [*rows, _accuracy_row("ceiling", "ceiling", ends.ceiling, seeds)]


def _accuracy_row(shown_name: str, name: str, estimate: Estimate, seeds: Sequence[Hits | None]) -> EffectRow:
    return _row(shown_name, "%", scaled(estimate, 100), [_value(found, name) for found in seeds], 0)


def _difference_rows(seeds: Sequence[Hits | None], held: Sequence[Hits]) -> list[EffectRow]:
    """Each model minus the one before it: weak, students, ceiling."""
    chain = {"weak": "weak", **{f"{m}/student": f"{m} student" for m in held[0].labels}, "ceiling": "ceiling"}
    weak, ceiling = _stacked(held, "weak"), _stacked(held, "ceiling")
    rows = []
    for low, high in pairwise(chain):
        effect = compare_pgr(weak, _stacked(held, high), _stacked(held, low), ceiling, held[0].test_clusters).accuracy
        pairs = [(_value(found, high), _value(found, low)) for found in seeds]
        values = [None if one is None or two is None else one - two for one, two in pairs]
        rows.append(_row(f"{chain[high]} - {chain[low]}", "points", scaled(effect, 100), values, 1))
    return rows


def _pgr_rows(seeds: Sequence[Hits | None], held: Sequence[Hits]) -> list[EffectRow]:
    """PGR of each method, and of debate minus none."""
    rows = []
    for method in held[0].labels:
        found = _recovered(held, method)
        rows.append(_pgr_row(f"PGR, {method}", found.pgr, [_pgr(one, method) for one in seeds], found, 0))
    if {"none", "debate"} <= held[0].labels.keys():
        models = ("weak", "debate/student", "none/student", "ceiling")
        weak, first, second, ceiling = (_stacked(held, name) for name in models)
        effect = compare_pgr(weak, first, second, ceiling, held[0].test_clusters).pgr
        values = [(_pgr(one, "debate"), _pgr(one, "none")) for one in seeds]
        differences = [None if one is None or two is None else one - two for one, two in values]
        rows.append(_pgr_row("PGR, debate - none", effect, differences, found, 1))
    return rows


def _pgr_row(
    name: str, estimate: Estimate | None, values: Sequence[float | None], found: Recovered, claim: int
) -> EffectRow:
    """A row that says why it is undefined where it is."""
    note = "" if estimate else f"undefined: ceiling - weak = {scaled(found.gap, 100):.1f} points is not above 0"
    plain = scaled(estimate, 1) if estimate else None
    return _row(name, "PGR", plain, values, claim).model_copy(update={"note": note})


def _pgr(found: Hits | None, method: str) -> float | None:
    """PGR of one run's mean accuracies; None where its gap is not above 0."""
    values = [_value(found, name) for name in ("weak", f"{method}/student", "ceiling")]
    if found is None or None in values:
        return None
    weak, student, ceiling = (float(value or 0) for value in values)
    return pgr(weak, student, ceiling) if ceiling > weak else None
