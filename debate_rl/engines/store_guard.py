"""Who may do what to a store at a time: many write, or one prunes.

The lock is on the folder itself, so it leaves no file; a process that dies lets go of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from debate_rl.errors import UserError


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keep a store from being pruned; waits while it is. Where there are no locks, nothing is kept from anything."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def pruning(folder: Path) -> Iterator[None]:
    """Keep a store from being written to.

    Raises:
        UserError: somebody has it open for writing, or nobody can tell.
    """
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another process is at work that writes to this store; prune it when that has ended"
            ) from error
        except OSError as error:
            raise UserError(
                f"{folder} lies on a file system without locks ({error.strerror}), so nobody can tell whether it is "
                "written to; copy it to a local disk, prune it there, and copy it back"
            ) from error
        yield
    finally:
        os.close(handle)
