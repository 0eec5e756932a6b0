"""What the training stages share: a job in the stage's folder, its curve in W&B, its result as metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from debate_rl.config import TrainingStage
from debate_rl.errors import UserError
from debate_rl.experiment import Metrics, Run
from debate_rl.records import read_json, write
from debate_rl.report.model_card import write_model_card
from debate_rl.trainers.settings import Job, Kind


def train(
    run: Run,
    stage: TrainingStage,
    kind: Kind,
    rows: Sequence[BaseModel],
    out: Path,
    base: str,
    start: str | None = None,
    **of_kind: Any,
) -> Metrics:
    """Train on rows in a stage's folder.

    Args:
        run: the experiment.
        stage: settings of the training.
        kind: sft, dpo or judge.
        rows: what is learnt from.
        out: the stage's working folder; the adapter is left in `out/adapter`, a fully trained model in `out/model`.
        base: name of the base model.
        start: name of the adapter to train further.
        of_kind: fields of the job that its kind alone has, such as DPO's objective.

    Raises:
        UserError: no rows, or the training can not be done as asked.
    """
    from debate_rl.trainers.job import launch  # here: it loads torch, which planning does not need

    if not rows:
        raise UserError(f"{out.name.lstrip('.')}: no rows to train on; give it more questions or transcripts")
    write(out / "rows.jsonl", rows)
    job = Job(
        kind=kind,
        model=run.resolve(base),
        adapter=None if start is None else run.resolve(start),
        rows=str(out / "rows.jsonl"),
        out=str(out),
        lora=stage.lora,
        train=stage.train,
        seed=run.config.seed,
        **of_kind,
    )
    result = launch(job, stage.launch)
    name = out.name.lstrip(".")
    for entry in read_json(out / "history.json"):
        numbers = {f"{name}/{k}": float(v) for k, v in entry.items() if isinstance(v, int | float) and k != "step"}
        run.tracker.log(numbers, {f"{name}/step": float(entry.get("step", 0))})
    facts: dict[str, Any] = {
        "base model": base, "started from": start or "the base model", "kind": kind, "rows": result.rows,
        "steps": result.steps, "seed": run.config.seed, **{f"train.{k}": str(v) for k, v in stage.train.items()},
    }  # fmt: skip
    made = out / ("model" if stage.lora is None else "adapter")
    write_model_card(made, f"{run.label}: {name}", facts, {"training loss": result.loss})
    run.tracker.artifact(f"{run.label}-{name}", "model", made, {**facts, "base fingerprint": result.base})
    return {"rows": result.rows, "too_long": result.too_long, "steps": result.steps, "train_loss": result.loss}


def start_from(run: Run, stage_name: str | None, base: str) -> tuple[str, str | None]:
    """Base and adapter that a training starts from: an earlier stage's, or the base model as it is."""
    return run.weights(stage_name or "base", base)
