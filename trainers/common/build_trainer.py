"""From a job to a trainer that is ready: rows read, encoded and checked for length, the model loaded."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from debate_rl.engines.load import context_of, load_config
from debate_rl.engines.weights import check_adapter
from debate_rl.errors import UserError
from debate_rl.records import read, write_json
from debate_rl.trainers.common.load import load_model, other_scale, start_from
from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow, PreferenceRow, RewardRow, SftRow
from debate_rl.trainers.common.settings import Dtype, Job, Kind

logger = logging.getLogger(__name__)

ROWS: dict[Kind, type[BaseModel]] = {
    "sft": SftRow,
    "dpo": PreferenceRow,
    "judge": JudgeRow,
    "classifier": ClassifierRow,
    "reward": RewardRow,
}
"""What a line of the rows file is."""


NO_SPEECH = "no speech"
TOO_LONG = "longer than max_length"


@dataclass(frozen=True)
class Prepared:
    """Encoded rows, ready for a trainer. What was read is trained on or stands in `left_out`."""

    rows: list[dict[str, Any]]
    eval_rows: list[dict[str, Any]] | None
    read: int
    too_long: int
    """Rows over `max_length`: left out, or in a classifier cut."""
    left_out: dict[str, int]
    """Rows that are not trained on, by reason."""


def prepare(job: Job, tokenizer: Any) -> Prepared:
    """Read and encode the rows, and set aside those without a speech and those that are too long.

    Writes `tokens.json` into the job's folder: how long the rows are, and how many are left out and why.

    Raises:
        UserError: a file is missing, malformed or empty, no row is short enough, or rows exceed the model's context.
    """
    if job.kind == "grpo":
        return _prepare_questions(job, tokenizer)
    taken = _take(job, tokenizer, job.rows)
    counts = _token_counts(job.kind, taken.rows, taken.read, taken.left_out, taken.over)
    evaluated = None
    if job.eval_rows:
        evaluated = _take(job, tokenizer, job.eval_rows)
        counts["eval"] = {
            "read": evaluated.read, "evaluated": len(evaluated.rows), "left_out": evaluated.left_out,
            "over_long": len(evaluated.over),
        }  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        write_json(Path(job.out) / "tokens.json", counts)
    return Prepared(taken.rows, evaluated.rows if evaluated else None, taken.read, len(taken.over), taken.left_out)


def _prepare_questions(job: Job, tokenizer: Any) -> Prepared:
    """The same for online training, whose rows are questions: keys of the groups that are played (see `places`)."""
    from debate_rl.trainers.grpo.groups import playable

    found = playable(job, tokenizer, _context(job.model))
    shown = [{"input_ids": prompt} for prompt in found.prompts]
    left_out = {reason: count for reason, count in found.left_out.items() if count}
    if left_out:
        logger.warning("%s: questions that are not played: %s", job.rows, left_out)
    if os.environ.get("RANK", "0") == "0":
        counts = _token_counts("grpo", shown, found.read, left_out, found.over)
        write_json(Path(job.out) / "tokens.json", counts)
    return Prepared([{"prompt": key} for key in found.keys], None, found.read, len(found.over), left_out)


@dataclass(frozen=True)
class _Taken:
    """What of a file is used: its encoded rows, how many were read and left out, and the lengths over the limit."""

    rows: list[dict[str, Any]]
    read: int
    over: list[int]
    left_out: dict[str, int]


def _take(job: Job, tokenizer: Any, file: str) -> _Taken:
    """Read and encode a file's rows, and warn of those that are left out or cut.

    Raises:
        UserError: see `prepare`.
    """
    rows = read(file, ROWS[job.kind])
    if not rows:
        raise UserError(f"{file} holds no rows")
    said = [row for row in rows if _has_speech(row)]
    if not said:
        raise UserError(f"{file}: no row has a speech to learn")
    kept, over = _fitting(job, tokenizer, _encode(job, tokenizer, said), file)
    if not kept:
        raise UserError(f"{file}: every row is longer than max_length {job.train['max_length']}; raise it")
    if over:
        what = "cut at their beginning" if job.kind in ("classifier", "reward") else "left out"
        logger.warning(
            "%s: %d of %d rows are longer than max_length %s (%d to %d tokens): %s",
            file, len(over), len(rows), job.train["max_length"], min(over), max(over), what,
        )  # fmt: skip
    if len(said) < len(rows):
        logger.warning("%s: %d of %d rows have no speech to learn: left out", file, len(rows) - len(said), len(rows))
    left_out = {NO_SPEECH: len(rows) - len(said), TOO_LONG: len(said) - len(kept)}
    return _Taken(kept, len(rows), over, {reason: count for reason, count in left_out.items() if count})


def _has_speech(row: BaseModel) -> bool:
    """Whether a row has something to learn from: one without text teaches to say nothing, or that anything beats it."""
    if isinstance(row, SftRow):
        return bool(row.completion.strip())
    return not isinstance(row, PreferenceRow | RewardRow) or bool(row.chosen.strip() and row.rejected.strip())


def _token_counts(
    kind: Kind, kept: list[dict[str, Any]], read: int, left_out: dict[str, int], over: list[int]
) -> dict[str, Any]:
    """What the data card says of tokens: of each part of the rows, smallest, quantiles, largest and sum."""
    parts: dict[str, list[int]]
    if kind == "sft":
        prompts = [sum(label == -100 for label in row["labels"]) for row in kept]
        lengths = [len(row["input_ids"]) for row in kept]
        parts = {"prompt": prompts, "speech": [whole - part for whole, part in zip(lengths, prompts, strict=True)]}
    elif kind == "dpo":
        parts = {part: [len(row[f"{part}_ids"]) for row in kept] for part in ("prompt", "chosen", "rejected")}
    elif kind == "reward":
        parts = {side: [len(row[f"{side}_ids"]) for row in kept] for side in ("chosen", "rejected")}
    else:
        parts = {"text" if kind == "classifier" else "prompt": [len(row["input_ids"]) for row in kept]}
    quantiles = {"min": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "max": 1.0}
    return {
        "read": read,
        "trained": len(kept),
        "left_out": left_out,
        "over_long": {"rows": len(over), "shortest": min(over, default=0), "longest": max(over, default=0)},
        "tokens": {
            part: {**{name: int(np.quantile(sizes, q, method="nearest")) for name, q in quantiles.items()},
                   "sum": sum(sizes)}
            for part, sizes in parts.items()
        },
    }  # fmt: skip


def _encode(job: Job, tokenizer: Any, rows: list[Any]) -> list[dict[str, Any]]:
    """Token ids of rows, by kind."""
    if job.kind == "sft":
        from debate_rl.trainers.sft import encode_speeches

        return encode_speeches(tokenizer, rows)
    if job.kind == "dpo":
        from debate_rl.trainers.common.pairs import encode_pairs

        return encode_pairs(tokenizer, rows, job.objective)
    if job.kind == "judge":
        from debate_rl.trainers.judge import encode_judge_rows

        return encode_judge_rows(tokenizer, rows)
    if job.kind == "reward":
        from debate_rl.trainers.reward import encode_rewards

        return encode_rewards(tokenizer, rows)
    from debate_rl.trainers.classifier import encode_texts

    return encode_texts(tokenizer, rows)


def _length(kind: Kind) -> Callable[[dict[str, Any]], int]:
    """How many tokens an encoded row takes."""
    if kind == "dpo":
        return lambda row: len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    if kind == "reward":
        return lambda row: max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    if kind == "judge":
        return lambda row: len(row["input_ids"]) + max(len(ids) for ids in row["candidates"]) - 1
    return lambda row: len(row["input_ids"])


def _fitting(
    job: Job, tokenizer: Any, encoded: list[dict[str, Any]], file: str
) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows within `max_length`, and the lengths of those that are not; a classifier's are cut, not left out."""
    length, limit = _length(job.kind), job.train.get("max_length")
    if limit is None:
        context = _context(job.model)
        over = [length(row) for row in encoded if length(row) > context]
        if over:
            raise UserError(
                f"{file}: {len(over)} of {len(encoded)} rows are longer than the model's {context} tokens (up to "
                f"{max(over)}); set train.max_length to leave them out"
            )
        return encoded, []
    over = [length(row) for row in encoded if length(row) > int(limit)]
    if job.kind == "classifier":
        from debate_rl.trainers.classifier import cut_texts

        return cut_texts(tokenizer, encoded, int(limit)), over
    if job.kind == "reward":
        from debate_rl.trainers.reward import cut_pairs

        return cut_pairs(tokenizer, encoded, int(limit)), over
    return [row for row in encoded if length(row) <= int(limit)], over


def _context(model: str) -> float:
    """Positions that a model knows; infinite where its config does not say."""
    return context_of(load_config(model)) or math.inf


def build_trainer(job: Job, tokenizer: Any, prepared: Prepared, config: Any, callbacks: list[Any]) -> Any:
    """The trainer of the job's kind, with its model.

    Raises:
        UserError: the model can not be loaded, settings do not go together, or the trainer would learn from other
            rows than were prepared.
    """
    try:
        trainer = _trainer(job, tokenizer, prepared, config, callbacks)
    except (ValueError, ImportError, NotImplementedError) as error:
        raise UserError(f"train: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from error
    pairs = [("rows", prepared.rows, trainer.train_dataset), ("eval_rows", prepared.eval_rows, trainer.eval_dataset)]
    for name, given, taken in pairs:
        if given is not None and row_count(taken) != len(given):
            raise UserError(
                f"{getattr(job, name)}: {len(given)} rows were prepared and the trainer took {row_count(taken)}; "
                "remove the option of `train` that cuts or drops rows"
            )
    return trainer


def row_count(dataset: Any) -> int:
    """Rows of a trainer's data set; of a packed one, the rows that were packed."""
    if "seq_lengths" in (getattr(dataset, "column_names", None) or ()):
        return sum(map(len, dataset["seq_lengths"]))
    return len(dataset)


def _trainer(job: Job, tokenizer: Any, prepared: Prepared, config: Any, callbacks: list[Any]) -> Any:
    """See `build_trainer`."""
    full = job.lora is None
    dtype, init = _model_options(job)
    kind = job.kind if job.kind in ("classifier", "reward") else "causal"
    # TRL copies what the model holds as its reference; the weights to start from take its place below.
    swapped = job.reference is not None and not full
    adapter = job.reference.adapter if job.reference is not None and swapped else job.adapter
    model = load_model(job.model, kind, adapter, True, dtype, job.quantize, **init)
    if full and job.adapter is not None:
        model = model.merge_and_unload().requires_grad_(True)  # peft had frozen the base
    peft_config = None
    if job.lora is not None and job.adapter is not None:
        said = other_scale(job.adapter, job.lora.r, job.lora.alpha)
        if said is not None:
            logger.warning("%s %s", job.kind, said)
    if job.lora is not None and adapter is None:
        peft_config = job.lora.config("CAUSAL_LM" if kind == "causal" else "SEQ_CLS")
    options: dict[str, Any] = {"callbacks": callbacks}
    if job.kind == "grpo":
        from debate_rl.trainers.grpo.trainer import grpo_trainer

        rows = _dataset(prepared.rows, job, config, "rows")
        return grpo_trainer(job, model, tokenizer, rows, config, callbacks, peft_config)
    if job.kind in ("sft", "dpo"):
        options |= {"peft_config": peft_config, "eval_dataset": _dataset(prepared.eval_rows, job, config, "eval")}
        rows = _dataset(prepared.rows, job, config, "rows")
        if job.kind == "sft":
            from debate_rl.trainers.sft import sft_trainer

            return sft_trainer(model, tokenizer, rows, config, **options)
        from debate_rl.trainers.dpo import dpo_trainer

        options |= {"ref_model": _reference(job, model), "share_prompt": job.share_prompt}
        trainer = dpo_trainer(model, tokenizer, rows, config, job.objective, **options)
        if swapped and job.adapter is not None:
            check_adapter(job.model, job.adapter)
            start_from(trainer.model, job.adapter)
        return trainer
    if job.kind == "reward":
        from debate_rl.trainers.reward import reward_trainer

        options |= {"peft_config": peft_config, "eval_dataset": _dataset(prepared.eval_rows, job, config, "eval")}
        rows = _dataset(prepared.rows, job, config, "rows")
        return reward_trainer(model, tokenizer, rows, config, _student_loss(job, config), **options)
    options |= {"eval_dataset": prepared.eval_rows, "loss": _student_loss(job, config)}
    if peft_config is not None:
        from peft import get_peft_model
        from transformers.integrations import is_deepspeed_zero3_enabled

        # ZeRO-3 gathers parameters of one type only, so there the adapter keeps the base's.
        model = get_peft_model(model, peft_config, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    if job.kind == "judge":
        from debate_rl.trainers.judge import judge_trainer

        return judge_trainer(model, tokenizer, prepared.rows, config, **options)
    from debate_rl.trainers.classifier import classifier_trainer, freeze_body

    if job.probe:
        freeze_body(model)
    return classifier_trainer(model, tokenizer, prepared.rows, config, **options)


def _model_options(job: Job) -> tuple[Dtype, dict[str, Any]]:
    """Type of the base's weights, and further arguments of from_pretrained.

    Raises:
        UserError: the job and its `model_init_kwargs` name two types.
    """
    init = dict(job.train.get("model_init_kwargs") or {})
    dtype: Dtype = init.pop("dtype", job.dtype)
    if job.dtype not in ("auto", dtype):
        raise UserError(f"train.model_init_kwargs.dtype is {dtype} and the job's 'dtype' {job.dtype}; set one of them")
    return "float32" if dtype == "auto" and job.lora is None else dtype, init


def _student_loss(job: Job, config: Any) -> Any:
    """The loss of a judge or a classifier.

    Raises:
        UserError: batches are too small for a threshold over them.
    """
    from debate_rl.trainers.common.binary_trainer import student_loss

    if job.loss.kind == "confidence" and config.per_device_train_batch_size < 8:
        raise UserError(
            "loss 'confidence' keeps the class prior within a batch; set train.per_device_train_batch_size to 8 or "
            f"more (it is {config.per_device_train_batch_size}), or take another loss"
        )
    return student_loss(job.loss)


def _reference(job: Job, model: Any) -> Any:
    """DPO's reference where TRL would reload the wrong one: the job's own, or the base with the adapter merged."""
    if job.lora is not None:
        return None
    if job.reference is not None:
        other = load_model(job.reference.model, adapter=job.reference.adapter, trainable=False, dtype="float32")
        merged = other if job.reference.adapter is None else other.merge_and_unload()
        return merged.requires_grad_(False)
    if job.adapter is None:
        return None
    return copy.deepcopy(model).requires_grad_(False)


def _dataset(rows: list[dict[str, Any]] | None, job: Job, config: Any, name: str) -> Any:
    """Encoded rows as a Dataset; on disk where processes share what the reference says of them."""
    from datasets import Dataset, load_from_disk

    if rows is None:
        return None
    data = Dataset.from_list(rows)
    if not job.train.get("precompute_ref_log_probs") or config.world_size == 1:
        return data
    folder = Path(job.out) / "checkpoints" / name
    with config.main_process_first(desc="rows"):
        if config.process_index == 0:
            data.save_to_disk(str(folder))
        return load_from_disk(str(folder))
