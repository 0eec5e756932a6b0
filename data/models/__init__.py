"""The lab models that ship, and where a model's name leads."""

from __future__ import annotations

from pathlib import Path

from debate_rl.data.models.library import LIBRARY, cache_folder, is_complete
from debate_rl.errors import UserError

SHIPPED = Path(__file__).parent


def model_path(name: str) -> str:
    """The folder of a shipped model or of a library model, else the name itself: a folder or a hub name.

    Example:
        >>> model_path("meta-llama/Meta-Llama-3-8B-Instruct")
        'meta-llama/Meta-Llama-3-8B-Instruct'

    Raises:
        UserError: the name is a library model's that was not fetched yet.
    """
    shipped = SHIPPED / name
    if (shipped / "config.json").is_file():
        return str(shipped)
    # A user's own folder of that name comes first: its config meant that one before the library had the name.
    if name not in LIBRARY or Path(name).is_dir():
        return name
    folder = cache_folder() / name
    if not is_complete(folder):
        raise UserError(f"{name} is not on this machine yet; get it with: debate-rl models get {name}")
    return str(folder)
