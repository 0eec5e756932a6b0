"""Logs of records that grow: a crash may leave a torn last line, which readers leave out and writers cut off."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path

from pydantic import BaseModel, ValidationError

from debate_rl.errors import UserError
from debate_rl.records.files import append_bytes, dumped
from debate_rl.records.passages import KEY, Passages, passages_beside
from debate_rl.records.record import R, explain

Span = tuple[int, int]
"""Position of a line in a file: its first byte and the one after its last."""


def append(path: str | Path, records: Iterable[BaseModel], inline: bool = False) -> list[Span]:
    """Append records to a log; they are on disk when this returns.

    Args:
        path: the log.
        records: of any kind.
        inline: as for `write`.

    Returns:
        The span of each record's line.

    Raises:
        UserError: the disk is full; what the log held before is intact.
    """
    data = list(dumped(path, records, inline))
    start = append_bytes(path, b"".join(data))
    boundaries = accumulate(map(len, data), initial=start)
    return list(pairwise(boundaries))


def scan_log(path: str | Path, kind: type[R]) -> Iterator[tuple[Span, R]]:
    """Yield the span and the record of each line of a log that `append` wrote; a torn last line (a crash) is left out.

    A log that does not exist has no records.

    Raises:
        UserError: a line is no such record; names file, line and field.
    """
    path = Path(path)
    if not path.exists():
        return
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            span = start, start + len(line)
            start += len(line)
            if not line.endswith(b"\n"):
                return
            if line.isspace():
                continue
            try:
                record = parse_line(line, kind, path)
            except ValidationError as error:
                message = f"{path}:{number}: not a {kind.__name__} ({explain(error)}); remove the line"
                raise UserError(message) from error
            yield span, record


def parse_line(line: bytes, kind: type[R], path: Path, passages: Passages | None = None) -> R:
    """Read the record of one line.

    Args:
        line: the line.
        kind: the record's class.
        path: the file that it stands in.
        passages: those beside the file; None reads them where the line names one.

    Raises:
        ValidationError: the line is no such record.
        UserError: a passage is missing.
    """
    if KEY.encode() in line:
        # A damaged line is explained by the class's own parser, below.
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            value = json.loads(line)
            passages = passages or passages_beside(path)
            return kind.model_validate(passages.restored(value, path))
    return kind.model_validate_json(line)


def read_log(path: str | Path, kind: type[R]) -> list[R]:
    """Read all records of a log that `append` wrote (see `scan_log`)."""
    return [record for _, record in scan_log(path, kind)]
