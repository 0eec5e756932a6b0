"""Find the newest checkpoint that was saved completely.

The Trainer writes straight into `checkpoint-N`. A kill while it saves leaves a folder from which a resume crashes or,
if only the optimizer is missing, continues with a fresh one and silently ends with other weights.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from debate_rl.engines.weights import damaged_file, header
from debate_rl.errors import UserError


def last_complete_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint of a folder, or None if no checkpoint was finished.

    Raises:
        UserError: a newer one was saved by more processes than train now, or by one and several train now.
    """
    return next((path for path, whole in _newest_first(folder) if whole), None)


def remove_partial_checkpoints(folder: str | Path) -> Path | None:
    """Remove the checkpoints that are newer than the newest whole one.

    Returns:
        That one, or None if no checkpoint was finished.

    Raises:
        UserError: as `last_complete_checkpoint`; that checkpoint may be whole, so it is not removed.
    """
    for checkpoint, whole in _newest_first(folder):
        if whole:
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _newest_first(folder: str | Path) -> Iterator[tuple[Path, bool]]:
    """The checkpoints of a folder and whether each is whole, until one was saved by other processes than train now."""
    now = len(_random_states())
    checkpoints = [path for path in Path(folder).glob("checkpoint-*") if _step(path) >= 0]
    for checkpoint in sorted(checkpoints, key=_step, reverse=True):
        whole = is_complete(checkpoint)
        saved = len(list(checkpoint.glob("rng_state*.pth")))
        if not whole and (saved > now or (now > 1 and (checkpoint / "rng_state.pth").is_file())):
            raise UserError(f"{checkpoint} is of {saved} processes, and {now} train; start {saved}, or remove it")
        yield checkpoint, whole


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has every file that a bitwise equal resume needs, and all of them can be opened."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if state.get("global_step") != _step(checkpoint):
        return False
    # DeepSpeed writes optimizer and weights in shards, and the name of their folder into `latest` at the end. FSDP
    # writes shards into `optimizer_0`, or gathers them into `optimizer.bin` and `pytorch_model_fsdp.bin`.
    sharded = (checkpoint / "latest").is_file() or (checkpoint / "optimizer_0").exists()
    gathered = (checkpoint / "optimizer.bin").exists()
    names = ["scheduler.pt", *_random_states()]
    if not sharded:
        if gathered and not (checkpoint / "optimizer.pt").exists():
            names += ["optimizer.bin", "pytorch_model_fsdp.bin"]
        else:
            names.append("optimizer.pt")
    if not all(_is_whole_archive(checkpoint / name) for name in names):
        return False
    if _is_damaged(checkpoint):
        return False
    return sharded or gathered or _weights_open(checkpoint)


def _is_whole_archive(path: Path) -> bool:
    """Whether a file that torch wrote (a zip archive) can be opened and its parts have their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return False


def _is_damaged(checkpoint: Path) -> bool:
    """Whether a file differs from its checksum, if there are checksums."""
    try:
        return damaged_file(checkpoint) is not None
    except UserError:
        return True  # the list of checksums can not be read


def _random_states() -> list[str]:
    """Names of the files in which the processes that train now keep the state of their random numbers."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return ["rng_state.pth"]
    return [f"rng_state_{rank}.pth" for rank in range(processes)]


def _weights_open(checkpoint: Path) -> bool:
    """Whether there are weights, and no file of them is missing or cut off."""
    files = sorted(checkpoint.rglob("*.safetensors"))
    try:
        for path in files:
            header(path)
    except UserError:
        return False
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return shards <= {path.name for path in files}
    return bool(files)


def _step(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 if there is none."""
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else -1
