"""From labels to a student: naive finetuning, a chain of models, generative finetuning first, refinement by debate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from debate_rl.data.splits import divide
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Floats
from debate_rl.judges.calibration import Calibrator
from debate_rl.trainers.common.rows import PreferenceRow
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.debate_function import DebateScore, debate_scores
from debate_rl.weak_to_strong.labels import Labels, label
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.tasks.items import Item, Sample, Samples
from debate_rl.weak_to_strong.training_cache import TrainingData, Trainings

Explain = Callable[[Sequence[Item], dict[str, Side]], list[JudgedDebate]]
"""Has the strong model argue for the side given for each item, the weak model for the other, and a judge compare."""


@dataclass(frozen=True)
class Course:
    """Everything that a student is trained with.

    Example:
        Course(trainings, strong=Weights(model="lab-base"), items=splits.student, samples=plain, method=Method(),
               called="seed0/debate", seed=0, explain=explain)
    """

    trainings: Trainings
    strong: Weights
    items: tuple[Item, ...]
    """D2."""
    samples: Samples
    """Texts that the student reads."""
    method: Method
    called: str
    """Name in the study, for its index."""
    seed: int
    explain: Explain
    resolve: Callable[[str], str] = str
    """Gives the folder or hub name of a model."""
    calibrator: Calibrator | None = None
    """The comparing judge's."""
    keep: Callable[[str, Sequence[DebateScore]], None] = lambda name, scores: None
    """Is given the debate function of every item, with the name of what it is for."""

    def labels(self, p: Floats, indices: Sequence[int] | None = None) -> Labels:
        """Make labels of P(answer 0) of D2, or of some of its items."""
        items = self.items if indices is None else [self.items[index] for index in indices]
        truth = [item.label for item in items]
        names = [item.id for item in items]
        how = self.method.labels
        made = label(p, truth, names, how, self.seed)
        if how.debate is None:
            return made
        # The debate is about the label that the student would learn, with its errors.
        wins = [score.d for score in self.debate("labels", items, np.array(made.every))]
        return label(p, truth, names, how, self.seed, wins)

    def debate(self, name: str, items: Sequence[Item], p: Floats) -> list[DebateScore]:
        """The debate function D of items: the strong model explains the favoured answer, the weak model the other."""
        sides: dict[str, Side] = {}
        for item, favoured in zip(items, p, strict=True):
            sides[item.id] = "A" if favoured >= 0.5 else "B"
        scores = debate_scores(self.explain(items, sides), sides, self.calibrator)
        self.keep(name, scores)
        return scores

    def read(self, items: Sequence[Item]) -> list[Sample]:
        """Texts of items that the student reads."""
        return [self.samples[item.id] for item in items]


def teach(course: Course, p: Floats) -> Weights:
    """Train a student as a method's transfer says.

    Args:
        course: models, items and settings.
        p: (n,) the supervisors' P(answer 0) on D2.

    Raises:
        UserError: D2 has too few stories for a chain, or a training can not be done.
    """
    transfer = course.method.transfer
    trainings = course.trainings
    start = course.strong
    if transfer.generative:
        texts = course.read(course.items)
        start = trainings.read_texts(f"{course.called}/reader", start, texts, 1000 * course.seed, transfer.train)
    # Each link of a chain labels a part that no model before it has seen: on its own part it would repeat what it
    # learnt by heart (Burns et al. 2023, section 4.3.1).
    parts = fresh_parts(course.items, 1 + len(transfer.through), course.seed)
    labels = p[parts[0]]
    for number, name in enumerate(transfer.through):
        link = _fit(course, f"link{number}", Weights(model=course.resolve(name)), parts[number], labels)
        next_items = [course.items[index] for index in parts[number + 1]]
        labels = trainings.predict(link, course.read(next_items))
    student = _fit(course, "student", start, parts[-1], labels)
    return refined(course, student) if transfer.refine else student


def fresh_parts(items: Sequence[Item], count: int, seed: int) -> list[list[int]]:
    """Split D2 into `count` parts that share no story, as indices in order.

    Raises:
        UserError: there are too few stories.
    """
    if count == 1:
        return [list(range(len(items)))]
    parts = divide(list(items), {str(number): 1 / count for number in range(count)}, seed)
    index_of = {item.id: index for index, item in enumerate(items)}
    indices = []
    for part in parts.values():
        if len({item.label for item in part}) < 2:
            raise UserError(
                f"transfer.through: a chain of {count - 1} models cuts the {len(items)} items of part 'student' into "
                f"{count}, one of which has {len(part)} of one class; give student more items, or a shorter chain"
            )
        indices.append(sorted(index_of[item.id] for item in part))
    return indices


def _fit(course: Course, name: str, start: Weights, indices: Sequence[int], p: Floats) -> Weights:
    """Train a model on the labels of some items of D2."""
    labels = course.labels(p, indices)
    items = [course.items[indices[row]] for row in labels.kept]
    data = TrainingData(items, course.samples, labels.targets, labels.weights)
    return course.trainings.fit(f"{course.called}/{name}", start, data, 1000 * course.seed, loss=course.method.loss)


def refined(course: Course, student: Weights) -> Weights:
    """Train a student further on who wins a debate: the strong model explains the student's answer, the weak the other.

    The target of the student's own answer is sigma(D) (see `debate_function`).
    """
    items = course.items
    transfer = course.method.transfer
    called = f"{course.called}/refined"
    seed = 1000 * course.seed
    texts = course.read(items)
    answers = course.trainings.predict(student, texts)
    wins = np.array([score.p_first for score in course.debate("refine", items, answers)])
    if transfer.refine == "dpo":
        pairs = [_pair(item, text, p) for item, text, p in zip(items, texts, wins, strict=True)]
        rows = [pair for pair in pairs if pair is not None]
        if not rows:
            raise UserError("transfer.refine: the judge gives every explanation 0.5; take another judge")
        return course.trainings.prefer(called, student, rows, seed, transfer.train)
    data = TrainingData(items, course.samples, wins.tolist())
    return course.trainings.fit(called, student, data, seed, train=transfer.train)


def _pair(item: Item, sample: Sample, p: float) -> PreferenceRow | None:
    """Both answers to an item with the likelier one chosen; None for a tie."""
    # In a tie neither answer is the better one, and DPO with a soft target of 1/2 would pull both together.
    if p == 0.5:
        return None
    winner = 0 if p > 0.5 else 1
    likely = max(float(p), 1 - float(p))
    return PreferenceRow(
        prompt=sample.prompt,
        chosen=sample.candidates[winner],
        rejected=sample.candidates[1 - winner],
        p_chosen=likely,
        p_rejected=1 - likely,
        question=item.id,
        group=item.cluster,
    )
