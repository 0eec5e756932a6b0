"""Errors for users, and checks of names and paths that raise them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can fix: one line that says what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """Suggest the closest choice for a misspelt name, or list the choices if none is close.

    Example:
        >>> nearest("dop", ["sft", "dpo"])
        "did you mean 'dpo'?"
    """
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"


RESERVED = ("store", "wandb", "base", "con", "nul", "aux", "prn")
"""Names that a run folder or a file system uses for something else."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_TAKEN = re.compile(r"seed[0-9]+|(?:com|lpt)[0-9](?:\..*)?|wandb-id|.*\.(?:json|jsonl|yaml|html|lock|partial|sums)")
"""Names of files beside the stages of a run, and of Windows devices."""


def name_fault(name: str, what: str) -> str | None:
    """Explain why a name can not be used for a folder inside a run; None if it can.

    Args:
        name: the name of a stage, run, method or table.
        what: the kind of thing that is named, for the message.

    Example:
        >>> name_fault("../store", "a stage")
        "'../store' can not name a stage; use letters, digits, _ . + -, at most 64, the first a letter, digit or _"
    """
    # Windows drops a dot at the end of a name: "a." and "a" would be one folder.
    if not _NAME.fullmatch(name) or name.endswith("."):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        return (
            f"{shown!r} can not name {what}; use letters, digits, _ . + -, at most 64, the first a letter, digit or _"
        )
    # In lower case and up to the first dot: Windows takes "NUL.txt" for the device, macOS "Store" for "store".
    if name.lower().partition(".")[0] in RESERVED or _TAKEN.fullmatch(name.lower()):
        return f"{name!r} can not name {what}: it is reserved; choose another name"
    return None


def existing(path: str | Path, what: str, fix: str = "") -> Path:
    """Return a path that exists.

    Args:
        path: of a file or folder.
        what: the kind of thing that it is, for the message.
        fix: what to do if it is missing, for the message.

    Raises:
        UserError: nothing exists at the path.
    """
    path = Path(path)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # a name longer than the file system allows, or one with a NUL
        raise UserError(f"{what} not found: {str(path)[:80]}... is too long, or no path") from error
    if not exists:
        advice = f"; {fix}" if fix else ""
        raise UserError(f"{what} not found: {path}{advice}")
    return path
