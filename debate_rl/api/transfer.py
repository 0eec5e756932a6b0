"""Weak-to-strong in one call: supervisors, with or without debates to help them, teach a stronger student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from debate_rl.config.tree import parse_config
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.records import read_json
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from debate_rl.weak_to_strong.results.results import Results


def train_weak_to_strong(
    weak: str,
    strong: str,
    folder: str | Path,
    *,
    debater: str = "base",
    config: dict[str, Any] | None = None,
    **stage: Any,
) -> Results:
    """Train weak supervisors, have them label data, and train a strong student on the labels (Burns et al. 2023).

    Args:
        weak: the supervisors' model: a lab model, a folder or a hub name.
        strong: the student's model.
        folder: of the run; a call that was stopped goes on there.
        debater: who speaks in contexts: `base` is the strong model as it is, or the folder of a trained adapter.
        config: further parts of a config, such as `questions` and `protocol`.
        stage: settings of the weak_to_strong stage, such as `task="sciq", context=["none", "debate"], seeds=3`.

    Returns:
        Accuracy of supervisors, students and ceiling, and PGR with intervals over seeds and items.

    Raises:
        UserError: a setting is unknown or can not be done.

    Example:
        >>> import debate_rl as dr
        >>> sizes = {"supervisor": 12, "student": 12, "test": 10, "seeds": 1, "ensemble": 1}
        >>> config = {"questions": {"train": 40, "test": 10}, "protocol": {"prompts": "lab", "max_new_tokens": 16}}
        >>> results = dr.train_weak_to_strong(
        ...     "lab-small", "lab-base", "runs/transfer", config=config, context=["none"], **sizes
        ... )
        >>> print(results)  # doctest: +ELLIPSIS
        weak ...  ceiling ...  (10 test items, seeds: 1)
        none: student ...  PGR ...
        >>> list(results.to_frame().method)
        ['none']
    """
    if config is not None and "stages" in config:
        raise UserError("train_weak_to_strong runs one stage of its own; leave stages out, or use debate-rl run")
    folder = Path(folder)
    tree: dict[str, Any] = {"tracking": {"mode": "disabled"}, **(config or {})}
    tree["name"] = folder.name
    tree["runs"] = str(folder.parent)
    tree["models"] = {"debater": strong, "judge": weak, "weak": weak, "strong": strong}
    tree["stages"] = {"weak_to_strong": {"debater": debater, **stage}}
    run = Run(parse_config(tree), say=lambda line: None)
    run_stages(run)
    return Results.model_validate(read_json(run.folder / "weak_to_strong" / run_files.METRICS))
