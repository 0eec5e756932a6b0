"""The study of labels that every weak-to-strong task shares: supervisors, their labels, students, and who was right.

For every seed: the weak model alone, the strong model trained on D1's ground truth, for each method its supervisors'
labels on D2 and the student trained on them, and the ceiling, the strong model trained on D2's ground truth. All are
tested on the same items. `study` asks for probabilities of answers, `tasks.generative` for written answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from debate_rl.data.splits import Grouped
from debate_rl.intervals import Floats
from debate_rl.weak_to_strong.results.predictions import Hits, Table, Truth

M = TypeVar("M")
MethodT = TypeVar("MethodT", contravariant=True)
TruthPart = Literal["supervisor", "student"]


@dataclass(frozen=True)
class Outcome:
    """Predictions and labels of one method for one seed."""

    labels: Floats
    """(n,) labels of D2, before any are left out."""
    counts: dict[str, int]
    """How many labels are kept, wrong or left out."""
    supervisor: Floats
    """(n,) the supervisors' predictions on the test items."""
    student: Floats
    """(n,) the student's predictions on the test items."""


class SeedModels(Protocol[MethodT]):
    """Trains and tests the models of one seed."""

    def weak(self) -> Floats:
        """(n,) predictions of the weak model on the test items."""
        ...

    def taught_truth(self, part: TruthPart) -> Floats:
        """(n,) predictions on the test items by the strong model trained on a part's ground truth."""
        ...

    def run(self, name: str, method: MethodT) -> Outcome:
        """Train the supervisors and the student of a method."""
        ...


@dataclass(frozen=True)
class Answers:
    """Items of a part and their true answers.

    Example:
        Answers(items=splits.test, truth=label_truth(splits.test))
    """

    items: Sequence[Grouped]
    truth: Truth
    """(n,) 1 where answer 0 is correct; of written answers always 1, as P says whether one is right."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the items."""
        return tuple(item.id for item in self.items)

    @property
    def clusters(self) -> tuple[str, ...]:
        """Stories or games of the items."""
        return tuple(item.cluster for item in self.items)


def run_label_study(
    seeds: Iterable[SeedModels[M]],
    methods: Mapping[str, M],
    test: Answers,
    labelled: Answers,
    untrained: Callable[[], Floats] | None = None,
) -> Hits:
    """Train and test all models of all seeds.

    Args:
        seeds: the models of each seed.
        methods: settings of each method, by name; the first is what the others are compared with.
        test: the test items.
        labelled: the items of D2.
        untrained: predicts the test items by the strong model as it is; None leaves it out.

    Returns:
        Predictions of every model for every item.
    """
    predictions: dict[str, list[Floats]] = {}
    labels: dict[str, list[Floats]] = {}
    counts: dict[str, list[dict[str, int]]] = {}
    # Seed by seed, not model by model: a study stopped after some seeds can be finished with fewer of them.
    for seed in seeds:
        # Baselines come once a seed, whatever the number of methods that are compared with them.
        predictions.setdefault("weak", []).append(seed.weak())
        predictions.setdefault("strong", []).append(seed.taught_truth("supervisor"))
        for name, method in methods.items():
            outcome = seed.run(name, method)
            predictions.setdefault(f"{name}/supervisor", []).append(outcome.supervisor)
            predictions.setdefault(f"{name}/student", []).append(outcome.student)
            labels.setdefault(name, []).append(outcome.labels)
            counts.setdefault(name, []).append(outcome.counts)
        predictions.setdefault("ceiling", []).append(seed.taught_truth("student"))
    if untrained is not None:
        # Without it a student that only remembers what it knew before would pass for one that learnt from its labels.
        # It was not trained, so it has no seed: one row serves all.
        predictions["untrained"] = [untrained()]
    return Hits(
        test_items=test.ids,
        test_clusters=test.clusters,
        test_truth=test.truth,
        label_items=labelled.ids,
        label_clusters=labelled.clusters,
        label_truth=labelled.truth,
        test={name: _table(rows) for name, rows in predictions.items()},
        labels={name: _table(rows) for name, rows in labels.items()},
        label_counts={name: tuple(rows) for name, rows in counts.items()},
    )


def _table(rows: Sequence[Floats]) -> Table:
    """Predictions as (seeds, items) plain numbers."""
    return tuple(tuple(np.asarray(row, dtype=float).tolist()) for row in rows)
