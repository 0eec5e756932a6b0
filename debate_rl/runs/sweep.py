"""Sweeps: one config under every combination of some values, and one table of effects over all of them.

runs/NAME/
    config.yaml      the config, with `sweep`
    CELL/            a run, or a study where the config has `seeds`, for each combination
    sweep.json       values and effects of every cell
    sweep.csv        one line for each cell and effect
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.effects.table import effects
from debate_rl.config.tree import Config, cells
from debate_rl.engines.request import Engine
from debate_rl.engines.workers import Crew
from debate_rl.errors import UserError
from debate_rl.records import Record, write_json, write_text
from debate_rl.runs.execute import run_stages
from debate_rl.runs.folder import alone, claim_folder
from debate_rl.runs.run import Run
from debate_rl.runs.study import run_study, seed_configs, side_by_side

SWEEP = "sweep.json"


class CellResult(Record):
    """One combination of a sweep's values, and what was measured.

    Example:
        CellResult(name="gamma-7", values={"stages.dpo.objective.gamma": 7}, rows=(EffectRow(...), ...))
    """

    name: str
    values: dict[str, Any]
    rows: tuple[EffectRow, ...]


def run_sweep(
    config: Config,
    only: set[str] | None = None,
    engine: Engine | None = None,
    say: Callable[[str], None] = print,
    crew: Crew | None = None,
) -> list[CellResult]:
    """Run every cell of a config's sweep, and put their effects into one table.

    A sweep that was stopped goes on where it was, and one whose lists have grown runs the new cells alone.

    Args:
        config: with `sweep`, and `seeds` where every cell is run under several.
        only: names of the stages to run; None runs all.
        engine: answers instead of the transformers engine, for tests and rules.
        say: takes lines of progress.
        crew: other processes that answer as well; with them the runs come one after the other.

    Returns:
        The table, also in sweep.json and sweep.csv.

    Raises:
        UserError: a folder holds another run, or a stage can not be done.
    """
    folder = Path(config.runs) / config.name
    with alone(folder):
        claim_folder(config)
        grid = list(cells(config))
        if config.processes > 1 and engine is None and crew is None:
            runs: list[Config] = []
            for _, own in grid:
                _claim_study(own)
                runs += seed_configs(own)
            side_by_side(runs, config.processes, only)
        results = []
        for number, (cell, own) in enumerate(grid, start=1):
            say(f"cell {number} of {len(grid)}: {cell.name}")
            rows = run_cell(own, only, engine, say, crew)
            results.append(CellResult(name=cell.name, values=dict(cell.values), rows=tuple(rows)))
        write_table(folder, results)
    return results


def run_cell(
    config: Config,
    only: set[str] | None = None,
    engine: Engine | None = None,
    say: Callable[[str], None] = print,
    crew: Crew | None = None,
) -> list[EffectRow]:
    """Run one cell, a study where it has seeds, and measure its effects; what is finished is kept."""
    if config.seeds:
        return run_study(config, only, engine, say, crew)
    run = Run(config, engine, say, crew)
    run_stages(run, only)
    return effects([run.folder])


def run_one(config: Config, changes: Mapping[str, str], say: Callable[[str], None] = print) -> Path:
    """Run the one cell, and the one seed of it, that an agent of W&B is given; `run_sweep` then finds it done.

    Args:
        config: with `sweep`.
        changes: see `cell_of`.
        say: takes lines of progress.

    Returns:
        The run's folder.

    Raises:
        UserError: there is no such cell, or a stage can not be done.
    """
    own, one = cell_of(config, changes)
    claim_folder(config)
    _claim_study(own)
    run = Run(one, None, say)
    run_stages(run)
    return run.folder


def _claim_study(config: Config) -> None:
    """Make the folder of a cell that is a study, in which its seeds' runs lie."""
    if config.seeds:
        claim_folder(config)


def cell_of(config: Config, changes: Mapping[str, str]) -> tuple[Config, Config]:
    """The cell of a sweep whose keys have these values, and its run with this `seed`, where there are seeds.

    Args:
        config: with `sweep`.
        changes: text of each value, as an agent of W&B writes it: None and True as Python does.

    Raises:
        UserError: the sweep has no such cell or seed.
    """
    wanted = {key: text for key, text in changes.items() if key != "seed"}
    for cell, own in cells(config):
        if {key: str(value) for key, value in cell.values.items()} != wanted:
            continue
        for one in seed_configs(own):
            if changes.get("seed", str(one.seed)) == str(one.seed):
                return own, one
    raise UserError(f"the sweep has no cell with {dict(changes)}; give one value of each of: {', '.join(config.sweep)}")


def write_table(folder: Path, results: Sequence[CellResult]) -> None:
    """Write sweep.json and sweep.csv."""
    write_json(folder / SWEEP, {"cells": [result.model_dump(mode="json") for result in results]})
    lines = []
    for result in results:
        for row in result.rows:
            estimate = row.estimate
            measured: dict[str, float | None] = {"value": None, "low": None, "high": None}
            if estimate is not None:
                measured = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
            of_cell = {"cell": result.name, **result.values}
            lines.append({**of_cell, "group": row.group, "name": row.name, **measured, "unit": row.unit})
    columns = list(lines[0]) if lines else ["cell"]  # the same keys in every cell
    text = io.StringIO()
    # Line ends as in RFC 4180, as in every exported table: a value that holds a "\r" comes back.
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(folder / "sweep.csv", text.getvalue())


def wandb_sweep(config: Config, config_path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The same grid as `wandb sweep` reads it; its agents run the cells in the folders that `run_sweep` takes.

    Args:
        config: with `sweep`.
        config_path: of its file, for the agents' command.
        overrides: changes to it, which agents make as well.

    Raises:
        UserError: the config has no sweep.
    """
    if not config.sweep:
        raise UserError(f"{config_path} has no sweep; write sweep: {{stages.dpo.objective.gamma: [3.5, 7]}}")
    parameters: dict[str, Any] = {key: {"values": list(values)} for key, values in config.sweep.items()}
    if config.seeds:
        parameters["seed"] = {"values": list(config.seeds)}
    command = ["debate-rl", "sweep", config_path, *overrides, "--cell", "${args_no_hyphens}"]
    tree: dict[str, Any] = {"name": config.name, "project": config.tracking.project, "method": "grid"}
    if config.tracking.entity:
        tree["entity"] = config.tracking.entity
    return {**tree, "command": command, "parameters": parameters}
