"""Supervisors: weak models that learn ground truth on D1 with help at hand, and label what they have not seen."""

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
from debate_rl.weak_to_strong.training_cache import Trainings

Read = Callable[[int, Sequence[Item]], Samples]
"""What a member, by its number, reads of items."""


@dataclass(frozen=True)
class Supervisors:
    """weak': one model, or an ensemble.

    Example:
        Supervisors(trainings, read, Method(context="debate"), members=(Weights(...), ...), votes=()).label(items)
    """

    trainings: Trainings
    read: Read
    method: Method
    members: tuple[Weights, ...]
    votes: tuple[float, ...] = ()
    """Of boosting."""

    def label(self, items: Sequence[Item | Question]) -> Floats:
        """P(answer 0) of each item or question, by all members together, (n,).

        Raises:
            UserError: an item can not be read, or help for it could not be played.
        """
        asked = [one if isinstance(one, Item) else Item(question=one) for one in items]
        return combine(self.each(asked), self.method.combine, self.votes)

    def each(self, items: Sequence[Item]) -> list[Floats]:
        """P(answer 0) by each member, k times (n,)."""
        texts = [self.read(member, items) for member in range(len(self.members))]
        samples = [[found[item.id] for item in items] for found in texts]
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
        trainings: trains, or takes what is trained already.
        weak: the model.
        items: D1.
        read: what a member reads.
        method: how many, how they differ, how they come to one label.
        seed: of the study; member m of seed s is trained by seed 1000 s + m.
        within: what of a study the members belong to alone, for its index; None where methods share them.

    Raises:
        UserError: a training can not be done.
    """
    truth = [float(item.label) for item in items]
    weights, members, votes = np.ones(len(truth)), [], []
    for member in range(method.members):
        drawn = _resampled(items, seed, member) if method.bootstrap else list(range(len(items)))
        read_by_it = read(member, items)
        name = method.supervisor(member)
        if within is not None:
            name = f"{within}/{name.partition('/')[2]}"
        one = trainings.fit(
            f"seed{seed}/{name}", weak, [items[at] for at in drawn], read_by_it,
            [truth[at] for at in drawn], 1000 * seed + member, weights=[float(weights[at]) for at in drawn],
        )  # fmt: skip
        members.append(one)
        if method.combine == "boosting":
            p = trainings.predict(one, [read_by_it[item.id] for item in items])
            weights, vote = boost(weights, p, truth)
            votes.append(vote)
    return Supervisors(trainings, read, method, tuple(members), tuple(votes))


def _resampled(items: Sequence[Item], seed: int, member: int) -> list[int]:
    """Places of the items of as many stories as there are, drawn with replacement."""
    stories: dict[str, list[int]] = {}
    for at, item in enumerate(items):
        stories.setdefault(item.cluster, []).append(at)
    names = list(stories)
    drawn = np.random.default_rng([seed, member]).integers(len(names), size=len(names))
    return [at for number in drawn for at in stories[names[number]]]
