"""Lock files: one process at a time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from debate_rl.errors import UserError


@contextlib.contextmanager
def locked(path: Path, busy: str, patience: float = 0.0, shared: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs; the lock of a process that dies is released.

    Args:
        path: the file; it and its folder are created if missing.
        busy: message of the error if another process holds the lock.
        patience: seconds to wait for the other process.
        shared: hold the lock together with others that share it.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + patience
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise UserError(busy) from error
                time.sleep(0.1)
                continue
            except OSError as error:
                raise UserError(
                    f"{path.parent} lies on a file system without locks ({error.strerror}), where two runs could spoil "
                    "one another; put the runs on a local disk with runs=FOLDER, or mount this one with locks"
                ) from error
            # The process that held the lock may have removed the file: a lock on the removed one keeps nobody out.
            if not _is_open_at(file, path):
                continue
            yield
            return


def _is_open_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
