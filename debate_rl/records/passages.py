"""Long passages stand once in `passages.jsonl`, beside the files whose records name them.

A debate on a story of 5,000 words would otherwise repeat it in every line: 10,000 debates take 300 MB, almost all of it
copies. In the line the passage is {"passage_digest": "9f86d081884c7d65"}; its own line in `passages.jsonl` is
{"digest": "9f86d081884c7d65", "text": "..."}. Files whose passages stand in the lines themselves are read as well.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from debate_rl.errors import UserError

NAME = "passages.jsonl"
KEY = "passage_digest"
"""The one key of an object that stands for a passage."""
LONG = 1000
"""Characters from which a text is named instead of repeated; below, a second file would save little."""
_CACHED = 4
"""Folders whose passages are kept in memory."""

_Stamp = tuple[int, int, int] | None
"""Inode, size and time of the last change of a file; None where there is none."""


class Passages:
    """The passages in one folder.

    Args:
        path: `passages.jsonl`; it may be missing.

    Raises:
        UserError: a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = _stamp(path)
        self._texts: dict[str, str] = {}
        self._unsaved: dict[str, str] = {}
        if self.stamp is not None:
            self._load()

    def reference(self, text: str) -> str | dict[str, str]:
        """What stands for a text in a line: the text itself if it is short, else an object with its digest."""
        if len(text) < LONG:
            return text
        digest = _digest(text)
        if digest not in self._texts:
            self._unsaved[digest] = text
        return {KEY: digest}

    def unsaved_lines(self) -> bytes:
        """Lines of the passages that were named and are not in the file yet."""
        lines = []
        for digest, text in self._unsaved.items():
            lines.append(json.dumps({"digest": digest, "text": text}, ensure_ascii=False) + "\n")
        return "".join(lines).encode()

    def saved(self) -> None:
        """Note that the unsaved lines are in the file now."""
        self._texts |= self._unsaved
        self._unsaved.clear()
        self.stamp = _stamp(self.path)

    def restored(self, value: Any, path: str | Path) -> Any:
        """Put the passages back into a JSON value that names them.

        Args:
            value: of a line.
            path: the line's file, for the message.

        Raises:
            UserError: a passage is missing.
        """
        if isinstance(value, list):
            return [self.restored(inner, path) for inner in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {KEY}:
            digest = value[KEY]
            if digest not in self._texts:
                raise UserError(
                    f"{path} names passage {digest}, which {self.path} does not hold; put the {NAME} of its folder "
                    "beside it, or remove the file and run again: what the models said is in the store"
                )
            return self._texts[digest]
        return {key: self.restored(inner, path) for key, inner in value.items()}

    def _load(self) -> None:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # torn by a crash; no line names it, since passages are written first
                try:
                    entry = json.loads(line)
                    digest, text = entry["digest"], entry["text"]
                    intact = _digest(text) == digest
                except (ValueError, KeyError, TypeError, AttributeError):
                    intact = False
                if not intact:
                    raise UserError(f"{self.path}:{number}: a damaged passage; copy the file again")
                self._texts[digest] = text


_by_path: dict[str, Passages] = {}


def passages_beside(path: str | Path) -> Passages:
    """The passages in the folder of a file, as they are on disk now; those of the last few folders stay in memory."""
    passages_path = Path(path).absolute().with_name(NAME)
    key = str(passages_path)
    known = _by_path.pop(key, None)
    # A new object where the file has changed: whoever still reads with the old one keeps what it holds.
    if known is None or known.stamp != _stamp(passages_path):
        known = Passages(passages_path)
    _by_path[key] = known
    while len(_by_path) > _CACHED:
        del _by_path[next(iter(_by_path))]
    return known


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
