"""The command line. A user's mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

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

from debate_rl.cli.benchmark import judge_benchmark  # noqa: E402
from debate_rl.cli.execute import (  # noqa: E402
    ConfigFile,
    DryRun,
    Json,
    Overrides,
    at_work,
    config_or_lab,
    execute,
)
from debate_rl.cli.export import export  # noqa: E402
from debate_rl.cli.judge import judge_app  # noqa: E402
from debate_rl.cli.judge_serve import judge_serve  # noqa: E402
from debate_rl.cli.lab import lab_app  # noqa: E402
from debate_rl.cli.models import models_app  # noqa: E402
from debate_rl.cli.rejudge import rejudge_app  # noqa: E402
from debate_rl.cli.report import plot, report  # noqa: E402
from debate_rl.cli.reproduce import reproduce  # noqa: E402
from debate_rl.cli.serve import serve  # noqa: E402
from debate_rl.cli.store import store_app  # noqa: E402
from debate_rl.cli.sweep import sweep  # noqa: E402
from debate_rl.errors import UserError  # noqa: E402
from debate_rl.game import run_files  # noqa: E402

app = typer.Typer(
    name="debate-rl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train language models to debate, train judges, run tournaments, and measure weak-to-strong transfer. "
    "Try it: debate-rl debate (one debate between small models that ship).",
)
judge_app.command("benchmark")(judge_benchmark)
judge_app.command("serve")(judge_serve)
app.add_typer(judge_app, name="judge", rich_help_panel="Judges")
app.add_typer(rejudge_app, name="rejudge", rich_help_panel="Judges")
app.add_typer(lab_app, name="lab", rich_help_panel="Models and servers")
app.add_typer(models_app, name="models", rich_help_panel="Models and servers")
app.add_typer(store_app, name="store", rich_help_panel="Models and servers")
# The parts of the help page, in the order in which they are wanted.
START = "Begin here"
STAGES = "The stages of one kind, and what they need"
RESULTS = "Results"


@app.command(rich_help_panel=START)
def run(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Run every stage of a config, with `seeds` once for each; a run that was stopped goes on where it was."""
    execute(config, overrides, dry_run)


@app.command(rich_help_panel=START)
@at_work("plan")
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    card: Annotated[
        str | None, typer.Option(help="Name of a GPU, such as h100-80gb, or its GiB; default the config's hardware.")
    ] = None,
    cards: Annotated[int | None, typer.Option(help="Number of cards that play.", min=1)] = None,
    hourly: Annotated[float | None, typer.Option(help="Price of one card for an hour.", min=0)] = None,
    like: Annotated[
        Path | None, typer.Option(help="A finished run: assume its lengths of speeches and the speed of its machine.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a config would ask and cost before it runs: tokens, forwards, GPU memory, hours and money by stage."""
    from debate_rl.cli.show_plan import show_plan
    from debate_rl.config.tree import load_config

    show_plan(load_config(config, overrides or []), card, cards, hourly, like, as_json)


@app.command(rich_help_panel=STAGES)
def sft(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Finetune debaters on transcripts: the sft stages of a config and what they need."""
    execute(config, overrides, dry_run, "sft")


@app.command(rich_help_panel=STAGES)
def dpo(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Train debaters on judge preferences: the dpo stages of a config and what they need."""
    execute(config, overrides, dry_run, "dpo")


@app.command(rich_help_panel=STAGES)
def grpo(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Train debaters online, by self-play against the judge: the grpo stages of a config and what they need."""
    execute(config, overrides, dry_run, "grpo")


@app.command(rich_help_panel=STAGES)
def tournament(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Play a round robin and rate the players: the tournament stages of a config and what they need."""
    execute(config, overrides, dry_run, "tournament")


@app.command(rich_help_panel=STAGES)
def oversight(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Compare judge accuracy under all protocols on the same questions: the oversight stages of a config, as tables."""
    execute(config, overrides, dry_run, "oversight")
    if dry_run:
        return
    from debate_rl.analysis.oversight import Oversight
    from debate_rl.config.tree import load_config
    from debate_rl.records import read_json
    from debate_rl.runs.study import seed_configs

    for one in seed_configs(load_config(config, overrides or [])):
        for name in [name for name, stage in one.stages.items() if stage.kind == "oversight"]:
            folder = Path(one.runs) / one.name / name
            typer.echo(f"\n{folder}: {Oversight.model_validate(read_json(folder / 'metrics.json'))}")


@app.command("weak-to-strong", rich_help_panel=STAGES)
def weak_to_strong(
    config: ConfigFile,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    table: Annotated[
        str | None, typer.Option(help="Make only this table of the config, or this column of a table, and the report.")
    ] = None,
) -> None:
    """Teach a strong student by weak supervisors, with and without debates: the weak_to_strong stages of a config."""
    execute(config, overrides, dry_run, "weak_to_strong", table)


@app.command(rich_help_panel=START)
@at_work("debate")
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
    from debate_rl.cli.show import show_leg
    from debate_rl.game.transcript import open_transcript
    from debate_rl.runs.run import Run

    loaded = config_or_lab(config, overrides)
    current_run = Run(loaded)
    questions = current_run.questions("test")
    if question >= len(questions):
        raise UserError(f"--question {question}: there are {len(questions)} test questions, counted from 0")
    for name in (a.partition("@")[0], b.partition("@")[0]):
        if name in loaded.stages and not (current_run.folder / name / run_files.STAGE).is_file():
            raise UserError(
                f"stage {name!r} of {current_run.folder} is not finished; run it first: debate-rl run {config}"
            )
    game = open_transcript(questions[question], current_run.protocol(protocol), {"A": a, "B": b}, loaded.seed)
    players = {name: current_run.debater(name) for name in (a, b)}
    show_leg(play([game], players, current_run.open_engine(), current_run.judge())[0])


@app.command(rich_help_panel=RESULTS)
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

    rated = rate(read_votes(votes, cluster), ridge=VOTES_RIDGE if ridge is None else ridge, resamples=resamples)
    typer.echo(json.dumps(rated.to_json(), indent=2) if as_json else str(rated))


for command in (report, plot, export, reproduce):
    app.command(rich_help_panel=RESULTS)(command)
app.command(rich_help_panel="Models and servers")(serve)
app.command(rich_help_panel=START)(sweep)


def _renamed(group: typer.Typer, old: str, advice: str) -> None:
    """Answer a name that a command does not have with the one that it has."""

    def refuse(words: Annotated[list[str] | None, typer.Argument()] = None) -> None:
        raise UserError(advice)

    group.command(old, hidden=True, context_settings={"ignore_unknown_options": True})(refuse)


_renamed(app, "train", "there is no command 'train'; choose what to train: sft, dpo, grpo, or judge train")
_renamed(app, "rescore", "'rescore' is called 'rejudge candidates' now")
_renamed(judge_app, "compare", "'judge compare' is called 'oversight' now")
_renamed(judge_app, "rejudge", "'judge rejudge' is called 'rejudge games' now")


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
    if os.environ.get("RANK", "0") == "0":  # once, of processes that were started together
        print(f"debate-rl: {message}", file=sys.stderr)
    raise SystemExit(2)


def _stop(number: int, frame: Any) -> NoReturn:
    """End at once after Ctrl-C or a polite kill: threads may wait for a server, and libraries swallow exceptions."""
    with contextlib.suppress(RuntimeError):  # it came while a line was being written
        sys.stdout.flush()
    if os.environ.get("RANK", "0") == "0":
        said = "debate-rl: stopped. Finished stages, games and answers are kept; the same command goes on from here."
        os.write(2, f"\n{said}\n".encode())
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(130)


def main() -> None:
    """Entry point of `debate-rl`."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _main() -> None:
    """See `main`; signals are taken care of."""
    # Of no use to who runs a command: one library tells another what it will rename.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    try:
        app()
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(
                f"{str(error.filename)[:40]}... is too long to name a file or folder; see the config's paths and names"
            )
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _fail(f"cannot write {error.filename or 'a file'}: {error.strerror}; what was finished is kept")


if __name__ == "__main__":
    main()
