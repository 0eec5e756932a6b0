"""What every model of a weak-to-strong study said item by item: all that results are made of.

Studies of several runs are joined by stacking their seeds, on the same items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError, model_validator

from debate_rl.errors import UserError
from debate_rl.intervals import Floats
from debate_rl.records import Record, explain, read_json

Table = tuple[tuple[float, ...], ...]
"""(seeds, items) P(answer 0)."""
Truth = tuple[Literal[0, 1], ...]
"""(items,) 1 where answer 0 is correct."""
ENDS = ("weak", "strong", "ceiling", "untrained")
"""Models that belong to no method; the rest are METHOD/supervisor and METHOD/student."""


class Hits(Record):
    """P(answer 0) by model, seed and item, and what is true.

    Example:
        Hits(test_items=("lab-7-2", ...), test_clusters=("lab-7", ...), test_truth=(1, ...), label_items=...,
             label_clusters=..., label_truth=..., labels={"none": ((0.91, 0.04, ...), ...)},
             test={"weak": ((0.7, 0.2, ...), ...), "none/supervisor": ..., "none/student": ..., "ceiling": ...})
    """

    test_items: tuple[str, ...]
    test_clusters: tuple[str, ...]
    test_truth: Truth
    label_items: tuple[str, ...]
    """D2: the items that supervisors label."""
    label_clusters: tuple[str, ...]
    label_truth: Truth
    test: dict[str, Table]
    """On the test items, by model: weak and strong (trained on D1's ground truth), METHOD/supervisor, METHOD/student,
    ceiling (the strong model trained on D2's), untrained (the strong one as it is: one row, whatever the seeds)."""
    labels: dict[str, Table]
    """On D2, by method, in the order of the table: its labels, before any are left out."""
    label_counts: dict[str, tuple[dict[str, int], ...]] = {}
    """By method and seed: `weak_to_strong.labels.Labels.counts`."""

    @model_validator(mode="after")
    def _shapes(self) -> Hits:
        for part, items, clusters, truth, tables in (
            ("test", self.test_items, self.test_clusters, self.test_truth, self.test),
            ("labels", self.label_items, self.label_clusters, self.label_truth, self.labels),
        ):
            if not len(items) == len(clusters) == len(truth):
                raise ValueError(f"{part}: {len(items)} items, {len(clusters)} clusters, {len(truth)} truths")
            for name, table in tables.items():
                seeds = 1 if name == "untrained" else self.seeds
                if len(table) != seeds or any(len(row) != len(items) for row in table):
                    raise ValueError(
                        f"{part}.{name}: shape {np.shape(table) if len(set(map(len, table))) == 1 else 'uneven'}, "
                        f"not {seeds} seeds x {len(items)} items"
                    )
                if not all(0 <= p <= 1 for row in table for p in row):
                    raise ValueError(f"{part}.{name}: not all are probabilities between 0 and 1")
        return self

    @property
    def seeds(self) -> int:
        """Seeds of every model that is trained."""
        return len(self.test["weak"]) if "weak" in self.test else 0

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of the table; the others are compared with the first."""
        return tuple(self.labels)

    def right(self, model: str) -> Floats:
        """(seeds, items) of a model on the test items: 1 right, 0 wrong, 1/2 undecided."""
        return right(self.test[model], self.test_truth)

    def labels_right(self, method: str) -> Floats:
        """(seeds, items) of a method's labels on D2, the same."""
        return right(self.labels[method], self.label_truth)


def read_hits(stage: Path) -> Hits | None:
    """What the models of a weak_to_strong stage said; None where it is not finished.

    Raises:
        UserError: the file is of another version, or malformed.
    """
    path = stage / "trainings" / "hits.json"
    if not path.is_file():
        return None
    try:
        return Hits.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}; remove the stage's folder and run it again") from error


def right(p: ArrayLike, truth: ArrayLike) -> Floats:
    """1 where P(answer 0) favours the true answer, 0 where the other, 1/2 where neither; shapes as they are."""
    found: Floats = (1 + np.sign(np.asarray(p, dtype=float) - 0.5) * (2 * np.asarray(truth) - 1)) / 2
    return found


def stacked(held: Sequence[Hits]) -> Hits:
    """The seeds of several runs in one record, of the models that all of them have.

    Raises:
        UserError: no runs, or their items differ.
    """
    if not held:
        raise UserError("no finished weak_to_strong stage to join; run one first")
    first = held[0]
    for other in held[1:]:
        if (other.test_items, other.label_items) != (first.test_items, first.label_items):
            raise UserError(
                "weak-to-strong items differ between the runs; give all the same questions.seed, as a study does"
            )
    models = [name for name in first.test if all(name in one.test for one in held)]
    methods = [name for name in first.labels if all(name in one.labels for one in held)]
    return first.model_copy(
        update={
            "test": {
                name: first.test[name] if name == "untrained" else sum((one.test[name] for one in held), ())
                for name in models
            },
            "labels": {name: sum((one.labels[name] for one in held), ()) for name in methods},
            "label_counts": {name: sum((one.label_counts.get(name, ()) for one in held), ()) for name in methods},
        }
    )
