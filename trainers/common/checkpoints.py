"""Find the newest checkpoint that was saved completely.

The Trainer writes straight into `checkpoint-N`. A kill while it saves leaves a folder from which a resume crashes or,
if only the optimizer is missing, continues with a fresh one and silently ends with other weights.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

from debate_rl.engines.weights import damaged_file, header
from debate_rl.errors import UserError


def remove_partial_checkpoints(folder: str | Path) -> Path | None:
    """Remove the checkpoints that are newer than the newest whole one.

    Returns:
        The newest whole one, or None if no checkpoint was finished.

    Raises:
        UserError: a newer one was saved by more processes than train now, or by one and several train now. It may be
            whole, so it is not removed.
    """
    checkpoints = [path for path in Path(folder).glob("checkpoint-*") if _step(path) >= 0]
    for checkpoint in sorted(checkpoints, key=_step, reverse=True):
        if is_complete(checkpoint):
            return checkpoint
        _check_processes(checkpoint)
        shutil.rmtree(checkpoint)
    return None


def _check_processes(checkpoint: Path) -> None:
    """Check that a checkpoint that looks partial does not lack files only because other processes saved it."""
    now = len(_random_states())
    saved = len(list(checkpoint.glob("rng_state*.pth")))
    by_one = (checkpoint / "rng_state.pth").is_file()
    if saved > now or (by_one and now > 1):
        raise UserError(f"{checkpoint} is of {saved} processes, and {now} train; start {saved}, or remove it")


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
