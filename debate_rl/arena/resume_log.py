"""Resumable work: finished pieces are logged chunk by chunk, and a stopped run resumes where it was."""

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
from debate_rl.records import SUMS, Record, Span, append, parse_line, read_log, scan_log
from debate_rl.records.passages import passages_beside

W = TypeVar("W")
D = TypeVar("D", bound=BaseModel)

Progress = Callable[[int, int, int], None]
"""Called with (games done, failed, all) before the first chunk and after each."""


class _Sum(Record):
    """CRC-32 of the bytes from `start` to `end` of a log."""

    start: int
    end: int
    crc: int


def _crc(path: Path, start: int, end: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        return zlib.crc32(file.read(end - start))


class LoggedRecords(Sequence[D]):
    """Records of a log, in an order of their own; each is read from the file when it is asked for.

    A record takes 16 bytes of memory, however long its transcripts are.

    Args:
        path: the log.
        kind: class of its records.
        spans: first byte and end of each record's line, one after the other.
    """

    def __init__(self, path: Path, kind: type[D], spans: array[int]) -> None:
        self._path = path
        self._kind = kind
        self._spans = spans
        # Held from now on, for the same reason as the open file below.
        self._passages = passages_beside(path)
        # The file stays open: a log may be renamed or written anew (in the order of the schedule, from these very
        # records), and the open one still holds what the spans point at.
        self._file = os.open(path, os.O_RDONLY) if spans else -1
        if spans:
            weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._spans) // 2

    @overload
    def __getitem__(self, index: int) -> D: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[D]: ...

    def __getitem__(self, index: int | slice) -> D | Sequence[D]:
        """Read the record at an index, or all records of a slice into a list."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # as a list takes it: negative from the end, IndexError beyond
        start, end = self._spans[2 * position : 2 * position + 2]
        line = os.pread(self._file, end - start, start)
        return parse_line(line, self._kind, self._path, self._passages)


class Log(Generic[W, D]):
    """A log of finished work, and how its lines are named.

    Args:
        path: the file.
        kind: class of its records.
        name_of_work: names a piece of work.
        name_of_result: names a result; the name is that of its piece of work.
        failed: whether a result is a failure.
        again: whether a resumed run tries a failure again, because its cause may have passed.
    """

    def __init__(
        self,
        path: Path,
        kind: type[D],
        name_of_work: Callable[[W], str],
        name_of_result: Callable[[D], str],
        failed: Callable[[D], bool],
        again: Callable[[D], bool] = lambda record: False,
    ) -> None:
        self.path = path
        self._sums = path.with_name(path.name + SUMS)
        self.kind = kind
        self.name_of_work = name_of_work
        self.name_of_result = name_of_result
        self.failed = failed
        self.again = again

    def work_off(
        self,
        pieces: Collection[W],
        work: Callable[[Sequence[W]], list[D]],
        chunk: int,
        progress: Progress | None = None,
        on_result: Callable[[D], None] | None = None,
    ) -> LoggedRecords[D]:
        """Do what is not done yet, adding each finished chunk to the log.

        Failures are in the log as well. Those whose cause may have passed are tried again; the newest line counts.

        Args:
            pieces: all pieces of work. They are iterated once, so they may be created lazily.
            work: does a chunk; its results come in the order of what it was given.
            chunk: pieces of work between two writes.
            progress: called before the first chunk in which something is to be done, after each, and at the end.
            on_result: called with every result, in the order of the work, so that nothing need be read again.

        Returns:
            One result per piece of work, in the order of `pieces`.
        """
        logged, failed = self._read_logged()
        spans = array("q")
        done = 0
        total = len(pieces)
        remaining = iter(pieces)
        started = False
        while batch := list(islice(remaining, chunk)):
            names = [self.name_of_work(piece) for piece in batch]
            # A dict, since a chunk may hold the same piece twice: it is done once.
            missing = {name: piece for name, piece in zip(names, batch, strict=True) if name not in logged}
            results: dict[str, D] = {}
            result_spans: dict[str, Span] = {}
            if missing:
                if progress is not None and not started:
                    progress(done, failed, total)
                started = True
                results = dict(zip(missing, work(list(missing.values())), strict=True))
                result_spans = dict(zip(missing, append(self.path, results.values()), strict=True))
                self._append_sum(list(result_spans.values()))
                failed += sum(map(self.failed, results.values()))
            for name in names:
                span = result_spans.get(name) or logged[name]
                spans.extend(span)
                if on_result is None:
                    continue
                if name not in results:  # done by an earlier run
                    results[name] = LoggedRecords(self.path, self.kind, array("q", span))[0]
                on_result(results[name])
            done += len(names)
            if progress is not None and (missing or done == total):
                progress(done, failed, total)
        return LoggedRecords(self.path, self.kind, spans)

    def _append_sum(self, spans: Sequence[Span]) -> None:
        """Log the checksum of new lines, so that a resumed run notices damage."""
        if spans:
            start = spans[0][0]
            end = spans[-1][1]
            append(self._sums, [_Sum(start=start, end=end, crc=_crc(self.path, start, end))])

    def _check_sums(self) -> None:
        """Compare the lines of the log with their checksums.

        Raises:
            UserError: the log is damaged.
        """
        if not self.path.exists():
            self._sums.unlink(missing_ok=True)
            return
        size = self.path.stat().st_size
        for part in read_log(self._sums, _Sum):
            # A part beyond the end is no damage: its lines are missing, so their work is done again.
            if part.end <= size and _crc(self.path, part.start, part.end) != part.crc:
                raise UserError(
                    f"{self.path} is damaged; remove it and run again: what the models said is in the store"
                )

    def _read_logged(self) -> tuple[dict[str, Span], int]:
        """Read the log: the span of each result by name, and how many results are failures."""
        self._check_sums()
        logged: dict[str, Span] = {}
        failed: set[str] = set()
        for span, record in scan_log(self.path, self.kind):
            name = self.name_of_result(record)
            if self.again(record):
                logged.pop(name, None)
                continue
            logged[name] = span
            if self.failed(record):
                failed.add(name)
            else:
                failed.discard(name)
        return logged, len(failed)
