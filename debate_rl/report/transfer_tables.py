"""Weak-to-strong tables of run folders: the stages of one run, or of all seeds of a study, and their cost."""

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
    """The tables of a run, or of a study's runs with their seeds stacked; stages that no run has finished are left out.

    Raises:
        UserError: a file is malformed, or the runs' items differ.
    """
    tree = (yaml.safe_load(runs[0].config) if runs else None) or {}
    settings: dict[str, dict[str, Any]] = {name: stage or {} for name, stage in (tree.get("stages") or {}).items()}
    finished: dict[str, list[Stage]] = {}
    for run in runs:
        for stage in run.of(KIND):
            finished.setdefault(stage.name, []).append(stage)
    names_by_table: dict[str, list[str]] = {}
    for name in finished:
        names_by_table.setdefault(settings.get(name, {}).get("table") or name, []).append(name)
    earlier_trainings: set[str] = set()
    tables = []
    for table, names in names_by_table.items():
        columns, stages = [], []
        for name in names:
            columns.append(_column(table, finished[name], settings.get(name, {}), tree.get("models") or {}))
            stages += finished[name]
        over = next((settings[name].get("curve") for name in names if name in settings), None)
        # Trainings are shared between stages: each table says how many of its own an earlier table has paid for.
        trainings = _trainings(stages)
        tables.append(
            Table(name=table, columns=tuple(columns), over=over, cost=_cost(stages, trainings, earlier_trainings))
        )
        earlier_trainings |= trainings.keys()
    return tables


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write each table as NAME.md, NAME.csv and NAME.json."""
    for table in tables:
        write_text(folder / f"{table.name}.md", markdown(table))
        write_text(folder / f"{table.name}.csv", csv_text(table))
        write_text(folder / f"{table.name}.json", table.model_dump_json(indent=2) + "\n")


def _column(table: str, stages: Sequence[Stage], settings: dict[str, Any], models: dict[str, Any]) -> Column:
    """One stage of the config, in every run that has finished it."""
    name = stages[0].name
    if len(stages) == 1:
        column_results = stages[0].read(Results)
    else:
        seed_hits = [read_hits(stage.folder) for stage in stages]
        column_results = results(stacked([hits for hits in seed_hits if hits is not None]))
    return Column(
        # "scaling-large" of table "scaling" is the column "large".
        label=name.removeprefix(table).lstrip("-_.+") or name,
        weak=settings.get("weak") or models.get("weak", "weak"),
        strong=settings.get("strong") or models.get("strong", "strong"),
        results=column_results,
        points=_points(settings),
        account=_account(stages[0]),
    )


def _account(stage: Stage) -> Account | None:
    """The account of a stage's data; the runs of a study have the same items.

    Raises:
        UserError: the file is malformed.
    """
    path = stage.folder / "splits.json"
    if not path.is_file():
        return None
    try:
        return Account.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}; remove the stage's folder and run it again") from error


def _points(settings: dict[str, Any]) -> dict[str, Point]:
    """Position of each of the stage's methods in its figure of lines; empty if it has none."""
    if not settings.get("curve"):
        return {}
    methods = {name: Method.model_validate(method) for name, method in (settings.get("methods") or {}).items()}
    contexts = dict(SHIPPED)
    for name, context in (settings.get("contexts") or {}).items():
        contexts[name] = Context.model_validate(context)
    return points(methods, contexts, settings["curve"])


def _trainings(stages: Sequence[Stage]) -> dict[str, float]:
    """Seconds of every training on which the stages rest, by run and name."""
    seconds: dict[str, float] = {}
    for stage in stages:
        index = stage.folder / "trainings" / "index.json"
        run = stage.folder.parent
        for name in read_json(index).values() if index.is_file() else ():
            path = run / "transfer" / name / "result.json"
            seconds[f"{run.name}/{name}"] = float(read_json(path).get("seconds", 0)) if path.is_file() else 0.0
    return seconds


def _cost(stages: Sequence[Stage], trainings: dict[str, float], earlier_trainings: set[str]) -> Cost:
    """Cost of a table's stages.

    Args:
        stages: the stages in all runs.
        trainings: seconds of the trainings on which they rest.
        earlier_trainings: trainings of the tables before this one.
    """
    timings = [stage.timing for stage in stages]
    cpu_seconds = [timing["cpu_seconds"] for timing in timings if "cpu_seconds" in timing]
    tokens = [timing["tokens"] for timing in timings if "tokens" in timing]
    return Cost(
        seconds=sum(timing.get("seconds", 0.0) for timing in timings),
        cpu_seconds=sum(cpu_seconds) if cpu_seconds else None,
        tokens=sum(tokens) if tokens else None,
        games=sum(_line_count(stage.legs) for stage in stages if stage.legs),
        trainings=len(trainings),
        shared=len(trainings.keys() & earlier_trainings),
        training_seconds=sum(trainings.values()),
    )


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
