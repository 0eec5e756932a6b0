"""The pool of past checkpoints: the start, and adapters saved as training went on, drawn as opponents by rating."""

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
    """Step whose end it is; 0 is the start."""
    adapter: str | None
    """Folder; the step is in its name, since servers keep what they know of an adapter under its name."""
    elo: float = 0.0
    """Over the start, when it joined."""


class League:
    """Past policies in a folder; a job that goes on finds them again.

    Args:
        folder: takes an adapter for each member, and the list of them.
        start: the policy before training.
        spread: see `Opponents.spread`.
        seed: of the draws.
    """

    def __init__(self, folder: Path, start: Debater, spread: float, seed: int) -> None:
        self.folder, self.spread, self.seed = folder, spread, seed
        self._start = start
        found = {member.step: member for member in read_log(folder / "members.jsonl", Member)}
        self.members = [Member(step=0, adapter=start.adapter), *(found[step] for step in sorted(found))]

    def place(self, step: int) -> Path:
        """Folder of the adapter of a step."""
        return self.folder / f"step-{step:06d}"

    def known(self, step: int) -> bool:
        """Whether a step's policy has joined."""
        return any(member.step == step for member in self.members)

    def join(self, step: int, elo: float, write: bool) -> None:
        """Take in a policy whose adapter lies at `place(step)`.

        Args:
            step: whose end it is.
            elo: over the start.
            write: put it down as well; one process of several does.
        """
        member = Member(step=step, adapter=str(self.place(step)), elo=elo)
        if write:
            append(self.folder / "members.jsonl", [member])
        self.members.append(member)

    def draw(self, question: str, step: int) -> Debater:
        """An opponent for a question in a step: one of those that were there before it, the better the likelier."""
        there = [member for member in self.members if member.step <= step]
        chosen = there[draw_by_rating([member.elo for member in there], self.spread, [self.seed, step, question])]
        if chosen.step == 0:
            return self._start
        return self._start.model_copy(update={"name": f"step {chosen.step}", "adapter": chosen.adapter})


def draw_by_rating(elo: Sequence[float], spread: float, stream: Sequence[int | str]) -> int:
    """Draw an index with weights exp(Elo / spread); the same stream draws the same one.

    Example:
        with Elo 0 and 200 and a spread of 200 the second is drawn e times as often as the first
    """
    best = max(elo)
    weights = [math.exp((one - best) / spread) for one in elo]
    point = int(digest(["league", *stream]), 16) / 16**16 * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    return len(weights) - 1


def draw_player(players: Sequence[Debater], seed: int) -> Callable[[str, int], Debater]:
    """Draws one of several players for a question and step, each as likely as the others."""
    return lambda question, step: players[draw_by_rating([0.0] * len(players), 1.0, [seed, step, question])]
