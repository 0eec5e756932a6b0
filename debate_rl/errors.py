"""The errors that cross rooms: what a user did wrong, and what a debate could not do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend: one line that says what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """Name the likeliest choice for a misspelt name, else list the choices.

    Example:
        >>> nearest("dop", ["sft", "dpo"])
        "did you mean 'dpo'?"
    """
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"


def existing(path: str | Path, what: str, fix: str = "") -> Path:
    """Return the path, or say that there is no such file or folder, and what to do.

    Raises:
        UserError: nothing exists at the path.
    """
    path = Path(path)
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UserError(f"{what} can not be read: {path}: {error.strerror}") from error
    if not there:
        raise UserError(f"{what} not found: {path}" + (f"; {fix}" if fix else ""))
    return path
