"""Weak-to-strong (Lang, Huang and Li 2025): debates help weak supervisors, whose labels teach a strong student.

For every seed: K weak supervisors are trained on D1's ground truth, each reading its own context; the mean of their
probabilities labels D2; the strong student learns D2 from these soft labels and is tested. Beside it stand the weak
model alone and the ceiling, the strong model trained on D2's ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debate_rl.intervals import difference, mean
from debate_rl.records import Record, read_json, write, write_json
from debate_rl.trainers.classifier import predict
from debate_rl.trainers.job import launch
from debate_rl.trainers.rows import ClassifierRow
from debate_rl.trainers.settings import Job, Lora
from debate_rl.weak_to_strong.items import Item, Splits
from debate_rl.weak_to_strong.pgr import recovered

Contexts = Sequence[Mapping[str, str]]
"""For each member of an ensemble, the supervisor's text of every item by id."""


class Settings(Record):
    """Models and training of a study."""

    weak: str
    strong: str
    ensemble: int = 4
    seeds: int = 2
    lora: Lora | None = None
    train: dict[str, Any] = {}
    launch: str | None = None
    seed: int = 0


def plain_contexts(splits: Splits, members: int) -> Contexts:
    """Every member reads the item alone: members differ by their training seed (a finetune ensemble)."""
    texts = {item.id: item.weak_text for part in (splits.supervisor, splits.student, splits.test) for item in part}
    return [texts] * members


class _Seed:
    """The trainings and predictions of one seed, each in its own folder, none done twice."""

    def __init__(self, settings: Settings, splits: Splits, folder: Path, seed: int) -> None:
        self.settings = settings
        self.splits = splits
        self.folder = folder / f"seed{seed}"
        self.seed = seed

    def fit(
        self,
        name: str,
        model: str,
        train: Sequence[ClassifierRow],
        sets: Mapping[str, Sequence[ClassifierRow]],
        seed: int,
    ) -> dict[str, np.ndarray]:
        """Train a classifier and predict on some sets: P(correct) of each row, by set."""
        out = self.folder / name
        if (out / "predictions.json").is_file():
            return {key: np.array(values) for key, values in read_json(out / "predictions.json").items()}
        write(out / "rows.jsonl", train)
        job = Job(
            kind="classifier", model=model, rows=str(out / "rows.jsonl"), out=str(out), lora=self.settings.lora,
            train=self.settings.train, seed=seed,
        )  # fmt: skip
        result = launch(job, self.settings.launch)
        weights = (result.path, None) if self.settings.lora is None else (model, result.path)
        limit = self.settings.train.get("max_length")
        found = {key: predict(rows, weights[0], weights[1], limit) for key, rows in sets.items()}
        write_json(out / "predictions.json", {key: values.tolist() for key, values in found.items()})
        return found

    def supervise(self, name: str, contexts: Contexts) -> tuple[np.ndarray, list[np.ndarray]]:
        """Train the members of an ensemble: mean P(correct) on D2, and each member's on the test set."""
        labels, tests = [], []
        for member, texts in enumerate(contexts):
            found = self.fit(
                f"{name}/supervisor{member}",
                self.settings.weak,
                _rows(self.splits.supervisor, texts),
                {"student": _rows(self.splits.student, texts), "test": _rows(self.splits.test, texts)},
                seed=1000 * self.seed + member,
            )
            labels.append(found["student"])
            tests.append(found["test"])
        return np.mean(labels, axis=0), tests

    def student(self, name: str, targets: Sequence[float]) -> np.ndarray:
        """Train the strong model on D2 with these targets and predict the test set."""
        rows = [
            ClassifierRow(id=item.id, text=item.text, target=float(target), group=item.group)
            for item, target in zip(self.splits.student, targets, strict=True)
        ]
        texts = {item.id: item.text for item in self.splits.test}
        sets = {"test": _rows(self.splits.test, texts)}
        return self.fit(name, self.settings.strong, rows, sets, seed=1000 * self.seed)["test"]


def _rows(items: Sequence[Item], texts: Mapping[str, str]) -> list[ClassifierRow]:
    """Rows with ground truth; what predicts does not read it."""
    return [ClassifierRow(id=i.id, text=texts[i.id], target=float(i.label), group=i.group) for i in items]


def run_study(splits: Splits, contexts: Mapping[str, Contexts], settings: Settings, folder: Path) -> dict[str, Any]:
    """Train everything and measure; what a stopped study had trained is not trained again.

    Args:
        splits: D1, D2 and test.
        contexts: by method, what the supervisors read; `none` must be there, its first member is the weak model alone.
        settings: models and training.
        folder: for the trainings.

    Returns:
        Metrics: `weak`, `ceiling`, one row a method, and paired comparisons of students. Accuracies are tables of
        seeds x test items; intervals resample both.
    """
    labels = np.array([item.label for item in splits.test])
    tables: dict[str, list[np.ndarray]] = {}
    agreements: dict[str, list[np.ndarray]] = {}

    def keep(name: str, p: np.ndarray) -> None:
        tables.setdefault(name, []).append(np.where(p == 0.5, 0.5, (p > 0.5) == labels))

    for number in range(settings.seeds):
        seed = _Seed(settings, splits, folder, settings.seed + number)
        for name, members in contexts.items():
            targets, tests = seed.supervise(name, members)
            if name == "none":
                keep("weak", tests[0])
            keep(f"{name}/supervisor", np.mean(tests, axis=0))
            keep(f"{name}/student", seed.student(f"{name}/student", targets.tolist()))
            right = (targets > 0.5) == np.array([item.label for item in splits.student])
            agreements.setdefault(name, []).append(right)
        keep("ceiling", seed.student("ceiling", [float(item.label) for item in splits.student]))
    return _metrics(splits, tables, agreements)


def _metrics(
    splits: Splits, tables: Mapping[str, list[np.ndarray]], label_hits: Mapping[str, list[np.ndarray]]
) -> dict[str, Any]:
    """Numbers of a study from its tables of hits, seeds x items."""
    clusters = [item.cluster for item in splits.test]
    student_clusters = [item.cluster for item in splits.student]

    def accuracy(name: str) -> dict[str, Any]:
        return mean(np.mean(tables[name], axis=0), clusters).model_dump(mode="json")

    found = {
        name: recovered(tables["weak"], tables[f"{name}/student"], tables["ceiling"], clusters) for name in label_hits
    }
    methods = [
        {
            "name": name,
            "supervisor": accuracy(f"{name}/supervisor"),
            "labels": mean(np.mean(hits, axis=0), student_clusters).model_dump(mode="json"),
            "student": found[name].student.model_dump(mode="json"),
            "pgr": found[name].model_dump(mode="json"),
            "pgr_text": str(found[name]),
        }
        for name, hits in label_hits.items()
    ]
    comparisons = [
        {
            "first": name,
            "second": "none",
            "accuracy": difference(
                np.mean(tables[f"{name}/student"], axis=0), np.mean(tables["none/student"], axis=0), clusters
            ).model_dump(mode="json"),
        }
        for name in label_hits
        if name != "none"
    ]
    return {
        "weak": found["none"].weak.model_dump(mode="json"),
        "ceiling": found["none"].ceiling.model_dump(mode="json"),
        "methods": methods,
        "comparisons": comparisons,
        "test_items": len(splits.test),
        "seeds": len(tables["weak"]),
    }
