"""Any judge by one name: a model, a run or one of its judge stages, or a config with its engine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from debate_rl.config.tree import load_config
from debate_rl.data.models import model_path
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.judges.judge import AnyJudge, Judge
from debate_rl.judges.settings import JudgeSettings, judge_of_kind
from debate_rl.runs.reopen import kept_run
from debate_rl.runs.run import Run
from debate_rl.runs.study import seed_configs


class FoundJudge(NamedTuple):
    """A judge, the engine that answers for it, and the prompt set that it was made for."""

    judge: AnyJudge
    engine: Engine
    prompts: str


def any_judge(name: str, settings: JudgeSettings | None = None) -> FoundJudge:
    """Find a judge by what a user calls it.

    Args:
        name: a run's folder (its newest judge), a judge stage's folder in it, a YAML config (its judge and engine, such
            as a server's), or a model: of the lab, of the library, a folder or a hub name.
        settings: kind, readout and orders of a model's verdict; a run's or config's judge has its own.

    Raises:
        UserError: there is no such judge, or settings are given for a judge that has its own.
    """
    path = Path(name)
    is_config = path.suffix in (".yaml", ".yml")
    is_run = (path / run_files.CONFIG).is_file()
    is_stage = not is_run and path.is_dir() and (path.resolve().parent / run_files.CONFIG).is_file()
    if not (is_config or is_run or is_stage):
        return _model(name, settings)
    if settings is not None:
        raise UserError(f"{name} says itself how its judge decides; leave out the options about the judge")
    if is_stage:
        run = kept_run(path.resolve().parent)
        judge = run.judge_named(path.resolve().name)
    else:
        run = Run(seed_configs(load_config(path))[0]) if is_config else kept_run(path)
        judge = run.judge()
    # Judges of several runs are told apart by where they come from.
    named = judge.model_copy(update={"name": f"{name.rstrip('/')}: {judge.name}" if not is_stage else name.rstrip("/")})
    return FoundJudge(named, run.open_engine(), run.protocol("blind").prompts)


def _model(name: str, settings: JudgeSettings | None) -> FoundJudge:
    """A model as it is, or with an adapter."""
    from debate_rl.engines.local.engine import TransformersEngine  # here: it takes seconds

    settings = settings or JudgeSettings()
    if settings.adapter is not None and not (Path(settings.adapter) / "adapter_config.json").is_file():
        raise UserError(f"adapter not found: {settings.adapter}; give the folder that holds adapter_config.json")
    readable = settings.model_copy(update={"model": name, "name": _shown(name, settings)})
    judge = judge_of_kind(readable, Judge(model=name))
    prompts = "lab" if name.startswith("lab-") and Path(model_path(name)).is_dir() else "default"
    return FoundJudge(judge, TransformersEngine(model_path), prompts)


def _shown(name: str, settings: JudgeSettings) -> str:
    """Name of a model's verdicts: what differs from the defaults stands behind the model's name."""
    changed: list[str] = [settings.kind] if settings.kind != "model" else []
    if settings.readout != "letters":
        changed.append(settings.readout)
    if settings.debias != "none":
        changed.append(f"debias {settings.debias}")
    if settings.votes > 1:
        changed.append(f"{settings.votes} votes")
    if settings.adapter is not None:
        changed.append(settings.adapter)
    return f"{name} ({', '.join(changed)})" if changed else name
