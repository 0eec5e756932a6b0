"""Records: frozen typed values whose form in memory is their line in a file.

A file of records is JSON lines, UTF-8. Whole files are written beside their final name and renamed, so a reader
never sees half of one. Logs that grow (`append`) may end in a torn line after a crash; `read_log` drops that line,
and `append` starts on a fresh one.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import json
import os
import re
import stat
import time
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from debate_rl.errors import UserError, existing


class Record(BaseModel):
    """Base of every record and config: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=BaseModel)
SUMS = ".sums"
"""Ending of the file beside a log that has the checksums of its lines while it grows."""
Span = tuple[int, int]
"""Where a line lies in a file: its first byte and the one after its last."""
LARGEST_CELL = 1 << 26
"""Characters of a cell of a CSV file at most."""
LARGEST_YAML = 1 << 20
"""Bytes of a YAML file at most."""
_UNCLEAN = re.compile("[\ud800-\udfff\x00]")
_LOOK_ALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u0410\u0412\u0415\u041a\u041c\u041d\u041e"
    "\u0420\u0421\u0422\u0425\u0406\u0408\u0391\u0392\u0395\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03bf"
    "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18\u0280\ua731"
    "\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22\u0261"
    "\u2236\ua789\u02d0\u02f8\u05c3\u0589\ua4fd\u0703\u0704\u205a",
    "aeopcyxsijdABEKMHOPCTXIJABEIKMNOPTXoabcdefghijklmnoprstuvwyzg::::::::::",
)
"""Letters of the Cyrillic and Greek alphabets, small capitals and colons that look like ASCII."""
_ENCLOSED = {first + at: 65 + at for first in (0x1F150, 0x1F170, 0x1F1E6) for at in range(26)}
"""White capital letters in black circles and squares, and the letters of flags."""
_BLANK = "\u115f\u1160\u3164\uffa0"
"""Letters without a form."""
_PLAIN = re.compile(r"[\t\n\r -~]*\Z")
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """Name a JSON-like value by its content: 16 hexadecimal digits of SHA-256 over its canonical JSON."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:16]


def clean_text(text: str) -> str:
    """A text as it may enter: half surrogate pairs, which no file can hold, and NUL become U+FFFD.

    Example:
        >>> clean_text("a\\ud83d b")
        'a\ufffd b'
    """
    return _UNCLEAN.sub("\ufffd", text)


def clean_value(value: Any) -> Any:
    """A JSON-like value whose texts are clean (see `clean_text`)."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): clean_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean_value(inner) for inner in value]
    return value


def folded(text: str) -> tuple[str, Sequence[int] | None]:
    """A text in the letters that it looks like, and the place of each in the original; None where all stayed.

    Wide, bold and accented forms of a letter become the letter, letters of other alphabets that look like Latin ones
    become these, and characters without width are left out. `None` says that every letter kept its place.

    Example:
        >>> folded("\uff1cb\u200b>")
        ('<b>', [0, 1, 3])
    """
    if _PLAIN.match(text):
        return text, None
    forms = {character: _folded_character(character) for character in set(text)}
    table = {ord(character): form for character, form in forms.items() if form != character}
    uneven = "".join(sorted(character for character, form in forms.items() if len(form) != 1))
    if not uneven:  # most texts: a few letters beyond ASCII, each one letter, so that all places stay
        return text.translate(table), None
    pieces: list[str] = []
    places: list[int] = []
    start = 0
    for match in re.finditer(f"[{re.escape(uneven)}]", text):
        place = match.start()
        form = forms[match[0]]
        pieces += [text[start:place].translate(table), form]
        places += range(start, place)
        places += [place] * len(form)
        start = place + 1
    pieces.append(text[start:].translate(table))
    places += range(start, len(text))
    return "".join(pieces), places


def spaced_after(text: str, places: Iterable[int], origins: Sequence[int] | None) -> str:
    """A text with a space after some characters, which breaks the marks that begin with them.

    Args:
        text: as it was before `folded`.
        places: of the characters in the folded text.
        origins: of the folded characters in the text, as `folded` gives them.

    Example:
        >>> spaced_after("a <b>", [2], None)
        'a < b>'
    """
    pieces = []
    start = 0
    cuts = {place if origins is None else origins[place] for place in places}
    for cut in sorted(cuts):
        pieces.append(text[start : cut + 1])
        start = cut + 1
    pieces.append(text[start:])
    return " ".join(pieces)


@lru_cache(maxsize=4096)
def _folded_character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me") or (category == "Cc" and character not in "\t\n\r") or character in _BLANK:
        return ""
    # Tokenizers may take letters apart and drop the strokes and accents: a struck-through "<" is one then.
    parts = unicodedata.normalize("NFKD", character.translate(_ENCLOSED))
    bare = "".join(part for part in parts if unicodedata.category(part) not in ("Mn", "Me"))
    return unicodedata.normalize("NFC", bare).translate(_LOOK_ALIKES)


def explain(error: ValidationError) -> str:
    """Put the first complaint of a validation into a few words: where, and what is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return f"{where}: {said}" if where else said


def open_text(path: str | Path) -> TextIO:
    """Open a text file of any usual kind: UTF-8 or UTF-16 with or without a byte order mark, plain or gzipped.

    Raises:
        UserError: there is none, or it is packed in a way that is not read here; says how to unpack it.
    """
    path = existing(path, "file")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file in it")
    if not path.is_file():
        raise UserError(f"{path} is no file but a device or a pipe, which may never end; give a file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
            packed = start.startswith(b"\x1f\x8b")
            if packed:
                file.seek(0)
                start = gzip.GzipFile(fileobj=file).read(4)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can not be read: {getattr(error, 'strerror', None) or error}") from error
    if start == b"\x28\xb5\x2f\xfd":
        raise UserError(f"{path} is packed with zstd; unpack it first: zstd -d {path}")
    if start.startswith(b"PK\x03\x04"):
        raise UserError(f"{path} is a zip archive; unpack it first: unzip {path}")
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if packed:
        return cast(TextIO, gzip.open(path, "rt", encoding=encoding, newline=""))
    return path.open(encoding=encoding, newline="")


def not_text(path: str | Path, error: Exception) -> UserError:
    """What is said of a file whose bytes are no text."""
    if not isinstance(error, UnicodeDecodeError):
        return UserError(f"{path}: not a whole text file ({error}); copy it again")
    wrong = error.object[error.start : error.start + 1].hex()
    return UserError(
        f"{path}: not text in UTF-8 (byte 0x{wrong}); if it is Latin-1, convert it: "
        f"iconv -f latin1 -t utf-8 {path} > NEW, and give NEW"
    )


def csv_rows(path: str | Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row by column) of a CSV file with a header; its texts are clean.

    Raises:
        UserError: the file is missing, is no text, or a row has another number of cells than the header.
    """
    with open_text(path) as file:
        # Strict: a quotation mark that nothing closes would else take all rows after it into one cell.
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        limit = csv.field_size_limit(LARGEST_CELL)
        try:
            names = [str(name).strip() for name in reader.fieldnames or ()]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise UserError(f"{path}:1: two columns are called {twice!r}; rename or remove one")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"{path}:{reader.line_num}: a row with another number of cells than the header")
                yield reader.line_num, {str(name).strip(): clean_text(cell) for name, cell in row.items()}
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not a row of a CSV file ({error})") from error
        except (UnicodeError, EOFError, OSError, zlib.error) as error:
            raise not_text(path, error) from error
        finally:
            csv.field_size_limit(limit)


def lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each non-empty line of a JSON-lines file.

    Raises:
        UserError: the file is missing, or a line is not a JSON object; names file and line.
    """
    if existing(path, "file").is_dir():
        raise UserError(f"{path} is a folder; give the JSON-lines file in it")
    number = 0
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
        except (UnicodeError, EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}:{number + 1}: not valid JSON (not UTF-8); {not_text(path, error)}") from error


def _object(line: str, where: str) -> dict[str, Any]:
    """The JSON object of a line, its texts clean."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg}); fix or remove the line") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); fix or remove the line") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}")
    # A half surrogate pair comes as an escape, and costs a look for one where there are none.
    return clean_value(value) if "\\ud" in line or "\\uD" in line or "\\u0000" in line else value


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
        path.with_name(path.name + SUMS).unlink(missing_ok=True)  # those of a log that this file takes the place of
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
    """The keys and values of a YAML file that a user names.

    Args:
        path: the file.
        what: it is, for messages.

    Raises:
        UserError: there is none, it is no regular file of a reasonable size, or it holds something else; the message
            has no text of the file.
    """
    import yaml  # here: records are read by commands that need no YAML

    place = existing(path, what)
    try:
        status = place.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no file; give the {what}'s .yaml file")
        if status.st_size > LARGEST_YAML:
            raise UserError(f"{path} has {status.st_size:,} bytes, which no {what} has; give the {what}'s .yaml file")
        tree = yaml.safe_load(place.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it can not be read"
        raise UserError(f"{path}{where}: not valid YAML ({problem})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8; save it as UTF-8, or give the {what}'s .yaml file") from error
    except ValueError as error:  # such as a date that is none
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


@contextlib.contextmanager
def locked(path: Path, busy: str, patience: float = 0.0, shared: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs; a process that dies lets go of it.

    Args:
        path: the file; it and its folder are made where they are not there.
        busy: what is said where another process holds it.
        patience: seconds to wait for that.
        shared: hold it together with others that share it.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise UserError(busy) from error
                time.sleep(0.1)
                continue
            except OSError as error:
                raise UserError(
                    f"{path.parent} lies on a file system without locks ({error.strerror}), where two runs could spoil "
                    "one another; put the runs on a local disk with runs=FOLDER, or mount this one with locks"
                ) from error
            # Who held it may have removed the file: a lock on that one keeps nobody out.
            if not _is_file_of(file, path):
                continue
            yield
            return


def _is_file_of(file: TextIO, path: Path) -> bool:
    """Whether an open file is the one that a path leads to now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


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
