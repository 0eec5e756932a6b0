"""Whether the models of a run are there: a lab model, a folder, in the hub cache, or on the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from debate_rl.config_judge import JudgeSettings
from debate_rl.config_stages import OversightStage, ReadingStage, Stage, WeakToStrongStage
from debate_rl.config_training import GrpoStage
from debate_rl.data.models import SHIPPED
from debate_rl.engines.weights import check_weights
from debate_rl.errors import UserError, nearest
from debate_rl.experiment import Run
from debate_rl.stages import weak_to_strong

_TRAINS = {"sft": ("debater",), "dpo": ("debater",), "grpo": ("debater", "judge"), "judge": ("judge",),
           "iterations": ("debater", "judge"), "weak_to_strong": ("weak", "strong")}  # fmt: skip
"""Roles whose models a stage trains or holds in this process, whatever engine answers."""
ASKS = {
    "preferences": ("debater", "judge"),
    "tournament": ("debater", "judge"),
    "oversight": ("debater", "judge"),
    "iterations": ("debater", "judge"),
    "judge": ("debater", "judge"),
    "grpo": ("debater", "judge"),
}
"""Roles that a stage asks by the engine."""


def check_models(run: Run, stages: Mapping[str, Stage], note: Callable[[str], None], dry: bool) -> dict[str, Path]:
    """Make sure that every model which this process will load is there.

    Args:
        run: the experiment.
        stages: that will be run.
        note: takes what could not be found out.
        dry: a model that is not on this machine is no fault, as long as the hub does not say that there is none.

    Returns:
        Folder of each model that is on this machine.

    Raises:
        UserError: a model is nowhere, or its files are not whole.
    """
    here: dict[str, Path] = {}
    for name, what in _models(run, stages).items():
        path = run.resolve(name)
        if Path(path).is_dir():
            here[name] = check_weights(path)
            continue
        folder = _cached(path)
        if folder is not None:
            here[name] = folder
            continue
        fault, sure = _hub_fault(path)
        if fault and (sure or not dry):
            raise UserError(f"model not found: {what} {name!r} {fault}")
        if fault:
            note(f"{what} {name!r} {fault}")
    return here


def _models(run: Run, stages: Mapping[str, Stage]) -> dict[str, str]:
    """Name of each model that this process will load, and where the config names it."""
    local = run.config.engine.kind == "transformers"
    found: dict[str, str] = {}
    for name, stage in stages.items():
        roles = _TRAINS.get(stage.kind, ()) + (ASKS.get(stage.kind, ()) if local else ())
        used = weak_to_strong.models(stage, run) if isinstance(stage, WeakToStrongStage) else run.config.models
        for role in roles:
            found.setdefault(getattr(used, role), f"models.{role}")
        if isinstance(stage, ReadingStage) and local:
            for model in stage.models:
                found.setdefault(model, f"stages.{name}.models")
        watch = stage.watch.second if isinstance(stage, GrpoStage) and stage.watch else None
        second = stage.second if isinstance(stage, OversightStage) else watch
        if isinstance(second, str) and second != "base" and second not in run.config.stages and local:
            found.setdefault(second, f"stages.{name}.second")
        if isinstance(second, JudgeSettings) and local:
            found |= {model: f"stages.{name}.second" for model in _of_judge(second) if model not in found}
    if local and any("judge" in ASKS.get(stage.kind, ()) for stage in stages.values()):
        found |= {model: "judge.model" for model in _of_judge(run.config.judge) if model not in found}
    return found


def _of_judge(settings: JudgeSettings) -> list[str]:
    """The models that a judge's settings name."""
    own = [settings.model] if settings.model is not None else []
    return own + [model for member in settings.members for model in _of_judge(member)]


def _cached(name: str) -> Path | None:
    """Folder of a hub model in the cache of this machine."""
    if _malformed(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json")
    return Path(path).parent if isinstance(path, str) else None


def _malformed(name: str) -> bool:
    """Whether a name can be no hub name: one is OWNER/MODEL."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return True
    return name.count("/") != 1


def _hub_fault(name: str) -> tuple[str, bool]:
    """Why a hub model can not be had, else an empty text; and whether that is sure."""
    if _malformed(name):
        shipped = [path.parent.name for path in SHIPPED.glob("*/config.json")]
        return f"is no folder with config.json and no hub name such as Qwen/Qwen3-8B; {nearest(name, shipped)}", True
    where = "is no folder, and is not in the hub cache of this machine"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return f"{where}; HF_HUB_OFFLINE is set, so it will not be fetched", False
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().model_info(name, timeout=10)
    except RepositoryNotFoundError:
        return "is no folder, and the hub has no such model, or it is gated and HF_TOKEN is not set", True
    except HfHubHTTPError as error:
        return f"{where}; the hub does not give it ({str(error).splitlines()[0]})", False
    except Exception as error:  # whatever the network does: requests, httpx and urllib3 have errors of their own
        return f"{where}; the hub can not be reached ({type(error).__name__})", False
    return "", True
