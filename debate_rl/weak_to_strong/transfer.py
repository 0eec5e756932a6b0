"""From labels to a student: naive finetuning, a chain of models, generative finetuning first, refinement by debate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from debate_rl.data.splits import divide
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Floats
from debate_rl.trainers.common.rows import PreferenceRow
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.labels import Labels, label
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.tasks.items import Item, Sample, Samples
from debate_rl.weak_to_strong.training_cache import Trainings

Explain = Callable[[Sequence[Item], dict[str, Side]], list[Leg]]
"""Have the strong model argue for the side given for each item, the weak one for the other, and a judge compare."""


@dataclass(frozen=True)
class Course:
    """What a student is taught with.

    Example:
        Course(trainings, strong=Weights(model="lab-base"), items=splits.student, samples=plain, method=Method(),
               called="seed0/debate", seed=0, explain=explain)
    """

    trainings: Trainings
    strong: Weights
    items: tuple[Item, ...]
    """D2."""
    samples: Samples
    """What the student reads."""
    method: Method
    called: str
    seed: int
    explain: Explain
    resolve: Callable[[str], str] = str
    """Where a model's name leads."""

    def labels(self, p: Floats, places: Sequence[int] | None = None) -> Labels:
        """The labels that P(answer 0) of D2, or of the items in some places of it, becomes."""
        items = self.items if places is None else [self.items[at] for at in places]
        truth, names = [item.label for item in items], [item.id for item in items]
        return label(p, truth, names, self.method.labels, self.seed)

    def read(self, items: Sequence[Item]) -> list[Sample]:
        """What the student reads of items."""
        return [self.samples[item.id] for item in items]


def teach(course: Course, p: Floats) -> Weights:
    """Train a student by a method's transfer.

    Args:
        course: with what.
        p: (n,) the supervisors' P(answer 0) on D2.

    Raises:
        UserError: D2 has too few stories for a chain, or a training can not be done.
    """
    wanted, start = course.method.transfer, course.strong
    if wanted.generative:
        start = course.trainings.read_texts(
            f"{course.called}/reader", start, course.read(course.items), 1000 * course.seed, wanted.train
        )
    parts = fresh_parts(course.items, 1 + len(wanted.through), course.seed)
    found = p[parts[0]]
    for number, name in enumerate(wanted.through):
        link = _fit(course, f"link{number}", Weights(model=course.resolve(name)), parts[number], found)
        found = course.trainings.predict(link, course.read([course.items[at] for at in parts[number + 1]]))
    student = _fit(course, "student", start, parts[-1], found)
    return refined(course, student) if wanted.refine else student


def fresh_parts(items: Sequence[Item], count: int, seed: int) -> list[list[int]]:
    """Places of D2's items in so many parts that share no story; of one part all, in order.

    Raises:
        UserError: there are too few stories.
    """
    if count == 1:
        return [list(range(len(items)))]
    parts = divide(list(items), {str(number): 1 / count for number in range(count)}, seed)
    place = {item.id: at for at, item in enumerate(items)}
    found = [sorted(place[item.id] for item in part) for part in parts.values()]
    for part in found:
        if len({items[at].label for at in part}) < 2:
            raise UserError(
                f"transfer.through: a chain of {count - 1} models cuts the {len(items)} items of part 'student' into "
                f"{count}, one of which has {len(part)} of one class; give student more items, or a shorter chain"
            )
    return found


def _fit(course: Course, name: str, start: Weights, places: Sequence[int], p: Floats) -> Weights:
    """Train a model on what the labels of some places become."""
    labels = course.labels(p, places)
    items = [course.items[places[at]] for at in labels.kept]
    return course.trainings.fit(
        f"{course.called}/{name}", start, items, course.samples, labels.targets, 1000 * course.seed,
        weights=labels.weights, loss=course.method.loss,
    )  # fmt: skip


def refined(course: Course, student: Weights) -> Weights:
    """Train a student further by who wins: its own answer explained by the strong model, or the other by the weak one.

    D = logit P(strong wins), by a judge who reads both explanations in both orders; the target of the student's own
    answer is sigma(D).
    """
    items, wanted = course.items, course.method.transfer
    own = course.trainings.predict(student, course.read(items))
    sides: dict[str, Side] = {item.id: "A" if p >= 0.5 else "B" for item, p in zip(items, own, strict=True)}
    wins = debate_function(course.explain(items, sides), sides)
    if wanted.refine == "dpo":
        rows = [row for row in map(_pair, items, course.read(items), wins) if row is not None]
        if not rows:
            raise UserError("transfer.refine: the judge gives every explanation 0.5; take another judge")
        return course.trainings.prefer(f"{course.called}/refined", student, rows, 1000 * course.seed, wanted.train)
    return course.trainings.fit(
        f"{course.called}/refined", student, items, course.samples, wins.tolist(), 1000 * course.seed,
        train=wanted.train,
    )  # fmt: skip


def debate_function(legs: Sequence[Leg], sides: dict[str, Side]) -> Floats:
    """P(answer 0) of each item by the debate function: sigma(D) where the strong model argued for answer 0, else 1 -.

    Args:
        legs: judged games.
        sides: the strong model's, by item.
    """
    found = []
    for leg in legs:
        assert leg.verdict is not None  # failed legs were refused
        side = sides[leg.transcript.question.id]
        wins = leg.verdict.p_side(side)
        found.append(wins if side == "A" else 1 - wins)
    return np.array(found)


def _pair(item: Item, sample: Sample, p: float) -> PreferenceRow | None:
    """Both answers to an item, the likelier one chosen; None of a tie."""
    if p == 0.5:
        return None
    winner = 0 if p > 0.5 else 1
    likely = max(float(p), 1 - float(p))
    return PreferenceRow(
        prompt=sample.prompt, chosen=sample.candidates[winner], rejected=sample.candidates[1 - winner],
        p_chosen=likely, p_rejected=1 - likely, question=item.id, group=item.cluster,
    )  # fmt: skip
