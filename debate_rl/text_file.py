"""Text of the data files that users name: any Unicode encoding, packed or not.

UTF-8 with or without a byte order mark, UTF-16 and UTF-32 are read, and so are files packed with gzip, bzip2 or xz.
Other encodings can not be told from one another (a byte is é in Latin-1 and ŕ in Latin-2), so they are refused in a
line that says where and how to convert the file.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import json
import lzma
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from debate_rl.errors import UserError, existing

PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of packed files; what a file is packed with is told by its first bytes, not by its name."""


def plain_name(path: str | Path) -> str:
    """A file's name without the ending of its packing.

    Example:
        >>> plain_name("data/rows.jsonl.gz")
        'rows.jsonl'
    """
    path = Path(path)
    return path.stem if path.suffix.lower() in PACKED else path.name


def plain_suffix(path: str | Path) -> str:
    """What kind of file it is, in small letters: the ending before that of its packing, if it has one."""
    return Path(plain_name(path)).suffix.lower()


def maybe_packed(path: Path) -> Path:
    """The file, or the packed one beside its name where only that exists."""
    if path.exists():
        return path
    packed = [path.with_name(path.name + ending) for ending in PACKED]
    return next((one for one in packed if one.is_file()), path)


@contextlib.contextmanager
def open_text(
    path: str | Path, newline: str | None = None, member: Callable[[], BinaryIO] | None = None
) -> Iterator[TextIO]:
    """Open a file for reading text; what goes wrong while the block reads is one line.

    Half surrogate pairs come through (`records.clean_text` mends them).

    Args:
        path: the file; in messages only where `member` is given.
        newline: as of `open`; csv wants "".
        member: opens the bytes of a file that lies in another, such as a member of a zip.

    Raises:
        UserError: no such file, no regular file, damaged, or packed or encoded in a way that is not read here.
    """
    opened = member or (lambda: _open_bytes(Path(path)))
    try:
        with opened() as raw, _unpacked(raw, path) as file:
            encoding = json.detect_encoding(_first_bytes(file))
            yield io.TextIOWrapper(file, encoding, "surrogatepass", newline)
    except UnicodeDecodeError as error:
        line = _bad_line(opened, path) if error.encoding.startswith("utf-8") else None
        where = f"{path}:{line}" if line else str(path)
        raise UserError(
            f"{where}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8, for example with: "
            f"iconv -f CP1252 -t UTF-8 {path} > NEW, and give NEW"
        ) from error
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        if member is not None:
            raise  # damaged is what it lies in
        raise UserError(f"{path}: the packed file is damaged ({error}); get it again") from error
    except OSError as error:
        raise UserError(f"{path} can not be read: {error.strerror or error}") from error


def read_text(path: str | Path) -> str:
    """The whole text of a file (see `open_text`)."""
    with open_text(path) as file:
        return file.read()


def _open_bytes(path: Path) -> BinaryIO:
    """Open a regular file: a device or a pipe may never end, and can not be read twice."""
    mode = existing(path, "file").stat().st_mode
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; give the file in it")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a device or a pipe; save what it gives as a file")
    return path.open("rb")


def _unpacked(raw: BinaryIO, path: str | Path) -> Any:
    """The file without its packing."""
    first = _first_bytes(raw)
    if first[:2] == b"\x1f\x8b":
        return gzip.open(raw)
    if first[:3] == b"BZh":
        return bz2.open(raw)
    if first == b"\xfd7zX":
        return lzma.open(raw)
    if first == b"\x28\xb5\x2f\xfd":
        try:
            return importlib.import_module("compression.zstd").open(raw)  # Python 3.14
        except ImportError as error:
            raise UserError(f"{path} is packed with zstd; unpack it first with: zstd -d {path}") from error
    if first == b"PK\x03\x04":
        raise UserError(f"{path} is a zip archive; unpack it first: unzip {path}; a spreadsheet is saved as CSV")
    return contextlib.nullcontext(raw)


def _first_bytes(file: Any) -> bytes:
    """Four bytes from the start, which are read again afterwards."""
    first: bytes = file.read(4)
    file.seek(0)
    return first


def _bad_line(opened: Callable[[], BinaryIO], path: str | Path) -> int | None:
    """The first line that is not UTF-8: the decoder reads ahead, so its own place says little."""
    with opened() as raw, _unpacked(raw, path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                return number
    return None
