"""The errors that cross rooms: what a user did wrong, and what a debate could not do."""

from __future__ import annotations

import difflib
import re
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


RESERVED = ("store", "wandb", "base", "con", "nul", "aux", "prn")
"""Names that a run's folder or a file system uses for something else."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_TAKEN = re.compile(r"seed[0-9]+|(?:com|lpt)[0-9](?:\..*)?|wandb-id|.*\.(?:json|jsonl|yaml|html|lock|partial|sums)")
"""Names of files that stand beside the stages of a run, and devices of Windows."""


def name_fault(name: str, what: str) -> str | None:
    """Why a name can not be that of a folder inside a run, or None where it can.

    Args:
        name: of a stage, run, method or table.
        what: which of these, for the message.

    Example:
        >>> name_fault("../store", "a stage")
        "'../store' can not name a stage; use letters, digits, _ . + -, at most 64, the first a letter, digit or _"
    """
    if not _NAME.fullmatch(name) or name.endswith("."):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        return (
            f"{shown!r} can not name {what}; use letters, digits, _ . + -, at most 64, the first a letter, digit or _"
        )
    if name.lower().partition(".")[0] in RESERVED or _TAKEN.fullmatch(name.lower()):
        return f"{name!r} can not name {what}: it is reserved; choose another name"
    return None


def existing(path: str | Path, what: str, fix: str = "") -> Path:
    """Return the path, or say that there is no such file or folder, and what to do.

    Raises:
        UserError: nothing exists at the path.
    """
    path = Path(path)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # no name of a file at all
        raise UserError(f"{what} not found: {str(path)[:80]}... is too long, or no path") from error
    if not there:
        raise UserError(f"{what} not found: {path}" + (f"; {fix}" if fix else ""))
    return path
