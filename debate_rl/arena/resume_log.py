"""Work that a log keeps: what is finished is written down chunk by chunk, and a stopped run goes on where it was."""

from __future__ import annotations

import os
import weakref
import zlib
from array import array
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar, overload

from pydantic import BaseModel

from debate_rl.errors import UserError
from debate_rl.records import SUMS, Record, Span, append, read_log, scan_log

W = TypeVar("W")
D = TypeVar("D", bound=BaseModel)

Progress = Callable[[int, int, int], None]
"""Called with (games done, failed, all) before the first chunk and after each."""


class _Sum(Record):
    """CRC-32 of some lines of a log, by their first byte and end."""

    start: int
    end: int
    crc: int


def _crc(path: Path, start: int, end: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        return zlib.crc32(file.read(end - start))


class Kept(Sequence[D]):
    """Records of a log, in an order of their own; each is read from the file when it is asked for.

    What was finished takes 16 bytes of memory a record, however long the transcripts are. The file may be renamed or
    replaced meanwhile: what it held when it was opened is read.

    Args:
        path: the log.
        kind: of its records.
        spans: first byte and end of each record's line, one after the other.
    """

    def __init__(self, path: Path, kind: type[D], spans: array[int]) -> None:
        self._kind = kind
        self._spans = spans
        self._file = os.open(path, os.O_RDONLY) if spans else -1
        if spans:
            weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._spans) // 2

    @overload
    def __getitem__(self, place: int) -> D: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[D]: ...

    def __getitem__(self, place: int | slice) -> D | Sequence[D]:
        """The record in a place; of a slice all of its records, which are then in memory."""
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        start, end = self._spans[2 * at], self._spans[2 * at + 1]
        return self._kind.model_validate_json(os.pread(self._file, end - start, start))


class Log(Generic[W, D]):
    """A log of finished work, and how its lines are named.

    Args:
        path: the file.
        kind: of its records.
        wanted: name of a piece of work.
        done: name of what came of it, the same.
        failed: whether that is a failure.
        again: whether a failure is tried again by a run that goes on, because its cause may have passed.
    """

    def __init__(
        self,
        path: Path,
        kind: type[D],
        wanted: Callable[[W], str],
        done: Callable[[D], str],
        failed: Callable[[D], bool],
        again: Callable[[D], bool] = lambda record: False,
    ) -> None:
        self.path = path
        self._sums = path.with_name(path.name + SUMS)
        self.kind = kind
        self.wanted = wanted
        self.done = done
        self.failed = failed
        self.again = again

    def work_off(
        self,
        wanted: Collection[W],
        work: Callable[[Sequence[W]], list[D]],
        chunk: int,
        progress: Progress | None = None,
        each: Callable[[D], None] | None = None,
    ) -> Kept[D]:
        """Do what is not done yet, adding each finished chunk to the log.

        Failures are in the log as well. Those whose cause may have passed are tried again; the newest line counts.

        Args:
            wanted: all of the work; it is gone through once, so it may be made as it is asked for.
            work: does a chunk; its results come in the order of what it was given.
            chunk: so many pieces of work are taken up between two writes.
            progress: told before the first chunk in which something is to be done, after each, and at the end.
            each: given everything that came of the work, in its order, so that it need not be read again.

        Returns:
            What came of each piece of work, in the order of `wanted`.
        """
        known, failed = self._known()
        spans = array("q")
        done, total = 0, len(wanted)
        rest = iter(wanted)
        began = False
        while taken := list(islice(rest, chunk)):
            names = [self.wanted(piece) for piece in taken]
            missing = {name: piece for name, piece in zip(names, taken, strict=True) if name not in known}
            new: dict[str, Span] = {}
            made: dict[str, D] = {}
            if missing:
                if progress is not None and not began:
                    progress(done, failed, total)
                began = True
                made = dict(zip(missing, work(list(missing.values())), strict=True))
                new = dict(zip(missing, append(self.path, made.values()), strict=True))
                self._sum(list(new.values()))
                failed += sum(map(self.failed, made.values()))
            for name in names:
                span = new.get(name) or known[name]
                spans.extend(span)
                if each is not None:
                    each(made[name] if name in made else Kept(self.path, self.kind, array("q", span))[0])
            done += len(names)
            if progress is not None and (missing or done == total):
                progress(done, failed, total)
        return Kept(self.path, self.kind, spans)

    def _sum(self, spans: Sequence[Span]) -> None:
        """Write down the checksum of new lines, so that a damaged one is noticed when the work goes on."""
        if spans:
            start, end = spans[0][0], spans[-1][1]
            append(self._sums, [_Sum(start=start, end=end, crc=_crc(self.path, start, end))])

    def _check(self) -> None:
        """Make sure that the lines are those that were written.

        Raises:
            UserError: some are not.
        """
        if not self.path.exists():
            self._sums.unlink(missing_ok=True)
            return
        size = self.path.stat().st_size
        for part in read_log(self._sums, _Sum):
            if part.end <= size and _crc(self.path, part.start, part.end) != part.crc:
                raise UserError(
                    f"{self.path} is damaged; remove it and run again: what the models said is in the store"
                )

    def _known(self) -> tuple[dict[str, Span], int]:
        """Where the log holds what by name, and how many failures are among it."""
        self._check()
        known: dict[str, Span] = {}
        failed: set[str] = set()
        for span, record in scan_log(self.path, self.kind):
            name = self.done(record)
            if self.again(record):
                known.pop(name, None)
                continue
            known[name] = span
            (failed.add if self.failed(record) else failed.discard)(name)
        return known, len(failed)
