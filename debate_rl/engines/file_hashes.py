"""SHA-256 of large files, remembered: a file is read again only where it was touched since.

What was computed is kept in `hashes.jsonl` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`), a line a
file: path, size, time of the last change in nanoseconds, inode, SHA-256. Several processes may add lines; a cache that
can not be written costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

SMALL = 64 << 20
"""Bytes up to which a file is read every time: that takes less than a tenth of a second, and finds a byte that the disk
has changed by itself."""
_BLOCK = 1 << 22
_remembered: dict[str, str] = {}
_read_from: Path | None = None


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal; several are read at a time."""
    if len(paths) < 2:
        return [file_hash(path) for path in paths]
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:  # hashing lets other threads work
        return list(pool.map(file_hash, paths))


def folder_hashes(folder: Path, without: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder, by path from it.

    Args:
        folder: where to look.
        without: names of files that do not count.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in without)
    names = [path.relative_to(folder).as_posix() for path in files]
    return dict(zip(names, file_hashes(files), strict=True))


def changed_file(folder: Path, hashes: Mapping[str, str]) -> Path | None:
    """The first file below a folder that is missing or has another content than it had; None where all are the same."""
    for name, content in hashes.items():
        path = folder / name
        if not path.is_file() or file_hash(path) != content:
            return path
    return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    status = path.stat()
    if status.st_size <= SMALL:
        return _computed(path)
    key = json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino])
    remembered = _load()
    if key not in remembered:
        remembered[key] = _computed(path)
        _append(key, remembered[key])
    return remembered[key]


def cache_file() -> Path:
    """Where hashes are remembered."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "debate-rl" / "hashes.jsonl"


def _computed(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _load() -> dict[str, str]:
    """What is remembered, read once for each cache file."""
    global _read_from
    path = cache_file()
    if _read_from == path:
        return _remembered
    _remembered.clear()
    _read_from = path
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, content = line.rpartition("\t")
            if len(content) == 64:  # a line that a crash cut off is shorter
                _remembered[key] = content
    return _remembered


def _append(key: str, content: str) -> None:
    """Remember a hash for other processes; one write of a short line is not torn by another's."""
    with suppress(OSError):
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{key}\t{content}\n")
