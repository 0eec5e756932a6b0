"""Results of a weak-to-strong study from what its models said: accuracy, PGR, AUROC, Brier, agreement, comparisons.

Beside every method stand the weak model, the strong one trained on the same ground truth (D1) and the ceiling. What
makes a PGR meaningless is said in a line with what to change, and no PGR is given in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from debate_rl.intervals import Effect, Estimate, Floats
from debate_rl.records import Record
from debate_rl.weak_to_strong.results.pgr import Recovered, compare_pgr, recovered
from debate_rl.weak_to_strong.results.predictions import ENDS, Hits
from debate_rl.weak_to_strong.results.seed_item_bootstrap import Crossed, placements


class Scores(Record):
    """How good a model's probabilities are on the test items.

    Example:
        Scores(accuracy=Estimate(value=.926, ...), auroc=Estimate(value=.968, ...), brier=Estimate(value=.061, ...))
    """

    accuracy: Estimate
    auroc: Estimate | None
    """Area under the ROC curve of P(answer 0), mean over seeds; None where the test items are of one class."""
    brier: Estimate
    """Mean (P - truth)^2: 0 is perfect, .25 is always saying 1/2."""


class Agreement(Record):
    """How often a student says what its supervisor says (Burns et al. 2023, section 5.1.3).

    Example:
        Agreement(right=Estimate(value=.97, n=178, ...), wrong=Estimate(value=.41, n=22, ...))
    """

    right: Estimate | None
    """Of the test items on which the supervisor is right, `n` of them a seed; None where there are none."""
    wrong: Estimate | None
    """Of those on which it is wrong: how many errors the student takes over. An undecided one counts half to each."""


class MethodResult(Record):
    """A method: its supervisor and labels, its student, and how much of the gap that recovers."""

    name: str
    supervisor: Estimate | None
    """Accuracy on the test items, as all here but the labels'; None where labels come from a file."""
    labels: Estimate
    """Accuracy on D2, hard."""
    label_counts: tuple[dict[str, int], ...] = ()
    student: Estimate
    pgr: Recovered
    pgr_text: str
    """PGR with its interval, or why it is undefined."""
    agreement: Agreement | None = None
    """None without a supervisor on the test items."""


class Comparison(Record):
    """Two methods on the same seeds and items."""

    first: str
    second: str
    accuracy: Effect
    """First student - second student."""
    pgr: Effect | None = None
    """First - second; None where the gap is not above 0."""


class Results(Record):
    """What a study measured."""

    weak: Estimate
    """Accuracy on the test items, as the next three."""
    strong: Estimate | None = None
    """The strong model trained on D1's ground truth, as the weak one is."""
    ceiling: Estimate
    untrained: Estimate | None = None
    """The strong model before it learns from anyone's labels."""
    methods: tuple[MethodResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    """Of every two methods, the later one of the table first."""
    scores: dict[str, Scores] = {}
    """Of every model, by its name in `Hits.test`."""
    notes: tuple[str, ...] = ()
    """What is wrong with the models or the data, and what to change."""
    test_items: int
    seeds: int


def results(found: Hits) -> Results:
    """Measure a study.

    Raises:
        UserError: no test items.
    """
    scores = {name: _scores(np.array(p), found) for name, p in found.test.items()}
    weak, ceiling = found.right("weak"), found.right("ceiling")
    students = {name: found.right(f"{name}/student") for name in found.methods}
    gaps = {name: recovered(weak, student, ceiling, found.test_clusters) for name, student in students.items()}
    ends = {name: scores[name].accuracy if name in scores else None for name in ENDS}
    return Results(
        weak=scores["weak"].accuracy,
        strong=ends["strong"],
        ceiling=scores["ceiling"].accuracy,
        untrained=ends["untrained"],
        methods=tuple(
            MethodResult(
                name=name,
                supervisor=scores[f"{name}/supervisor"].accuracy if f"{name}/supervisor" in scores else None,
                labels=_labels(found, name),
                label_counts=found.label_counts.get(name, ()),
                student=scores[f"{name}/student"].accuracy,
                pgr=gaps[name],
                pgr_text=gaps[name].text,
                agreement=_agreement(found, name) if f"{name}/supervisor" in scores else None,
            )
            for name in found.methods
        ),
        comparisons=tuple(
            _comparison(later, first, {"weak": weak, "ceiling": ceiling, **students}, found)
            for first, later in combinations(found.methods, 2)
        ),
        scores=scores,
        notes=advice(found),
        test_items=len(found.test_items),
        seeds=found.seeds,
    )


def _scores(p: Floats, found: Hits) -> Scores:
    """Scores of (S, N) probabilities; one row is a model that serves all seeds."""
    truth = np.array(found.test_truth)
    both = len(set(found.test_truth)) == 2
    right = (1 + np.sign(p - 0.5) * (2 * truth - 1)) / 2
    tables = [right, (p - truth) ** 2, *([placements(p, truth)] if both else [])]
    sample = Crossed(tables, found.test_clusters)
    weights = np.eye(len(tables))
    return Scores(
        accuracy=sample.contrast(*weights[0]).estimate(),
        auroc=sample.auroc(2, p, truth).estimate() if both else None,
        brier=sample.contrast(*weights[1]).estimate(),
    )


def _labels(found: Hits, method: str) -> Estimate:
    """Accuracy of a method's labels over seeds and the items of D2."""
    return Crossed([found.labels_right(method)], found.label_clusters).contrast(1).estimate()


def _agreement(found: Hits, method: str) -> Agreement:
    """Where a student follows its supervisor."""
    taught, learnt = found.right(f"{method}/supervisor"), found.right(f"{method}/student")
    same = 1 - np.abs(taught - learnt)
    sample = Crossed([same * taught, same * (1 - taught), taught, 1 - taught], found.test_clusters)
    ends = []
    for part, whole, count in (((1, 0, 0, 0), (0, 0, 1, 0), taught), ((0, 1, 0, 0), (0, 0, 0, 1), 1 - taught)):
        share = sample.share(part, whole).estimate() if count.any() else None
        ends.append(share and share.model_copy(update={"n": round(count.sum() / len(count))}))
    return Agreement(right=ends[0], wrong=ends[1])


def _comparison(first: str, second: str, models: Mapping[str, Floats], found: Hits) -> Comparison:
    """Two students on the same draws."""
    both = compare_pgr(models["weak"], models[first], models[second], models["ceiling"], found.test_clusters)
    return Comparison(first=first, second=second, accuracy=both.accuracy, pgr=both.pgr)


def advice(found: Hits) -> tuple[str, ...]:
    """What makes the PGR of a study undefined or misleading, each with what to change; none where all is well."""
    models = [name for name in ("weak", "ceiling", "strong") if name in found.test]
    sample = Crossed([found.right(name) for name in models], found.test_clusters)
    pad = [0] * (len(models) - 2)
    gap = sample.contrast(-1, 1, *pad).effect()
    lines = []
    if gap.low is None or gap.high is None:
        lines.append("PGR is undefined: all test items are one cluster, so nothing has an interval; take more stories")
    elif gap.high < 0:
        lines.append(
            f"the ceiling is {_points(-gap.value)} points below the weak model, so PGR is undefined: the strong model "
            "did not learn the task from D2's ground truth; raise train.num_train_epochs or train.learning_rate, or "
            "exchange models.weak and models.strong"
        )
    elif gap.low <= 0:
        lines.append(
            f"ceiling - weak is {_points(gap.value)} points [{_points(gap.low)}, {_points(gap.high)}], which may be 0, "
            "so PGR is undefined; take a weaker models.weak, a stronger models.strong, or more test items and seeds"
        )
    if not lines and "untrained" in found.test:
        before, after = (float(found.right(name).mean()) for name in ("untrained", "ceiling"))
        if before >= after:
            lines.append(
                f"the strong model is right on {_points(before)} % before it learns and the ceiling on "
                f"{_points(after)} %: PGR says how much of that weak labels leave, not what they teach; take a task "
                "that is new to it (task, family or knobs)"
            )
    if "strong" not in found.test:
        return tuple(lines)
    lead, drop = sample.contrast(1, 0, -1).effect(), sample.contrast(0, -1, 1).effect()
    if lead.low is not None and lead.low > 0:
        lines.append(
            f"of the same D1 the weak model learns {_points(lead.value)} points more than the strong one; exchange "
            "models.weak and models.strong, or train the strong one longer (train.num_train_epochs)"
        )
    if gap.low is not None and gap.low > 0 and drop.low is not None and drop.low > 0:
        lines.append(
            f"the ceiling, trained on D2, is {_points(drop.value)} points below the strong model trained on D1, which "
            "makes PGR too high; give student at least as many items as supervisor"
        )
    return tuple(lines)


def _points(value: float) -> str:
    return f"{100 * value:.1f}"
