"""Checksums of files: every byte read, large files once until they change, and folders that say what they hold.

A file's checksum is the SHA-256 of the SHA-256s of its blocks of 64 MiB, so that threads read one large file side by
side as well as many shards. Checksums of large files are remembered in the user's cache folder, one small file for
each weights file: two processes that write at once replace the whole entry, and neither loses the other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from debate_rl.errors import UserError
from debate_rl.records import digest, read_json, write_json, write_text

CHECKSUMS_FILE = "checksums.json"
"""Written last into an adapter, model or checkpoint folder: {"adapter_model.safetensors": checksum, ...}."""
BLOCK = 64 << 20
"""Bytes that one thread reads at a time."""
_READ = 1 << 20
_THREADS = 8
_SETTLED = 2.0
"""Seconds. A file that changed less long ago could change again without its times saying so."""

_State = tuple[int, ...]
_remembered: dict[str, tuple[_State, str]] = {}
"""By path, for where the cache folder can not be written."""


def checksums(paths: Iterable[Path], remembered: bool = True) -> dict[Path, str]:
    """Checksum of every byte of each file, 64 hexadecimal digits.

    Args:
        paths: the files.
        remembered: large files that did not change since they were last read are not read again.

    Raises:
        UserError: a file can not be read.
    """
    files = list(paths)
    states: dict[Path, _State] = {}
    sums: dict[Path, str] = {}
    for path in files:
        states[path] = _state(path)
        known = _recall(path, states[path]) if remembered else None
        if known is not None:
            sums[path] = known
    blocks: list[tuple[Path, int]] = []
    for path in files:
        if path not in sums:
            blocks += [(path, start) for start in range(0, max(1, _size(states[path])), BLOCK)]
    threads = min(_THREADS, os.cpu_count() or 1, max(1, len(blocks)))
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(_block, blocks))
    joined: dict[Path, bytes] = {}
    for (path, _), part in zip(blocks, parts, strict=True):
        joined[path] = joined.get(path, b"") + part
    for path, whole in joined.items():
        sums[path] = hashlib.sha256(whole).hexdigest()
        if remembered:
            _remember(path, states[path], sums[path])
    return sums


def write_checksums(folder: str | Path) -> None:
    """Write what a folder's files are to be from now on; the last thing that is written into it."""
    folder = Path(folder)
    sums = checksums(_files(folder), remembered=False)
    write_json(folder / CHECKSUMS_FILE, {path.relative_to(folder).as_posix(): sums[path] for path in sorted(sums)})


def check_checksums(folder: str | Path, remembered: bool = True) -> None:
    """Make sure that a folder's files are those that were saved; a folder without checksums is taken as it is.

    Args:
        folder: an adapter, a model or a checkpoint.
        remembered: see `checksums`.

    Raises:
        UserError: a file is missing or has changed, or the list itself is damaged.
    """
    folder = Path(folder)
    if not (folder / CHECKSUMS_FILE).is_file():
        return
    try:
        saved = dict(read_json(folder / CHECKSUMS_FILE))
    except (UserError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CHECKSUMS_FILE} is damaged; {_FIX}") from error
    for name in sorted(saved):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing, which {CHECKSUMS_FILE} names; {_FIX}")
    sums = checksums((folder / name for name in saved), remembered)
    for name, expected in sorted(saved.items()):
        if sums[folder / name] != expected:
            raise UserError(f"{folder / name} is damaged: it is not what was saved; {_FIX}")


_FIX = f"copy the folder again or train anew (if you changed it on purpose, remove its {CHECKSUMS_FILE})"


def _files(folder: Path) -> list[Path]:
    """All files of a folder, those in folders inside it too, without the checksums themselves."""
    every = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in every if path != folder / CHECKSUMS_FILE)


def _block(place: tuple[Path, int]) -> bytes:
    """SHA-256 of one block of a file; hashing lets other threads run."""
    path, start = place
    block, buffer = hashlib.sha256(), bytearray(_READ)
    view, left = memoryview(buffer), BLOCK
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while left and (count := file.readinto(view[: min(_READ, left)])):
                block.update(view[:count])
                left -= count
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return block.digest()


def _state(path: Path) -> _State:
    """What the file system says of a file: all of it changes when the file does.

    The change time is among it because the modification time can be put back (`cp -p`, `touch -r`).
    """
    try:
        now = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev


def _size(state: _State) -> int:
    return state[0]


def _entry(path: Path) -> Path:
    """Where the checksum of a file is remembered."""
    cache = os.environ.get("DEBATE_RL_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "debate-rl" if not cache else Path(cache)
    return base / "checksums" / f"{digest(os.path.realpath(path))}.json"


def _recall(path: Path, state: _State) -> str | None:
    """The checksum that was remembered of a large file in this very state; None where it has to be read."""
    if _size(state) < BLOCK:
        return None
    known = _remembered.get(os.path.realpath(path))
    if known is not None and known[0] == state:
        return known[1]
    try:
        entry = json.loads(_entry(path).read_text(encoding="utf-8"))
        content = {name: entry[name] for name in ("path", "state", "sum")}
        # A damaged entry must not give another name to the weights: it is signed by its own content.
        whole = entry["digest"] == digest(content) and content["path"] == os.path.realpath(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    return str(content["sum"]) if whole and tuple(content["state"]) == state else None


def _remember(path: Path, state: _State, checksum: str) -> None:
    """Keep the checksum of a large file that stayed as it was while it was read, and had been so for a while."""
    if _size(state) < BLOCK or state != _state(path) or time.time() - max(state[1:3]) / 1e9 < _SETTLED:
        return
    _remembered[os.path.realpath(path)] = state, checksum
    content = {"path": os.path.realpath(path), "state": list(state), "sum": checksum}
    # Where there is no home, or none that can be written, it is remembered in this process only.
    with contextlib.suppress(UserError, RuntimeError):
        write_text(_entry(path), json.dumps({**content, "digest": digest(content)}) + "\n")
