"""The file format of the store: the answers of one set of weights, one per line.

The first line names the format, the weights that answered and the values of the other lines, so a line holds little
more than its text:

    {"debate-rl store": 3, "completion": ["text", "prompt_tokens", ...], ..., "model": "lab-base", "adapter": null}
    ["5f1d7a84db00d2fc", "the answer is shed", 131, 5, "stop", 2893647195]

Each line ends with the CRC-32 of what stands before it: a damaged answer is computed again and never used.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from debate_rl.engines.request import Completion, Scores
from debate_rl.errors import UserError
from debate_rl.records import append_bytes

A = TypeVar("A", Completion, Scores)

FORMAT = 3
"""Version of the format. Version 1 stored whole records under other names, version 2 had no checksums."""
_VERSION_KEY = "debate-rl store"
_READ_SIZE = 8192
"""Bytes per read when one line is fetched; most lines fit into one read."""


def _stored_fields(kind: type[Completion] | type[Scores]) -> list[str]:
    """Names of the values in an answer's line, in order."""
    # The revision is the same for the whole file and stands in its first line.
    return [name for name, field in kind.model_fields.items() if not field.exclude and name != "revision"]


_FIELDS = {"completion": _stored_fields(Completion), "scores": _stored_fields(Scores)}


@dataclass(frozen=True)
class AnswerSource:
    """The weights that answered.

    Example:
        AnswerSource(revision="9f86d081884c7d65", model="lab-base", adapter="runs/quickstart/dpo/adapter")
    """

    revision: str
    """Fingerprint of the weights."""
    model: str
    """Name under which the model was requested."""
    adapter: str | None


@dataclass
class StoreFile:
    """One file of a store.

    Attributes:
        path: location of the file.
        source: weights whose answers it holds.
        fields: names of a line's values, by kind of answer.
        start: offset in bytes of the second line.
        end: offset in bytes up to which the file has been read.
    """

    path: Path
    source: AnswerSource
    fields: dict[str, list[str]]
    start: int
    end: int

    def new_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, line) of every whole line after `end`, and move `end` along."""
        with self.path.open("rb") as file:
            file.seek(self.end)
            for line in file:
                # A line without its end was cut off by a crash, or another process is still writing it.
                if not line.endswith(b"\n"):
                    return
                offset = self.end
                self.end += len(line)
                yield offset, line

    def read_answer(self, offset: int, key: str, kind: type[A]) -> A:
        """Read the answer whose line begins at an offset.

        Raises:
            ValueError: the line is damaged or belongs to another key.
        """
        stored_key, *values = _parse_row(_line_at(self.path, offset))
        if stored_key != key:
            raise ValueError(f"{self.path}: {key} is not where it was")
        fields = dict(zip(self.fields[kind.__name__.lower()], values, strict=True))
        return kind.model_validate({**fields, "revision": self.source.revision})


def begin_store_file(path: Path, source: AnswerSource) -> StoreFile:
    """Create a file that holds no answers yet."""
    head = {
        _VERSION_KEY: FORMAT,
        **_FIELDS,
        "revision": source.revision,
        "model": source.model,
        "adapter": source.adapter,
    }
    line = _json_line({**head, "crc": zlib.crc32(_json_line(head))})
    append_bytes(path, line)
    return StoreFile(path, source, _FIELDS, start=len(line), end=len(line))


def open_store_file(path: Path) -> StoreFile | None:
    """Read the first line of a file; None if it has not been written completely.

    Raises:
        UserError: another version wrote the file, or it is not a file of a store.
    """
    with path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        head = json.loads(line)
        version = head.get(_VERSION_KEY, 1)
        if version == FORMAT:
            if head.pop("crc", None) != zlib.crc32(_json_line(head)):
                raise ValueError("damaged")
            # A later release of this version may add fields: then its files are refused below, not misread.
            if all(set(head[kind]) <= set(known) for kind, known in _FIELDS.items()):
                source = AnswerSource(head["revision"], head["model"], head["adapter"])
                fields = {kind: head[kind] for kind in _FIELDS}
                return StoreFile(path, source, fields, start=len(line), end=len(line))
        age = "an older" if version < FORMAT else "a newer"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}:1: not the first line of a store; remove the file") from error
    raise UserError(
        f"{path}: written by {age} version of debate-rl; go on with that version, or remove {path.parent} and have its "
        "answers made again"
    )


def format_row(key: str, answer: Completion | Scores) -> bytes:
    """The line of an answer: its key, its values and their checksum."""
    values = [key, *answer.model_dump(exclude={"revision"}).values()]
    # Without the last bracket only: the last value may be a list itself.
    text = _json_line(values).removesuffix(b"]\n")
    return text + b",%d]\n" % zlib.crc32(text)


def _parse_row(line: bytes) -> list[Any]:
    """The key and values of a line that `format_row` wrote.

    Raises:
        ValueError: the line is damaged.
    """
    text, _, checksum = line.rstrip(b"\n").rpartition(b",")
    if checksum != b"%d]" % zlib.crc32(text):
        raise ValueError("the line is damaged")
    return list(json.loads(text + b"]"))


def _json_line(value: object) -> bytes:
    """Compact JSON in UTF-8 with a line end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Models can write half surrogate pairs, which strict UTF-8 refuses.
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _line_at(path: Path, offset: int) -> bytes:
    """The line that begins at an offset of a file, without its end."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pieces: list[bytes] = []
        while piece := os.pread(descriptor, _READ_SIZE, offset):
            line_end = piece.find(b"\n")
            if line_end >= 0:
                pieces.append(piece[:line_end])
                break
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)
