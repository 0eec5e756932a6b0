"""The lab models that ship, and where a model's name leads."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent


def model_path(name: str) -> str:
    """The folder of a shipped model, else the name itself: a folder or a hub name.

    Example:
        >>> model_path("meta-llama/Meta-Llama-3-8B-Instruct")
        'meta-llama/Meta-Llama-3-8B-Instruct'
    """
    shipped = SHIPPED / name
    return str(shipped) if (shipped / "config.json").is_file() else name
