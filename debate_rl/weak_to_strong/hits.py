"""What a weak-to-strong study found item by item: enough to join studies of several runs."""

from __future__ import annotations

from debate_rl.records import Record

Table = tuple[tuple[float, ...], ...]
"""(seeds, items): 1 right, 0 wrong, 1/2 undecided."""


class Hits(Record):
    """Right or wrong, by model, seed and item.

    Example:
        Hits(test_items=("lab-7-2", ...), test_clusters=("lab-7", ...), label_items=..., label_clusters=...,
             test={"weak": ((1, 0, ...), ...), "none/student": ..., "ceiling": ...},
             labels={"none": ((1, 1, ...), ...)})
    """

    test_items: tuple[str, ...]
    test_clusters: tuple[str, ...]
    label_items: tuple[str, ...]
    """D2: the items that supervisors label."""
    label_clusters: tuple[str, ...]
    test: dict[str, Table]
    """By model: weak, METHOD/supervisor, METHOD/student, ceiling, untrained (one row, whatever the seeds)."""
    labels: dict[str, Table]
    """By method: whether the hard label is the true one."""
