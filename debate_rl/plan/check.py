"""What a run would refuse later is refused before it begins: keys of trainings, models, files, prompts too long.

Nothing is fetched and nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from debate_rl.data.models import SHIPPED
from debate_rl.data.models.library import LIBRARY
from debate_rl.engines.quantized import check_installed
from debate_rl.engines.weights import check_weights
from debate_rl.errors import UserError, existing, nearest
from debate_rl.game import run_files
from debate_rl.plan.fit import check_lengths
from debate_rl.runs.run import Run
from debate_rl.stages.base import Stage, TrainingStage
from debate_rl.trainers.common.settings import Kind

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def check_run(run: Run, only: set[str] | None = None) -> list[str]:
    """Check everything that can be known before anything is played.

    Args:
        run: the experiment.
        only: names of the stages that will run; None is all.

    Returns:
        Lines about what will be left out, such as questions that are too long.

    Raises:
        UserError: a training's key is unknown or of the wrong type, a model or file is not there, or every prompt is
            longer than the model can read.
    """
    if not run.config.stages:
        raise UserError("the config has no stages; write what to run, such as stages: {tournament: {...}, report: {}}")
    _check_folders(run)
    # What is finished is not done again, so nothing of it is loaded or looked for.
    stages = {
        name: stage
        for name, stage in run.config.stages.items()
        if (only is None or name in only) and not (run.folder / name / run_files.STAGE).is_file()
    }
    for name, stage in stages.items():
        for key, path in stage.input_files():
            existing(path, f"stages.{name}.{key}", "put the file there, or give the path of yours")
        for protocol in stage.protocols_named():
            run.protocol(protocol)
        for kind, training in stage.trainings():
            _check_keys(name, kind, training)
    for role, model in dict.fromkeys(_models(run, stages.values())):
        _check_model(run, role, model)
    for stage in stages.values():
        stage.check_playable(run)
    lines = _bits(run, stages)
    return lines + check_lengths(run, stages.values()) if stages else []


def _bits(run: Run, stages: Mapping[str, Stage]) -> list[str]:
    """Make sure that weights can be held in 4 bits where the config asks for it.

    Returns:
        A line about debaters that play on other weights than they are trained on.

    Raises:
        UserError: bitsandbytes is missing.
    """
    engine = run.config.engine
    plays_here = engine.kind == "transformers"
    quantized = [name for name, stage in stages.items() if _trains_in_bits(stage)]
    if run.config.hardware is None:  # else the config is meant for another machine
        if quantized:
            check_installed(f"stages.{quantized[0]}.quantize")
        if plays_here and "nf4" in (engine.dtype, engine.judge_dtype):
            check_installed("engine.dtype")
    debaters = [name for name in quantized if not stages[name].trains_judge]
    plays_whole = plays_here and engine.dtype != "nf4"
    if not debaters or not plays_whole:
        return []
    return [
        f"{', '.join(debaters)}: trained on weights in 4 bits, played on whole ones; engine.dtype=nf4 plays on 4 bits"
    ]


def _trains_in_bits(stage: Stage) -> bool:
    """Whether the base of one of a stage's trainings is held in 4 bits."""
    return any(training.quantize is not None for _, training in stage.trainings())


def _check_folders(run: Run) -> None:
    """The folders that the run writes into and reuses stages of."""
    for folder in (run.folder, *run.folder.parents):
        if folder.exists() and not folder.is_dir():
            raise UserError(
                f"{folder} is a file, not the folder of a run or of runs; give another runs=... or name=..."
            )
    if run.config.reuse is not None:
        existing(run.config.reuse, "reuse", "give the folder of a finished run")


def _check_keys(name: str, kind: Kind, stage: TrainingStage) -> None:
    """The keys of a training, by the class that will take them."""
    if stage.launch is not None:
        existing(stage.launch, f"stages.{name}.launch", "give a config of `accelerate launch`, by its path from here")
    if not stage.train:
        return
    from debate_rl.trainers.common.arguments import check_arguments  # here: it loads TRL, which takes seconds

    try:
        check_arguments(kind, stage.train)
    except UserError as error:
        raise UserError(f"stages.{name}: {error}") from error


def _models(run: Run, stages: Iterable[Stage]) -> Iterator[tuple[str, str]]:
    """Each model that the stages use, with the key that names it."""
    config = run.config
    for stage in stages:
        yield from stage.models_used(config.models)
    if config.judge.model is not None:
        yield "judge.model", config.judge.model
    if config.judge.adapter is not None:
        existing(config.judge.adapter, "judge.adapter")
    if config.judge.path is not None:
        existing(config.judge.path, "judge.path")


def _check_model(run: Run, role: str, model: str) -> None:
    """Make sure that a model is there, or at least that the hub may have it: nothing is fetched to see."""
    path = run.resolve(model)
    if Path(path).is_dir():
        check_weights(path)
        return
    if run.config.engine.kind == "server" or _HUB_NAME.fullmatch(model):
        return
    raise UserError(
        f"{role}: model not found: {model!r} is no folder, no hub name (OWNER/NAME), no lab and no library "
        f"model; {nearest(model, [*LIBRARY, *(path.parent.name for path in SHIPPED.glob('*/config.json'))])}"
    )
