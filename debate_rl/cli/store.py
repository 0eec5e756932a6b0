"""`debate-rl store`: list the contents of a run's answer store, and prune it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

store_app = typer.Typer(
    no_args_is_help=True,
    help="The answers of a run's models, each paid for once. Removed answers are computed again when needed.",
)
Folder = Annotated[
    Path, typer.Argument(help="Folder of a run, for example runs/quickstart, or of a store.", show_default=False)
]


@store_app.command("show")
def store_show(folder: Folder) -> None:
    """Print the answers and bytes of each model and adapter in a store, the largest first."""
    from debate_rl.engines.store import contents

    typer.echo(f"{'answers':>9} {'MiB':>8} {'days old':>9}  model")
    for part in contents(_store_folder(folder)):
        adapter = f" + {part.adapter}" if part.adapter else ""
        typer.echo(f"{part.answers:>9,} {part.size / 2**20:>8.2f} {part.days:>9.1f}  {part.model}{adapter}")


@store_app.command("prune")
def store_prune(
    folder: Folder,
    older: Annotated[
        float | None, typer.Option(help="Remove files that were not written for this many days.", min=0)
    ] = None,
    of: Annotated[
        str | None, typer.Option(help="Remove the answers of models and adapters whose name contains this text.")
    ] = None,
) -> None:
    """Merge a store's files. Without an option no answer is lost that could be used again."""
    import contextlib

    from debate_rl.engines.store import prune
    from debate_rl.runs.folder import alone

    store = _store_folder(folder)
    # A run at work would pay again for every answer that is removed under it.
    run_is_locked = (store.parent / ".lock").is_file()
    with alone(store.parent) if run_is_locked else contextlib.nullcontext():
        result = prune(store, older, of)
    typer.echo(
        f"{result.kept:,} answers kept, {result.removed:,} removed; "
        f"{result.before / 2**20:.2f} MiB before, {result.after / 2**20:.2f} MiB now"
    )


def _store_folder(folder: Path) -> Path:
    """The store of a run, or the folder itself."""
    return folder / "store" if (folder / "store").is_dir() else folder
