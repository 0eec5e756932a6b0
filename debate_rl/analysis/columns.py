"""Tables as plain text: columns as wide as their widest cell."""

from __future__ import annotations

from collections.abc import Sequence

from debate_rl.intervals import Estimate


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table: left-aligned columns under a head; cells beyond the head are left out.

    Example:
        >>> print(columns(["player", "n"], [["base", "80"], ["dpo@16", "7"]]))
        player  n
        base    80
        dpo@16  7
    """
    table = [head, *(row[: len(head)] for row in rows)]
    widths = [len(title) for title in head]
    for row in table:
        for index, text in enumerate(row):
            widths[index] = max(widths[index], len(text))
    lines = []
    for row in table:
        padded = map(str.ljust, row, widths)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def cell(estimate: Estimate | None, digits: int = 3) -> str:
    """An estimate with its interval, and its p-value if it has one; a dash for None."""
    return "-" if estimate is None else f"{estimate:.{digits}f}"
