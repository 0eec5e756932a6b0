"""Weak-to-strong tables of run folders: the stages of one run, or of all seeds of a study, and what they took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.records import explain, read_json, write_text
from debate_rl.report.run_folder import RunFolder, Stage
from debate_rl.weak_to_strong.contexts import SHIPPED, Context
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.results.predictions import read_hits, stacked
from debate_rl.weak_to_strong.results.results import Results, results
from debate_rl.weak_to_strong.results.split_report import Account
from debate_rl.weak_to_strong.results.tables import Column, Cost, Point, Table, csv_text, markdown, points

KIND = "weak_to_strong"


def load_tables(runs: Sequence[RunFolder]) -> list[Table]:
    """The tables of a run, or of a study's runs with their seeds stacked; what no run has finished is left out.

    Raises:
        UserError: a file is malformed, or the runs' items differ.
    """
    tree = yaml.safe_load(runs[0].config) if runs else None
    settings: dict[str, dict[str, Any]] = {
        name: stage or {} for name, stage in ((tree or {}).get("stages") or {}).items()
    }
    names = list(dict.fromkeys(stage.name for run in runs for stage in run.of(KIND)))
    tables: dict[str, list[str]] = {}
    for name in names:
        tables.setdefault(settings.get(name, {}).get("table") or name, []).append(name)
    before: set[str] = set()
    found = []
    for table, stages in tables.items():
        held = {name: [stage for run in runs for stage in run.of(KIND) if stage.name == name] for name in stages}
        columns = [
            _column(table, held[name], settings.get(name, {}), (tree or {}).get("models") or {}) for name in stages
        ]
        over = next((settings[name].get("curve") for name in stages if name in settings), None)
        cost, trainings = _cost([stage for some in held.values() for stage in some], before)
        before |= trainings
        found.append(Table(name=table, columns=tuple(columns), over=over, cost=cost))
    return found


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write each table as NAME.md, NAME.csv and NAME.json."""
    for table in tables:
        write_text(folder / f"{table.name}.md", markdown(table))
        write_text(folder / f"{table.name}.csv", csv_text(table))
        write_text(folder / f"{table.name}.json", table.model_dump_json(indent=2) + "\n")


def _column(table: str, stages: Sequence[Stage], settings: dict[str, Any], models: dict[str, Any]) -> Column:
    """One stage of the config, in every run that has finished it."""
    label = stages[0].name.removeprefix(table).lstrip("-_.+") or stages[0].name
    held = [found for found in (read_hits(stage.folder) for stage in stages) if found is not None]
    found = stages[0].read(Results) if len(stages) == 1 else results(stacked(held))
    return Column(
        label=label,
        weak=settings.get("weak") or models.get("weak", "weak"),
        strong=settings.get("strong") or models.get("strong", "strong"),
        results=found,
        points=_points(settings),
        account=_account(stages[0]),
    )


def _account(stage: Stage) -> Account | None:
    """The account of a stage's data; the runs of a study have the same items.

    Raises:
        UserError: the file is malformed.
    """
    path = stage.folder / "splits.json"
    try:
        return Account.model_validate(read_json(path)) if path.is_file() else None
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}; remove the stage's folder and run it again") from error


def _points(settings: dict[str, Any]) -> dict[str, Point]:
    """Where the stage's methods stand in its plot."""
    if not settings.get("curve"):
        return {}
    methods = {name: Method.model_validate(one) for name, one in (settings.get("methods") or {}).items()}
    own = {name: Context.model_validate(one) for name, one in (settings.get("contexts") or {}).items()}
    return points(methods, {**SHIPPED, **own}, settings["curve"])


def _cost(stages: Sequence[Stage], before: set[str]) -> tuple[Cost, set[str]]:
    """What a table's stages took, and all trainings that they rest on.

    Args:
        stages: of all runs.
        before: trainings of the tables before it.
    """
    trainings: dict[str, float] = {}
    for stage in stages:
        index = stage.folder / "trainings" / "index.json"
        for name in dict.fromkeys(read_json(index).values() if index.is_file() else ()):
            path = stage.folder.parent / "transfer" / name / "result.json"
            key = f"{stage.folder.parent.name}/{name}"
            trainings[key] = float(read_json(path).get("seconds", 0)) if path.is_file() else 0.0
    timings = [stage.timing for stage in stages]
    cpu, tokens = ([one[key] for one in timings if key in one] for key in ("cpu_seconds", "tokens"))
    cost = Cost(
        seconds=sum(one.get("seconds", 0.0) for one in timings),
        cpu_seconds=sum(cpu) if cpu else None,
        tokens=sum(tokens) if tokens else None,
        games=sum(_lines(stage.legs) for stage in stages if stage.legs),
        trainings=len(trainings),
        shared=len(trainings.keys() & before),
        training_seconds=sum(trainings.values()),
    )
    return cost, set(trainings)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
