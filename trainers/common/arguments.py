"""Arguments of a trainer: TRL's and transformers' own fields, checked by name and type, with our defaults."""

from __future__ import annotations

import dataclasses
import os
import sys
import typing
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from debate_rl.errors import UserError, nearest
from debate_rl.trainers.common.settings import Dtype, Kind

OWN = ("max_length", "model_init_kwargs")
"""Keys of `train` that every kind takes and that are read here, whether the library's config has them or not."""

_SET_BY_JOB = {"output_dir": "out", "seed": "seed", "resume_from_checkpoint": "out", "trust_remote_code": None}
"""Fields that the job decides, with its own key for them; None where they are always off."""
_INIT_SET_BY_JOB = {
    "torch_dtype": "set 'dtype' instead",
    "quantization_config": "set 'quantize' of the job instead",
    "device_map": "the trainer places the model; remove it",
    "num_labels": "a classifier has two; remove it",
    "use_safetensors": "is always on",
    "trust_remote_code": "is always off",
}
_MINIMUM = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_length": 1,
}

_SPEECH_ONLY = "the loss is on the speech and the end of its turn"
_OBJECTIVE = "the loss is the job's 'objective'"
_ENGINE = "the project's engine plays"
_POLICY = "the policy is a player with a temperature"
_REWARDS = "the weights are the job's 'rewards'"
_WATCH = "evaluation is 'watch'"
_ENCODED = "rows are encoded here"
_REFUSED: dict[Kind, dict[str, str]] = {
    "sft": {
        "assistant_only_loss": _SPEECH_ONLY,
        "completion_only_loss": _SPEECH_ONLY,
        "dataset_text_field": _SPEECH_ONLY,
        "dataset_kwargs": _SPEECH_ONLY,
        "eos_token": _SPEECH_ONLY,
        "chat_template_path": _SPEECH_ONLY,
    },
    "dpo": {
        "loss_type": _OBJECTIVE,
        "loss_weights": _OBJECTIVE,
        "label_smoothing": _OBJECTIVE,
        "f_divergence_type": _OBJECTIVE,
        "f_alpha_divergence_coef": _OBJECTIVE,
        "ld_alpha": _OBJECTIVE,
        "use_weighting": _OBJECTIVE,
        "discopop_tau": _OBJECTIVE,
    },
    "grpo": {
        "use_vllm": _ENGINE,
        "use_transformers_continuous_batching": _ENGINE,
        "use_transformers_paged": _ENGINE,
        "temperature": _POLICY,
        "top_p": _POLICY,
        "top_k": _POLICY,
        "min_p": _POLICY,
        "repetition_penalty": _POLICY,
        "generation_kwargs": _POLICY,
        "chat_template_kwargs": _POLICY,
        "cache_implementation": _POLICY,
        "reward_weights": _REWARDS,
        "multi_objective_aggregation": _REWARDS,
        "max_completion_length": "it is the protocol's max_new_tokens",
        "mask_truncated_completions": "it is rewards.truncated",
        "num_generations_eval": _WATCH,
        "eval_strategy": _WATCH,
        "remove_unused_columns": "rows are keys of games",
        "max_length": "questions that do not fit the model's context are left out",
    },
    "judge": {"remove_unused_columns": _ENCODED},
    "classifier": {"remove_unused_columns": _ENCODED},
    "reward": {
        "remove_unused_columns": _ENCODED,
        "chat_template_path": _ENCODED,
        "eos_token": _ENCODED,
        "pad_token": _ENCODED,
    },
}
"""Fields that would have no effect, or the wrong one, and why."""

_COMMON: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 10,
    "logging_first_step": True,
    # The filter would log the mean of earlier steps in place of NaN; `mean_loss` ends the job at the first NaN.
    "logging_nan_inf_filter": False,
    "save_strategy": "steps",
    "save_steps": 0.2,  # share of all steps
    "save_total_limit": 2,
    "dataloader_num_workers": 0,
}
_KIND: dict[Kind, dict[str, Any]] = {
    # SFT and DPO as published (Arnesen et al. 2024); the others are ours.
    "sft": {"learning_rate": 2e-4, "num_train_epochs": 2, "per_device_train_batch_size": 16, "packing": False},
    "dpo": {
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 32,
        "beta": 0.5,
    },
    "grpo": {
        "learning_rate": 2e-5,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "num_generations": 8,
        "gradient_accumulation_steps": 4,
        "beta": 0.02,
        "logging_steps": 1,
    },
    "judge": {"learning_rate": 1e-4, "num_train_epochs": 1, "per_device_train_batch_size": 16},
    "reward": {"learning_rate": 1e-4, "num_train_epochs": 1, "per_device_train_batch_size": 16},
    "classifier": {
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": 2,
        "per_device_train_batch_size": 32,
    },
}


def training_arguments(
    kind: Kind, train: dict[str, Any], folder: Path, seed: int, of_job: dict[str, Any] | None = None
) -> Any:
    """The config of a trainer.

    Args:
        kind: which trainer.
        train: fields to set; they win over the defaults here, which win over the library's.
        folder: where checkpoints go.
        seed: for the order of the data, new weights and dropout.
        of_job: fields that follow from other settings of the job; `train` wins over them where it may name them.

    Returns:
        SFTConfig, DPOConfig, GRPOConfig, RewardConfig or TrainingArguments.

    Raises:
        UserError: a field is unknown, of the wrong type, set elsewhere, or has no effect.
    """
    config = _config_class(kind)
    given = _checked(kind, train, config)
    fields = {**default_arguments(kind), "data_seed": seed, "disable_tqdm": not sys.stderr.isatty()}
    fields.update(_device_defaults(given))
    if kind in ("sft", "dpo", "grpo"):
        fields.setdefault("gradient_checkpointing", True)
    if kind in ("sft", "dpo", "reward"):
        # TRL would drop rows over its own limit (1,024 tokens) without a word; `prepare` cuts or counts them instead.
        fields["max_length"] = None
    if kind in ("judge", "classifier", "reward"):
        fields["remove_unused_columns"] = False
    fields.update(of_job or {})
    if kind == "sft" and given.get("packing"):
        # Here max_length is the size of a packed row as well.
        fields["max_length"] = given.get("max_length")
    fields.update({key: value for key, value in given.items() if key not in OWN})
    try:
        return config(output_dir=str(folder), seed=seed, **fields)
    except (ValueError, TypeError, ImportError, FileNotFoundError) as error:
        raise UserError(f"train: {str(error).strip().splitlines()[0]}") from error


def check_arguments(kind: Kind, train: dict[str, Any]) -> None:
    """Make sure that a trainer takes some fields, before anything runs (see `training_arguments`).

    Raises:
        UserError: a field is unknown, of the wrong type, set elsewhere, or has no effect.
    """
    _checked(kind, train, _config_class(kind))


def default_arguments(kind: Kind) -> dict[str, Any]:
    """This project's defaults for a kind of training, the same on every machine."""
    return {**_COMMON, **_KIND[kind]}


def _config_class(kind: Kind) -> Any:
    """The class whose fields a job may set."""
    if kind == "sft":
        from trl import SFTConfig

        return SFTConfig
    if kind == "dpo":
        from trl import DPOConfig

        return DPOConfig
    if kind == "grpo":
        from trl import GRPOConfig

        return GRPOConfig
    if kind == "reward":
        from trl import RewardConfig

        return RewardConfig
    from transformers import TrainingArguments

    return TrainingArguments


def _checked(kind: Kind, train: dict[str, Any], config: Any) -> dict[str, Any]:
    """The given fields, after a check of their names, types and ranges."""
    fields = {field.name for field in dataclasses.fields(config)} | set(OWN)
    hints = typing.get_type_hints(config)
    hints["max_length"] = int | None  # TrainingArguments has none
    values = {}
    for key, value in train.items():
        _check_name(kind, key, fields)
        values[key] = _typed(key, value, hints.get(key))
    _check_range(kind, values)
    _check_init(values.get("model_init_kwargs"))
    return values


def _check_name(kind: Kind, key: str, fields: set[str]) -> None:
    """Make sure that a job may set a field."""
    if key in _SET_BY_JOB:
        job_key = _SET_BY_JOB[key]
        if job_key is None:
            raise UserError(f"train.{key}: is always off")
        raise UserError(f"train.{key}: set {job_key!r} of the job instead")
    if key in _REFUSED[kind]:
        raise UserError(f"train.{key} has no effect here: {_REFUSED[kind][key]}; remove it")
    if key not in fields:
        raise UserError(f"unknown key 'train.{key}'; {nearest(key, fields)}")


def _check_range(kind: Kind, values: dict[str, Any]) -> None:
    """Refuse numbers with which a training would learn nothing, or the opposite."""
    for key, minimum in _MINIMUM.items():
        if values.get(key) is not None and values[key] < minimum:
            raise UserError(f"train.{key} is {values[key]}; give at least {minimum}")
    positive = []
    if (values.get("max_steps") or 0) <= 0:
        positive.append("num_train_epochs")
    if kind != "grpo":
        # GRPO may do without the KL term and its reference; in DPO a beta of 0 leaves no loss.
        positive.append("beta")
    for key in positive:
        if values.get(key) is not None and values[key] <= 0:
            raise UserError(f"train.{key} is {values[key]}; give a number above 0")


def _check_init(init: Any) -> None:
    """Make sure that `model_init_kwargs` is a mapping without arguments that the job sets itself."""
    if init is None:
        return
    if not isinstance(init, dict):
        raise UserError(f"train.model_init_kwargs is a mapping, such as {{attn_implementation: sdpa}} (found {init!r})")
    for key, instead in _INIT_SET_BY_JOB.items():
        if key in init:
            raise UserError(f"train.model_init_kwargs.{key}: {instead}")
    if "dtype" in init and init["dtype"] not in typing.get_args(Dtype):
        choices = nearest(str(init["dtype"]), typing.get_args(Dtype))
        raise UserError(f"train.model_init_kwargs.dtype is {init['dtype']!r}; {choices}")


def _typed(key: str, value: Any, hint: Any) -> Any:
    """A value as the type of its field, where that is a plain one."""
    plain = {int, float, bool, str, type(None)}
    parts = set(typing.get_args(hint)) or {hint}
    if not parts <= plain:
        return value
    try:
        # YAML reads 2e-4, without a dot, as text; here it becomes a number.
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise UserError(f"train.{key}: {error.errors()[0]['msg']} (found {value!r})") from error


def _device_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Defaults that depend on the machine: TRL's own ask for bfloat16, which a CPU refuses."""
    import torch

    if torch.cuda.is_available():
        half = not given.get("fp16") and torch.cuda.is_bf16_supported()
        return {"bf16": half, "dataloader_pin_memory": True}
    defaults: dict[str, Any] = {"bf16": False, "dataloader_pin_memory": False, "gradient_checkpointing": False}
    if torch.backends.mps.is_available():
        return defaults
    if given.get("fp16"):
        raise UserError("train.fp16 needs a GPU, and there is none here; remove it")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" or given.get("deepspeed"):
        # DeepSpeed on CPU is not "use_cpu" to accelerate: it starts gloo and lets DeepSpeed find the device.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        return {**defaults, "use_cpu": False, "ddp_backend": "gloo"}
    return {**defaults, "use_cpu": True}
