"""From a job to a trainer that is ready: rows read, encoded and checked for length, the model loaded."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from debate_rl.errors import UserError
from debate_rl.records import read
from debate_rl.trainers.bases import load_model
from debate_rl.trainers.rows import ClassifierRow, JudgeRow, PreferenceRow, SftRow
from debate_rl.trainers.settings import Job, Kind

logger = logging.getLogger(__name__)

ROWS: dict[Kind, type[BaseModel]] = {
    "sft": SftRow,
    "dpo": PreferenceRow,
    "judge": JudgeRow,
    "classifier": ClassifierRow,
}
"""What a line of the rows file is."""


@dataclass(frozen=True)
class Prepared:
    """Encoded rows, ready for a trainer."""

    rows: list[dict[str, Any]]
    eval_rows: list[dict[str, Any]] | None
    read: int
    too_long: int


def prepare(job: Job, tokenizer: Any) -> Prepared:
    """Read and encode the rows, and set aside those that are too long.

    Raises:
        UserError: a file is missing, malformed or empty, no row is short enough, or rows exceed the model's context.
    """
    rows = read(job.rows, ROWS[job.kind])
    if not rows:
        raise UserError(f"{job.rows} holds no rows")
    encoded = _encode(job, tokenizer, rows)
    kept, too_long = _fitting(job, tokenizer, encoded)
    if not kept:
        raise UserError(f"{job.rows}: every row is longer than max_length {job.train['max_length']}; raise it")
    if too_long:
        what = "cut at their beginning" if job.kind == "classifier" else "left out"
        logger.warning("%d of %d rows are longer than max_length: %s", too_long, len(rows), what)
    evaluated = None
    if job.eval_rows:
        evaluated, _ = _fitting(job, tokenizer, _encode(job, tokenizer, read(job.eval_rows, ROWS[job.kind])))
    return Prepared(kept, evaluated, len(rows), too_long)


def _encode(job: Job, tokenizer: Any, rows: list[Any]) -> list[dict[str, Any]]:
    """Token ids of rows, by kind."""
    if job.kind == "sft":
        from debate_rl.trainers.sft import encode_speeches

        return encode_speeches(tokenizer, rows)
    if job.kind == "dpo":
        from debate_rl.trainers.pairs import encode_pairs

        return encode_pairs(tokenizer, rows, job.objective)
    if job.kind == "judge":
        from debate_rl.trainers.judge import encode_judge_rows

        return encode_judge_rows(tokenizer, rows)
    from debate_rl.trainers.classifier import encode_texts

    return encode_texts(tokenizer, rows)


def _length(kind: Kind) -> Callable[[dict[str, Any]], int]:
    """How many tokens an encoded row takes."""
    if kind == "dpo":
        return lambda row: len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    if kind == "judge":
        return lambda row: len(row["input_ids"]) + max(len(ids) for ids in row["candidates"]) - 1
    return lambda row: len(row["input_ids"])


def _fitting(job: Job, tokenizer: Any, encoded: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The rows within `max_length`, and how many are not; a classifier's are cut instead of left out."""
    length, limit = _length(job.kind), job.train.get("max_length")
    if limit is None:
        context = _context(job.model)
        over = sum(length(row) > context for row in encoded)
        if over:
            raise UserError(
                f"{job.rows}: {over} of {len(encoded)} rows are longer than the model's {context} tokens; "
                "set train.max_length to leave them out"
            )
        return encoded, 0
    over = sum(length(row) > int(limit) for row in encoded)
    if job.kind == "classifier":
        from debate_rl.trainers.classifier import cut_texts

        return cut_texts(tokenizer, encoded, int(limit)), over
    return [row for row in encoded if length(row) <= int(limit)], over


def _context(model: str) -> float:
    """Positions that a model knows; infinite where its config does not say."""
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(model).get_text_config()
    return getattr(text, "max_position_embeddings", None) or math.inf


def build_trainer(job: Job, tokenizer: Any, prepared: Prepared, config: Any, callbacks: list[Any]) -> Any:
    """The trainer of the job's kind, with its model."""
    full = job.lora is None
    dtype = "float32" if job.dtype == "auto" and full else job.dtype
    kind = "classifier" if job.kind == "classifier" else "causal"
    init = dict(job.train.get("model_init_kwargs") or {})
    model = load_model(job.model, kind, job.adapter, True, dtype, job.quantize, **init)  # type: ignore[arg-type]
    if full and job.adapter is not None:
        model = model.merge_and_unload().requires_grad_(True)  # peft had frozen the base
    peft_config = None
    if job.lora is not None and job.adapter is None:
        peft_config = job.lora.config("SEQ_CLS" if kind == "classifier" else "CAUSAL_LM")
    options: dict[str, Any] = {"callbacks": callbacks}
    if job.kind in ("sft", "dpo"):
        options |= {"peft_config": peft_config, "eval_dataset": _dataset(prepared.eval_rows, job, config, "eval")}
        rows = _dataset(prepared.rows, job, config, "rows")
        if job.kind == "sft":
            from debate_rl.trainers.sft import sft_trainer

            return sft_trainer(model, tokenizer, rows, config, **options)
        from debate_rl.trainers.dpo import dpo_trainer

        options |= {"ref_model": _reference(job, model), "share_prompt": job.share_prompt}
        return dpo_trainer(model, tokenizer, rows, config, job.objective, **options)
    options["eval_dataset"] = prepared.eval_rows
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


def _reference(job: Job, model: Any) -> Any:
    """DPO's reference where TRL would reload the wrong one: the base with the adapter merged into it."""
    if job.lora is not None or job.adapter is None:
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
