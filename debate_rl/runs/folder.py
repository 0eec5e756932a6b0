"""Folders of runs and studies: what a config reads, who may work in a folder, and what made it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from debate_rl.config.tree import Config, dump_config, load_config, settled
from debate_rl.engines.file_hashes import file_hash, folder_hashes
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.records import digest, locked, write_json, write_text
from debate_rl.report.run_folder import seed_folder

LOCK = ".lock"


def input_files(tree: Any) -> dict[str, str]:
    """Digest of every file and folder that a tree of config values names, by path."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        digests: dict[str, str] = {}
        for value in tree:
            digests |= input_files(value)
        return digests
    if not isinstance(tree, str) or not tree or len(tree) > 1024:
        return {}
    path = Path(tree.partition("@")[0])  # players of other runs may have the @N of Best-of-N
    try:
        if path.is_file():
            return {tree: file_hash(path)}
        if not path.is_dir():
            return {}
    except (OSError, ValueError):
        return {}  # a text that can not be the name of a file
    return {tree: digest(folder_hashes(path))}


def remove_inside(path: Path, folder: Path) -> None:
    """Remove a folder of a run with all that is in it.

    Args:
        path: what is removed; a link is removed itself, not what it leads to.
        folder: the run's.

    Raises:
        ValueError: the path does not lie inside the folder; nothing is removed.
    """
    # The last part is not resolved: of a link, the link itself is removed.
    place = path.parent.resolve() / path.name
    has_name = path.name not in ("", ".", "..")
    if not has_name or folder.resolve() not in place.parents:
        raise ValueError(f"{path} is not inside {folder}: it is not removed")
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def sweep_partials(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left; the folder's lock has to be held."""
    for path in folder.rglob(".*.partial"):
        if path.is_file() and not path.is_symlink():
            path.unlink()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        UserError: another process is at work in the folder, or its file system has no locks.
    """
    with locked(
        folder / LOCK, f"another process is at work in {folder}; wait for it, or give this run its own name=..."
    ):
        yield


def claim_folder(config: Config) -> Path:
    """Make the folder of a run or study, or go on in it if what is finished there was made by the same config.

    Raises:
        UserError: it holds a finished stage of another config; names the first key that differs.
    """
    folder = Path(config.runs) / config.name
    path = folder / run_files.CONFIG
    if not path.is_file():
        # A run killed at its very first writes leaves its lock and parts of files.
        others = [entry for entry in folder.iterdir() if not _is_own(entry)] if folder.exists() else []
        if others:
            raise UserError(f"{folder} exists and is not a run of debate-rl; choose another name with name=...")
        write_json(folder / run_files.CODE, code_state())
        write_text(path, dump_config(config))
        return folder
    held = load_config(path)
    finished = _finished(folder, held)
    difference = None
    if finished:
        difference = _first_difference(_settled(held, finished), _settled(config, finished))
    if difference is not None:
        raise UserError(
            f"{folder} holds a run with another config ({difference}); "
            "give this one its own name with name=..., or remove the folder"
        )
    write_text(path, dump_config(config))
    return folder


def _is_own(entry: Path) -> bool:
    """Whether a file is one that a run writes before its config."""
    return entry.name in (LOCK, run_files.CODE, "wandb-id") or entry.name.endswith(".partial")


def _finished(folder: Path, held: Config) -> list[str]:
    """Stages that are finished, in a study for any seed."""
    runs = [folder / seed_folder(seed) for seed in held.seeds] or [folder]
    finished = []
    for name in held.stages:
        if any((run / name / run_files.STAGE).is_file() for run in runs):
            finished.append(name)
    return finished


def _settled(config: Config, finished: Sequence[str]) -> dict[str, Any]:
    """What can not be changed any more once some stages are finished: all above the stages, and these."""
    tree = settled(config)
    return {**tree, "stages": {name: tree["stages"].get(name) for name in finished}}


def _first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """The first key at which two trees differ, with both values."""
    if old == new:
        return None
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"{path}: {old!r} there, {new!r} now"
    for key in old | new:
        difference = _first_difference(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        if difference is not None:
            return difference
    return None


def code_state() -> dict[str, Any]:
    """The date, versions and, in a checkout, the commit and whether files were changed since."""
    names = ("debate-rl", "torch", "transformers", "trl", "peft", "accelerate")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions,
        "commit": commit,
        "changed": bool(commit and _git(root, "status", "--porcelain")),
    }


def _git(root: Path, *words: str) -> str | None:
    """Output of a git command, None where there is no checkout."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
