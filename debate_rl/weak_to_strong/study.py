"""Weak-to-strong (Lang, Huang and Li 2025): debates help weak supervisors, whose labels teach a strong student.

For every seed and method: weak supervisors are trained on D1's ground truth, each reading its own samples; together
they label D2; the strong student learns D2 from what becomes of these labels and is tested. Beside it stand the weak
model alone, the strong model trained on D1 as the weak one was, and the ceiling, the strong model trained on D2's
ground truth; all three by cross entropy and without help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from debate_rl.data.tasks.binary_items import load
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Floats
from debate_rl.records import write_json
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.labels import Labels
from debate_rl.weak_to_strong.methods import Method, check_methods
from debate_rl.weak_to_strong.results.predictions import Hits
from debate_rl.weak_to_strong.rollout import NOTHING, Rollout, Told
from debate_rl.weak_to_strong.supervisors import Supervisors, train_supervisors
from debate_rl.weak_to_strong.tasks.items import Item, Samples, Splits, label_truth
from debate_rl.weak_to_strong.training_cache import Trainings
from debate_rl.weak_to_strong.transfer import Course, teach

EXPLANATIONS = Context(kind="explanations", debater="strong", opponent="weak")
"""What refinement plays: each model explains one answer."""


@dataclass(frozen=True)
class Reading:
    """What is read, and who helps.

    Example:
        Reading(weak=plain_samples(items, blind, False), strong=plain_samples(items, blind, True),
                contexts={"debate": Context()}, rollout=Rollout(...), weak_reads_passage=False)
    """

    weak: Samples
    """By supervisors without help."""
    strong: Samples
    """By the strong model: students, ceiling."""
    contexts: Mapping[str, Context]
    rollout: Rollout | None = None
    """Plays; None is enough where no method has help that is played."""
    weak_reads_passage: bool = True
    """Under a game as well."""
    task: str = ""
    """Of recorded labels: whose rows they are."""
    resolve: Callable[[str], str] = str
    """Where a model's name leads."""
    naive: str = "none"
    """Context of the weak model alone: none, or one that is recorded."""


@dataclass(frozen=True)
class Seed:
    """The models of one seed."""

    trainings: Trainings
    splits: Splits
    reading: Reading
    seed: int

    def supervisors(self, method: Method, student: Weights | None = None, within: str | None = None) -> Supervisors:
        """Train the supervisors of a method, whose debater may be the student of the round before."""
        weak = Weights(model=self.trainings.settings.weak)
        read = self.reader(method, student)
        return train_supervisors(self.trainings, weak, self.splits.supervisor, read, method, self.seed, within)

    def reader(self, method: Method, student: Weights | None = None) -> Callable[[int, Sequence[Item]], Samples]:
        """What each member of a method's supervisors reads."""
        if method.context == "none":
            return lambda member, items: self.reading.weak
        return lambda member, items: self._played(method, method.draw(member), self.reading.weak_reads_passage, student)

    def _played(self, method: Method, draw: int, passage: bool, student: Weights | None) -> Samples:
        """Every item with a member's games."""
        context = self.reading.contexts[method.context]
        if student is not None:
            context = context.model_copy(update={"debater": "student", "opponent": None})
        told = replace(self._told(context), student=student)
        found = self._rollout.samples(context, self.splits.every, draw, passage, told)
        settings = self.trainings.settings
        who = settings.strong if method.student_reads == "context" and passage else settings.weak
        self.trainings.check_readable(found, who, f"context {method.context!r}")
        return found

    def _told(self, context: Context) -> Told:
        """In market-making what the naive weak model believes."""
        if self._rollout.rules(context).calls != "rejected":
            return NOTHING
        return Told(p=self.beliefs)

    @cached_property
    def beliefs(self) -> dict[str, float]:
        """P(answer 0) by the weak model alone, by item."""
        p = self.naive(self.splits.every)
        return {item.id: float(one) for item, one in zip(self.splits.every, p, strict=True)}

    @property
    def _rollout(self) -> Rollout:
        if self.reading.rollout is None:
            raise UserError("a method has help that is played; give run_study a rollout")
        return self.reading.rollout

    def naive(self, items: Sequence[Item]) -> Floats:
        """P(answer 0) by the weak model alone."""
        return self.judged(Method(context=self.reading.naive, members=1), items)[0]

    def judged(
        self, method: Method, *parts: Sequence[Item], student: Weights | None = None, within: str | None = None
    ) -> list[Floats]:
        """P(answer 0) of the items of each part by a method's supervisors."""
        context = self.reading.contexts.get(method.context)
        if context is not None and context.kind == "recorded":
            return [recorded(context, self.reading.task, part) for part in parts]
        supervisors = self.supervisors(method, student, within)
        return [supervisors.label(part) for part in parts]

    def run(self, name: str, method: Method) -> Outcome:
        """Supervisors, labels and student of a method, at the end of its rounds."""
        found = self._round(name, method)
        for number in range(2, method.transfer.rounds + 1):
            found = self._round(f"{name}/round{number}", method, found.weights)
        return found

    def _round(self, called: str, method: Method, debater: Weights | None = None) -> Outcome:
        """One round; the debater of a later one is the student of the one before."""
        within = None if debater is None else called
        p, tested = self.judged(method, self.splits.student, self.splits.test, student=debater, within=within)
        reads = self._played(method, 0, True, debater) if method.student_reads == "context" else self.reading.strong
        course = Course(
            self.trainings, Weights(model=self.trainings.settings.strong), self.splits.student, reads, method,
            f"seed{self.seed}/{called}", self.seed, self._explain, self.reading.resolve,
        )  # fmt: skip
        student = teach(course, p)
        said = self.trainings.predict(student, course.read(self.splits.test))
        return Outcome(course.labels(p), tested, said, student)

    def _explain(self, items: Sequence[Item], sides: dict[str, Side]) -> list[Leg]:
        """The games of the debate function."""
        return self._rollout.legs(EXPLANATIONS, items, 0, Told(sides=sides), judged=True)

    def taught_truth(self, part: str) -> Floats:
        """P(answer 0) on the test set by the strong model trained on a part's ground truth."""
        items = self.splits.parts[part]
        start, truth = Weights(model=self.trainings.settings.strong), [float(item.label) for item in items]
        called = {"student": "ceiling", "supervisor": "strong"}[part]
        model = self.trainings.fit(
            f"seed{self.seed}/{called}", start, items, self.reading.strong, truth, 1000 * self.seed
        )
        return self.trainings.predict(model, [self.reading.strong[item.id] for item in self.splits.test])


@dataclass(frozen=True)
class Outcome:
    """What a method gave for one seed."""

    labels: Labels
    supervisor: Floats
    """P(answer 0) on the test set, (n,)."""
    student: Floats
    """The same."""
    weights: Weights
    """The student's."""


def run_study(
    splits: Splits, reading: Reading, trainings: Trainings, folder: Path, methods: Mapping[str, Method]
) -> Hits:
    """Train everything; what a stopped study or another table had trained or played is not done again.

    Args:
        splits: D1, D2 and test.
        reading: what models read, and the help of contexts.
        trainings: of this and other tables.
        folder: for hits.json and index.json, which says by what name each training lies in the folder of trainings.
        methods: by name; the first is what the others are compared with.

    Returns:
        What every model said of every item.

    Raises:
        UserError: a method names no context there is, a text is longer than its model's context, or a training or a
            game can not be done.
    """
    check_methods(methods, reading.contexts)
    settings = trainings.settings
    if reading.naive == "none":
        trainings.check_readable(reading.weak, settings.weak, "the weak model")
    trainings.check_readable(reading.strong, settings.strong, "the strong model")
    test: dict[str, list[Floats]] = {}
    labels: dict[str, list[Floats]] = {}
    counts: dict[str, list[dict[str, int]]] = {}
    for number in range(settings.seeds):
        seed = Seed(trainings, splits, reading, settings.seed + number)
        test.setdefault("weak", []).append(seed.naive(splits.test))
        test.setdefault("strong", []).append(seed.taught_truth("supervisor"))
        for name, method in methods.items():
            found = seed.run(name, method)
            test.setdefault(f"{name}/supervisor", []).append(found.supervisor)
            test.setdefault(f"{name}/student", []).append(found.student)
            labels.setdefault(name, []).append(np.array(found.labels.every))
            counts.setdefault(name, []).append(found.labels.counts)
        test.setdefault("ceiling", []).append(seed.taught_truth("student"))
    if settings.readout == "answers":
        # Without it a student that only remembers what it knew before would pass for one that learnt from its labels.
        read = [reading.strong[item.id] for item in splits.test]
        test["untrained"] = [trainings.predict(Weights(model=settings.strong), read)]
    hits = _hits(splits, test, labels, counts)
    write_json(folder / "hits.json", hits.model_dump(mode="json"))
    write_json(folder / "index.json", dict(sorted(trainings.done.items())))
    return hits


def _hits(
    splits: Splits,
    test: Mapping[str, Sequence[Floats]],
    labels: Mapping[str, Sequence[Floats]],
    counts: Mapping[str, Sequence[dict[str, int]]],
) -> Hits:
    """The tables as a record."""

    def table(rows: Sequence[Floats]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(np.asarray(row, dtype=float).tolist()) for row in rows)

    return Hits(
        test_items=tuple(item.id for item in splits.test),
        test_clusters=tuple(item.cluster for item in splits.test),
        test_truth=label_truth(splits.test),
        label_items=tuple(item.id for item in splits.student),
        label_clusters=tuple(item.cluster for item in splits.student),
        label_truth=label_truth(splits.student),
        test={name: table(rows) for name, rows in test.items()},
        labels={name: table(rows) for name, rows in labels.items()},
        label_counts={name: tuple(rows) for name, rows in counts.items()},
    )


def recorded(context: Context, task: str, items: Sequence[Item]) -> Floats:
    """P(answer 0) of items by the soft labels of a file.

    Raises:
        UserError: the file has no label for some of them.
    """
    rows = load(task, context.path, balanced=False).items
    found = {row.id: row.soft_label for row in rows if row.soft_label is not None}
    missing = [item.id for item in items if item.id not in found]
    if missing:
        raise UserError(
            f"{context.path}: no soft_label for {len(missing)} of {len(items)} items (the first is {missing[0]!r}); "
            "give a file with a row for each item of the task"
        )
    return np.array([found[item.id] for item in items])
