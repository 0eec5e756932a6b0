"""A file of a store: answers of one set of weights, a line each.

The first line says the format, whose answers these are, and what the values of the other lines are, so that a line is
little more than a text:

    {"debate-rl store": 3, "completion": ["text", "prompt_tokens", ...], ..., "model": "lab-base", "adapter": null}
    ["5f1d7a84db00d2fc", "the answer is shed", 131, 5, "stop", 2893647195]

The last value of a line is the CRC-32 of what stands before it, so that a damaged answer is made again and never used.
"""

from __future__ import annotations

import json
import os
import re
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
"""1 kept whole records under other names; 2 had no checksums."""
_MARK = "debate-rl store"
_READ = 8192


def _fields(kind: type[Completion] | type[Scores]) -> list[str]:
    """What a line keeps of an answer, in order; whose answer it is stands in the first line of its file."""
    return [name for name, field in kind.model_fields.items() if not field.exclude and name != "revision"]


_FIELDS = {"completion": _fields(Completion), "scores": _fields(Scores)}


@dataclass(frozen=True)
class Weights:
    """Who answered: the fingerprint of the weights, and the names they were asked for by."""

    revision: str
    model: str
    adapter: str | None


@dataclass
class StoreFile:
    """One file.

    Attributes:
        path: where it is.
        weights: whose answers it holds.
        fields: names of a line's values, by kind of answer.
        start: its second line begins here.
        end: what lies before has been read.
    """

    path: Path
    weights: Weights
    fields: dict[str, list[str]]
    start: int
    end: int

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines from `end` on that are not damaged, each with its place; `end` moves along."""
        with self.path.open("rb") as file:
            file.seek(self.end)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # cut off by a crash, or still being written
                place, self.end = self.end, self.end + len(line)
                if _is_whole(line):
                    yield place, line

    def answer(self, place: int, key: str, kind: type[A]) -> A:
        """Read the answer of a name.

        Raises:
            ValueError: there is none of that name in that place.
        """
        found, *values = _checked(_line(self.path, place))
        if found != key:
            raise ValueError(f"{self.path}: {key} is not where it was")
        named = zip(self.fields[kind.__name__.lower()], values, strict=True)
        return kind.model_validate({**dict(named), "revision": self.weights.revision})


def file_stem(revision: str) -> str:
    """The beginning of a file's name. Of a server's model the revision is what the user calls it, slashes and all."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", revision[:16]).lstrip(".")


def begin_store_file(path: Path, weights: Weights) -> StoreFile:
    """Make a file without answers."""
    named = {"revision": weights.revision, "model": weights.model, "adapter": weights.adapter}
    head = {_MARK: FORMAT, **_FIELDS, **named}
    line = _json({**head, "crc": zlib.crc32(_json(head))})
    append_bytes(path, line)
    return StoreFile(path, weights, _FIELDS, len(line), len(line))


def open_store_file(path: Path) -> StoreFile | None:
    """Read the first line of a file; None where it has none yet.

    Raises:
        UserError: another version wrote it, or it is no file of a store.
    """
    with path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        head = json.loads(line)
        version = head.get(_MARK, 1)
        if version == FORMAT and head.pop("crc", None) != zlib.crc32(_json(head)):
            raise ValueError("damaged")
        if version == FORMAT and all(set(head[kind]) <= set(known) for kind, known in _FIELDS.items()):
            weights = Weights(head["revision"], head["model"], head["adapter"])
            return StoreFile(path, weights, {kind: head[kind] for kind in _FIELDS}, len(line), len(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}:1: not the first line of a store; remove the file") from error
    age = "an older" if version < FORMAT else "a newer"
    raise UserError(
        f"{path}: written by {age} version of debate-rl; go on with that version, or remove {path.parent} and have its "
        "answers made again"
    )


def row(key: str, answer: Completion | Scores) -> bytes:
    """The line of an answer."""
    return _summed([key, *answer.model_dump(exclude={"revision"}).values()])


def _summed(values: list[Any]) -> bytes:
    """The line of some values, their checksum at its end."""
    text = _json(values).rstrip(b"]\n")
    return text + b",%d]\n" % zlib.crc32(text)


def _checked(line: bytes) -> list[Any]:
    """The values of a line that `_summed` made.

    Raises:
        ValueError: it is damaged.
    """
    if not _is_whole(line):
        raise ValueError("the line is damaged")
    return list(json.loads(line))[:-1]


def _is_whole(line: bytes) -> bool:
    """Whether a line's checksum is right."""
    text, _, rest = line.rstrip(b"\n").rpartition(b",")
    return rest == b"%d]" % zlib.crc32(text)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def _line(path: Path, place: int) -> bytes:
    """The line that begins at a place of a file."""
    file = os.open(path, os.O_RDONLY)
    try:
        pieces: list[bytes] = []
        while piece := os.pread(file, _READ, place):
            end = piece.find(b"\n")
            if end >= 0:
                pieces.append(piece[:end])
                break
            pieces.append(piece)
            place += len(piece)
        return b"".join(pieces)
    finally:
        os.close(file)
