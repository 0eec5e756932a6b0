"""A trainer's arguments: TRL's and transformers' own, checked by name and type, with defaults that run anywhere."""

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
"""Keys that a job may set for every kind and that are read here instead of by the trainer."""

_SET_BY_JOB = {"output_dir": "out", "seed": "seed", "resume_from_checkpoint": "out", "trust_remote_code": None}
_INIT_SET_BY_JOB = {
    "torch_dtype": "set 'dtype' instead", "quantization_config": "set 'quantize' of the job instead",
    "device_map": "the trainer places the model; remove it", "num_labels": "a classifier has two; remove it",
    "use_safetensors": "is always on", "trust_remote_code": "is always off",
}  # fmt: skip
_LEAST = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1,
          "max_length": 1}  # fmt: skip
_SPEECH_ONLY = "the loss is on the speech and the end of its turn"
_REFUSED = {
    "sft": dict.fromkeys(
        ("assistant_only_loss", "completion_only_loss", "dataset_text_field", "dataset_kwargs", "eos_token",
         "chat_template_path"), _SPEECH_ONLY),
    "dpo": dict.fromkeys(
        ("loss_type", "loss_weights", "label_smoothing", "f_divergence_type", "f_alpha_divergence_coef", "ld_alpha",
         "use_weighting", "discopop_tau"), "the loss is the job's 'objective'"),
    "grpo": {
        **dict.fromkeys(("use_vllm", "use_transformers_continuous_batching", "use_transformers_paged"),
                        "the project's engine plays"),
        **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs",
                         "chat_template_kwargs", "cache_implementation"), "the policy is a player with a temperature"),
        **dict.fromkeys(("reward_weights", "multi_objective_aggregation"), "the weights are the job's 'rewards'"),
        "max_completion_length": "it is the protocol's max_new_tokens",
        "mask_truncated_completions": "it is rewards.truncated",
        "num_generations_eval": "evaluation is 'watch'",
        "eval_strategy": "evaluation is 'watch'",
        "remove_unused_columns": "rows are keys of games",
        "max_length": "questions that do not fit the model's context are left out",
    },
    "judge": {"remove_unused_columns": "rows are encoded here"},
    "classifier": {"remove_unused_columns": "rows are encoded here"},
    "reward": dict.fromkeys(("remove_unused_columns", "chat_template_path", "eos_token", "pad_token"),
                            "rows are encoded here"),
}  # fmt: skip

_COMMON: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 10,
    "logging_first_step": True,
    "logging_nan_inf_filter": False,  # a loss that is not a number must show, and ends the job
    "save_strategy": "steps",
    "save_steps": 0.2,  # of all steps
    "save_total_limit": 2,
    "dataloader_num_workers": 0,
}
_KIND: dict[Kind, dict[str, Any]] = {
    # Published (Arnesen et al. 2024); judge and classifier are ours.
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
        seed: of the order of the data, of new weights and of dropout.
        of_job: fields that the job decides by other settings; `train` wins over them where it may name them.

    Returns:
        SFTConfig, DPOConfig, GRPOConfig or TrainingArguments.

    Raises:
        UserError: a field is unknown, of the wrong type, set elsewhere, or has no effect.
    """
    config = _config_class(kind)
    given = _checked(kind, train, config)
    own = {"max_length": given.get("max_length")} if kind == "sft" and given.get("packing") else {}
    given = {key: value for key, value in given.items() if key not in OWN}
    defaults = {**default_arguments(kind), "data_seed": seed, "disable_tqdm": not sys.stderr.isatty(), **_device(given)}
    if kind in ("sft", "dpo"):
        defaults["max_length"] = None  # TRL would drop rows whose prompt fills its 1,024 tokens without a word
        defaults.setdefault("gradient_checkpointing", True)
    elif kind == "grpo":
        defaults.setdefault("gradient_checkpointing", True)
    else:
        defaults["remove_unused_columns"] = False
        if kind == "reward":
            defaults["max_length"] = None  # TRL would drop longer rows; here they are cut and counted
    try:
        return config(output_dir=str(folder), seed=seed, **{**defaults, **(of_job or {}), **own, **given})
    except (ValueError, TypeError, ImportError, FileNotFoundError) as error:
        raise UserError(f"train: {str(error).strip().splitlines()[0]}") from error


def check_arguments(kind: Kind, train: dict[str, Any]) -> None:
    """Make sure that a trainer takes such fields, before anything runs (see `training_arguments`).

    Raises:
        UserError: a field is unknown, of the wrong type, set elsewhere, or has no effect.
    """
    _checked(kind, train, _config_class(kind))


def default_arguments(kind: Kind) -> dict[str, Any]:
    """The defaults that stand here for a kind of training, on any machine."""
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
    """The given fields, known and of the right type; YAML's `2e-4`, which is a text, becomes a number."""
    fields = {field.name for field in dataclasses.fields(config)} | set(OWN)
    hints = typing.get_type_hints(config)
    values = {}
    for key, value in train.items():
        if key in _SET_BY_JOB:
            instead = _SET_BY_JOB[key]
            raise UserError(f"train.{key}: {f'set {instead!r} of the job instead' if instead else 'is always off'}")
        if key in _REFUSED[kind]:
            raise UserError(f"train.{key} has no effect here: {_REFUSED[kind][key]}; remove it")
        if key not in fields:
            raise UserError(f"unknown key 'train.{key}'; {nearest(key, fields)}")
        values[key] = _typed(key, value, int | None if key == "max_length" else hints.get(key))
    _check_range(kind, values)
    _check_init(values.get("model_init_kwargs"))
    return values


def _check_range(kind: Kind, values: dict[str, Any]) -> None:
    """Make sure that numbers with which nothing, or the contrary, would be learnt are not given."""
    for key, least in _LEAST.items():
        if values.get(key) is not None and values[key] < least:
            raise UserError(f"train.{key} is {values[key]}; give at least {least}")
    positive = [] if (values.get("max_steps") or 0) > 0 else ["num_train_epochs"]
    positive += [] if kind == "grpo" else ["beta"]  # without KL there is no reference, which GRPO may do
    for key in positive:
        if values.get(key) is not None and values[key] <= 0:
            raise UserError(f"train.{key} is {values[key]}; give a number above 0")


def _check_init(init: Any) -> None:
    """Make sure that what goes to from_pretrained is a mapping without what the job sets itself."""
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
    """The value as its field's type, where that is a plain one."""
    plain = {int, float, bool, str, type(None)}
    parts = set(typing.get_args(hint)) or {hint}
    if not parts <= plain:
        return value
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise UserError(f"train.{key}: {error.errors()[0]['msg']} (found {value!r})") from error


def _device(given: dict[str, Any]) -> dict[str, Any]:
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
