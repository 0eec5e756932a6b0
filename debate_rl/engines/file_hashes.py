"""SHA-256 of large files with a cache: a file is read again only if it was modified.

The cache is `hashes.jsonl` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`), with one line per file:
path, size, time of the last change in nanoseconds, inode, SHA-256. Several processes may append lines. If the cache can
not be written, hashing takes longer and nothing else changes.
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
"""Bytes up to which a file is always read. It takes less than a tenth of a second, and finds a byte that changed on
disk without a new time stamp."""
_READ_SIZE = 1 << 22
_remembered: dict[str, str] = {}
_read_from: Path | None = None
"""The cache file whose lines are in `_remembered`."""


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file in hexadecimal, several files in parallel."""
    if len(paths) < 2:
        return [file_hash(path) for path in paths]
    # Threads suffice: hashlib releases the GIL while it hashes.
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
        return list(pool.map(file_hash, paths))


def folder_hashes(folder: Path, without: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path.

    Args:
        folder: the folder.
        without: names of files to skip.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in without)
    names = [path.relative_to(folder).as_posix() for path in files]
    return dict(zip(names, file_hashes(files), strict=True))


def changed_file(folder: Path, hashes: Mapping[str, str]) -> Path | None:
    """The first file that is missing or has other content than before; None if all are the same.

    Args:
        folder: folder of the files.
        hashes: their SHA-256 by relative path, from `folder_hashes`.
    """
    for name, sha256 in hashes.items():
        path = folder / name
        if not path.is_file() or file_hash(path) != sha256:
            return path
    return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    status = path.stat()
    if status.st_size <= SMALL:
        return _computed(path)
    key = json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino])
    cache = _load_cache()
    if key not in cache:
        cache[key] = _computed(path)
        _append(key, cache[key])
    return cache[key]


def cache_file() -> Path:
    """Path of the cache."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "debate-rl" / "hashes.jsonl"


def _computed(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def _load_cache() -> dict[str, str]:
    """Hashes in the cache file by key, read once per file."""
    global _read_from
    path = cache_file()
    if _read_from == path:
        return _remembered
    _remembered.clear()
    _read_from = path
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, sha256 = line.rpartition("\t")
            # A line that was cut off by a crash is shorter.
            if len(sha256) == 64:
                _remembered[key] = sha256
    return _remembered


def _append(key: str, sha256: str) -> None:
    """Add a hash to the cache file."""
    with suppress(OSError):
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write of a short line in append mode: lines of several processes do not mix.
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{key}\t{sha256}\n")
