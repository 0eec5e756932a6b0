"""What a run would refuse in its third hour, refused before its first game: files, models, prompts, trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from debate_rl import terminal
from debate_rl.config import Config
from debate_rl.config_judge import JudgeSettings
from debate_rl.config_stages import Stage, WeakToStrongStage
from debate_rl.config_training import GrpoStage, IterationsStage, SftStage, TrainingStage
from debate_rl.data.transcripts import NYU
from debate_rl.errors import existing
from debate_rl.experiment import Run, judge_of_kind
from debate_rl.stages import weak_to_strong
from debate_rl.stages.check_lengths import check_lengths, protocols_of, splits_of
from debate_rl.stages.check_models import check_models
from debate_rl.study import seed_configs
from debate_rl.trainers.memory import sharding_of
from debate_rl.trainers.settings import Kind

_OF_MACHINE = ("bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "use_cpu", "deepspeed", "fsdp")
"""Arguments that depend on the machine; a dry run may stand on another one."""


def check_run(config: Config, only: set[str] | None, note: Callable[[str], None], dry: bool) -> None:
    """Make sure that nothing which can be known by now will stop a run, or all of its games, later.

    Args:
        config: the experiment; of a study its first seed stands for all.
        only: names of the stages to run; None is all.
        note: takes what is no fault but may be unwanted.
        dry: nothing will be run here, so the machine's own limits are no faults: the hub may be out of reach.

    Raises:
        UserError: a file or model is missing, a question can not be read or does not fit a model's context, or a
            training's arguments can not be used; the first of them.
    """
    seeds = [Run(one) for one in seed_configs(config)]
    run = seeds[0]
    stages = {name: stage for name, stage in config.stages.items() if only is None or name in only}
    unfinished = {
        name: stage
        for name, stage in stages.items()
        if not all((one.folder / name / "stage.json").is_file() for one in seeds)
    }
    if all(stage.kind == "report" for stage in unfinished.values()):
        return
    with terminal.doing("checking files, models and questions"):
        _check_files(run, unfinished)
        here = check_models(run, unfinished, note, dry)
        check_lengths(run, unfinished, here, note)
    with terminal.doing("checking the arguments of trainings"):
        for name, stage in unfinished.items():
            _check_training(name, stage, run, dry)


def _check_files(run: Run, stages: Mapping[str, Stage]) -> None:
    """Make sure that the files and folders that stages name are there, and that questions can be read."""
    run.protocol()
    if run.config.questions.human is not None:
        existing(run.config.questions.human, "questions.human")
    judge_of_kind(run.config.judge, run.model_judge())  # reads probes
    for settings in _judges(run, stages):
        if settings.adapter is not None and not (run.folder / settings.adapter).is_dir():
            folder = existing(settings.adapter, "judge adapter")
            existing(folder / "adapter_config.json", "judge adapter", "give the folder that training wrote")
    for name, stage in stages.items():
        for rules in protocols_of(stage):
            run.protocol(rules)
        if getattr(stage, "launch", None) is not None:
            sharding_of(stage.launch)  # type: ignore[union-attr]
        if isinstance(stage, SftStage):
            _check_sources(name, stage, run)
        if isinstance(stage, WeakToStrongStage):
            _check_task(stage, run)
    for split in splits_of(stages):
        run.questions(split)


def _judges(run: Run, stages: Mapping[str, Stage]) -> Iterator[JudgeSettings]:
    """The settings of every judge that is named, those of a panel's members included."""
    named = [run.config.judge, *(getattr(stage, "second", None) for stage in stages.values())]
    named += [stage.watch.second for stage in stages.values() if isinstance(stage, GrpoStage) and stage.watch]
    waiting = [one for one in named if isinstance(one, JudgeSettings)]
    while waiting:
        settings = waiting.pop()
        yield settings
        waiting += settings.members


def _check_sources(name: str, stage: SftStage, run: Run) -> None:
    """Make sure that the files of transcripts are there."""
    for source in stage.transcripts:
        path = stage.paths.get(source, run.config.questions.path if source in NYU else None)
        if path is None and source.endswith(".jsonl"):
            path = source
        if path is not None:
            existing(path, f"stages.{name}.transcripts: {source}")
    if stage.stories is not None:
        existing(stage.stories, f"stages.{name}.stories")


def _check_task(stage: WeakToStrongStage, run: Run) -> None:
    """Make sure that a task's items can be read, and files of recorded labels."""
    if stage.path is not None:
        existing(stage.path, "the task's path")
    for row in stage.rows.values():
        context = stage.helps.get(row.context)
        if context is not None and context.path is not None:
            existing(context.path, f"context {row.context!r}")
    if not stage.generative:
        weak_to_strong.splits(stage, run)


def _check_training(name: str, stage: Stage, run: Run, dry: bool) -> None:
    """Make the arguments of a training in this process, by which its library checks them together.

    Those of a launched training are made where it runs; online training adds arguments that its games decide.
    """
    training = stage.dpo if isinstance(stage, IterationsStage) else stage
    if not isinstance(training, TrainingStage) or isinstance(training, GrpoStage) or training.launch is not None:
        return
    for kind, train in training.trainings():
        given = {key: value for key, value in train.items() if not (dry and key in _OF_MACHINE)}
        if given:
            _make_arguments(f"stages.{name}", kind, given, run.folder / f".{name}")


def _make_arguments(where: str, kind: Kind, train: dict[str, Any], folder: Path) -> None:
    """Make a trainer's config, and leave no trace of it."""
    from debate_rl.errors import UserError
    from debate_rl.trainers.arguments import training_arguments
    from debate_rl.trainers.state import kept_global_state

    try:
        with kept_global_state():
            training_arguments(kind, train, folder / "checkpoints", 0)
    except UserError as error:
        raise UserError(f"{where}.{error}") from error
