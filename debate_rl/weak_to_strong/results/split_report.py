"""The account of a study's data: what was read and left out, the parts, their classes, lengths and leaks.

`write_account` puts `splits.json` into a stage's folder. That ids, stories and near-duplicates stay in one part is
checked where the parts are cut (`items.split_items`); here it is checked again, for parts that came another way.
"""

from __future__ import annotations

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
    """What a study's data are.

    Example:
        Account(source={"read": 4000, "repeated": 2, "unused": 0, "dropped": 108}, joined=3, unused=190,
                parts={"strong": {"test": PartReport(items=200, labels=(97, 103), ...), ...}}, leak=Leak(...), notes=())
    """

    source: dict[str, int] | None = None
    """Rows read; those that repeat another, of which no item can be made, and that were dropped to balance classes."""
    joined: int
    """Groups kept together with another that says nearly the same."""
    unused: int
    """Items of no part."""
    parts: dict[str, dict[str, PartReport]]
    """By reader, then by part: items, classes, tokens, and how many are too long."""
    leak: Leak | None = None
    """How well the label is told from the answer alone; None where items offer none, or are too few."""
    notes: tuple[str, ...] = ()
    """What to look at, a line each."""


def account(splits: Splits, readers: Mapping[str, tuple[Samples, str]], selection: Selection | None = None) -> Account:
    """Take the account.

    Args:
        splits: the parts.
        readers: what each model reads of the items, and its folder or hub name, by role.
        selection: how the items were read, where they are of a binary task.

    Raises:
        UserError: parts share an item, a story or nearly the same text, a part lacks a class, or no such model.
    """
    from debate_rl.trainers.common.load import load_tokenizer

    check_splits(splits)
    parts = {
        role: report(splits, samples, token_counter(load_tokenizer(model)), context_length(model) or 0)
        for role, (samples, model) in readers.items()
    }
    leak = _leak(selection, splits) if selection is not None else None
    source = None
    if selection is not None:
        source = {"read": selection.read, "repeated": selection.repeated, "unused": selection.unused,
                  "dropped": sum(selection.dropped)}  # fmt: skip
    return Account(
        source=source, joined=splits.joined, unused=splits.unused, parts=parts, leak=leak, notes=_notes(parts, leak)
    )


def _leak(selection: Selection, splits: Splits) -> Leak | None:
    """The leak of the items that are used, where they are enough to tell."""
    used = {item.id for item in splits.every}
    items = [item for item in selection.items if item.id in used and item.answer]
    classes = [sum(item.label == label for item in items) for label in (0, 1)]
    return answer_leak(items) if min(classes) >= FOLDS and len({item.cluster for item in items}) >= FOLDS else None


def _notes(parts: Mapping[str, Mapping[str, PartReport]], leak: Leak | None) -> tuple[str, ...]:
    """Uneven classes, texts that are cut, and leaks."""
    found = []
    for name, part in next(iter(parts.values()), {}).items():
        if min(part.labels) < UNEVEN * part.items:
            found.append(f"{name}: {part.labels[0]} items of label 0 and {part.labels[1]} of label 1; balance the task")
    for role, named in parts.items():
        found += [f"{role}: {part.too_long} of {part.items} items of {name} exceed the context and are cut"
                  for name, part in named.items() if part.too_long]  # fmt: skip
    return (*found, *([str(leak)] if leak is not None and leak.leaks else []))


def write_account(
    out: Path, splits: Splits, readers: Mapping[str, tuple[Samples, str]], selection: Selection | None = None
) -> Account:
    """Take the account and write it to `splits.json`; arguments and errors as `account`."""
    found = account(splits, readers, selection)
    write_json(out / "splits.json", found.model_dump(mode="json"))
    return found
