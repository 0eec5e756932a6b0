"""`debate-rl export`: a run's results in formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from debate_rl.cli.execute import at_work
from debate_rl.errors import UserError


@at_work("export")
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or study.", show_default=False)],
    to: Annotated[
        Literal["csv", "parquet", "hf", "inspect", "adapters"],
        typer.Option(
            help="csv or parquet: ratings, matches, verdicts, debates, questions. hf: a data set with its card. "
            "inspect: a log for each stage that `inspect view` opens. adapters: a folder for each trained "
            "adapter, with its model card."
        ),
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; default FOLDER/export/FORMAT.", show_default=False)
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="With hf: also upload it to the hub under this name, as a private data set. With adapters: each as a "
            "private model NAME-STAGE."
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="With adapters: only those of this stage.", show_default=False)
    ] = None,
) -> None:
    """Write a run's results for other tools: CSV, Parquet, Hugging Face data sets and adapters, or Inspect logs."""
    from debate_rl.export import files
    from debate_rl.export.tables import finished_parts, preference_rows, result_tables

    if push is not None and to not in ("hf", "adapters"):
        raise UserError(f"--push {push} uploads a data set or adapters; use it with --to hf or --to adapters")
    if stage is not None and to != "adapters":
        raise UserError(f"--stage {stage} is for --to adapters; leave it out")
    place = out or folder / "export" / to
    if place.exists() and not place.is_dir():
        raise UserError(f"--out {place} is a file; name a folder")
    exported = finished_parts(folder)
    if push is not None:
        files.check_push(push)
    uploads: dict[str, Path] = {}
    if to == "inspect":
        from debate_rl.export.inspect_log import write_logs

        paths = write_logs(exported.parts, place)
    elif to == "adapters":
        from debate_rl.export.adapters import write_adapters

        adapters = write_adapters(exported.parts, place, stage)
        paths = list(adapters.values())
        uploads = {f"{push}-{name}": path for name, path in adapters.items()}
    elif to == "hf":
        tables = result_tables(exported.parts)
        chosen = {
            "debates": tables["debates"],
            "preferences": preference_rows(exported.parts),
            "verdicts": tables["verdicts"],
            "questions": tables["questions"],
        }
        paths = files.write_dataset(chosen, place, folder.resolve().name)
        uploads = {str(push): place}
    else:
        write = files.write_csv if to == "csv" else files.write_parquet
        paths = write(result_tables(exported.parts), place)
    for path in paths:
        typer.echo(path)
    if exported.unfinished:
        typer.echo(f"not finished, so left out: {', '.join(exported.unfinished)}", err=True)
    if push is not None:
        for name, path in uploads.items():
            typer.echo(files.push(path, name, "model" if to == "adapters" else "dataset"))
