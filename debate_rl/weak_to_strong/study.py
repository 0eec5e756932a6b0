"""Weak-to-strong on questions (Lang, Huang and Li 2025): debates help weak supervisors label data for a strong student.

For every seed and method, weak supervisors are trained on D1's ground truth, each reading its own samples. Together
they label D2, and the strong student is trained on these labels and tested. The baselines (`label_study`) are trained
by cross entropy and without help: the weak model, the strong model on D1's and on D2's ground truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from debate_rl.data.tasks.binary_items import load
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Floats
from debate_rl.judges.calibration import Calibrator
from debate_rl.records import write, write_json
from debate_rl.trainers.common.settings import Weights
from debate_rl.trainers.common.warning_signs import said
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.debate_function import DebateFunction, DebateScore, summary
from debate_rl.weak_to_strong.label_study import Answers, Outcome, TruthPart, run_label_study
from debate_rl.weak_to_strong.methods import Method, check_methods
from debate_rl.weak_to_strong.results.predictions import Hits
from debate_rl.weak_to_strong.rollout import NOTHING, Rollout, SupervisorBelief
from debate_rl.weak_to_strong.supervisors import Supervisors, train_supervisors
from debate_rl.weak_to_strong.tasks.items import Item, Samples, Splits, label_truth
from debate_rl.weak_to_strong.training_cache import TrainingData, Trainings
from debate_rl.weak_to_strong.transfer import Course, teach

EXPLANATIONS = Context(kind="explanations", debater="strong", opponent="weak")
"""Games played for refinement: each model explains one answer."""


@dataclass(frozen=True)
class Reading:
    """Texts that the models read, and the games that help supervisors.

    Example:
        Reading(weak=plain_samples(items, blind, False), strong=plain_samples(items, blind, True),
                contexts={"debate": Context()}, rollout=Rollout(...), weak_reads_passage=False)
    """

    weak: Samples
    """Texts for supervisors without help."""
    strong: Samples
    """Texts for the strong model: students and ceiling."""
    contexts: Mapping[str, Context]
    rollout: Rollout | None = None
    """Plays the games; may be None where no method has played help."""
    weak_reads_passage: bool = True
    """Whether supervisors read the passage above a game as well."""
    task: str = ""
    """Task of the rows with recorded labels."""
    resolve: Callable[[str], str] = str
    """Gives the folder or hub name of a model."""
    naive: str = "none"
    """Context of the weak model alone: none, or a recorded one."""


@dataclass(frozen=True)
class Seed:
    """Trains and tests the models of one seed."""

    trainings: Trainings
    splits: Splits
    reading: Reading
    seed: int
    folder: Path | None = None
    """Holds a log of the debate function for every method that uses it; None keeps none."""
    debates: list[DebateFunction] = field(default_factory=list)
    """The debate function against the truth, method by method."""

    def weak(self) -> Floats:
        """P(answer 0) of the test items by the weak model alone, (n,)."""
        return self.naive(self.splits.test)

    def naive(self, items: Sequence[Item]) -> Floats:
        """P(answer 0) by the weak model alone, (n,)."""
        return self.judged(Method(context=self.reading.naive, members=1), items)[0]

    def taught_truth(self, part: TruthPart) -> Floats:
        """P(answer 0) of the test items by the strong model trained on a part's ground truth, (n,)."""
        items = self.splits.parts[part]
        called = {"student": "ceiling", "supervisor": "strong"}[part]
        data = TrainingData(items, self.reading.strong, [float(item.label) for item in items])
        start = Weights(model=self.trainings.settings.strong)
        # The seed of the students, so that ceiling and student differ in their labels alone.
        model = self.trainings.fit(f"seed{self.seed}/{called}", start, data, 1000 * self.seed)
        return self.trainings.predict(model, [self.reading.strong[item.id] for item in self.splits.test])

    def run(self, name: str, method: Method) -> Outcome:
        """Train the supervisors and the student of a method, round after round."""
        outcome, student = self._round(name, method)
        for number in range(2, method.transfer.rounds + 1):
            outcome, student = self._round(f"{name}/round{number}", method, student)
        return outcome

    def _round(self, called: str, method: Method, last_student: Weights | None = None) -> tuple[Outcome, Weights]:
        """Train the supervisors and the student of one round.

        Args:
            called: name of the round in the study.
            method: how labels are made and learnt from.
            last_student: of the round before, who speaks in this round's games; None in the first round.

        Returns:
            Labels and predictions of the round, and its student.
        """
        # Supervisors of the first round are shared by name; later ones depend on this method's own student.
        within = None if last_student is None else called
        p, supervisor = self.judged(method, self.splits.student, self.splits.test, student=last_student, within=within)
        samples = self.reading.strong
        if method.student_reads == "context":
            samples = self._played(method, 0, True, last_student)
        course = Course(
            trainings=self.trainings,
            strong=Weights(model=self.trainings.settings.strong),
            items=self.splits.student,
            samples=samples,
            method=method,
            called=f"seed{self.seed}/{called}",
            seed=self.seed,
            explain=self._explain,
            resolve=self.reading.resolve,
            calibrator=self._calibrator(method),
            keep=lambda what, scores: self._keep(f"seed{self.seed}/{called}/{what}", scores),
        )
        student = teach(course, p)
        labels = course.labels(p)
        tested = self.trainings.predict(student, course.read(self.splits.test))
        return Outcome(np.array(labels.every), labels.counts, supervisor, tested), student

    def judged(
        self, method: Method, *parts: Sequence[Item], student: Weights | None = None, within: str | None = None
    ) -> list[Floats]:
        """P(answer 0) of the items of each part by a method's supervisors, (n,) a part.

        Args:
            method: how many supervisors there are, and what they read.
            parts: items to label.
            student: of the round before, who speaks in the games; None in the first round.
            within: name of the round whose own the supervisors are; None where other methods share them.

        Raises:
            UserError: a recorded context lacks the label of an item, or a training or a game can not be done.
        """
        context = self.reading.contexts.get(method.context)
        # A file of labels stands for a trained supervisor, so there is nothing to train or to play.
        if context is not None and context.kind == "recorded":
            return [recorded(context, self.reading.task, part) for part in parts]
        supervisors = self.supervisors(method, student, within)
        return [supervisors.label(part) for part in parts]

    def supervisors(self, method: Method, student: Weights | None = None, within: str | None = None) -> Supervisors:
        """Train the supervisors of a method; `student`, of the round before, then speaks in their games."""
        weak = Weights(model=self.trainings.settings.weak)
        texts_of = self.reader(method, student)
        return train_supervisors(self.trainings, weak, self.splits.supervisor, texts_of, method, self.seed, within)

    def reader(self, method: Method, student: Weights | None = None) -> Callable[[int, Sequence[Item]], Samples]:
        """Gives what each member of a method's supervisors reads."""
        if method.context == "none":
            return lambda member, items: self.reading.weak
        return lambda member, items: self._played(method, method.draw(member), self.reading.weak_reads_passage, student)

    def _played(self, method: Method, draw: int, passage: bool, student: Weights | None) -> Samples:
        """Play a member's games on every item, and give what is read of them."""
        context = self.reading.contexts[method.context]
        if student is not None:
            context = context.model_copy(update={"debater": "student", "opponent": None})
        belief = replace(self._belief(context), student=student)
        # All parts at once, whichever is asked for: the games' log is named by its items, so parts would play again.
        samples = self._rollout.samples(context, self.splits.every, draw, passage, belief)
        settings = self.trainings.settings
        reader = settings.strong if method.student_reads == "context" and passage else settings.weak
        self.trainings.check_readable(samples, reader, f"context {method.context!r}")
        return samples

    def _belief(self, context: Context) -> SupervisorBelief:
        """In market-making the naive weak model's beliefs, against which the debater argues; else nothing."""
        if self._rollout.rules(context).calls != "rejected":
            return NOTHING
        return SupervisorBelief(p=self.beliefs)

    @cached_property
    def beliefs(self) -> dict[str, float]:
        """P(answer 0) by the weak model alone, by item id."""
        p = self.naive(self.splits.every)
        return {item.id: float(value) for item, value in zip(self.splits.every, p, strict=True)}

    @property
    def _rollout(self) -> Rollout:
        if self.reading.rollout is None:
            raise UserError("a method has help that is played; give run_study a rollout")
        return self.reading.rollout

    def _calibrator(self, method: Method) -> Calibrator | None:
        """Of the judge who compares explanations, where the method has them compared."""
        if method.transfer.refine is None and method.labels.debate is None:
            return None
        return getattr(self._rollout.judge(), "calibrator", None)

    def _keep(self, name: str, scores: Sequence[DebateScore]) -> None:
        """Log the debate function of every item, once for each name."""
        if self.folder is None or any(one.name == name for one in self.debates):
            return
        write(self.folder / "debate_function" / f"{name.replace('/', '-')}.jsonl", scores)
        self.debates.append(summary(name, scores))

    def _explain(self, items: Sequence[Item], sides: dict[str, Side]) -> list[JudgedDebate]:
        """Play and judge the games of the debate function."""
        return self._rollout.legs(EXPLANATIONS, items, 0, SupervisorBelief(sides=sides), judged=True)


def run_study(
    splits: Splits, reading: Reading, trainings: Trainings, folder: Path, methods: Mapping[str, Method]
) -> Hits:
    """Run a study of labels on questions; trainings and games that are finished are not done again.

    Args:
        splits: D1, D2 and test.
        reading: texts that models read, and the help of contexts.
        trainings: cache of this and other tables.
        folder: for hits.json and index.json, which gives the folder of each training by its name in the study.
        methods: by name; the first is what the others are compared with.

    Returns:
        Predictions of every model for every item.

    Raises:
        UserError: a method names no known context, a text is longer than its model's context, or a training or a game
            can not be done.
    """
    # Before anything is trained: a mistake in the last method must not show after hours.
    check_methods(methods, reading.contexts)
    settings = trainings.settings
    if reading.naive == "none":
        trainings.check_readable(reading.weak, settings.weak, "the weak model")
    trainings.check_readable(reading.strong, settings.strong, "the strong model")

    def predict_untrained() -> Floats:
        samples = [reading.strong[item.id] for item in splits.test]
        return trainings.predict(Weights(model=settings.strong), samples)

    seeds = [
        Seed(trainings, splits, reading, settings.seed + number, folder=folder) for number in range(settings.seeds)
    ]
    hits = run_label_study(
        seeds,
        methods,
        test=Answers(splits.test, label_truth(splits.test)),
        labelled=Answers(splits.student, label_truth(splits.student)),
        # Only a language model answers before training; a new head knows nothing.
        untrained=predict_untrained if settings.readout == "answers" else None,
    )
    debates = list(chain.from_iterable(seed.debates for seed in seeds))
    if debates:
        write_json(folder / "debate_function.json", [one.model_dump(mode="json") for one in debates])
    hits = hits.model_copy(update={"warnings": said(dict(sorted(trainings.warnings.items())))})
    write_json(folder / "hits.json", hits.model_dump(mode="json"))
    # Sorted by name: trainings were done in the order in which some method first needed them.
    write_json(folder / "index.json", dict(sorted(trainings.done.items())))
    return hits


def recorded(context: Context, task: str, items: Sequence[Item]) -> Floats:
    """P(answer 0) of items by the soft labels of a file, (n,).

    Raises:
        UserError: the file has no label for some of them.
    """
    # Unbalanced: a file that was balanced anew would lack rows which the run's own items hold.
    rows = load(task, context.path, balanced=False).items
    soft_labels = {row.id: row.soft_label for row in rows}
    missing = [item.id for item in items if soft_labels.get(item.id) is None]
    if missing:
        raise UserError(
            f"{context.path}: no soft_label for {len(missing)} of {len(items)} items (the first is {missing[0]!r}); "
            "give a file with a row for each item of the task"
        )
    return np.array([soft_labels[item.id] for item in items])
