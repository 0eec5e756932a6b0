"""`debate-rl store`: what a run's store holds, and making it smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

store_app = typer.Typer(
    no_args_is_help=True,
    help="The store of a run: every answer of a model that was paid for. What is removed is made again when needed.",
)
Folder = Annotated[
    Path, typer.Argument(help="Folder of a run, for example runs/quickstart, or of a store.", show_default=False)
]


@store_app.command("show")
def store_show(folder: Folder) -> None:
    """Print the answers and bytes of each model and adapter in a store, the largest first."""
    from debate_rl.engines.upkeep import contents

    typer.echo(f"{'answers':>9} {'MiB':>8} {'days old':>9}  model")
    for one in contents(_store(folder)):
        adapter = f" + {one.adapter}" if one.adapter else ""
        typer.echo(f"{one.answers:>9,} {one.size / 2**20:>8.2f} {one.days:>9.1f}  {one.model}{adapter}")


@store_app.command("prune")
def store_prune(
    folder: Folder,
    older: Annotated[float | None, typer.Option(help="Remove files not written to for so many days.", min=0)] = None,
    of: Annotated[
        str | None, typer.Option(help="Remove the answers of models and adapters with this in their name.")
    ] = None,
) -> None:
    """Put a store's files together; without an option no answer is lost that could be used again."""
    import contextlib

    from debate_rl.engines.upkeep import prune
    from debate_rl.runs.folder import alone

    store = _store(folder)
    with alone(store.parent) if (store.parent / ".lock").is_file() else contextlib.nullcontext():
        done = prune(store, older, of)
    typer.echo(
        f"{done.kept:,} answers kept, {done.removed:,} removed; "
        f"{done.before / 2**20:.2f} MiB before, {done.after / 2**20:.2f} MiB now"
    )


def _store(folder: Path) -> Path:
    """The store of a run, or the folder itself."""
    return folder / "store" if (folder / "store").is_dir() else folder
