"""Advantages by role, for groups of any size down to one game a question (SPIRAL: Liu et al. 2025, 2506.24119).

GRPO compares the G speeches of a group with one another, so it needs several games of every question. Here a speech is
compared with the running mean of what its role, side A or B, has earned: one game a question is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.records import Record, append, read_log


class Baselines(Record):
    """Running means of the rewards by role, after the rollouts of a step.

    Example:
        Baselines(step=12, means={"A": 0.48, "B": 0.55})
    """

    step: int
    means: dict[str, float]


class RoleBaselines:
    """Running means in a file, where a resumed training finds those of its step.

    Args:
        path: the file.
        decay: weight of the old mean at each rollout.
    """

    def __init__(self, path: Path, decay: float) -> None:
        self.path = path
        self.decay = decay
        self._saved = {entry.step: entry.means for entry in read_log(path, Baselines)}
        self._step: int | None = None
        self._means: dict[str, float] = {}

    def at(self, step: int) -> dict[str, float]:
        """The means before a rollout of a step; empty before the first."""
        if step != self._step:
            # A training that was killed comes by the same steps again, and later ones are in the file already.
            earlier = [known for known in self._saved if known < step]
            self._means = dict(self._saved[max(earlier)]) if earlier else {}
            self._step = step
        return self._means

    def advantages(self, step: int, rewards: Sequence[tuple[str, float | None]]) -> list[float]:
        """Each reward minus its role's mean before this rollout; 0 without a reward.

        Args:
            step: of the rollout.
            rewards: role and reward of each speech.
        """
        means = self.at(step) or _means(rewards)
        advantages = []
        for role, reward in rewards:
            # A role that has earned nothing so far has no mean to differ from.
            advantages.append(0.0 if reward is None else reward - means.get(role, reward))
        return advantages

    def update(self, step: int, rewards: Sequence[tuple[str, float | None]], write: bool) -> None:
        """Take a rollout's rewards, of all processes, into the means.

        Args:
            step: of the rollout.
            rewards: role and reward of each speech.
            write: also write them to the file; one of several processes does.
        """
        means = dict(self.at(step))
        for role, mean in _means(rewards).items():
            means[role] = self.decay * means.get(role, mean) + (1 - self.decay) * mean
        self._means = self._saved[step] = means
        if write:
            append(self.path, [Baselines(step=step, means=means)])


def _means(rewards: Sequence[tuple[str, float | None]]) -> dict[str, float]:
    """Mean reward of each role that has any."""
    by_role: dict[str, list[float]] = {}
    for role, reward in rewards:
        if reward is not None:
            by_role.setdefault(role, []).append(reward)
    return {role: sum(values) / len(values) for role, values in by_role.items()}
