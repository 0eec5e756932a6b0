"""Predictions of every model of a weak-to-strong study, item by item, from which all results are computed.

Studies of several runs on the same items are joined by stacking their seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""Models that belong to no method; the others are METHOD/supervisor and METHOD/student."""


class Hits(Record):
    """P(answer 0) by model, seed and item, and the true answers.

    Example:
        Hits(test_items=("lab-7-2", ...), test_clusters=("lab-7", ...), test_truth=(1, ...), label_items=...,
             label_clusters=..., label_truth=..., labels={"none": ((0.91, 0.04, ...), ...)},
             test={"weak": ((0.7, 0.2, ...), ...), "none/supervisor": ..., "none/student": ..., "ceiling": ...})
    """

    test_items: tuple[str, ...]
    test_clusters: tuple[str, ...]
    test_truth: Truth
    label_items: tuple[str, ...]
    """Items of D2, which the supervisors label."""
    label_clusters: tuple[str, ...]
    label_truth: Truth
    test: dict[str, Table]
    """Predictions of the test items by model: weak and strong (trained on D1's ground truth), METHOD/supervisor,
    METHOD/student, ceiling (the strong model trained on D2's ground truth), untrained (the strong model before any
    training: one row, whatever the number of seeds)."""
    labels: dict[str, Table]
    """Labels of D2 by method, in the order of the table, before any are left out."""
    warnings: tuple[str, ...] = ()
    """Signs that trainings of the study taught nothing, with the names of the trainings."""
    label_counts: dict[str, tuple[dict[str, int], ...]] = {}
    """Counts of labels by method and seed, see `weak_to_strong.labels.Labels.counts`."""

    @model_validator(mode="after")
    def _check_shapes(self) -> Hits:
        self._check_part("test", self.test_items, self.test_clusters, self.test_truth, self.test)
        self._check_part("labels", self.label_items, self.label_clusters, self.label_truth, self.labels)
        return self

    def _check_part(
        self, part: str, items: Sequence[str], clusters: Sequence[str], truth: Truth, tables: dict[str, Table]
    ) -> None:
        """Refuse tables that do not fit their items, and values that are no probabilities."""
        if not len(items) == len(clusters) == len(truth):
            raise ValueError(f"{part}: {len(items)} items, {len(clusters)} clusters, {len(truth)} truths")
        for name, table in tables.items():
            # The untrained model has no seed, so it has one row.
            seeds = 1 if name == "untrained" else self.seeds
            lengths = {len(row) for row in table}
            if len(table) != seeds or lengths - {len(items)}:
                shape = np.shape(table) if len(lengths) == 1 else "uneven"
                raise ValueError(f"{part}.{name}: shape {shape}, not {seeds} seeds x {len(items)} items")
            p = np.array(table, dtype=float)
            if not ((p >= 0) & (p <= 1)).all():  # false for undefined ones as well
                raise ValueError(f"{part}.{name}: not all are probabilities between 0 and 1")

    @property
    def seeds(self) -> int:
        """Number of seeds of every trained model."""
        return len(self.test["weak"]) if "weak" in self.test else 0

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of the table; the others are compared with the first."""
        return tuple(self.labels)

    def right(self, model: str) -> Floats:
        """(seeds, items) correctness of a model on the test items: 1 right, 0 wrong, 1/2 undecided."""
        return right(self.test[model], self.test_truth)

    def labels_right(self, method: str) -> Floats:
        """(seeds, items) correctness of a method's labels on D2: 1 right, 0 wrong, 1/2 undecided."""
        return right(self.labels[method], self.label_truth)


def read_hits(stage: Path) -> Hits | None:
    """Read the predictions of a weak_to_strong stage; None where it is not finished.

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
    """1 where P(answer 0) favours the true answer, 0 where the other one, 1/2 where neither; any shape."""
    favoured: Floats = np.sign(np.asarray(p, dtype=float) - 0.5)  # 1 answer 0, -1 answer 1, 0 neither
    return (1 + favoured * (2 * np.asarray(truth) - 1)) / 2


def stacked(held: Sequence[Hits]) -> Hits:
    """Join the seeds of several runs, for the models that all runs have.

    Raises:
        UserError: no runs, or their items differ.
    """
    if not held:
        raise UserError("no finished weak_to_strong stage to join; run one first")
    first = held[0]
    # Stacked rows are compared item by item, so the order of the items has to agree as well.
    for other in held[1:]:
        if (other.test_items, other.label_items) != (first.test_items, first.label_items):
            raise UserError(
                "weak-to-strong items differ between the runs; give all the same questions.seed, as a study does"
            )
    test = _stacked_tables([hits.test for hits in held])
    if "untrained" in test:
        # The untrained model is the same in every run: one row serves all seeds.
        test["untrained"] = first.test["untrained"]
    labels = _stacked_tables([hits.labels for hits in held])
    label_counts: dict[str, tuple[dict[str, int], ...]] = {}
    for name in labels:
        label_counts[name] = ()
        for hits in held:
            label_counts[name] += hits.label_counts.get(name, ())
    every_warning: dict[str, None] = {}
    for hits in held:
        every_warning.update(dict.fromkeys(hits.warnings))
    changes = {"test": test, "labels": labels, "label_counts": label_counts, "warnings": tuple(every_warning)}
    return first.model_copy(update=changes)


def _stacked_tables(runs: Sequence[Mapping[str, Table]]) -> dict[str, Table]:
    """The rows of all runs by model, for the models that all of them have, in the order of the first."""
    stacked_by_name: dict[str, Table] = {}
    for name in runs[0]:
        if all(name in tables for tables in runs):
            stacked_by_name[name] = ()
            for tables in runs:
                stacked_by_name[name] += tables[name]
    return stacked_by_name
