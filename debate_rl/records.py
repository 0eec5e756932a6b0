"""Records: frozen typed values whose form in memory is their line in a file.

A file of records is JSON lines, UTF-8. Whole files are written beside their final name and renamed, so a reader
never sees half of one. Logs that grow (`append`) may end in a torn line after a crash; `read_log` drops that line,
and `append` starts on a fresh one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from debate_rl.errors import UserError, existing


class Record(BaseModel):
    """Base of every record and config: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=BaseModel)
Span = tuple[int, int]
"""Where a line lies in a file: its first byte and the one after its last."""
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """Name a JSON-like value by its content: 16 hexadecimal digits of SHA-256 over its canonical JSON."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:16]


def explain(error: ValidationError) -> str:
    """Put the first complaint of a validation into a few words: where, and what is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return f"{where}: {said}" if where else said


def lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each non-empty line of a JSON-lines file.

    Raises:
        UserError: the file is missing, or a line is not a JSON object; names file and line.
    """
    path = existing(path, "file")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the JSON-lines file in it")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                said = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
                raise UserError(f"{path}:{number}: not valid JSON ({said}); fix or remove the line") from error
            if not isinstance(value, dict):
                raise UserError(f"{path}:{number}: expected a JSON object, found {type(value).__name__}")
            yield number, value


def read(path: str | Path, kind: type[R]) -> list[R]:
    """Read a JSON-lines file of records.

    Raises:
        UserError: the file is missing or a line is malformed; names file, line and field.
    """
    records = []
    for number, value in lines(path):
        try:
            records.append(kind.model_validate(value))
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {explain(error)}") from error
    return records


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file at once: readers see the old content or the new, never a part.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file stays.
    """
    write_pieces(path, [text.encode()])


def write_pieces(path: str | Path, pieces: Iterable[bytes]) -> None:
    """Write a whole file piece by piece (see `write_text`)."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; nothing was changed") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # there only if something went wrong


def write(path: str | Path, records: Iterable[BaseModel]) -> None:
    """Write records as a whole JSON-lines file (see `write_text`); records that are read lazily are never all held."""
    write_pieces(path, (record.model_dump_json().encode() + b"\n" for record in records))


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON document as a whole file (see `write_text`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON document.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    path = existing(path, "file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a JSON file") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file ({error})") from error


def read_yaml(path: str | Path, what: str) -> dict[str, Any]:
    """Read the keys and values that a YAML file holds.

    Args:
        path: the file.
        what: what it should be, for messages, such as `protocol file`.

    Raises:
        UserError: the file is missing, can not be read, is not YAML, is empty, or holds no keys and values.
    """
    path = existing(path, what)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a {what}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not a YAML file: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2024-13-45 is a ValueError
        raise UserError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if tree is None:
        raise UserError(f"{path} is empty; a {what} has keys and values, such as name: x")
    if not isinstance(tree, dict):
        shown = f"{type(tree).__name__} {str(tree)[:40]!r}"
        raise UserError(f"{path}: expected keys and values, such as name: x, found the {shown}")
    wrong = next((key for key in tree if not isinstance(key, str)), None)
    if wrong is not None:
        raise UserError(f"{path}: the key {wrong!r} is no text; quote it, or remove it")
    return tree


def read_kept(path: str | Path, kind: type[R], fix: str) -> R:
    """Read the one record that a JSON file holds.

    Args:
        path: the file.
        kind: the record's class.
        fix: what to do about a file that holds something else.

    Raises:
        UserError: the file is missing, is not JSON or holds no such record.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: not a {kind.__name__.lower()} ({explain(error)}); {fix}") from error


def append(path: str | Path, records: Iterable[BaseModel]) -> list[Span]:
    """Add records to the end of a log, on disk when this returns.

    Returns:
        Where each record lies now.

    Raises:
        UserError: the disk is full; what the log held before is intact.
    """
    data = [record.model_dump_json().encode() + b"\n" for record in records]
    ends = list(accumulate(map(len, data), initial=append_bytes(path, b"".join(data))))
    return list(pairwise(ends))


def append_bytes(path: str | Path, data: bytes) -> int:
    """Add whole lines to the end of a file, on disk when this returns; gives the place of their first byte.

    A torn last line (an earlier crash) is cut first; a write that fails half-way is taken back.

    Raises:
        UserError: the disk is full; what the file held before is intact.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        end = _whole_length(file)
        file.truncate(end)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            raise UserError(f"cannot write {path}: {error.strerror}; records finished before are kept") from error
    return end


def scan_log(path: str | Path, kind: type[R]) -> Iterator[tuple[Span, R]]:
    """Yield each record of a log that `append` wrote and where it lies; a torn last line (a crash) is left out.

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
            if not line.isspace():
                yield span, _parsed(line, kind, f"{path}:{number}")


def _parsed(line: bytes, kind: type[R], where: str) -> R:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise UserError(f"{where}: not a {kind.__name__} ({explain(error)}); remove the line") from error


def read_log(path: str | Path, kind: type[R]) -> list[R]:
    """Read a log that `append` wrote: none if absent (see `scan_log`)."""
    return [record for _, record in scan_log(path, kind)]


def _whole_length(file: Any) -> int:
    """Length in bytes of the complete lines of an open binary file; looks back from its end in blocks."""
    end = file.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
