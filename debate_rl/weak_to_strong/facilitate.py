"""Facilitation: a strong model helps a weak one label better without new ground truth (arXiv 2409.07335).

The strong model argues by a protocol on items whose truth the weak model knows. The weak model is trained to use these
games, and from then on labels items with a game each. The contexts and ensembles of a study are instances of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.arena.rollout import own_engine
from debate_rl.data.models import model_path
from debate_rl.engines.request import Engine
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.game.question import Question
from debate_rl.judges.judge import AnyJudge, Judge
from debate_rl.players.debater import Debater
from debate_rl.records import Record
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.rollout import Rollout
from debate_rl.weak_to_strong.supervisors import Supervisors, train_supervisors
from debate_rl.weak_to_strong.tasks.items import Item, Samples, items_of
from debate_rl.weak_to_strong.training_cache import Settings, Trainings


class Facilitation(Record):
    """How the weak model is trained to use the strong one's help.

    Example (an ensemble of four, each reading its own games):
        Facilitation(method=Method(context="debate", members=4), reads_passage=True)
    """

    method: Method = Method(context="debate", members=1)
    """Number of members, whether each reads its own games, and how their labels are combined; its context, labels and
    transfer are not read."""
    settings: Settings | None = None
    """Settings of the trainings, whose `weak` is not read; None trains all weights by the defaults."""
    reads_passage: bool = False
    """Whether the weak model reads passages as well as games."""
    seed: int = 0
    """Seed of games and trainings."""


def facilitate(
    strong: Debater,
    weak: str,
    data: Sequence[Question | Item],
    protocol: str | Protocol = "debate",
    *,
    how: Facilitation | None = None,
    engine: Engine | None = None,
    judge: AnyJudge | None = None,
    folder: str | Path = "runs/facilitate",
) -> Supervisors:
    """Make a weak model better at labelling by having a strong one speak, without new ground truth.

    Args:
        strong: speaks on every side that the protocol has.
        weak: the model to be helped: a lab model, a folder or a hub name.
        data: questions with ground truth, D1.
        protocol: a shipped protocol, a YAML file, or a protocol.
        how: members, trainings and seed; None trains one member by the defaults.
        engine: answers for debater and judge; None opens transformers models in this process.
        judge: calls sides in market-making and chooses for Best-of-N; None is the weak model as it is.
        folder: for games and trainings; what is finished there is not done again.

    Returns:
        The helped model: it labels questions, on each of which the strong model then speaks.

    Raises:
        UserError: a question has no ground truth, a game failed, a text is too long, or the training can not be done.

    Example:
        >>> import debate_rl as dr
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> strong = dr.Debater("base", model="lab-base")
        >>> known = dr.load_questions("lab", split="train", limit=16)
        >>> helped = dr.facilitate(strong, "lab-small", known, rules, folder="runs/facilitate")
        >>> unknown = dr.load_questions("lab", split="test", limit=4)
        >>> labels = helped.label(unknown)  # P(answer 0) of each question, read with a game of its own
        >>> labels.shape, bool((0 <= labels).all() and (labels <= 1).all())
        ((4,), True)
    """
    how = how or Facilitation()
    root = Path(folder)
    rules = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    rollout = Rollout(
        engine=engine or own_engine(root),
        player=lambda name: strong,
        # One protocol for every context; `Context.rules` still draws who opens.
        rules=lambda context: context.rules(False, lambda name: rules),
        judge=lambda: judge or Judge(model=weak),
        folder=root / "games",
        seed=how.seed,
        debater=strong.name,
    )
    path = model_path(weak)
    # The strong model only speaks and is never trained, so the settings' strong model is not used.
    settings = how.settings or Settings(weak=path, strong=path)
    trainings = Trainings(settings.model_copy(update={"weak": path}), own_engine, root / "trainings")
    # Items are made anew of their questions, so that those without ground truth are refused here and not in training.
    known = items_of([item.question if isinstance(item, Item) else item for item in data])

    def read(member: int, items: Sequence[Item]) -> Samples:
        samples = rollout.samples(Context(), items, how.method.draw(member), how.reads_passage)
        trainings.check_readable(samples, path, "the weak model with the games")
        return samples

    return train_supervisors(trainings, Weights(model=path), known, read, how.method, how.seed)
