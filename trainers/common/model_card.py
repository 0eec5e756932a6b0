"""Model cards: the README.md beside trained weights, for a reader who comes two years later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from debate_rl.errors import existing
from debate_rl.intervals import Effect, Estimate
from debate_rl.records import Record, write_text

_INTERVALS = "Intervals are 95 % bootstraps over clusters: stories, or questions where there is no story."


def write_model_card(folder: Path, title: str, facts: Mapping[str, str | float], scores: Mapping[str, Any]) -> None:
    """Write README.md into a folder of weights.

    Args:
        folder: folder of the adapter or model; made if absent.
        title: one line, such as "dpo of quickstart".
        facts: base, data, rows, tokens, settings and the like.
        scores: measured numbers, words, estimates (records or their dumps), or mappings of these.

    Raises:
        UserError: the file can not be written.
    """
    write_text(Path(folder) / "README.md", model_card(title, facts, scores))


def complete_model_card(folder: Path, heading: str, scores: Mapping[str, Any]) -> None:
    """Add a section of scores to a card, in place of an older section of that name.

    Args:
        folder: weights with their README.md.
        heading: name of the section, such as "Rated in tournament".
        scores: as in `write_model_card`.

    Raises:
        UserError: there is no card, or it can not be written.
    """
    path = existing(Path(folder) / "README.md", "model card")
    # `_cell` removes line ends, so no title or score can look like a heading here.
    first, *sections = path.read_text(encoding="utf-8").rstrip("\n").split("\n\n## ")
    others = [section for section in sections if section.split("\n", 1)[0] != _cell(heading)]
    section = "\n\n".join([_cell(heading), _table("score", "value", list(_scores(scores))), _INTERVALS])
    write_text(path, "\n\n## ".join([first, *others, section]) + "\n")


def model_card(title: str, facts: Mapping[str, str | float], scores: Mapping[str, Any]) -> str:
    """The text of a card (see `write_model_card`), in the order given.

    Example:
        >>> print(model_card("dpo of quickstart", {"base": "lab-base"}, {"train_loss": 0.61}))
        # dpo of quickstart
        ...
        | base | lab-base |
    """
    fact_lines = [(name, _text(value)) for name, value in facts.items()]
    parts = [f"# {_cell(title)}", "Trained with debate-rl.", _table("what", "value", fact_lines)]
    score_lines = list(_scores(scores))
    if score_lines:
        parts += ["## Scores", _table("score", "value", score_lines), _INTERVALS]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(first: str, second: str, rows: list[tuple[str, str]]) -> str:
    """A Markdown table; empty without rows."""
    if not rows:
        return ""
    lines = [f"| {first} | {second} |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(lines)


def _scores(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each score. Mappings are flattened; lists (bins, rows) are left out, as too long for a card."""
    for key, value in scores.items():
        name = f"{prefix}{key}"
        # Results come as records from this process and as their dumps from a file; both must read alike.
        if isinstance(value, Record) and not isinstance(value, Estimate):
            value = value.model_dump()
        if isinstance(value, Mapping):
            estimate = _estimate(value)
            if estimate is None:
                yield from _scores(value, f"{name} ")
            else:
                yield name, str(estimate)
        elif isinstance(value, Estimate):
            yield name, str(value)
        elif isinstance(value, str | int | float):
            yield name, _text(value)


def _estimate(dump: Mapping[str, Any]) -> Estimate | None:
    """The estimate or effect that was dumped as this mapping; None if it is another mapping."""
    if not {"value", "n", "clusters"} <= set(dump):
        return None
    try:
        return (Effect if "p" in dump else Estimate).model_validate(dict(dump))
    except ValidationError:
        return None


def _text(value: str | float) -> str:
    """Whole numbers in full, others to four digits, words as they are."""
    # In Python a bool is an int.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


def _cell(text: str) -> str:
    """Text in one cell of a Markdown table: no line ends, no column marks, no tags."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return escaped.replace("<", "&lt;").replace(">", "&gt;")
