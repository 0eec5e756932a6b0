"""The command line. A user's mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

for _name, _value in {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TQDM_DISABLE": "1",
}.items():
    os.environ.setdefault(_name, _value)  # before transformers is imported, which reads them once

import typer  # noqa: E402

from debate_rl.errors import UserError  # noqa: E402
from debate_rl.lab import lab_app  # noqa: E402

if TYPE_CHECKING:
    from debate_rl.config import Config

app = typer.Typer(
    name="debate-rl", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Train language models to debate, train judges, run tournaments, and measure weak-to-strong transfer. "
    "Try it: debate-rl debate (one debate between small models that ship).",
)  # fmt: skip
judge_app = typer.Typer(no_args_is_help=True, help="Train a judge, or score judges.")
app.add_typer(judge_app, name="judge")
app.add_typer(lab_app, name="lab")

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


def _execute(config: Path, overrides: list[str] | None, dry_run: bool, kind: str | None = None) -> None:
    """Run a config, or of it what one kind of stage needs."""
    from debate_rl.config import load_config
    from debate_rl.experiment import needed

    found = load_config(config, overrides or [])
    only = None if kind is None else needed(found, kind)
    if dry_run:
        _print_plan(found, only)
    elif found.seeds:
        _run_study(found, only)
    else:
        _run_once(found, only)


def _run_once(config: Config, only: set[str] | None) -> None:
    """Run a config without seeds, and print its effects where it has a report."""
    from debate_rl.analysis.effects import read_effects
    from debate_rl.experiment import Run, run_stages
    from debate_rl.show import show_effects
    from debate_rl.stages import FUNCTIONS

    run = Run(config)
    run_stages(run, FUNCTIONS, only)
    reports = [name for name, s in config.stages.items() if s.kind == "report" and (only is None or name in only)]
    for name in reports[-1:]:
        show_effects(read_effects(run.folder / name / "effects.json"), [config.seed])
    typer.echo(f"metrics: {run.folder / 'metrics.json'}")
    for name in reports:
        typer.echo(f"report:  {run.folder / name / 'index.html'}")


def _run_study(config: Config, only: set[str] | None) -> None:
    """Run a config under all its seeds, and print the effects."""
    from debate_rl.show import show_effects
    from debate_rl.stages import FUNCTIONS
    from debate_rl.study import run_study

    show_effects(run_study(config, FUNCTIONS, only), config.seeds)
    folder = Path(config.runs) / config.name
    typer.echo(f"effects: {folder / 'effects.json'}")
    typer.echo(f"report:  {folder / 'report' / 'index.html'}")


def _print_plan(config: Config, only: set[str] | None) -> None:
    """Print what would run: of a study one seed's run."""
    from rich.console import Console
    from rich.table import Table

    from debate_rl.experiment import Run
    from debate_rl.stages.plan import first_prompts, plan
    from debate_rl.study import seed_configs

    run = Run(seed_configs(config)[0])
    table = Table("stage", "kind", "debates", "speeches", "prompt tokens (estimate)", "new tokens (at most)", "")
    for row in plan(run, only):
        numbers = [row.debates, row.speeches, row.prompt_tokens, row.new_tokens]
        table.add_row(row.stage, row.kind, *(f"{number:,}" if number else "-" for number in numbers), row.note)
    console = Console()
    console.print(f"{config.name}: would write {Path(config.runs) / config.name}", highlight=False)
    if config.seeds:
        seeds = ", ".join(map(str, config.seeds))
        console.print(f"the plan of one seed, to be run {len(config.seeds)} times: seeds {seeds}", highlight=False)
    console.print(table)
    models = run.config.models.model_dump()
    console.print("models: " + ", ".join(f"{role} {name}" for role, name in models.items()), highlight=False)
    for seat, messages in first_prompts(run):
        console.rule(seat)
        for message in messages:
            console.print(f"[{message['role']}]", style="bold", markup=False, highlight=False)
            console.print(message["content"], markup=False, highlight=False)


@app.command()
def run(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Run every stage of a config, with `seeds` once for each; a run that was stopped goes on where it was."""
    _execute(config, overrides, dry_run)


@app.command()
def sft(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Finetune debaters on transcripts: the sft stages of a config and what they need."""
    _execute(config, overrides, dry_run, "sft")


@app.command()
def dpo(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Train debaters on judge preferences: the dpo stages of a config and what they need."""
    _execute(config, overrides, dry_run, "dpo")


@app.command()
def tournament(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Play a round robin and rate the players: the tournament stages of a config and what they need."""
    _execute(config, overrides, dry_run, "tournament")


@app.command("weak-to-strong")
def weak_to_strong(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Teach a strong student by weak supervisors, with and without debates: the weak_to_strong stages of a config."""
    _execute(config, overrides, dry_run, "weak_to_strong")


@judge_app.command("train")
def judge_train(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Finetune and calibrate a judge: the judge stages of a config and what they need."""
    _execute(config, overrides, dry_run, "judge")


@judge_app.command("evaluate")
def judge_evaluate(
    recorded: Annotated[
        Path, typer.Option(help="Recorded human judgements: debates.jsonl of Michael et al. 2023, or its folder.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Also debates that the paper left out.")] = False,
    as_json: Json = False,
) -> None:
    """Score recorded judges by condition: n, accuracy, mean reward, Brier, with intervals over stories."""
    from debate_rl.judges.recorded import formatted, table

    rows = table(recorded, paper_only=not every)
    typer.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=2) if as_json else formatted(rows))


@app.command()
def debate(
    config: Annotated[
        Path | None, typer.Argument(help="YAML config; without one, the lab.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    question: Annotated[int, typer.Option(help="Number of the test question, from 0.", min=0)] = 0,
    a: Annotated[
        str,
        typer.Option("--a", help="Player on side A: base, or a training stage of the config's run, @N for Best-of-N."),
    ] = "base",
    b: Annotated[str, typer.Option("--b", help="Player on side B.")] = "base",
    protocol: Annotated[
        str | None, typer.Option(help="debate, sequential, single, double, ensembled, blind, open_book, ...")
    ] = None,
) -> None:
    """Play one debate, judge it and print it, quotes marked as exact, near or invalid."""
    from debate_rl.arena.rollout import play
    from debate_rl.config import load_config, parse_config
    from debate_rl.experiment import Run, open_engine
    from debate_rl.game.transcript import open_transcript
    from debate_rl.show import show_leg
    from debate_rl.study import seed_configs

    lab = {"name": "debate", "protocol": {"prompts": "lab", "max_new_tokens": 60}}
    found = seed_configs(parse_config(lab) if config is None else load_config(config, overrides or []))[0]
    one = Run(found)
    questions = one.questions("test")
    if question >= len(questions):
        raise UserError(f"--question {question}: there are {len(questions)} test questions, counted from 0")
    for name in (a.partition("@")[0], b.partition("@")[0]):
        if name in found.stages and not (one.folder / name / "stage.json").is_file():
            raise UserError(f"stage {name!r} of {one.folder} is not finished; run it first: debate-rl run {config}")
    game = open_transcript(questions[question], one.protocol(protocol), {"A": a, "B": b}, found.seed)
    players = {name: one.debater(name) for name in (a, b)}
    show_leg(play([game], players, open_engine(found, one.resolve), one.judge())[0])


@app.command()
def ratings(
    votes: Annotated[
        Path, typer.Argument(help="CSV with columns left, right, winner (left, right or tie).", show_default=False)
    ],
    ridge: Annotated[
        float | None, typer.Option(help="Penalty that keeps undefeated players finite; default 0.", min=0)
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Column to cluster intervals by; default `cluster` where there is one.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the intervals.", min=10)] = 1000,
    as_json: Json = False,
) -> None:
    """Rate the players of any CSV of matches: Bradley-Terry on the Elo scale, mean 1000, with intervals."""
    from debate_rl.arena.ratings import VOTES_RIDGE, rate, read_votes

    found = rate(read_votes(votes, cluster), ridge=VOTES_RIDGE if ridge is None else ridge, resamples=resamples)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else str(found))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, for example runs/quickstart.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Where to write index.html; default FOLDER/report.")] = None,
    transcripts: Annotated[int, typer.Option(help="Transcripts shown in full.", min=0)] = 12,
) -> None:
    """Write the results of a run or study as one HTML page."""
    from debate_rl.report.page import write_report
    from debate_rl.report.study_page import study_seeds
    from debate_rl.study import write_study

    if study_seeds(folder):
        typer.echo(write_study(folder, out or folder / "report")[1])
        return
    typer.echo(write_report(folder, out or folder / "report", transcripts))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("debate-rl"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands; the text shown is the app's own help."""


def _fail(message: Any) -> None:
    """End with one line and exit code 2."""
    sys.stdout.flush()
    print(f"debate-rl: {message}", file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    """Entry point of `debate-rl`."""
    # Of no use to who runs a command: one library tells another what it will rename.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    try:
        app()
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _fail(f"cannot write {error.filename or 'a file'}: {error.strerror}; what was finished is kept")
    except KeyboardInterrupt:
        print("debate-rl: stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
