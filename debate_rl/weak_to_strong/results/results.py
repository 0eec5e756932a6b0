"""Results of a weak-to-strong study from its predictions: accuracy, PGR, AUROC, Brier, agreement, comparisons.

Beside every method stand the weak model, the strong one trained on the same ground truth (D1) and the ceiling. Where
PGR would be meaningless it is left undefined, and a note says why and what to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from debate_rl.intervals import Effect, Estimate, Floats
from debate_rl.records import Printed, Record
from debate_rl.trainers.common.warning_signs import is_one_class, one_class_sign, said
from debate_rl.weak_to_strong.results.pgr import Recovered, above_zero, compare_pgr, recovered
from debate_rl.weak_to_strong.results.predictions import ENDS, Hits, right
from debate_rl.weak_to_strong.results.seed_item_bootstrap import Crossed, placements

if TYPE_CHECKING:
    import pandas as pd


class Scores(Record):
    """Accuracy, AUROC and Brier score of a model's probabilities on the test items.

    Example:
        Scores(accuracy=Estimate(value=.926, ...), auroc=Estimate(value=.968, ...), brier=Estimate(value=.061, ...))
    """

    accuracy: Estimate
    auroc: Estimate | None
    """Area under the ROC curve of P(answer 0), mean over seeds; None where the test items are of one class."""
    brier: Estimate
    """Mean (P - truth)^2: 0 is perfect, .25 is P = 1/2 everywhere."""


class Spread(Record):
    """What a model's probabilities on the test items look like, over all seeds.

    Example:
        Spread(first=.52, deviation=.31)
    """

    first: float
    """Share of items to which it gives answer 0; a tie counts half."""
    deviation: float
    """Standard deviation of its probabilities; 0 where it says the same of every item."""


class Agreement(Record):
    """How often a student agrees with its supervisor (Burns et al. 2023, section 5.1.3).

    Example:
        Agreement(right=Estimate(value=.97, n=178, ...), wrong=Estimate(value=.41, n=22, ...))
    """

    right: Estimate | None
    """Agreement on the test items that the supervisor gets right, `n` of them a seed; None where there are none."""
    wrong: Estimate | None
    """Agreement on those that it gets wrong: errors that the student copies. An undecided item counts half to each."""


class MethodResult(Record):
    """Results of a method: its supervisor, labels and student, and the share of the gap that it recovers."""

    name: str
    supervisor: Estimate | None
    """Accuracy on the test items, like all here except the labels'; None where labels come from a file."""
    labels: Estimate
    """Accuracy of the hard labels on D2."""
    label_counts: tuple[dict[str, int], ...] = ()
    student: Estimate
    pgr: Recovered
    pgr_text: str
    """PGR with its interval, or why it is undefined."""
    agreement: Agreement | None = None
    """None without a supervisor on the test items."""


class Comparison(Record):
    """Comparison of two methods on the same seeds and items."""

    first: str
    second: str
    accuracy: Effect
    """Accuracy of the first student - the second."""
    pgr: Effect | None = None
    """PGR of the first - the second; None where the gap is not above 0."""


class Results(Printed):
    """All results of a study."""

    weak: Estimate
    """Accuracy on the test items, like the next three."""
    strong: Estimate | None = None
    """The strong model trained on D1's ground truth, like the weak one."""
    ceiling: Estimate
    untrained: Estimate | None = None
    """The strong model before any training on labels."""
    methods: tuple[MethodResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    """Comparisons of every two methods, the later one of the table first."""
    scores: dict[str, Scores] = {}
    """Scores of every model, by its name in `Hits.test`."""
    spreads: dict[str, Spread] = {}
    """What the answers of every model look like, by its name in `Hits.test`."""
    warnings: tuple[str, ...] = ()
    """Signs that a model taught nothing or learnt nothing: its numbers are none of the method's."""
    notes: tuple[str, ...] = ()
    """Problems of the models or the data, and what to change."""
    test_items: int
    seeds: int

    def to_frame(self) -> pd.DataFrame:
        """One row a method: accuracies of supervisor, labels and student, and PGR."""
        import pandas as pd  # here: it takes a second, and the command line does without

        rows = []
        for method in self.methods:
            row: dict[str, str | float | None] = {"method": method.name}
            measured = {"supervisor": method.supervisor, "labels": method.labels, "student": method.student}
            for name, estimate in {**measured, "pgr": method.pgr.pgr}.items():
                row[name] = None if estimate is None else estimate.value
                row[f"{name}_low"] = None if estimate is None else estimate.low
                row[f"{name}_high"] = None if estimate is None else estimate.high
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        """Accuracies of weak model, students and ceiling, PGR by method, and what the models lack."""
        lines = [
            f"weak {self.weak:.3f}  ceiling {self.ceiling:.3f}  ({self.test_items} test items, seeds: {self.seeds})"
        ]
        for method in self.methods:
            lines.append(f"{method.name}: student {method.student:.3f}  PGR {method.pgr_text}")
        return "\n".join([*lines, *self.warnings, *self.notes])


def results(hits: Hits) -> Results:
    """Compute the results of a study.

    Raises:
        UserError: no test items.
    """
    scores = {name: _scores(np.array(p), hits) for name, p in hits.test.items()}
    ends = {name: scores[name].accuracy if name in scores else None for name in ENDS}
    # The later one first, so that a difference is the gain over the method that the table starts with.
    comparisons = []
    for first, later in combinations(hits.methods, 2):
        comparisons.append(_comparison(later, first, hits))
    return Results(
        weak=scores["weak"].accuracy,
        strong=ends["strong"],
        ceiling=scores["ceiling"].accuracy,
        untrained=ends["untrained"],
        methods=tuple(_method_result(name, hits, scores) for name in hits.methods),
        comparisons=tuple(comparisons),
        scores=scores,
        spreads={name: _spread(np.array(p)) for name, p in hits.test.items()},
        warnings=(*_collapsed(hits), *hits.warnings),
        notes=advice(hits),
        test_items=len(hits.test_items),
        seeds=hits.seeds,
    )


def _method_result(name: str, hits: Hits, scores: Mapping[str, Scores]) -> MethodResult:
    """Results of one method."""
    pgr = recovered(hits.right("weak"), hits.right(f"{name}/student"), hits.right("ceiling"), hits.test_clusters)
    # A method whose labels come from a file has no supervisor to test.
    supervisor = scores.get(f"{name}/supervisor")
    return MethodResult(
        name=name,
        supervisor=None if supervisor is None else supervisor.accuracy,
        labels=Crossed([hits.labels_right(name)], hits.label_clusters).contrast(1).estimate(),
        label_counts=hits.label_counts.get(name, ()),
        student=scores[f"{name}/student"].accuracy,
        pgr=pgr,
        pgr_text=pgr.text,
        agreement=None if supervisor is None else _agreement(name, hits),
    )


def _scores(p: Floats, hits: Hits) -> Scores:
    """Scores of (S, N) probabilities; one row is a model that serves all seeds."""
    truth = np.array(hits.test_truth)
    tables = [right(p, truth), (p - truth) ** 2]
    # With one class only, no item can be ranked above one of the other class.
    has_auroc = len(set(hits.test_truth)) == 2
    if has_auroc:
        tables.append(placements(p, truth))
    sample = Crossed(tables, hits.test_clusters)
    weights = np.eye(len(tables))
    return Scores(
        accuracy=sample.contrast(*weights[0]).estimate(),
        auroc=sample.auroc(2, p, truth).estimate() if has_auroc else None,
        brier=sample.contrast(*weights[1]).estimate(),
    )


def _spread(p: Floats) -> Spread:
    """What (S, N) probabilities look like."""
    first = (np.sign(np.round(p - 0.5, 9)) + 1) / 2
    return Spread(first=float(first.mean()), deviation=float(p.std()))


def _collapsed(hits: Hits) -> tuple[str, ...]:
    """A line about the models that give one answer throughout."""
    signs = {}
    for name, rows in hits.test.items():
        collapsed = [f"seed {number}" for number, p in enumerate(rows) if is_one_class(p, hits.test_truth)]
        for seed in collapsed:
            signs[f"{name}, {seed}" if hits.seeds > 1 else name] = [one_class_sign(len(hits.test_items))]
    return said(signs)


def _agreement(method: str, hits: Hits) -> Agreement:
    """Agreement of a method's student with its supervisor, where the latter is right and where it is wrong."""
    supervisor = hits.right(f"{method}/supervisor")
    student = hits.right(f"{method}/student")
    same = 1 - np.abs(supervisor - student)
    tables = [same * supervisor, same * (1 - supervisor), supervisor, 1 - supervisor]
    sample = Crossed(tables, hits.test_clusters)
    return Agreement(
        right=_share(sample, (1, 0, 0, 0), (0, 0, 1, 0), supervisor),
        wrong=_share(sample, (0, 1, 0, 0), (0, 0, 0, 1), 1 - supervisor),
    )


def _share(sample: Crossed, part: Sequence[float], whole: Sequence[float], count: Floats) -> Estimate | None:
    """Share of one contrast in another, with `n` the items counted a seed; None where no item counts."""
    if not count.any():
        return None
    share = sample.share(part, whole).estimate()
    # The sample holds all test items, but the share rests on those that count.
    return share.model_copy(update={"n": round(count.sum() / len(count))})


def _comparison(first: str, second: str, hits: Hits) -> Comparison:
    """Compare two students on the same draws."""
    both = compare_pgr(
        hits.right("weak"),
        hits.right(f"{first}/student"),
        hits.right(f"{second}/student"),
        hits.right("ceiling"),
        hits.test_clusters,
    )
    return Comparison(first=first, second=second, accuracy=both.accuracy, pgr=both.pgr)


def advice(hits: Hits) -> tuple[str, ...]:
    """Notes on what makes the PGR of a study undefined or misleading, each with what to change."""
    models = [name for name in ("weak", "ceiling", "strong") if name in hits.test]
    sample = Crossed([hits.right(name) for name in models], hits.test_clusters)
    # A contrast has one weight for each model; those beyond weak and ceiling do not enter the gap.
    padding = [0] * (len(models) - 2)
    gap = sample.contrast(-1, 1, *padding).effect()
    notes = _gap_notes(gap)
    # Only where PGR is defined: the note is about how to read it.
    if not notes and "untrained" in hits.test:
        notes += _untrained_notes(float(hits.right("untrained").mean()), float(hits.right("ceiling").mean()))
    if "strong" in hits.test:
        weak_lead = sample.contrast(1, 0, -1).effect()
        strong_lead = sample.contrast(0, -1, 1).effect()
        notes += _strong_notes(gap, weak_lead, strong_lead)
    return tuple(notes)


def _gap_notes(gap: Effect) -> list[str]:
    """Notes on a gap, ceiling - weak, that leaves PGR undefined."""
    if gap.low is None or gap.high is None:
        return ["PGR is undefined: all test items are one cluster, so nothing has an interval; take more stories"]
    if gap.high < 0:
        return [
            f"the ceiling is {_points(-gap.value)} points below the weak model, so PGR is undefined: the strong model "
            "did not learn the task from D2's ground truth; raise train.num_train_epochs or train.learning_rate, or "
            "exchange models.weak and models.strong"
        ]
    if gap.low <= 0:
        return [
            f"ceiling - weak is {_points(gap.value)} points [{_points(gap.low)}, {_points(gap.high)}], which may be 0, "
            "so PGR is undefined; take a weaker models.weak, a stronger models.strong, or more test items and seeds"
        ]
    return []


def _untrained_notes(before: float, after: float) -> list[str]:
    """Notes on a strong model that is as accurate before it is trained as the ceiling after."""
    if before < after:
        return []
    return [
        f"the strong model is right on {_points(before)} % before it learns and the ceiling on "
        f"{_points(after)} %: PGR says how much of that weak labels leave, not what they teach; take a task "
        "that is new to it (task, family or knobs)"
    ]


def _strong_notes(gap: Effect, weak_lead: Effect, strong_lead: Effect) -> list[str]:
    """Notes on the strong model trained on D1.

    Args:
        gap: ceiling - weak.
        weak_lead: weak - strong on D1.
        strong_lead: strong on D1 - ceiling.
    """
    notes = []
    if above_zero(weak_lead):
        notes.append(
            f"of the same D1 the weak model learns {_points(weak_lead.value)} points more than the strong one; "
            "exchange models.weak and models.strong, or train the strong one longer (train.num_train_epochs)"
        )
    if above_zero(gap) and above_zero(strong_lead):
        notes.append(
            f"the ceiling, trained on D2, is {_points(strong_lead.value)} points below the strong model trained on D1, "
            "which makes PGR too high; give student at least as many items as supervisor"
        )
    return notes


def _points(share: float) -> str:
    """A share in percentage points."""
    return f"{100 * share:.1f}"
