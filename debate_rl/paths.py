"""Names that become folders, and the one way to remove a folder.

A config is often somebody else's. What it calls a stage ends up in a path, so a name is checked where it enters, and a
folder is removed only where the path is proven to lie inside the folder that the caller owns.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from debate_rl.errors import UserError

LONGEST = 100
"""Characters of a name; file systems take 255 bytes, and names get endings."""
NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.+-]{{0,{LONGEST - 1}}}")
RULE = f"use letters, digits, '_', '-', '.' and '+', the first a letter, digit or '_', at most {LONGEST} characters"
OF_RUNS = frozenset({"store", "wandb", "transfer", "lock", "paid"})
"""What a run keeps in its folder under names of its own: `.lock` would be the working folder of a stage `lock`."""
_ENDINGS = (".json", ".jsonl", ".yaml", ".yml", ".partial")
"""Of files that stand beside the folders."""


def name_fault(name: object, reserved: Collection[str] = OF_RUNS) -> str | None:
    """What keeps a name from naming a folder, in words; None where nothing does.

    Args:
        name: of a stage, run, method or table.
        reserved: names that are taken, in lower case; file systems that ignore case take them all the same.

    Example:
        >>> name_fault("./../../elsewhere")
        "'./../../elsewhere' can not name a folder; use letters, digits, ..."
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        shown = repr(name)
        shown = shown if len(shown) <= 60 else f"{shown[:50]}...{shown[-1]}"
        return f"{shown} can not name a folder; {RULE}"
    if name.lower() in reserved or name.lower().endswith(_ENDINGS):
        return f"{name!r} is taken: a run keeps files of its own under it; choose another name"
    return None


def remove_folder(path: str | Path, inside: str | Path) -> None:
    """Remove a folder with all that is in it, or nothing where there is none.

    A symbolic link is removed itself; what it points to stays.

    Args:
        path: the folder.
        inside: a folder that belongs to the caller; the path must lie in it, and not be it.

    Raises:
        UserError: it does not, links followed.
    """
    path, root = Path(path), Path(inside).resolve()
    # The last part is not resolved: a link is removed as a link. So it must not be a step up or nowhere.
    parent = path.parent.resolve()
    if path.name in ("", ".", "..") or not parent.is_relative_to(root):
        raise UserError(f"{path} does not lie inside {inside}, so it is not removed; look at what the names lead to")
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
