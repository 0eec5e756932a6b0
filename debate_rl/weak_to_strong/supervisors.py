"""Supervisors: weak models that learn D1's ground truth, with or without help, and label other items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from debate_rl.game.question import Question
from debate_rl.intervals import Floats
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.ensemble import boost, combine
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.tasks.items import Item, Samples
from debate_rl.weak_to_strong.training_cache import TrainingData, Trainings

Read = Callable[[int, Sequence[Item]], Samples]
"""Gives what a member, by its number, reads of items."""


@dataclass(frozen=True)
class Supervisors:
    """Trained supervisors of one method: a single model, or an ensemble.

    Example:
        Supervisors(trainings, read, Method(context="debate"), members=(Weights(...), ...), votes=()).label(items)
    """

    trainings: Trainings
    read: Read
    method: Method
    members: tuple[Weights, ...]
    votes: tuple[float, ...] = ()
    """Weight of each member's vote in boosting; empty elsewhere."""

    def label(self, items: Sequence[Item | Question]) -> Floats:
        """P(answer 0) of each item or question, by all members together, (n,).

        Raises:
            UserError: an item can not be read, or help for it could not be played.
        """
        # Questions without ground truth can be labelled, though not learnt.
        wrapped = [item if isinstance(item, Item) else Item(question=item) for item in items]
        return combine(self.each(wrapped), self.method.combine, self.votes)

    def each(self, items: Sequence[Item]) -> list[Floats]:
        """P(answer 0) by each member, k times (n,)."""
        samples = []
        for member in range(len(self.members)):
            texts = self.read(member, items)
            samples.append([texts[item.id] for item in items])
        return self.trainings.predict_all(self.members, samples)


def train_supervisors(
    trainings: Trainings,
    weak: Weights,
    items: Sequence[Item],
    read: Read,
    method: Method,
    seed: int,
    within: str | None = None,
) -> Supervisors:
    """Train the members of a method on ground truth.

    Args:
        trainings: trains, or gives what is trained already.
        weak: the model that every member starts from.
        items: D1.
        read: gives what a member reads.
        method: number of members, how they differ, how their labels are combined.
        seed: seed of the study; member m of seed s is trained by seed 1000 s + m.
        within: part of the study that owns the members, for its index; None where methods share them.

    Raises:
        UserError: a training can not be done.
    """
    truth = [float(item.label) for item in items]
    weights = np.ones(len(truth))
    members = []
    votes = []
    for member in range(method.members):
        rows = list(range(len(items)))
        if method.bootstrap:
            rows = _resample(items, seed, member)
        samples = read(member, items)
        name = method.supervisor(member)
        if within is not None:
            name = f"{within}/{name.partition('/')[2]}"
        data = TrainingData(items, samples, truth, weights.tolist()).take(rows)
        trained = trainings.fit(f"seed{seed}/{name}", weak, data, 1000 * seed + member)
        members.append(trained)
        if method.combine == "boosting":
            # The next member learns with other weights, so each is trained before the next one's rows are known.
            p = trainings.predict(trained, [samples[item.id] for item in items])
            weights, vote = boost(weights, p, truth)
            votes.append(vote)
    return Supervisors(trainings, read, method, tuple(members), tuple(votes))


def _resample(items: Sequence[Item], seed: int, member: int) -> list[int]:
    """Indices of the items of whole stories drawn with replacement, as many stories as there are."""
    stories: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        stories.setdefault(item.cluster, []).append(index)
    names = list(stories)
    # Stories, not items: items of one story are no independent draws. A story drawn twice counts twice.
    rows = []
    for number in np.random.default_rng([seed, member]).integers(len(names), size=len(names)):
        rows += stories[names[number]]
    return rows
