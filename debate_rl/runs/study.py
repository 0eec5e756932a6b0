"""Studies: one config under several seeds, and one table of effects over all of them.

runs/NAME/
    config.yaml      the study's config, with `seeds`
    code.json        version and commit
    seed0/           an ordinary run (debate_rl.runs.run), one for each seed
    effects.json     the table (debate_rl.analysis.effects.table)
    report/          the table as a page

The test questions and the weak-to-strong items are the same under every seed, so intervals cluster by story over all
runs; what is trained, the questions that are learnt from, and all sampling follow the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from debate_rl.analysis.effects.table import EffectRow, effects, write_effects
from debate_rl.config.tree import Config, cells
from debate_rl.engines.request import Engine
from debate_rl.engines.workers import Crew
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.report.run_folder import seed_folder
from debate_rl.report.study_page import seed_runs, study_seeds, write_study_page
from debate_rl.runs.execute import run_stages
from debate_rl.runs.folder import alone, claim_folder
from debate_rl.runs.run import Run
from debate_rl.runs.stage_log import log_study

LIBRARIES = ["debate_rl.trainers.common.state", "debate_rl.report.page"]
"""Modules that import all that takes long."""


def seed_configs(config: Config) -> list[Config]:
    """The config of each seed's run; of a config without `seeds` itself, of a sweep those of its first cell."""
    for _, first in cells(config):
        return seed_configs(first)
    if not config.seeds:
        return [config]
    questions = config.questions.model_copy(update={"seed": config.question_seed})
    runs = str(Path(config.runs) / config.name)
    tracking = config.tracking.model_copy(update={"group": config.tracking.group or config.name})
    shared = {"seeds": (), "processes": 1, "runs": runs, "questions": questions, "tracking": tracking}
    return [config.model_copy(update={**shared, "seed": seed, "name": seed_folder(seed)}) for seed in config.seeds]


def run_study(
    config: Config,
    only: set[str] | None = None,
    engine: Engine | None = None,
    say: Callable[[str], None] = print,
    crew: Crew | None = None,
) -> list[EffectRow]:
    """Run the stages of a config once for each seed, then measure the effects over all seeds.

    A study that was stopped at any moment goes on from there: finished stages of every seed are kept.

    Args:
        config: with `seeds`.
        only: names of the stages to run; None runs all.
        engine: answers instead of the transformers engine, for tests and rules.
        say: takes lines of progress.
        crew: other processes that answer as well; with them the seeds are run one after the other.

    Returns:
        The table, also in effects.json and report/index.html.

    Raises:
        UserError: the folder holds another study or run, or a stage can not be done.
    """
    folder = Path(config.runs) / config.name
    with alone(folder):
        claim_folder(config)
        if config.processes > 1 and engine is None and crew is None:
            side_by_side(seed_configs(config), config.processes, only)
        else:
            for one in seed_configs(config):
                say(f"seed {one.seed}:")
                run_stages(Run(one, engine, say, crew), only)
        rows, page = write_study(folder, folder / "report")
        log_study(Run(config, engine, say), page)
        return rows


def side_by_side(configs: Sequence[Config], processes: int, only: set[str] | None) -> None:
    """Runs of several configs, several at a time, each in a process of its own.

    Raises:
        UserError: a stage of some run can not be done (the others are finished first), or a process was killed.
    """
    # A process forked from this one would inherit locks of torch's threads that no thread will ever release; one forked
    # from a server that has imported the libraries and computed nothing starts at once, and shares their memory.
    context = get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    # Leaving the block waits for all runs, so that one run's error does not stop the others.
    with ProcessPoolExecutor(processes, context, _settle) as pool:
        running = [pool.submit(_run_alone, one, only) for one in configs]
    for done in running:
        try:
            done.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process of a run was killed, as for want of memory; the same command goes on where it was, "
                "with processes=1 in less memory"
            ) from error


def _settle() -> None:
    """What a process with runs of its own begins with."""
    from debate_rl.trainers.common.state import freeze_imports

    freeze_imports()


def _run_alone(config: Config, only: set[str] | None) -> None:
    """One run, its lines of progress named after it."""
    run_stages(Run(config, None, lambda line: print(f"{config.name} {line}", flush=True)), only)


def write_study(folder: str | Path, out: str | Path) -> tuple[list[EffectRow], Path]:
    """Measure the effects over all seeds of a study's folder; write its effects.json and its page.

    Returns:
        The table, and the page.

    Raises:
        UserError: a seed's run is missing, or a file in it is malformed.
    """
    rows = effects(seed_runs(folder))
    write_effects(Path(folder) / run_files.EFFECTS, study_seeds(folder), rows)
    return rows, write_study_page(folder, out, rows)
