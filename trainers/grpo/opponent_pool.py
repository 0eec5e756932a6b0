"""The pool of past checkpoints ("league"): the start and the adapters saved since, drawn as opponents by rating."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from debate_rl.players.debater import Debater
from debate_rl.records import Record, append, digest, read_log


class Member(Record):
    """A past policy.

    Example:
        Member(step=25, adapter="runs/x/grpo/league/step-000025", elo=41.0)
    """

    step: int
    """Training step at whose end it was saved; 0 is the start."""
    adapter: str | None
    """Folder. Its name contains the step, because servers cache adapters by name."""
    elo: float = 0.0
    """Rating over the start at the time it joined."""


class League:
    """Past policies in a folder. A resumed job finds them again.

    Args:
        folder: holds an adapter for each member, and the list of members.
        start: the policy before training.
        spread: see `Opponents.spread`.
        seed: of the draws.
    """

    def __init__(self, folder: Path, start: Debater, spread: float, seed: int) -> None:
        self.folder = folder
        self.spread = spread
        self.seed = seed
        self._start = start
        # In order of steps, because a draw depends on the members' order.
        saved = {member.step: member for member in read_log(folder / "members.jsonl", Member)}
        self.members = [Member(step=0, adapter=start.adapter)]
        self.members += [saved[step] for step in sorted(saved)]

    def adapter_folder(self, step: int) -> Path:
        """Folder of the adapter of a step."""
        return self.folder / f"step-{step:06d}"

    def known(self, step: int) -> bool:
        """Whether a step's policy has joined."""
        return any(member.step == step for member in self.members)

    def join(self, step: int, elo: float, write: bool) -> None:
        """Add a policy whose adapter lies at `adapter_folder(step)`.

        Args:
            step: training step at whose end it was saved.
            elo: rating over the start.
            write: also write it to the list of members; one of several processes does.
        """
        member = Member(step=step, adapter=str(self.adapter_folder(step)), elo=elo)
        if write:
            append(self.folder / "members.jsonl", [member])
        self.members.append(member)

    def draw(self, question: str, step: int) -> Debater:
        """Draw an opponent for a question in a step; better members are drawn more often."""
        # Only members from before the step: a resumed job replays steps and already knows later members.
        members = [member for member in self.members if member.step <= step]
        ratings = [member.elo for member in members]
        member = members[draw_by_rating(ratings, self.spread, [self.seed, step, question])]
        if member.step == 0:
            return self._start
        return self._start.model_copy(update={"name": f"step {member.step}", "adapter": member.adapter})


def draw_by_rating(elo: Sequence[float], spread: float, stream: Sequence[int | str]) -> int:
    """Draw an index with weights exp(Elo / spread); the same stream draws the same index.

    Example:
        with Elo 0 and 200 and a spread of 200 the second is drawn e times as often as the first
    """
    best = max(elo)  # subtracted so that exp can not overflow
    weights = [math.exp((rating - best) / spread) for rating in elo]
    uniform = int(digest(["league", *stream]), 16) / 16**16
    point = uniform * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    return len(weights) - 1


def draw_player(players: Sequence[Debater], seed: int) -> Callable[[str, int], Debater]:
    """A function that draws one of the players for a question and step, all with equal probability."""

    def draw(question: str, step: int) -> Debater:
        return players[draw_by_rating([0.0] * len(players), 1.0, [seed, step, question])]

    return draw
