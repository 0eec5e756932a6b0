"""Totals of what an online training counted, from its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def generated(history: list[dict[str, Any]]) -> int:
    """Tokens that the policy and its opponents generated in training, one rollout a step."""
    total, last = 0.0, 0
    for entry in history:
        if "rollout/new_tokens" in entry:
            total += float(entry["rollout/new_tokens"]) * (entry["step"] - last)
            last = entry["step"]
    return round(total)


COUNTED = (
    "groups",
    "skipped_groups",
    "truncated",
    "no_reward",
    "failed_games",
    "judge_failures",
    "judge_late",
    "judged",
)


def counted(history: list[dict[str, Any]], names: Sequence[str] = COUNTED) -> dict[str, int]:
    """Totals over all steps of what each step counted, such as speeches cut off or without a reward."""
    totals = dict.fromkeys(names, 0.0)
    last_step = 0
    for entry in history:
        if "rollout/groups" not in entry:
            continue
        # An entry holds means over the steps since the last one.
        steps = entry["step"] - last_step
        last_step = entry["step"]
        for name in names:
            totals[name] += float(entry.get(f"rollout/{name}") or 0.0) * steps
    return {name: round(total) for name, total in totals.items()}
