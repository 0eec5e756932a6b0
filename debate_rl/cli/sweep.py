"""`debate-rl sweep`: every combination of a config's sweep, here or by the agents of `wandb sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from debate_rl.cli.execute import ConfigFile, DryRun, Overrides, execute
from debate_rl.errors import UserError

if TYPE_CHECKING:
    from debate_rl.runs.sweep import CellResult


def sweep(
    config: ConfigFile,
    overrides: Overrides = None,
    wandb: Annotated[
        Path | None,
        typer.Option(help="Write the grid to this file for `wandb sweep`; run nothing.", show_default=False),
    ] = None,
    cell: Annotated[
        bool, typer.Option("--cell", help="Run one cell, which the changes name: the command of W&B's agents.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Run every combination of the values under `sweep:`, or hand the same grid to `wandb sweep`."""
    from debate_rl.config.tree import load_config

    changes = overrides or []
    if cell:
        _run_cell(config, changes)
        return
    loaded = load_config(config, changes)
    if not loaded.sweep:
        raise UserError(f"{config} has no sweep; write sweep: {{stages.dpo.objective.gamma: [3.5, 7]}}")
    if wandb is None:
        execute(config, overrides, dry_run)
        return
    from debate_rl.records import write_text
    from debate_rl.runs.sweep import wandb_sweep

    tree = wandb_sweep(loaded, str(config), changes)
    write_text(wandb, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    typer.echo(f"{wandb}: {len(loaded.sweep)} keys; start it with: wandb sweep {wandb}")


def _run_cell(config: Path, changes: list[str]) -> None:
    """Run the cell that some changes name; changes of other keys are made to the config itself."""
    from debate_rl.config.tree import load_config
    from debate_rl.runs.sweep import run_one

    keys = {*load_config(config).sweep, "seed"}
    of_cell: dict[str, str] = {}
    others = []
    for change in changes:
        key, _, value = change.partition("=")
        if key in keys:
            of_cell[key] = value
        else:
            others.append(change)
    typer.echo(f"run: {run_one(load_config(config, others), of_cell, typer.echo)}")


def show_sweep(results: list[CellResult]) -> None:
    """Print one table: each effect with its value in every cell."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a file has no edge to break lines at
    table = Table("effect", box=box.SIMPLE, pad_edge=False)
    table.add_column("cell")
    table.add_column("value [95 % interval]", no_wrap=True)
    table.add_column("unit")
    table.add_column("shown")
    names: dict[tuple[str, str], None] = {}
    for result in results:
        names |= {(row.group, row.name): None for row in result.rows}
    for group, name in names:
        table.add_section()
        first = f"{group}: {name}"
        for result in results:
            for row in result.rows:
                if (row.group, row.name) == (group, name):
                    table.add_row(*map(Text, (first, result.name, row.text, row.unit, row.shown)))
                    first = ""
    if names:
        console.print(table)
