"""`debate-rl reproduce`: published numbers beside the ones that the project computes from the same public file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from debate_rl.cli.execute import Json
from debate_rl.errors import UserError


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="What to recompute; without a name all are listed.", show_default=False)
    ] = None,
    file: Annotated[Path | None, typer.Option(help="The public file or folder that it is made of.")] = None,
    as_json: Json = False,
) -> None:
    """Recompute published tables from their public files, published beside recomputed."""
    from debate_rl.analysis.reproduce import SOURCES, listed
    from debate_rl.analysis.reproduce import reproduce as recompute
    from debate_rl.errors import nearest

    if name is None:
        typer.echo(listed())
        return
    if name not in SOURCES:
        raise UserError(f"nothing to reproduce is called {name!r}; {nearest(name, SOURCES)}")
    if file is None:
        raise UserError(f"reproduce {name} needs --file: {SOURCES[name].file}")
    recomputed = recompute(name, file)
    typer.echo(recomputed.model_dump_json(indent=2) if as_json else str(recomputed))
