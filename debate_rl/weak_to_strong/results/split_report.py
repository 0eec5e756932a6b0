"""Account of a study's data: rows read and left out, the parts with their classes and text lengths, and leaks.

`write_account` writes `splits.json` into a stage's folder. `items.split_items` keeps ids, stories and near-duplicates
in one part; this is checked again here for parts that were made in another way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from debate_rl.data.leaks import FOLDS, Leak, answer_leak
from debate_rl.data.tasks.binary_items import Selection
from debate_rl.records import Record, write_json
from debate_rl.weak_to_strong.tasks.items import PartReport, Samples, Splits, check_splits, report, token_counter
from debate_rl.weak_to_strong.tasks.lengths import context_length

UNEVEN = 0.4
"""Share of the rarer class below which a part is called uneven (ours)."""


class Account(Record):
    """Sizes, classes, text lengths and leaks of a study's data.

    Example:
        Account(source={"read": 4000, "repeated": 2, "unused": 0, "dropped": 108}, joined=3, unused=190,
                parts={"strong": {"test": PartReport(items=200, labels=(97, 103), ...), ...}}, leak=Leak(...), notes=())
    """

    source: dict[str, int] | None = None
    """Numbers of rows: read, repeated, unused (no item can be made of them), and dropped to balance the classes."""
    joined: int
    """Groups merged with another one that holds nearly the same text."""
    unused: int
    """Items in no part."""
    parts: dict[str, dict[str, PartReport]]
    """Items, classes, tokens and too long items, by reader, then by part."""
    leak: Leak | None = None
    """How well a label can be predicted from the answer alone; None where items have no answers, or are too few."""
    notes: tuple[str, ...] = ()
    """Warnings, a line each."""


def account(splits: Splits, readers: Mapping[str, tuple[Samples, str]], selection: Selection | None = None) -> Account:
    """Count a study's data.

    Args:
        splits: the parts.
        readers: texts that each model reads of the items, and its folder or hub name, by role.
        selection: how the items of a binary task were read.

    Raises:
        UserError: parts share an item, a story or nearly the same text, a part lacks a class, or a model is missing.
    """
    from debate_rl.trainers.common.load import load_tokenizer

    check_splits(splits)
    parts = {}
    for role, (samples, model) in readers.items():
        # Each reader counts with its own tokenizer, and 0 stands for a model without a limit.
        count = token_counter(load_tokenizer(model))
        parts[role] = report(splits, samples, count, context_length(model) or 0)
    source = None
    leak = None
    if selection is not None:
        source = {
            "read": selection.read,
            "repeated": selection.repeated,
            "unused": selection.unused,
            "dropped": sum(selection.dropped),
        }
        leak = _leak(selection, splits)
    return Account(
        source=source, joined=splits.joined, unused=splits.unused, parts=parts, leak=leak, notes=_notes(parts, leak)
    )


def _leak(selection: Selection, splits: Splits) -> Leak | None:
    """Leak of the items in the parts; None where they are too few."""
    used_ids = {item.id for item in splits.every}
    items = [item for item in selection.items if item.id in used_ids and item.answer]
    classes = Counter(item.label for item in items)
    groups = {item.cluster for item in items}
    # The leak is measured by cross-validation over groups, which needs every class in every fold.
    if min(classes[0], classes[1], len(groups)) < FOLDS:
        return None
    return answer_leak(items)


def _notes(parts: Mapping[str, Mapping[str, PartReport]], leak: Leak | None) -> tuple[str, ...]:
    """Warnings about uneven classes, texts that are cut, and leaks."""
    notes = []
    # Every reader has the same items, so one of them serves for the classes.
    for name, part in next(iter(parts.values()), {}).items():
        if min(part.labels) < UNEVEN * part.items:
            notes.append(f"{name}: {part.labels[0]} items of label 0 and {part.labels[1]} of label 1; balance the task")
    for role, reports in parts.items():
        for name, part in reports.items():
            if part.too_long:
                notes.append(f"{role}: {part.too_long} of {part.items} items of {name} exceed the context and are cut")
    if leak is not None and leak.leaks:
        notes.append(str(leak))
    return tuple(notes)


def write_account(
    out: Path, splits: Splits, readers: Mapping[str, tuple[Samples, str]], selection: Selection | None = None
) -> Account:
    """Count a study's data and write the account to `splits.json`; arguments and errors as for `account`."""
    counted = account(splits, readers, selection)
    write_json(out / "splits.json", counted.model_dump(mode="json"))
    return counted
