"""Finished stages: what `stage.json` says of one, and whether its files are still what it says.

`stage.json` is written last and holds the SHA-256 of every other file of the stage, its adapters included. A byte that
was changed since would be another result without a word; here it is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from debate_rl.errors import PASSING_KINDS, UserError
from debate_rl.records import Record, digest, explain, plain_log, read_checked, unsealed, write_checked

RECORD = "stage.json"
NOTE = "fingerprint"
"""In the folder of a stage at work: what it is made from."""
_CARD = "README.md"
"""Model cards: later stages that rate the players add their numbers, so they are in no list."""
_TIMES = ("timing.json", "result.json")
"""Files that differ each time a stage is made, since they hold seconds."""
_WEIGHTS = (".safetensors", ".bin", ".pt")
_BLOCK = 1 << 20


class StageRecord(Record):
    """What is said of a finished stage.

    Example:
        StageRecord(name="dpo", kind="dpo", fingerprint="9f86d081884c7d65", files={"metrics.json": "5feceb66ffc8..."},
                    built_on={"preferences": "6b86b273ff34fce1"})
    """

    name: str = ""
    kind: str = ""
    fingerprint: str = ""
    """Of the config and input files that it was made from."""
    files: dict[str, str] = {}
    """SHA-256 of its files, by their place in its folder."""
    built_on: dict[str, str] = {}
    """Earlier stages that it was made from, each with the name of its content then."""
    passing: int = 0
    """Failures in it that may have passed meanwhile: the stage is made again."""

    @property
    def content(self) -> str:
        """Name of what the stage made: equal contents, equal names."""
        lasting = {path: sha for path, sha in self.files.items() if Path(path).name not in _TIMES}
        return digest([self.fingerprint, lasting])


def write_stage(folder: Path, record: StageRecord) -> None:
    """Write the record of a stage, with the checksums of its files; its logs will not grow any more, and get plain."""
    for path in folder.rglob("*.jsonl"):
        plain_log(path)
    record = record.model_copy(update={"files": _sums(folder)})
    write_checked(folder / RECORD, record.model_dump(mode="json"))


def read_stage(folder: Path) -> StageRecord | None:
    """The record of a folder's stage; None where no stage was finished there.

    Raises:
        UserError: it is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    fix = f"restore it, or remove {folder} and run again"
    value = read_checked(path, fix, required=False)
    try:
        return StageRecord.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({explain(error)}); {fix}") from error


def check_stage(folder: Path, record: StageRecord, weights: bool = True) -> None:
    """Make sure that a stage's files are what its record says.

    Args:
        folder: of the stage.
        record: of it; one of an older version lists no files, and nothing is checked.
        weights: read model weights as well, a second or two a GB.

    Raises:
        UserError: a file is missing or was changed.
    """
    for name, sha in record.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; restore it, or remove {folder} and run again to make it anew")
        if not weights and path.suffix in _WEIGHTS:
            continue
        if _sum(path) != sha:
            raise UserError(
                f"{path} is damaged or was changed since the stage was finished (its checksum differs); restore it, "
                f"or remove {folder} and run again to make it anew"
            )


def check_run(folder: str | Path) -> None:
    """Make sure that the finished stages of a run are what they were, before they are read; weights are not looked at.

    Raises:
        UserError: a file is missing or was changed.
    """
    for path in sorted(Path(folder).glob(f"[!.]*/{RECORD}")):
        record = read_stage(path.parent)
        if record is not None:
            check_stage(path.parent, record, weights=False)


def checksums(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of some files of a folder."""
    return {name: _sum(folder / name) for name in names if (folder / name).is_file()}


def passing_failures(folder: Path) -> int:
    """Failures in the records of a stage that may have passed meanwhile.

    Games of the measurements of an online training do not count: they belong to its steps, which are not taken again.
    """
    count = 0
    for path in folder.rglob("*.jsonl"):
        if path.parent.name == "watch":
            continue
        with path.open("rb") as file:
            lines = (line for line in file if b'"failure":{' in line)
            count += sum(_passes(json.loads(unsealed(line))) for line in lines)
    return count


def _passes(value: Any) -> bool:
    """Whether a record holds a failure of a kind that passes."""
    if isinstance(value, Mapping):
        failure = value.get("failure")
        if isinstance(failure, Mapping) and failure.get("kind") in PASSING_KINDS:
            return True
        return any(map(_passes, value.values()))
    return isinstance(value, list) and any(map(_passes, value))


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a stage, by its place."""
    return {path.relative_to(folder).as_posix(): _sum(path) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    """The files of a stage that do not change any more."""
    own = (folder / RECORD, folder / NOTE)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _CARD and path not in own:
            yield path


def _sum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
