"""A file of a store: answers of one set of weights, a line each.

The first line says the format, whose answers these are, and what the values of the other lines are, so that a line is
little more than a text:

    {"debate-rl store": 2, "completion": ["text", "prompt_tokens", ...], ..., "model": "lab-base", "adapter": null,
     "crc32": "9a8b7c6d"}
    ["5f1d7a84db00d2fc", "the answer is shed", 131, 5, "stop", "1f2e3d4c"]

Each line ends in the checksum of the rest: a damaged byte would be another answer. Such a line is passed over, and its
answer made again.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from debate_rl.engines.request import Completion, Scores
from debate_rl.errors import UserError
from debate_rl.records import append_bytes, is_sealed, sealed, unsealed

A = TypeVar("A", Completion, Scores)

FORMAT = 2
"""1 kept whole records under other names. The first files of 2 have no checksums; they are read, and not added to."""
_MARK = "debate-rl store"
_READ = 8192
_CRC = re.compile(rb',"([0-9a-f]{8})"\]\n?$')


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
        checked: whether its lines have checksums.
    """

    path: Path
    weights: Weights
    fields: dict[str, list[str]]
    start: int
    end: int
    checked: bool = True

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines from `end` on that are not damaged, each with its place; `end` moves along."""
        with self.path.open("rb") as file:
            file.seek(self.end)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # cut off by a crash, or still being written
                place, self.end = self.end, self.end + len(line)
                if not self.checked or _is_whole(line):
                    yield place, line

    def answer(self, place: int, key: str, kind: type[A]) -> A:
        """Read the answer of a name.

        Raises:
            ValueError: there is none of that name in that place.
        """
        line = _line(self.path, place)
        if self.checked and not _is_whole(line):
            raise ValueError(f"{self.path}: {key} is damaged")
        found, *values = json.loads(line)
        if self.checked:
            values.pop()
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
    line = sealed(_json({_MARK: FORMAT, **_FIELDS, **named}))
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
        head = json.loads(unsealed(line))
        version = head.get(_MARK, 1)
        if version == FORMAT and all(set(head[kind]) <= set(known) for kind, known in _FIELDS.items()):
            weights = Weights(head["revision"], head["model"], head["adapter"])
            fields = {kind: head[kind] for kind in _FIELDS}
            return StoreFile(path, weights, fields, len(line), len(line), is_sealed(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}:1: not the first line of a store; remove the file") from error
    age = "an older" if version < FORMAT else "a newer"
    raise UserError(
        f"{path}: written by {age} version of debate-rl; go on with that version, or remove {path.parent} and have its "
        "answers made again"
    )


def row(key: str, answer: Completion | Scores) -> bytes:
    """The line of an answer."""
    rest = _json([key, *answer.model_dump(exclude={"revision"}).values()])[:-1]
    return b'%s,"%08x"]\n' % (rest, zlib.crc32(rest))


def _is_whole(line: bytes) -> bool:
    """Whether a line's checksum is right."""
    end = _CRC.search(line)
    return end is not None and zlib.crc32(line[: end.start()]) == int(end[1], 16)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


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
