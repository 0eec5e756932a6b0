"""Plans on the terminal: the dry run of a config, and what it costs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from debate_rl.config.settings import Hardware
from debate_rl.config.tree import Config
from debate_rl.plan.cost import Bill, bills
from debate_rl.plan.plan import Planned, plan
from debate_rl.plan.training_cost import estimates
from debate_rl.runs.run import Run
from debate_rl.runs.study import seed_configs
from debate_rl.stages.habits import first_prompts
from debate_rl.trainers.common.memory import Card, card_of


def show_dry_run(config: Config, only: set[str] | None) -> None:
    """Print what would run, of a study one seed's run, and the first prompt of every seat."""
    run, console = Run(seed_configs(config)[0]), Console(markup=False, emoji=False)
    rows = plan(run, only)
    console.print(f"{config.name}: would write {Path(config.runs) / config.name}", highlight=False)
    _study(config, console)
    console.print(_counts(rows))
    _show_trainings(run, only, console)
    models = run.config.models.by_role()
    console.print("models: " + ", ".join(f"{role} {name}" for role, name in models.items()), highlight=False)
    for seat, messages in first_prompts(run):
        console.rule(seat)
        for message in messages:
            console.print(f"[{message['role']}]", style="bold", markup=False, highlight=False)
            console.print(message["content"], markup=False, highlight=False)


def show_plan(
    config: Config,
    card: str | None = None,
    cards: int | None = None,
    hourly: float | None = None,
    like: Path | None = None,
    as_json: bool = False,
) -> None:
    """Print tokens, memory, hours and money of every stage, for one seed of a study."""
    if card is not None:
        named = float(card) if card.replace(".", "", 1).isdigit() else card
        config = config.model_copy(update={"hardware": Hardware(card=named, cards=cards or 1)})
    run, console = Run(seed_configs(config)[0]), Console(markup=False, emoji=False)
    hardware = run.config.hardware
    gpu = None if hardware is None else card_of(hardware.card)
    rows = plan(run, like=like)
    priced = bills(run, rows, gpu, cards or (hardware.cards if hardware else 1), hourly, like)
    if as_json:
        stages = [
            {**row.model_dump(mode="json"), **bill.model_dump(mode="json")}
            for row, bill in zip(rows, priced, strict=True)
        ]
        print(json.dumps({"card": None if gpu is None else gpu.name, "stages": stages}, indent=2))
        return
    _study(config, console)
    console.print(_counts(rows))
    console.print(_prices(priced, gpu))
    _show_trainings(run, None, console, like)
    if gpu is None and like is None:
        console.print("hours: name a --card, or a finished run on the same machine with --like", highlight=False)


def _study(config: Config, console: Console) -> None:
    """Say how often a study or sweep runs what is planned."""
    if config.sweep:
        count = math.prod(map(len, config.sweep.values()))
        keys = ", ".join(config.sweep)
        console.print(f"the plan of the first cell of {count}: {keys}", highlight=False)
    if config.seeds:
        seeds = ", ".join(map(str, config.seeds))
        console.print(f"the plan of one seed, to be run {len(config.seeds)} times: seeds {seeds}", highlight=False)


def _counts(rows: Sequence[Planned]) -> Table:
    """What each stage asks for."""
    names = ("debates", "texts", "verdicts", "prompt tokens", "read once", "new tokens")
    table = _table([row.stage for row in rows], *names)
    table.add_column()
    for row in rows:
        numbers = (row.debates, row.speeches, row.verdicts, row.prompt_tokens, row.read_tokens, row.new_tokens)
        for column, number in zip(table.columns[1:], numbers, strict=False):
            # A number is never broken over two lines.
            column.min_width = max(column.min_width or 0, len(f"{number:,}"))
        kind = row.kind if row.kind != row.stage else ""
        notes = [text for text in (kind, row.note) if text]
        cells = [f"{number:,}" if number else "-" for number in numbers]
        table.add_row(row.stage, *cells, ", ".join(notes))
    return table


def _table(stages: Sequence[str], *numbers: str, title: str | None = None) -> Table:
    """A table with a column of stages, which is never cut, and columns of numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=title)
    table.add_column("stage", no_wrap=True, min_width=max(map(len, [*stages, "stage"])))
    for name in numbers:
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    return table


def _prices(rows: Sequence[Bill], card: Card | None) -> Table:
    """What each stage costs."""
    card_name = "no card" if card is None else card.name
    names = ("GiB playing", "GiB training", "hours", "cost")
    table = _table([row.stage for row in rows], *names, title=f"estimated ({card_name})")
    table.add_column("playing, of which")
    for row in rows:
        if row.play_gib is None and row.train_gib is None and not row.hours and not row.cost:
            continue
        memory = (_number(row.play_gib, 1), _number(row.train_gib, 1))
        table.add_row(row.stage, *memory, _number(row.hours, 3), _number(row.cost, 2), row.parts)
    hours = [row.hours for row in rows if row.hours is not None]
    costs = [row.cost for row in rows if row.cost is not None]
    total_hours = _number(sum(hours) if hours else None, 3)
    total_cost = _number(sum(costs) if costs else None, 2)
    table.add_row("all", "", "", total_hours, total_cost)
    return table


def _number(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:,.{digits}f}"


def _show_trainings(run: Run, only: set[str] | None, console: Console, like: Path | None = None) -> None:
    """Print what each training would need."""
    table = Table(
        "training", "model", "rows", "tokens", "GiB a card", "hours", "of which", title="trainings, estimated"
    )
    too_large = []
    for row in estimates(run, only, like):
        gib = "-" if row.gib is None else f"{row.gib:.1f}"
        spent = "-" if row.hours is None else f"{row.hours:.1f}"
        cards = f" on {row.processes}" if row.processes > 1 else ""
        table.add_row(row.stage, row.model, f"{row.rows:,}", f"{row.tokens:,}", gib + cards, spent, row.parts)
        too_large += [row.too_large] if row.too_large else []
    if table.row_count:
        console.print(table)
    for line in too_large:
        console.print(f"would be refused here: {line}", markup=False)
