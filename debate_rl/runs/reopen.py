"""Runs that are kept: opened again for their judges, models and games. Nothing is written into them."""

from __future__ import annotations

from pathlib import Path

from debate_rl.config.tree import load_config
from debate_rl.data.models import model_path
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError, existing
from debate_rl.game import run_files
from debate_rl.judges.judge import AnyJudge, Judge, Panel
from debate_rl.runs.run import Run


def kept_run(folder: str | Path) -> Run:
    """The run of a folder.

    Raises:
        UserError: the folder is no run, or a study of several seeds, or what lies in a run; says which folder to give.
    """
    root = existing(folder, "run").resolve()
    if root.is_file():
        message = f"{folder} is a file; give the folder of a run"
        # The file may lie in the run, in a stage, or in an adapter's folder in a stage.
        for parent in root.parents[:3]:
            if (parent / run_files.CONFIG).is_file():
                message += f": {parent}"
                break
        raise UserError(message)
    if not (root / run_files.CONFIG).is_file() and (root.parent / run_files.CONFIG).is_file():
        raise UserError(
            f"{folder} is a folder in a run; give the run and name the stage: {root.parent} --stage {root.name}"
        )
    config = load_config(existing(root / run_files.CONFIG, "config of the run"))
    if config.seeds:
        first = root / f"seed{config.seeds[0]}"
        raise UserError(f"{folder} is a study of {len(config.seeds)} seeds; give one seed's folder, such as {first}")
    return Run(config.model_copy(update={"runs": str(root.parent), "name": root.name, "seeds": ()}))


def judge_by_name(place: str | Path, name: str, adapter: str | Path | None = None) -> tuple[AnyJudge, Engine]:
    """A judge for the games of a kept stage, and the engine that answers for it.

    Args:
        place: folder of the stage or a file; in a run's folder its judge stages and settings count.
        name: a judge stage of that run, `base` for its judge model, or another model.
        adapter: of another model.

    Raises:
        UserError: the place, the run's judge or the adapter is missing.
    """
    path = existing(place, "stage").resolve()
    folder = path if path.is_dir() else path.parent
    with_adapter = None if adapter is None else str(existing(adapter, "adapter").resolve())
    if not (folder.parent / run_files.CONFIG).is_file():
        from debate_rl.engines.local.engine import TransformersEngine  # here: it takes seconds

        return Judge(name=name, model=name, adapter=with_adapter), TransformersEngine(model_path)
    run = kept_run(folder.parent)
    judge = run.judge_named(name)
    if with_adapter is not None:
        if isinstance(judge, Panel) or judge.adapter is not None:
            raise UserError(f"judge {name!r} has an adapter of its own; name the model for another one")
        judge = judge.model_copy(update={"adapter": with_adapter})
    return judge, run.open_engine()
