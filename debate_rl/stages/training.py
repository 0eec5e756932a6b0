"""What the training stages share: a job in the stage's folder, its curve in W&B, its result as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from debate_rl.data.sources.provenance import source_of
from debate_rl.errors import UserError
from debate_rl.game.quotes import check_quotes
from debate_rl.judges.judge import Judge
from debate_rl.records import explain, read_json, write
from debate_rl.stages.base import Metrics, StageResult, TrainingStage
from debate_rl.stages.flat_metrics import flat_numbers
from debate_rl.trainers.common.data_card import DataFacts, Gathered, write_data_card
from debate_rl.trainers.common.model_card import write_model_card
from debate_rl.trainers.common.rows import PreferenceRow
from debate_rl.trainers.common.settings import Job, Kind

if TYPE_CHECKING:
    from debate_rl.runs.run import Run
    from debate_rl.trainers.grpo.eval_metrics import Point
    from debate_rl.trainers.grpo.judge_metrics import JudgePoint


class TrainingResult(StageResult):
    """What became of a training's rows; the results of stages that train have these fields first.

    Example:
        TrainingResult(rows=400, left_out={"too long": 3}, too_long=3, steps=50, train_loss=0.41)
    """

    rows: int
    """Rows in the file."""
    left_out: dict[str, int]
    """Rows that were not trained on, by reason."""
    too_long: int
    steps: int
    train_loss: float
    """Mean over the training."""
    warnings: tuple[str, ...] = ()
    """Signs that the training taught nothing (trainers/common/warning_signs.py)."""


class CardFacts(NamedTuple):
    """What a stage knows of its training for the cards beside the weights.

    Attributes:
        model: lines of the model card, such as where the rows come from.
        data: what the rows do not say of themselves, for the data card; None counts the run's own games.
    """

    model: Mapping[str, str | float] = MappingProxyType({})
    data: DataFacts | None = None


def train(
    run: Run,
    stage: TrainingStage,
    kind: Kind,
    rows: Sequence[BaseModel],
    out: Path,
    base: str,
    start: str | None = None,
    cards: CardFacts | None = None,
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
        cards: what the cards say beside what is known here.
        of_kind: fields of the job that only its kind has, such as DPO's objective.

    Returns:
        The fields of a `TrainingResult`, for the record of the stage.

    Raises:
        UserError: no rows, the training can not be done as asked, or a row was lost.
    """
    from debate_rl.trainers.common.job import launch  # here: it loads torch, which planning does not need

    if not rows:
        raise UserError(f"{out.name.lstrip('.')}: no rows to train on; give it more questions or transcripts")
    write(out / "rows.jsonl", rows)
    adapter = None if start is None else run.resolve(start)
    job = _job(run, stage, out, kind=kind, model=run.resolve(base), adapter=adapter, **of_kind)
    processes = run.config.hardware.cards if run.config.hardware and stage.launch else None
    run.rest()  # before the training needs the devices' memory
    name = run.name_of(out)
    with run.live_curve(name, out):
        result = launch(job, stage.launch, processes)
    for warning in result.warnings:
        run.say(f"  warning: {name}: {warning}")
    # Checked before the cards are written, which tell readers what was learnt from.
    counts = _checked_counts(out, len(rows))
    write_data_card(out, f"{run.label}: {name}", rows, counts, (cards.data if cards else None) or _facts(run, rows))
    facts: dict[str, Any] = {
        "base model": base,
        "started from": start or "the base model",
        "kind": kind,
        **(cards.model if cards else {}),
        "rows": result.rows,
        "steps": result.steps,
        "seed": run.config.seed,
        **{f"train.{key}": str(value) for key, value in stage.train.items()},
    }
    weights = out / ("model" if stage.lora is None else "adapter")
    write_model_card(weights, f"{run.label}: {name}", facts, {"training loss": result.loss})
    run.log_folder(name, out, {**facts, "base fingerprint": result.base})
    return {
        "rows": result.rows,
        "left_out": counts["left_out"],
        "too_long": result.too_long,
        "steps": result.steps,
        "train_loss": result.loss,
        "warnings": result.warnings,
    }


def _job(run: Run, stage: TrainingStage, out: Path, **fields: Any) -> Job:
    """The training as a job of its own, which may run in other processes.

    Raises:
        UserError: the settings do not go together.
    """
    try:
        return Job(
            rows=str(out / "rows.jsonl"),
            out=str(out),
            lora=stage.lora,
            quantize=stage.quantize,
            train=stage.train,
            seed=run.config.seed,
            **fields,
        )
    except ValidationError as error:
        raise UserError(f"{run.name_of(out)}: {explain(error)}") from error


def log_intervals(run: Run, name: str, points: Sequence[Point | JudgePoint]) -> None:
    """Log the intervals of what was measured during an online training, whose values the trainer has logged."""
    for point in points:
        numbers = flat_numbers(point.model_dump(exclude={"step", "alarms"}), f"{name}/watch/")
        ends = {key: value for key, value in numbers.items() if key.endswith((".low", ".high", ".p"))}
        if ends:
            run.tracker.log(ends, {f"{name}/step": float(point.step)})


def _checked_counts(out: Path, rows: int) -> dict[str, Any]:
    """What the training did with its rows.

    Raises:
        UserError: a row was lost.
    """
    counts: dict[str, Any] = read_json(out / "tokens.json")
    if counts["read"] != rows or counts["trained"] + sum(counts["left_out"].values()) != rows:
        raise UserError(f"{out}: {rows} rows were written but the training accounts for {counts}; remove the folder")
    return counts


def _facts(run: Run, rows: Sequence[BaseModel]) -> DataFacts:
    """Facts about rows made from the run's own games: the licence of their questions, the quotes in preferences."""
    source_name = run.config.questions.source
    source = source_of(source_name).model_copy(update={"name": f"the run's own games on questions of {source_name}"})
    gathered = Gathered(source=source, built=len(rows), used=len(rows))
    pairs = [row for row in rows if isinstance(row, PreferenceRow)]
    passages = {}
    if pairs:
        passages = {question.id: question.passage for question in run.questions("train")}
    near = run.protocol().near_quotes
    quotes: Counter[str] = Counter()
    for row in pairs:
        passage = passages.get(row.question)
        quotes.update(f"chosen: {quote.verdict}" for quote in check_quotes(row.chosen, passage, near))
        quotes.update(f"rejected: {quote.verdict}" for quote in check_quotes(row.rejected, passage, near))
    return DataFacts(gathered=(gathered,), quotes=dict(sorted(quotes.items())))


def start_from(run: Run, stage_name: str | None, base: str) -> tuple[str, str | None]:
    """Base and adapter that a training starts from: an earlier stage's, or the base model as it is."""
    return run.weights(stage_name or "base", base)


def trained_judge(stage: TrainingStage, run: Run, out: Path, name: str) -> Judge:
    """The judge that a stage has just trained, before it is calibrated."""
    if stage.lora is None:
        judge = Judge(name=name, model=str(out / "model"))
    else:
        judge = Judge(name=name, model=run.config.models.judge, adapter=str(out / "adapter"))
    return run.read_as_set(judge)
