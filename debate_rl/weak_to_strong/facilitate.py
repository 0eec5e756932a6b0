"""Facilitation: (strong, weak) -> weak', a weak model that does better without new ground truth (arXiv 2409.07335).

The strong model argues by a protocol on items whose truth the weak one knows, the weak one is trained to use what it
said, and from then on labels items with the strong model's help. Contexts and ensembles of a study are instances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from debate_rl.data.models import model_path
from debate_rl.engines.request import Engine
from debate_rl.engines.store import StoredEngine
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.game.question import Question
from debate_rl.judges.judge import AnyJudge, Judge
from debate_rl.players.debater import Debater
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.rollout import Rollout, Told
from debate_rl.weak_to_strong.supervisors import Supervisors, train_supervisors
from debate_rl.weak_to_strong.tasks.items import Item, Samples, items_of
from debate_rl.weak_to_strong.training_cache import Settings, Trainings


def facilitate(
    strong: Debater,
    weak: str,
    data: Sequence[Question | Item],
    protocol: str | Protocol = "debate",
    *,
    method: Method | None = None,
    settings: Settings | None = None,
    engine: Engine | None = None,
    judge: AnyJudge | None = None,
    folder: str | Path = "runs/facilitate",
    reads_passage: bool = False,
    seed: int = 0,
) -> Supervisors:
    """Make a weak model better at labelling by having a strong one speak, without new ground truth.

    Example:
        helped = facilitate(Debater(name="dpo", model="lab-base", adapter="runs/x/dpo/adapter"), "lab-small", known)
        helped.label(unknown)  # array([0.93, 0.12, ...]): P(answer 0) of questions, each with a game of its own

    Args:
        strong: who speaks, on every side that the protocol has.
        weak: the model to be helped: a lab model, a folder or a hub name.
        data: questions with ground truth, D1.
        protocol: a shipped protocol, a YAML file, or a protocol.
        method: members, whether each reads games of its own, how they are combined; its context, labels and transfer
            are not read. None is one member.
        settings: of the trainings; None trains all weights by the defaults.
        engine: answers for debater and judge; None opens transformers models in this process.
        judge: calls sides in market-making and chooses for Best-of-N; None is the weak model as it is.
        folder: for games and trainings; what is finished there is not done again.
        reads_passage: whether the weak model reads passages as well.
        seed: of games and trainings.

    Returns:
        weak': labels questions, on each of which the strong model then speaks.

    Raises:
        UserError: a question has no ground truth, a game failed, a text is too long, or the training can not be done.
    """
    from debate_rl.engines.local.engine import TransformersEngine

    def opened() -> Engine:
        return TransformersEngine(model_path)

    root = Path(folder)
    rules = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    rollout = Rollout(
        engine=engine or StoredEngine(opened(), root / "store"),
        player=lambda name: strong,
        rules=lambda context: context.rules(False, lambda name: rules),
        judge=lambda: judge or Judge(model=weak),
        folder=root / "games",
        seed=seed,
        debater=strong.name,
    )
    path = model_path(weak)
    trained = (settings or Settings(weak=path, strong=path)).model_copy(update={"weak": path})
    trainings = Trainings(trained, opened, root / "trainings")
    chosen = method or Method(context="debate", members=1)
    known = items_of([one.question if isinstance(one, Item) else one for one in data])
    read = _reader(rollout, trainings, chosen, path, reads_passage)
    return train_supervisors(trainings, Weights(model=path), known, read, chosen, seed)


def _reader(
    rollout: Rollout, trainings: Trainings, method: Method, weak: str, passage: bool
) -> Callable[[int, Sequence[Item]], Samples]:
    """What each member reads: the game of its own seed, or the first member's."""

    def read(member: int, items: Sequence[Item]) -> Samples:
        found = rollout.samples(Context(), items, method.draw(member), passage, Told())
        trainings.check_readable(found, weak, "the weak model with the games")
        return found

    return read
