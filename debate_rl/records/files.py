"""Whole files of records and of JSON, YAML, CSV and plain text.

A file of records is JSON lines in UTF-8. Whole files are written beside their final name and renamed, so a reader never
sees half of one. Long passages stand once in a file beside them (see `passages`); readers put them back.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from pydantic import BaseModel, ValidationError

from debate_rl.errors import UserError, existing
from debate_rl.records.passages import KEY, Passages, passages_beside
from debate_rl.records.record import R, explain
from debate_rl.records.text import clean_text, clean_value

SUMS = ".sums"
"""Suffix of the file beside a growing log that holds the checksums of its lines."""

_UNPACK = "unpack it first:"
_NOT_PLAIN = (
    (b"\x28\xb5\x2f\xfd", "packed with zstd", f"{_UNPACK} zstd -d"),
    (b"PK\x03\x04", "a zip archive", f"{_UNPACK} unzip"),
    (b"BZh", "packed with bzip2", f"{_UNPACK} bunzip2"),
    (b"\xfd7zX", "packed with xz", f"{_UNPACK} unxz"),
    (b"7z\xbc\xaf", "a 7z archive", f"{_UNPACK} 7z x"),
    (b"PAR1", "a Parquet file", "write its rows as JSON lines or CSV, with pandas or datasets, and give that file for"),
    (b"ARRO", "an Arrow file", "write its rows as JSON lines or CSV, with pandas or datasets, and give that file for"),
)
"""First bytes of files that hold no plain text, what they are, and what to do before their path."""

LARGEST_CELL = 1 << 26
"""Maximum characters in a cell of a CSV file."""

LARGEST_YAML = 1 << 20
"""Maximum bytes of a YAML file."""


def open_text(path: str | Path) -> TextIO:
    """Open a text file: UTF-8 with or without a byte order mark, or UTF-16 with one, plain or gzipped.

    Raises:
        UserError: there is no such file, or it is packed in another way; the message says how to unpack it.
    """
    path = existing(path, "file")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file in it")
    if not path.is_file():
        raise UserError(f"{path} is no file but a device or a pipe, which may never end; give a file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
            is_gzip = start.startswith(b"\x1f\x8b")
            if is_gzip:
                file.seek(0)
                start = gzip.GzipFile(fileobj=file).read(4)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can not be read: {getattr(error, 'strerror', None) or error}") from error
    for first_bytes, kind, fix in _NOT_PLAIN:
        if start.startswith(first_bytes):
            raise UserError(f"{path} is {kind}; {fix} {path}")
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if is_gzip:
        return cast(TextIO, gzip.open(path, "rt", encoding=encoding, newline=""))
    return path.open(encoding=encoding, newline="")


def not_text(path: str | Path, error: Exception) -> UserError:
    """Create the error for a file whose bytes are no text."""
    if not isinstance(error, UnicodeDecodeError):
        return UserError(f"{path}: not a whole text file ({error}); copy it again")
    byte = error.object[error.start : error.start + 1].hex()
    return UserError(
        f"{path}: not text in UTF-8 (byte 0x{byte}); if it is Latin-1, convert it: "
        f"iconv -f latin1 -t utf-8 {path} > NEW, and give NEW"
    )


def csv_rows(path: str | Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, cells by column name) of a CSV file with a header; its texts are clean.

    Raises:
        UserError: the file is missing, is no text, or a row has another number of cells than the header.
    """
    with open_text(path) as file:
        # Strict: otherwise a quotation mark that nothing closes would take all rows after it into one cell.
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        default_limit = csv.field_size_limit(LARGEST_CELL)
        try:
            names = [str(name).strip() for name in reader.fieldnames or ()]
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f"{path}:1: two columns are called {name!r}; rename or remove one")
            for row in reader:
                # DictReader files the cells beyond the header under None, and fills missing ones with None.
                if None in row or None in row.values():
                    raise UserError(f"{path}:{reader.line_num}: a row with another number of cells than the header")
                yield reader.line_num, {str(name).strip(): clean_text(cell) for name, cell in row.items()}
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not a row of a CSV file ({error})") from error
        except (UnicodeError, EOFError, OSError, zlib.error) as error:
            raise not_text(path, error) from error
        finally:
            csv.field_size_limit(default_limit)


def lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each non-empty line of a JSON-lines file.

    Raises:
        UserError: the file is missing, or a line is not a JSON object; names file and line.
    """
    if existing(path, "file").is_dir():
        raise UserError(f"{path} is a folder; give the JSON-lines file in it")
    number = 0
    passages: Passages | None = None
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                value = _object(line, f"{path}:{number}")
                if KEY in line:
                    passages = passages or passages_beside(path)
                    value = passages.restored(value, f"{path}:{number}")
                yield number, value
        except (UnicodeError, EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}:{number + 1}: not valid JSON (not UTF-8); {not_text(path, error)}") from error


def _object(line: str, where: str) -> dict[str, Any]:
    """Parse a line as a JSON object and clean its texts."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg}); fix or remove the line") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); fix or remove the line") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}")
    # What `clean_text` replaces can stand in a line only as an escape; most lines have none and need no second pass.
    if "\\ud" in line or "\\uD" in line or "\\u0000" in line:
        return clean_value(value)
    return value


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
    """Write a whole file atomically: readers see the old content or the new, never a part.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file stays.
    """
    write_pieces(path, [text.encode()])


def write_pieces(path: str | Path, pieces: Iterable[bytes]) -> None:
    """Write a whole file piece by piece (see `write_text`)."""
    path = Path(path)
    # In the same folder, since only a rename within a file system is atomic; with the process's number, since two
    # processes may write the same file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        # The checksums of a log that this file replaces would call the new one damaged.
        path.with_name(path.name + SUMS).unlink(missing_ok=True)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; nothing was changed") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # it exists only if something went wrong


def write(path: str | Path, records: Iterable[BaseModel], inline: bool = False) -> None:
    """Write records as a whole JSON-lines file (see `write_text`), one at a time: lazy records are never all held.

    Args:
        path: the file.
        records: of any kind.
        inline: write long passages into the lines, for a file that is to stand alone.
    """
    write_pieces(path, dumped(path, records, inline))


def dumped(path: str | Path, records: Iterable[BaseModel], inline: bool = False) -> Iterator[bytes]:
    """Yield the line of each record; when the last is taken, the passages that they name are on disk."""
    passages = None if inline else passages_beside(path)
    for record in records:
        yield record.model_dump_json(context=passages).encode() + b"\n"
    if passages is None:
        return
    # Before the lines: a crash in between leaves a passage that nothing names, never a line without its passage.
    passage_lines = passages.unsaved_lines()
    if passage_lines:
        append_bytes(passages.path, passage_lines)
        passages.saved()


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON document as a whole file (see `write_text`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON document.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    with open_text(path) as file:
        try:
            return clean_value(json.loads(file.read()))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error
        except (UnicodeError, EOFError, OSError, zlib.error) as error:
            raise not_text(path, error) from error
        except RecursionError as error:
            raise UserError(f"{path}: nested too deeply") from error


def read_yaml(path: str | Path, what: str) -> dict[str, Any]:
    """Read the keys and values of a YAML file that a user names.

    Args:
        path: the file.
        what: the kind of file, for messages.

    Raises:
        UserError: the file is missing, is no regular file of a reasonable size, or holds something else. The message
            quotes no text of the file, which may be private.
    """
    import yaml  # here: many commands that read records need no YAML

    from debate_rl.records.yaml_text import parse_yaml

    yaml_path = existing(path, what)
    try:
        status = yaml_path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no file; give the {what}'s .yaml file")
        if status.st_size > LARGEST_YAML:
            raise UserError(f"{path} has {status.st_size:,} bytes, which no {what} has; give the {what}'s .yaml file")
        tree = parse_yaml(yaml_path.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it can not be read"
        raise UserError(f"{path}{where}: not valid YAML ({problem})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8; save it as UTF-8, or give the {what}'s .yaml file") from error
    except ValueError as error:  # such as the date 2026-13-45
        raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply for a {what}") from error
    except OSError as error:
        raise UserError(f"{path} can not be read: {error.strerror}") from error
    if tree is None:
        raise UserError(f"{path} is empty; write the {what}'s keys and values")
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values, such as name: mine; found {type(tree).__name__}")
    for key in tree:
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {key!r} is no text; keys of a {what} are names")
    return tree


def read_kept(path: str | Path, kind: type[R], fix: str) -> R:
    """Read a JSON file that holds one record.

    Args:
        path: the file.
        kind: the record's class.
        fix: what to do about a file that holds something else, for the message.

    Raises:
        UserError: the file is missing, is not JSON or holds no such record.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: not a {kind.__name__.lower()} ({explain(error)}); {fix}") from error


def append_bytes(path: str | Path, data: bytes) -> int:
    """Append whole lines to a file; they are on disk when this returns.

    A torn last line (an earlier crash) is cut off first; a write that fails half-way is undone.

    Returns:
        Position of the first byte appended.

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


def _whole_length(file: Any) -> int:
    """Length in bytes of the complete lines of an open binary file."""
    # From the end backwards: a log may have gigabytes, and its last line break is normally its last byte.
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0
