"""What the trainings of a run would need: rows, tokens, memory on each card, hours. All of it is estimated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from debate_rl.config.settings import Hardware
from debate_rl.errors import UserError
from debate_rl.records import Record
from debate_rl.runs.run import Run
from debate_rl.stages.base import TrainingStage
from debate_rl.stages.workload import TrainingLoad
from debate_rl.trainers.common.arguments import default_arguments
from debate_rl.trainers.common.memory import (
    GIB,
    Reference,
    Training,
    card_of,
    half_on_cpu,
    hours,
    machine,
    memory,
    refuse,
    settled,
    sharding_of,
)
from debate_rl.trainers.common.model_shapes import Shape, shape_of


class Estimated(Record):
    """A training before it runs.

    Example:
        Estimated(stage="dpo", model="llama-3-8b", rows=2504, tokens=41065600, gib=14.3, parts="weights 5.3, ...",
                  hours=4.1, processes=1)
    """

    stage: str
    model: str
    rows: int
    tokens: int
    """That the training reads, over all its epochs."""
    gib: float | None = None
    """On each card; None where the model's shape is not known."""
    parts: str = ""
    hours: float | None = None
    processes: int = 1
    too_large: str = ""
    """What to change where it needs more memory than is free here; empty where it fits, or is meant for a card."""


def estimates(run: Run, only: set[str] | None = None, like: Path | None = None) -> list[Estimated]:
    """The trainings of a run, in order.

    Args:
        run: the experiment.
        only: names of stages; None is all.
        like: folder of a finished run whose speeches are like those that online training will play.

    Raises:
        UserError: what a training is made from can not be read, or it does not fit the hardware that the config names.
    """
    estimated = []
    for name, stage in run.config.stages.items():
        load = stage.training_load(run, name, like) if only is None or name in only else None
        if load is not None:
            _, settings = next(stage.trainings())
            estimated.append(_estimate(run, name, settings, load))
    return estimated


def check_hardware(run: Run, only: set[str] | None = None) -> None:
    """Make sure that a run with `hardware` is on a machine with GPUs, and that its trainings fit the cards named.

    Raises:
        UserError: there is no GPU, or see `estimates`.
    """
    import torch

    wanted = run.config.hardware
    if wanted is None:
        return
    if not torch.cuda.is_available():
        raise UserError(
            f"the config is for {card_of(wanted.card).name}, and there is no GPU here; look at it with --dry-run, "
            "or set hardware=null to run on the CPU"
        )
    estimates(run, only)


def _estimate(run: Run, name: str, stage: TrainingStage, load: TrainingLoad) -> Estimated:
    """Estimate one training, and refuse it where the config names a card that is too small."""
    hardware, shape, rows = run.config.hardware, shape_of(run.resolve(load.model)), load.rows
    sharding, processes = sharding_of(stage.launch)
    if hardware is not None and stage.launch is not None:
        processes = hardware.cards
    settings = {**default_arguments(load.kind), **stage.train}
    if load.batch is not None:
        settings["per_device_train_batch_size"] = load.batch
    seen = rows.count if load.kind == "grpo" else _seen(settings, rows.count, processes)
    base: dict[str, Any] = {"stage": name, "model": load.model, "rows": rows.count, "processes": processes}
    tokens = int(load.times * seen * rows.tokens / max(rows.count, 1))
    if load.share_prompt:  # rows are counted with a prompt for each speech
        tokens = int(tokens * (rows.prompt + 2 * rows.speech) / (2 * (rows.prompt + rows.speech)))
    if shape is None:
        return Estimated(**base, tokens=tokens)
    training = _training(stage, load, shape, settings, hardware).model_copy(
        update={"sharding": sharding, "processes": processes}
    )
    spent = None
    too_large = ""
    if training.on_cpu:
        too_large = _too_large(training, name)
    if hardware is not None:
        card = card_of(hardware.card)
        refuse(training, card, f"stages.{name}")
        spent = hours(training, tokens, card)
    need, beside = memory(training), load.beside
    parts = str(need) + (f", judges and opponents {beside / GIB:.1f}" if beside >= 0.05 * GIB else "")
    gib = (need.total + beside) / GIB
    return Estimated(**base, tokens=tokens, gib=gib, parts=parts, hours=spent, too_large=too_large)


def _too_large(training: Training, name: str) -> str:
    """Why a training would be refused on this machine; empty where it would not."""
    try:
        refuse(training, machine(), f"stages.{name}")
    except UserError as error:
        return str(error)
    return ""


def _training(
    stage: TrainingStage, load: TrainingLoad, shape: Shape, settings: dict[str, Any], hardware: Hardware | None
) -> Training:
    """What the memory of a stage's training depends on; without hardware it is as on a CPU."""
    rows, limit = load.rows, settings.get("max_length")
    prompt = rows.prompt if limit is None else min(rows.prompt, max(int(limit) - rows.speech, 1))
    on_card = hardware is not None
    on_cpu = not on_card and stage.launch is None
    training = Training(
        kind=load.kind,
        shape=shape,
        prompt=prompt,
        speech=rows.speech,
        batch=int(settings["per_device_train_batch_size"]),
        lora=None if stage.lora is None else stage.lora.r,
        adapt_experts=stage.lora is not None and stage.lora.target_modules == "all-linear",
        quantize=stage.quantize,
        half=bool(settings.get("bf16", on_card or half_on_cpu(shape))),
        checkpointing=bool(settings.get("gradient_checkpointing", on_card and load.kind in ("sft", "dpo", "grpo"))),
        reference=_reference(stage, load, settings),
        share_prompt=load.share_prompt,
        small_optimizer="8bit" in str(settings.get("optim", "")),
        on_cpu=on_cpu,
    )
    return settled(training, settings.get("gradient_checkpointing"), not settings.get("packing"))


def _reference(stage: TrainingStage, load: TrainingLoad, settings: dict[str, Any]) -> Reference:
    """Where the reference policy's log-probabilities come from."""
    if load.reference is not None:
        return load.reference
    if load.kind == "grpo" and not settings.get("beta"):
        return "none"
    if settings.get("precompute_ref_log_probs") and stage.lora is None:
        return "none"
    return "adapter" if stage.lora is not None else "model"


def _seen(settings: dict[str, Any], rows: int, processes: int) -> float:
    """Rows that a training reads, over its epochs or up to its last step."""
    steps = int(settings.get("max_steps") or -1)
    if steps <= 0:
        return rows * float(settings["num_train_epochs"])
    accumulated = int(settings.get("gradient_accumulation_steps") or 1)
    return steps * processes * accumulated * int(settings["per_device_train_batch_size"])
