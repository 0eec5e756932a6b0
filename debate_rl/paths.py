"""The one way to remove a folder.

A config is often somebody else's, and what it calls a stage ends up in a path. Names are checked where they enter
(`errors.name_fault`); a folder is removed only where the path is proven to lie inside the folder that the caller owns.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from debate_rl.errors import UserError


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
