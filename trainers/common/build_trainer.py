"""Turn a job into a trainer: read and encode its rows, check their length, load the model."""

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
from debate_rl.trainers.common.load import float32_head, load_model, other_scale, start_from
from debate_rl.trainers.common.memory import Reference, Training, settled
from debate_rl.trainers.common.model_shapes import shape_of
from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow, PreferenceRow, RewardRow, SftRow
from debate_rl.trainers.common.settings import Dtype, Job, Kind

# The trainers' own modules are imported inside functions: they load TRL, which takes seconds, and a job needs one.

logger = logging.getLogger(__name__)

ROWS: dict[Kind, type[BaseModel]] = {
    "sft": SftRow,
    "dpo": PreferenceRow,
    "judge": JudgeRow,
    "classifier": ClassifierRow,
    "reward": RewardRow,
}
"""The record that each line of a rows file holds."""


NO_SPEECH = "no speech"
TOO_LONG = "longer than max_length"
_QUANTILES = {"min": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Prepared:
    """Encoded rows, ready for a trainer. Every row that was read is either trained on or counted in `left_out`."""

    rows: list[dict[str, Any]]
    eval_rows: list[dict[str, Any]] | None
    read: int
    too_long: int
    """Rows over `max_length`: left out, or cut where the kind is classifier or reward."""
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
    training = _encode_file(job, tokenizer, job.rows)
    counts = _token_counts(job.kind, training)
    eval_rows = None
    if job.eval_rows:
        evaluation = _encode_file(job, tokenizer, job.eval_rows)
        eval_rows = evaluation.rows
        counts["eval"] = {
            "read": evaluation.read,
            "evaluated": len(evaluation.rows),
            "left_out": evaluation.left_out,
            "over_long": len(evaluation.over),
        }
    _write_counts(job, counts)
    return Prepared(training.rows, eval_rows, training.read, len(training.over), training.left_out)


def _prepare_questions(job: Job, tokenizer: Any) -> Prepared:
    """Prepare online training, whose rows are keys of groups (see `debate_rl.trainers.grpo.groups`)."""
    from debate_rl.trainers.grpo.groups import playable
    from debate_rl.trainers.grpo.judge_rollout import judgeable

    if job.judging is None:
        questions = playable(job, tokenizer, _context(job.model))
    else:
        questions = judgeable(job.rows, job.judging, tokenizer, _context(job.model))
    left_out = {reason: count for reason, count in questions.left_out.items() if count}
    if left_out:
        logger.warning("%s: rows that are not played or judged: %s", job.rows, left_out)
    prompts = [{"input_ids": prompt} for prompt in questions.prompts]
    _write_counts(job, _token_counts("grpo", _EncodedFile(prompts, questions.read, questions.over, left_out)))
    keys = [{"prompt": key} for key in questions.keys]
    return Prepared(keys, None, questions.read, len(questions.over), left_out)


def _write_counts(job: Job, counts: dict[str, Any]) -> None:
    """Write `tokens.json`, from the first process only."""
    if os.environ.get("RANK", "0") == "0":
        write_json(Path(job.out) / "tokens.json", counts)


@dataclass(frozen=True)
class _EncodedFile:
    """The usable rows of a file, and how many were not."""

    rows: list[dict[str, Any]]
    read: int
    over: list[int]
    """Tokens of each row over `max_length`."""
    left_out: dict[str, int]


def _encode_file(job: Job, tokenizer: Any, file: str) -> _EncodedFile:
    """Read and encode a file's rows, and warn of those that are left out or cut.

    Raises:
        UserError: see `prepare`.
    """
    rows = read(file, ROWS[job.kind])
    if not rows:
        raise UserError(f"{file} holds no rows")
    with_speech = [row for row in rows if _has_speech(row)]
    if not with_speech:
        raise UserError(f"{file}: no row has a speech to learn")
    encoded, over = _within_limit(job, tokenizer, _encode(job, tokenizer, with_speech), file)
    if not encoded:
        raise UserError(f"{file}: every row is longer than max_length {job.train['max_length']}; raise it")
    if over:
        outcome = "cut at their beginning" if job.kind in ("classifier", "reward") else "left out"
        logger.warning(
            "%s: %d of %d rows are longer than max_length %s (%d to %d tokens): %s",
            file,
            len(over),
            len(rows),
            job.train["max_length"],
            min(over),
            max(over),
            outcome,
        )
    speechless = len(rows) - len(with_speech)
    if speechless:
        logger.warning("%s: %d of %d rows have no speech to learn: left out", file, speechless, len(rows))
    reasons = {NO_SPEECH: speechless, TOO_LONG: len(with_speech) - len(encoded)}
    left_out = {reason: count for reason, count in reasons.items() if count}
    return _EncodedFile(encoded, len(rows), over, left_out)


def _has_speech(row: BaseModel) -> bool:
    """Whether a row has something to learn from."""
    # An empty completion teaches the model to say nothing; an empty rejected speech, that anything beats silence.
    if isinstance(row, SftRow):
        return bool(row.completion.strip())
    if isinstance(row, PreferenceRow | RewardRow):
        return bool(row.chosen.strip() and row.rejected.strip())
    return True


def _token_counts(kind: Kind, file: _EncodedFile) -> dict[str, Any]:
    """The content of `tokens.json`: rows read and left out, and the lengths of each part of a row."""
    return {
        "read": file.read,
        "trained": len(file.rows),
        "left_out": file.left_out,
        "over_long": {
            "rows": len(file.over),
            "shortest": min(file.over, default=0),
            "longest": max(file.over, default=0),
        },
        "tokens": {part: _quantiles(sizes) for part, sizes in _part_sizes(kind, file.rows).items()},
    }


def training_of(job: Job, prepared: Prepared, config: Any) -> Training | None:
    """What the memory of a job on a CPU depends on, with the parts and the checkpointing that it will use.

    Returns:
        None for online training, on a GPU, in several processes, or for a model whose shape is not known.
    """
    shape = shape_of(job.model)
    if shape is None or job.kind == "grpo" or config.device.type != "cpu" or config.world_size > 1:
        return None
    sizes = _part_sizes(job.kind, prepared.rows)
    speeches = sizes.get("speech") or [*sizes.get("chosen", ()), *sizes.get("rejected", ())]
    speech = 0 if job.kind == "reward" else max(speeches, default=0)
    longest = max(_row_tokens(job.kind, row) for row in prepared.rows)
    reference: Reference = "none"
    if job.kind == "dpo" and job.lora is None and not job.train.get("precompute_ref_log_probs"):
        reference = "model"
    elif job.kind == "dpo" and job.lora is not None and job.adapter is not None:
        reference = "adapter"
    training = Training(
        kind=job.kind,
        shape=shape,
        prompt=longest - speech,
        speech=speech,
        batch=min(config.per_device_train_batch_size, len(prepared.rows)),
        lora=None if job.lora is None else job.lora.r,
        adapt_experts=job.lora is not None and job.lora.target_modules == "all-linear",
        quantize=job.quantize,
        half=config.bf16,
        reference=reference,
        share_prompt=job.share_prompt,
        on_cpu=True,
    )
    # The threshold of this loss is over a whole batch.
    splits = job.loss.kind != "confidence" and not getattr(config, "packing", False)
    given = job.train.get("gradient_checkpointing", job.train.get("activation_checkpointing"))
    return settled(training, given, splits)


def _part_sizes(kind: Kind, rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Tokens of each part (prompt, speech, chosen, ...) in every row."""
    if kind == "sft":
        prompts = [row["labels"].count(-100) for row in rows]
        speeches = [len(row["input_ids"]) - prompt for row, prompt in zip(rows, prompts, strict=True)]
        return {"prompt": prompts, "speech": speeches}
    if kind == "dpo":
        columns = {"prompt": "prompt_ids", "chosen": "chosen_ids", "rejected": "rejected_ids"}
    elif kind == "reward":
        columns = {"chosen": "chosen_ids", "rejected": "rejected_ids"}
    elif kind == "classifier":
        columns = {"text": "input_ids"}
    else:
        columns = {"prompt": "input_ids"}
    sizes = {}
    for part, column in columns.items():
        sizes[part] = [len(row[column]) for row in rows]
    return sizes


def _quantiles(sizes: list[int]) -> dict[str, int]:
    """Smallest, quantiles, largest and sum of some token counts."""
    # "nearest" gives the length of a real row; interpolation would give fractions of a token.
    quantiles = {name: int(np.quantile(sizes, q, method="nearest")) for name, q in _QUANTILES.items()}
    return {**quantiles, "sum": sum(sizes)}


def _encode(job: Job, tokenizer: Any, rows: list[Any]) -> list[dict[str, Any]]:
    """Token ids of rows, by the encoder of the job's kind."""
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


def _row_tokens(kind: Kind, row: dict[str, Any]) -> int:
    """Tokens of the longest sequence that the model reads of an encoded row."""
    if kind == "dpo":
        return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    if kind == "reward":
        return max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    if kind == "judge":
        # The last token of a candidate is predicted, never read.
        return len(row["input_ids"]) + max(len(ids) for ids in row["candidates"]) - 1
    return len(row["input_ids"])


def _within_limit(
    job: Job, tokenizer: Any, encoded: list[dict[str, Any]], file: str
) -> tuple[list[dict[str, Any]], list[int]]:
    """Apply `max_length`: cut the rows of a classifier or reward model, leave out the others.

    Returns:
        The rows to train on, and the lengths of those that were over the limit.

    Raises:
        UserError: there is no limit, and rows are longer than the model's context.
    """
    lengths = [_row_tokens(job.kind, row) for row in encoded]
    max_length = job.train.get("max_length")
    if max_length is None:
        context = _context(job.model)
        over = [length for length in lengths if length > context]
        if over:
            raise UserError(
                f"{file}: {len(over)} of {len(encoded)} rows are longer than the model's {context} tokens (up to "
                f"{max(over)}); set train.max_length to leave them out"
            )
        return encoded, []
    limit = int(max_length)
    over = [length for length in lengths if length > limit]
    if job.kind == "classifier":
        from debate_rl.trainers.classifier import cut_texts

        return cut_texts(tokenizer, encoded, limit), over
    if job.kind == "reward":
        from debate_rl.trainers.reward import cut_pairs

        return cut_pairs(tokenizer, encoded, limit), over
    return [row for row, length in zip(encoded, lengths, strict=True) if length <= limit], over


def _context(model: str) -> float:
    """Tokens that a model can read; infinite where its config does not say."""
    return context_of(load_config(model)) or math.inf


def build_trainer(
    job: Job, tokenizer: Any, prepared: Prepared, config: Any, callbacks: list[Any], part: int | None = None
) -> Any:
    """The trainer of the job's kind, with its model.

    Args:
        job: the job.
        tokenizer: of its model.
        prepared: its rows.
        config: arguments of the trainer.
        callbacks: of the trainer.
        part: most tokens that a step computes at once; None computes its batches whole.

    Raises:
        UserError: the model can not be loaded, settings do not go together, or the trainer would learn from other
            rows than were prepared.
    """
    try:
        trainer = _make_trainer(job, tokenizer, prepared, config, callbacks)
    except (ValueError, ImportError, NotImplementedError) as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(f"train: {reason.splitlines()[0]}") from error
    if part is not None:
        trainer.budget = part
    _check_row_count(job.rows, prepared.rows, trainer.train_dataset)
    if prepared.eval_rows is not None:
        _check_row_count(str(job.eval_rows), prepared.eval_rows, trainer.eval_dataset)
    return trainer


def _check_row_count(file: str, rows: list[dict[str, Any]], dataset: Any) -> None:
    """Make sure that a trainer's data set holds every prepared row: TRL drops rows without a word."""
    if row_count(dataset) != len(rows):
        raise UserError(
            f"{file}: {len(rows)} rows were prepared and the trainer took {row_count(dataset)}; "
            "remove the option of `train` that cuts or drops rows"
        )


def row_count(dataset: Any) -> int:
    """Rows of a trainer's data set; for a packed one, the rows that were packed."""
    if "seq_lengths" in (getattr(dataset, "column_names", None) or ()):
        return sum(map(len, dataset["seq_lengths"]))
    return len(dataset)


@dataclass(frozen=True)
class _Parts:
    """What every trainer is built from."""

    job: Job
    tokenizer: Any
    prepared: Prepared
    config: Any
    callbacks: list[Any]
    model: Any
    peft_config: Any
    """Settings of a new adapter; None where the model has one already, or every weight is trained."""


def _make_trainer(job: Job, tokenizer: Any, prepared: Prepared, config: Any, callbacks: list[Any]) -> Any:
    """Load the model and build the trainer of the job's kind around it."""
    adapter = _adapter_to_load(job)
    model = _load_policy(job, adapter)
    if config.bf16:
        float32_head(model)
    if job.lora is not None and job.adapter is not None:
        warning = other_scale(job.adapter, job.lora.r, job.lora.alpha)
        if warning is not None:
            logger.warning("%s %s", job.kind, warning)
    peft_config = None
    if job.lora is not None and adapter is None:
        peft_config = job.lora.config("SEQ_CLS" if job.kind in ("classifier", "reward") else "CAUSAL_LM")
    return _BUILDERS[job.kind](_Parts(job, tokenizer, prepared, config, callbacks, model, peft_config))


def _adapter_to_load(job: Job) -> str | None:
    """The adapter that the model is loaded with."""
    # TRL copies the adapter that it is given, and that copy is DPO's reference. So a reference of its own is loaded
    # first, and `_dpo` then replaces the weights that are trained by those to start from.
    if job.reference is not None and job.lora is not None:
        return job.reference.adapter
    return job.adapter


def _load_policy(job: Job, adapter: str | None) -> Any:
    """The model that is trained, with an adapter on it, or with the adapter merged where every weight is trained."""
    dtype, init = _model_options(job)
    head = job.kind if job.kind in ("classifier", "reward") else "causal"
    model = load_model(job.model, head, adapter, True, dtype, job.quantize, **init)
    if job.lora is None and job.adapter is not None:
        # peft froze the base when it put the adapter on.
        return model.merge_and_unload().requires_grad_(True)
    return model


def _model_options(job: Job) -> tuple[Dtype, dict[str, Any]]:
    """Type of the base's weights, and further arguments of from_pretrained.

    Raises:
        UserError: the job and its `model_init_kwargs` name two types.
    """
    init = dict(job.train.get("model_init_kwargs") or {})
    dtype: Dtype = init.pop("dtype", job.dtype)
    if job.dtype not in ("auto", dtype):
        raise UserError(f"train.model_init_kwargs.dtype is {dtype} and the job's 'dtype' {job.dtype}; set one of them")
    if dtype == "auto" and job.lora is None:
        # Adam's small updates would be rounded away in bfloat16 weights.
        return "float32", init
    return dtype, init


def _grpo(parts: _Parts) -> Any:
    """Online training of a debater or a judge: the rows are keys of groups."""
    from debate_rl.trainers.grpo.judge_trainer import judge_grpo_trainer
    from debate_rl.trainers.grpo.trainer import grpo_trainer

    rows = _dataset(parts, parts.prepared.rows, "rows")
    make = grpo_trainer if parts.job.judging is None else judge_grpo_trainer
    return make(parts.job, parts.model, parts.tokenizer, rows, parts.config, parts.callbacks, parts.peft_config)


def _trl_options(parts: _Parts) -> dict[str, Any]:
    """Arguments that TRL's offline trainers share."""
    return {
        "callbacks": parts.callbacks,
        "peft_config": parts.peft_config,
        "eval_dataset": _dataset(parts, parts.prepared.eval_rows, "eval"),
    }


def _sft(parts: _Parts) -> Any:
    """Supervised finetuning on speeches."""
    from debate_rl.trainers.sft import sft_trainer

    options = _trl_options(parts)
    rows = _dataset(parts, parts.prepared.rows, "rows")
    return sft_trainer(parts.model, parts.tokenizer, rows, parts.config, **options)


def _dpo(parts: _Parts) -> Any:
    """DPO on preference pairs, with the reference that the job asks for."""
    from debate_rl.trainers.dpo import dpo_trainer

    job = parts.job
    options = _trl_options(parts)
    rows = _dataset(parts, parts.prepared.rows, "rows")
    options["ref_model"] = _reference_model(job, parts.model)
    options["share_prompt"] = job.share_prompt
    trainer = dpo_trainer(parts.model, parts.tokenizer, rows, parts.config, job.objective, **options)
    if job.reference is not None and job.lora is not None and job.adapter is not None:
        # The reference was loaded in place of the start (see `_adapter_to_load`), and TRL has copied it by now.
        check_adapter(job.model, job.adapter)
        start_from(trainer.model, job.adapter)
    return trainer


def _reward(parts: _Parts) -> Any:
    """A reward model on pairs of replies."""
    from debate_rl.trainers.reward import reward_trainer

    options = _trl_options(parts)
    rows = _dataset(parts, parts.prepared.rows, "rows")
    loss = _student_loss(parts.job, parts.config)
    return reward_trainer(parts.model, parts.tokenizer, rows, parts.config, loss, **options)


def _judge(parts: _Parts) -> Any:
    """A judge that reads its probability from two candidates."""
    from debate_rl.trainers.judge import judge_trainer

    options = _student_options(parts)
    return judge_trainer(_with_new_adapter(parts), parts.tokenizer, parts.prepared.rows, parts.config, **options)


def _classifier(parts: _Parts) -> Any:
    """A classifier of texts, or a linear probe."""
    from debate_rl.trainers.classifier import classifier_trainer, freeze_body

    options = _student_options(parts)
    model = _with_new_adapter(parts)
    if parts.job.probe:
        freeze_body(model)
    return classifier_trainer(model, parts.tokenizer, parts.prepared.rows, parts.config, **options)


_BUILDERS: dict[Kind, Callable[[_Parts], Any]] = {
    "sft": _sft,
    "dpo": _dpo,
    "grpo": _grpo,
    "judge": _judge,
    "classifier": _classifier,
    "reward": _reward,
}


def _student_options(parts: _Parts) -> dict[str, Any]:
    """Arguments that the trainers of judge and classifier share."""
    return {
        "callbacks": parts.callbacks,
        "eval_dataset": parts.prepared.eval_rows,
        "loss": _student_loss(parts.job, parts.config),
    }


def _with_new_adapter(parts: _Parts) -> Any:
    """The model of a judge or classifier, ready to train: transformers' Trainer adds no adapter, as TRL's do."""
    model = parts.model
    if parts.peft_config is not None:
        from peft import get_peft_model
        from transformers.integrations import is_deepspeed_zero3_enabled

        # ZeRO-3 gathers parameters of one type only, so there the adapter keeps the base's.
        model = get_peft_model(model, parts.peft_config, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
    if parts.config.gradient_checkpointing:
        # With a frozen base nothing in a checkpointed block asks for gradients unless its input does.
        model.enable_input_require_grads()
    return model


def _student_loss(job: Job, config: Any) -> Any:
    """The loss of a judge, a classifier or a reward model.

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


def _reference_model(job: Job, model: Any) -> Any:
    """A frozen model for DPO to compare with, where every weight is trained; None lets TRL choose.

    TRL's choice with an adapter is right: the base, or a copy of the adapter. Without one TRL would load `job.model`
    anew, which lacks a merged adapter and may not be the job's reference.
    """
    if job.lora is not None:
        return None
    if job.reference is not None:
        reference = load_model(job.reference.model, adapter=job.reference.adapter, trainable=False, dtype="float32")
        if job.reference.adapter is not None:
            reference = reference.merge_and_unload()
        return reference.requires_grad_(False)
    if job.adapter is None:
        return None
    return copy.deepcopy(model).requires_grad_(False)


def _dataset(parts: _Parts, rows: list[dict[str, Any]] | None, name: str) -> Any:
    """Encoded rows as a Dataset."""
    from datasets import Dataset, load_from_disk

    if rows is None:
        return None
    dataset = Dataset.from_list(rows)
    config = parts.config
    if not parts.job.train.get("precompute_ref_log_probs") or config.world_size == 1:
        return dataset
    # TRL's first process writes the reference's log-probabilities into a cache beside the data for all others to read.
    # Data in memory has its cache in a temporary folder, a different one in each process.
    folder = Path(parts.job.out) / "checkpoints" / name
    with config.main_process_first(desc="rows"):
        if config.process_index == 0:
            dataset.save_to_disk(str(folder))
        return load_from_disk(str(folder))
