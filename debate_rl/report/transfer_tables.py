"""Weak-to-strong tables of run folders: the stages of one run, or of all seeds of a study, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.records import explain, read_json, write_text
from debate_rl.report.run_folder import RunFolder, Stage
from debate_rl.trainers.common.model_shapes import shape_of
from debate_rl.weak_to_strong.contexts import SHIPPED, Context
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.results.gap_grid import Compute
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
        made = Table(name=table, columns=tuple(columns), over=over, cost=_cost(stages, trainings, earlier_trainings))
        if made.grid:
            measured = [_with_compute(column, finished[name]) for column, name in zip(columns, names, strict=True)]
            made = made.model_copy(update={"columns": tuple(measured)})
        tables.append(made)
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


def _with_compute(column: Column, stages: Sequence[Stage]) -> Column:
    """A column with the compute of its weak model's and its ceiling's training, where their models can be found."""
    index = stages[0].folder / "trainings" / "index.json"
    names: dict[str, str] = read_json(index) if index.is_file() else {}
    trainings = stages[0].folder.parent / "transfer"
    weak = _reading(trainings / names.get("seed0/none/supervisor0", "-"))
    strong = _reading(trainings / names.get("seed0/ceiling", "-"))
    if weak is None or strong is None:
        return column
    # Pretraining counts where it is known of both models: of one alone it would be the whole gap.
    with_pretraining = weak.pretraining is not None and strong.pretraining is not None
    compute = Compute(weak=weak.operations(with_pretraining), strong=strong.operations(with_pretraining))
    return column.model_copy(update={"compute": compute})


class _Reading(NamedTuple):
    """What a training read, and what its model had read before."""

    parameters: int
    tokens: float
    pretraining: int | None

    def operations(self, with_pretraining: bool) -> float:
        """6ND."""
        tokens = self.tokens
        if with_pretraining and self.pretraining is not None:
            tokens += self.pretraining
        return 6.0 * self.parameters * tokens


def _reading(training: Path) -> _Reading | None:
    """Parameters and tokens of a training, as often as they were read; None where a file or the model is not there."""
    if not all((training / name).is_file() for name in ("job.json", "tokens.json", run_files.HISTORY)):
        return None
    model = read_json(training / "job.json")["job"]["model"]
    shape = shape_of(model)
    history = read_json(training / run_files.HISTORY)
    if shape is None or not history:
        return None
    tokens = sum(part["sum"] for part in read_json(training / "tokens.json")["tokens"].values())
    pretrained = Path(model) / "training.json"
    before = read_json(pretrained).get("tokens") if pretrained.is_file() else None
    return _Reading(shape.parameters, tokens * float(history[-1].get("epoch", 1.0)), before)


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
