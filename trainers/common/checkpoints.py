"""Checkpoints that can be trusted: the newest one that was saved to its end.

The Trainer writes straight into `checkpoint-N`. A kill while it saves leaves a folder from which a resume crashes or,
where only the optimizer is missing, goes on with a fresh one and ends elsewhere without a word.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

from debate_rl.engines.weights import damaged_file, header
from debate_rl.errors import UserError


def last_complete_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint of a folder; partial ones newer than it are removed.

    Returns:
        Its path, or None where no checkpoint was finished.

    Raises:
        UserError: more processes saved it than train now, or one where several do: it is whole, but not for these.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if _step(path) >= 0]
    for checkpoint in sorted(found, key=_step, reverse=True):
        if is_complete(checkpoint):
            return checkpoint
        saved, now = _saved_by(checkpoint), len(_random_states())
        if saved > now or (now > 1 and (checkpoint / "rng_state.pth").is_file()):
            raise UserError(f"{checkpoint} is of {saved} processes, and {now} train; start {saved}, or remove it")
        shutil.rmtree(checkpoint)
    return None


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint holds all that a bitwise equal resume needs, and every file of it can be opened."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if state.get("global_step") != _step(checkpoint):
        return False
    # DeepSpeed keeps the optimizer in shards of its own and writes their folder's name into `latest` at the end.
    sharded = (checkpoint / "latest").is_file() or any(checkpoint.glob("optimizer_0"))
    torch_files = [checkpoint / "scheduler.pt", *(checkpoint / name for name in _random_states())]
    if not sharded:
        # FSDP gathers optimizer and weights into files of names of its own.
        gathered = [checkpoint / "optimizer.bin", checkpoint / "pytorch_model_fsdp.bin"]
        whole = [checkpoint / "optimizer.pt"]
        torch_files += gathered if gathered[0].exists() and not whole[0].exists() else whole
    if not all(_is_whole_archive(path) for path in torch_files):
        return False
    if _is_damaged(checkpoint):
        return False
    return sharded or (checkpoint / "optimizer.bin").is_file() or _weights_open(checkpoint)


def _is_whole_archive(path: Path) -> bool:
    """Whether a file that torch wrote can be opened and its parts have their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return False


def _is_damaged(checkpoint: Path) -> bool:
    """Whether a file differs from what was saved, where that was written down."""
    try:
        return damaged_file(checkpoint) is not None
    except UserError:
        return True  # the list itself


def _random_states() -> list[str]:
    """The files in which the processes that train now keep the state of their random numbers."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]


def _saved_by(checkpoint: Path) -> int:
    """How many processes wrote their random numbers into a checkpoint."""
    return len(list(checkpoint.glob("rng_state*.pth")))


def _weights_open(checkpoint: Path) -> bool:
    """Whether there are weights and none is cut off."""
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
    """The step in a checkpoint's name; -1 where there is none."""
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else -1
