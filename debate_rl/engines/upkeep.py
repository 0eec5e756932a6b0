"""Upkeep of a store: what it holds by weights, and making it smaller."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from debate_rl.engines.store import LOCK
from debate_rl.engines.store_file import StoreFile, open_store_file
from debate_rl.errors import UserError
from debate_rl.records import Record, locked, write_pieces

DAY = 86400.0


class Contents(Record):
    """Answers of one set of weights in a store.

    Example:
        Contents(model="lab-base", adapter="runs/quickstart/dpo/adapter", revision="9f86d081884c7d65", answers=1280,
                 size=141824, files=2, days=0.2)
    """

    model: str
    adapter: str | None
    revision: str
    answers: int
    size: int
    """Bytes."""
    files: int
    days: float
    """Since the last one was written."""


class Pruned(Record):
    """What pruning did.

    Example:
        Pruned(kept=1280, removed=640, before=283648, after=141824)
    """

    kept: int
    """Answers."""
    removed: int
    before: int
    """Bytes."""
    after: int


def contents(folder: str | Path) -> list[Contents]:
    """What a store holds, the largest part first.

    Raises:
        UserError: there is no store, or another version wrote it.
    """
    found = []
    for files in _by_weights(folder):
        stats, weights = [file.path.stat() for file in files], files[0].weights
        found.append(
            Contents(
                model=weights.model, adapter=weights.adapter, revision=weights.revision, answers=len(_names(files)),
                size=sum(stat.st_size for stat in stats), files=len(files),
                days=(time.time() - max(stat.st_mtime for stat in stats)) / DAY,
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: -one.size)


def prune(folder: str | Path, days: float | None = None, of: str | None = None) -> Pruned:
    """Make a store smaller: answers asked to go are removed, the others are put together in one file for each weights.

    With neither `days` nor `of` nothing is lost but lines that were cut off and answers that two processes wrote.

    Args:
        folder: of the store; who writes to it meanwhile waits.
        days: remove the files that were not written to for so long.
        of: remove the answers of weights whose model, adapter or fingerprint has this in its name.

    Raises:
        UserError: there is no store, another version wrote it, or the disk is full; then nothing is removed.
    """
    if not any(Path(folder).glob("*.jsonl")):
        raise UserError(f"{folder}: no store there; give the folder of a run that has played, or of a store")
    with locked(Path(folder) / LOCK, f"a process writes to {folder}; wait for it", patience=10):
        return _prune(folder, days, of)


def _prune(folder: str | Path, days: float | None, of: str | None) -> Pruned:
    """See `prune`; nobody writes meanwhile."""
    for left_over in Path(folder).glob(".*.partial"):  # of a pruning that was killed
        left_over.unlink()
    kept = removed = before = after = 0
    limit = 0.0 if days is None else time.time() - days * DAY
    for files in _by_weights(folder):
        sizes = {file.path: file.path.stat().st_size for file in files}
        there = len(_names(files))
        stay = [] if of is not None and _named(files[0], of) else files
        stay = [file for file in stay if file.path.stat().st_mtime >= limit]
        merged = _merge(stay) if stay else None
        left = 0 if merged is None else len(_names([merged]))
        kept, removed, before = kept + left, removed + there - left, before + sum(sizes.values())
        after += 0 if merged is None else merged.path.stat().st_size
        for path in sizes:
            path.unlink()
    return Pruned(kept=kept, removed=removed, before=before, after=after)


def _by_weights(folder: str | Path) -> list[list[StoreFile]]:
    """The files of a store, those with the same first line together.

    Raises:
        UserError: there are none, or another version wrote one.
    """
    paths = sorted(Path(folder).glob("*.jsonl"))
    if not paths:
        raise UserError(f"{folder}: no store there; give the folder of a run that has played, or of a store")
    groups: dict[str, list[StoreFile]] = {}
    for path in paths:
        file = open_store_file(path)
        if file is not None:
            groups.setdefault(repr((file.weights, file.fields)), []).append(file)
    return list(groups.values())


def _named(file: StoreFile, part: str) -> bool:
    """Whether the name of a file's weights has a part."""
    weights = file.weights
    return any(part in (name or "") for name in (weights.model, weights.adapter, weights.revision))


def _rows(files: Sequence[StoreFile]) -> Iterator[tuple[bytes, bytes]]:
    """(name, line) of every answer, read anew."""
    for file in files:
        for _, line in replace(file, end=file.start).lines():
            if line.startswith(b'["') and line.endswith(b"]\n"):
                yield line[2:18], line


def _names(files: Sequence[StoreFile]) -> set[bytes]:
    """Names of the answers, each once."""
    return {name for name, _ in _rows(files)}


def _merge(files: Sequence[StoreFile]) -> StoreFile:
    """One file that holds what several do, each answer once; it is as old as the youngest of them."""
    first = files[0]
    path = first.path.with_name(f"{first.weights.revision[:16]}-{uuid4().hex[:8]}.jsonl".replace("/", "_"))
    age = max(file.path.stat().st_mtime for file in files)

    def pieces() -> Iterator[bytes]:
        with first.path.open("rb") as file:
            yield file.readline()
        seen = set[bytes]()
        for name, line in _rows(files):
            if name not in seen:
                seen.add(name)
                yield line

    write_pieces(path, pieces())
    os.utime(path, (age, age))
    return replace(first, path=path)
