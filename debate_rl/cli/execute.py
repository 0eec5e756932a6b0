"""What the commands share: their options, and running a config or showing what it would run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from debate_rl.game import run_files

if TYPE_CHECKING:
    from debate_rl.config.tree import Config
    from debate_rl.engines.workers import Crew

ConfigFile = Annotated[
    Path, typer.Argument(help="YAML config, for example configs/quickstart.yaml.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Changes as key.path=value, for example seed=1 stages.dpo.objective.gamma=10.", show_default=False
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print stages, debates, estimated tokens and every seat's first prompt; run nothing."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@contextlib.contextmanager
def at_work(what: str) -> Iterator[None]:
    """Say at once, and again whenever it takes long, that a command is at work; on stderr, beside its result."""
    from debate_rl.arena.progress import heartbeat

    def say(line: str) -> None:
        typer.echo(line, err=True)

    say(f"{what}: at work")
    with heartbeat(what, say):
        yield


def execute(
    config: Path, overrides: list[str] | None, dry_run: bool, kind: str | None = None, table: str | None = None
) -> None:
    """Run a config, or of it what one kind of stage needs, or one table of weak-to-strong."""
    with at_work(f"{config}"):
        loaded, only = _checked(config, overrides or [], dry_run, kind, table)
    if dry_run:
        return
    from debate_rl.engines.workers import join
    from debate_rl.runs.member import member_engine

    crew = join(member_engine, typer.echo)  # where accelerate started other processes, they do not come back from here
    if loaded.sweep:
        _run_sweep(loaded, only, crew)
    elif loaded.seeds:
        _run_study(loaded, only, crew)
    else:
        _run_once(loaded, only, crew)
    if table is not None:
        column = loaded.stages.get(table)
        of_column = None if column is None else column.table_name(table)
        _print_table(Path(loaded.runs) / loaded.name, of_column or table)


def _checked(
    path: Path, overrides: list[str], dry_run: bool, kind: str | None, table: str | None
) -> tuple[Config, set[str] | None]:
    """A config that can be run, and the stages wanted of it; a dry run is shown here."""
    from debate_rl.config.tree import load_config
    from debate_rl.plan.check import check_run
    from debate_rl.runs.execute import needed
    from debate_rl.runs.run import Run
    from debate_rl.runs.study import seed_configs

    loaded = load_config(path, overrides)
    only = None if kind is None else needed(loaded, kind, table)
    for line in check_run(Run(seed_configs(loaded)[0]), only):
        typer.echo(line)
    if loaded.hardware is not None and not dry_run:
        from debate_rl.plan.training_cost import check_hardware

        check_hardware(Run(seed_configs(loaded)[0]), only)
    if dry_run:
        from debate_rl.cli.show_plan import show_dry_run

        show_dry_run(loaded, only)
    return loaded, only


def _print_table(folder: Path, table: str) -> None:
    """Print a table of a run or study that the report has written."""
    tables = sorted(folder.glob(f"*/tables/{table}.md"))
    for path in tables[:1]:
        typer.echo(path.read_text(encoding="utf-8"))
        typer.echo(f"table:   {path} (.csv, .json)")


def _run_once(config: Config, only: set[str] | None, crew: Crew | None) -> None:
    """Run a config without seeds, and print its effects where it has a report."""
    from debate_rl.analysis.effects.table import read_effects
    from debate_rl.cli.show import show_effects
    from debate_rl.runs.execute import run_stages
    from debate_rl.runs.run import Run
    from debate_rl.trainers.common.state import freeze_imports

    freeze_imports()
    run = Run(config, crew=crew)
    run_stages(run, only)
    reports = [name for name, s in config.stages.items() if s.repeats and (only is None or name in only)]
    for name in reports[-1:]:
        show_effects(read_effects(run.folder / name / run_files.EFFECTS), [config.seed])
    typer.echo(f"metrics: {run.folder / 'metrics.json'}")
    for name in reports:
        typer.echo(f"report:  {run.folder / name / 'index.html'}")


def _run_study(config: Config, only: set[str] | None, crew: Crew | None) -> None:
    """Run a config under all its seeds, and print the effects."""
    from debate_rl.cli.show import show_effects
    from debate_rl.runs.study import run_study

    show_effects(run_study(config, only, crew=crew), config.seeds)
    folder = Path(config.runs) / config.name
    typer.echo(f"effects: {folder / 'effects.json'}")
    typer.echo(f"report:  {folder / 'report' / 'index.html'}")


def _run_sweep(config: Config, only: set[str] | None, crew: Crew | None) -> None:
    """Run a config under every combination of its sweep, and print the effects."""
    from debate_rl.cli.sweep import show_sweep
    from debate_rl.runs.sweep import run_sweep

    show_sweep(run_sweep(config, only, say=typer.echo, crew=crew))
    folder = Path(config.runs) / config.name
    typer.echo(f"table:   {folder / 'sweep.csv'} (.json)")


def config_or_lab(config: Path | None, overrides: list[str] | None) -> Config:
    """A config, of a study its first seed's, or without a file the lab with small models."""
    from debate_rl.config.files import with_changes
    from debate_rl.config.tree import load_config, parse_config
    from debate_rl.runs.study import seed_configs

    if config is not None and "=" in str(config) and not config.is_file():
        # Without a file the first change stands where the file would.
        config, overrides = None, [str(config), *(overrides or [])]
    if config is not None:
        return seed_configs(load_config(config, overrides or []))[0]
    lab = {"name": "debate", "protocol": {"prompts": "lab", "max_new_tokens": 60}}
    return parse_config(with_changes(lab, overrides or []))
