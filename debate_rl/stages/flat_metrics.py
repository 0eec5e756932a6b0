"""Metrics as flat numbers with stable names, for logs such as W&B's.

`tournament/ratings/standings/dpo/rating` is the value of an estimate, `.low` and `.high` behind it are its interval and
`.p` is its p-value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from debate_rl.intervals import Estimate

NAMES = (
    "protocol",
    "player",
    "name",
    "judge",
    "model",
    "method",
    "first",
    "second",
    "opponent",
    "side",
    "argues",
    "iteration",
    "turn",
)
"""Fields by which a record in a list is named, in this order."""
UNSTABLE = ("features",)
"""Fields whose records are named after words that players happened to use: other keys in every run."""
_ENDS = ("low", "high", "p")


def flat_numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number in nested metrics, by its path.

    A record in a list is named by its own fields (`NAMES`), never by its position, so that a key means the same in
    every run. Records without a name are left out: bins of a calibration, points of a curve.

    Args:
        metrics: as they stand in a metrics.json.
        prefix: of every key, with its slash.

    Example:
        flat_numbers({"rows": [{"player": "dpo", "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}}]}, "oversight/")
        == {"oversight/rows/dpo/accuracy": 0.8, "oversight/rows/dpo/accuracy.low": 0.7,
            "oversight/rows/dpo/accuracy.high": 0.9}
    """
    numbers: dict[str, float] = {}
    for key, value in metrics.items():
        _collect(value, f"{prefix}{key}", numbers)
    return numbers


def with_interval(key: str, estimate: Estimate | None) -> dict[str, float]:
    """An estimate and the ends of its interval under a key; nothing for None."""
    numbers: dict[str, float] = {}
    if estimate is not None:
        _collect(estimate.model_dump(), key, numbers)
    return numbers


def _collect(value: Any, key: str, numbers: dict[str, float]) -> None:
    """Put the numbers of a value into `numbers`."""
    if _is_number(value):
        numbers[key] = float(value)
    elif isinstance(value, Mapping) and _is_number(value.get("value")):
        numbers[key] = float(value["value"])
        for end in _ENDS:
            if _is_number(value.get(end)):
                numbers[f"{key}.{end}"] = float(value[end])
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            if name not in UNSTABLE:
                _collect(entry, f"{key}/{name}", numbers)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for entry in value:
            name = _name(entry)
            if name:
                _collect(entry, f"{key}/{name}", numbers)


def _name(entry: Any) -> str:
    """Name of a record in a list; empty where it has none."""
    if not isinstance(entry, Mapping):
        return ""
    return "/".join(str(entry[field]) for field in NAMES if isinstance(entry.get(field), str | int))


def _is_number(value: Any) -> bool:
    """Whether a value is a number; a bool is an int in Python, but no number here."""
    return isinstance(value, int | float) and not isinstance(value, bool)
