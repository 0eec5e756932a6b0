"""Load configs, tokenizers, models and adapters: safetensors only, and never code from a model folder.

A model folder may name Python files of its own (`auto_map`). Transformers runs them if `trust_remote_code` is true, and
asks on the terminal if it is unset, so every call here passes false.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debate_rl.engines.memory import return_large_blocks
from debate_rl.engines.weights import LOADING, check_adapter_kind, check_sums, own_tokens
from debate_rl.errors import UserError

_NO_CODE = {"trust_remote_code": False}
_FAILURES = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, AttributeError, re.error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Load without bars in files, and without what one library tells another that it will rename.

    Nothing else of the user's log levels and filters is touched, and these are as before afterwards.
    """
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
            yield
    finally:
        if bars:
            logging.enable_progress_bar()


def load_config(path: str | Path, revision: str | None = None) -> Any:
    """Load the transformers config of a model folder or hub name.

    Raises:
        UserError: it can not be read, or the model needs its own code.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(path), revision=revision, **_NO_CODE)
    except _FAILURES as error:
        raise UserError(_complaint("the config of ", path, error)) from error


def text_config(path: str | Path) -> Any:
    """Load the text part of a model's config, which is nested if the model reads images as well (Gemma 3)."""
    return load_config(path).get_text_config()


def context_of(config: Any) -> int | None:
    """Context length in tokens of a model with this config; None if the config does not say."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else int(limit)


def load_tokenizer(path: str | Path, revision: str | None = None) -> Any:
    """Load the tokenizer of a model folder or hub name.

    Raises:
        UserError: it can not be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path), revision=revision, **_NO_CODE)
    except _FAILURES as error:
        raise UserError(_complaint("the tokenizer of ", path, error)) from error


def load_network(auto: Any, path: str | Path, dtype: Any, **options: Any) -> Any:
    """Load a model.

    Args:
        auto: the transformers class that builds it, such as AutoModelForCausalLM.
        path: folder or hub name.
        dtype: dtype of the weights.
        options: further arguments of `from_pretrained`.

    Raises:
        UserError: it can not be loaded, its file is damaged, or it needs its own code.
    """
    from transformers import dynamic_module_utils

    # A library below may load the same folder again without the option: with no time to answer it does not ask.
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    check_sums(path)
    return_large_blocks()
    options = {**options, **_NO_CODE, "use_safetensors": True}
    try:
        with LOADING, _quiet():
            return auto.from_pretrained(str(path), dtype=dtype, **options)
    except _FAILURES as error:
        raise UserError(_complaint("", path, error)) from error


def load_adapter(model: Any, adapter: str | Path, name: str, trainable: bool = False, **options: Any) -> Any:
    """Add a LoRA adapter to a model, besides those that it has.

    Args:
        model: a base model, or a `PeftModel`.
        adapter: folder of the adapter.
        name: name of the adapter in the model.
        trainable: whether its training will continue.
        options: further arguments of PEFT.

    Returns:
        The `PeftModel`.

    Raises:
        UserError: the adapter is damaged, lacks weights, changes the base, does not fit the model, or trains tokens
            that another adapter of the model does not.
    """
    from peft import PeftModel

    check_sums(adapter)
    check_adapter_kind(adapter)
    if isinstance(model, PeftModel):
        tokens = own_tokens(adapter)
        others = [config.trainable_token_indices or None for config in model.peft_config.values()]
        if any(other != tokens for other in others):
            raise UserError(
                f"adapter {adapter} and another one on its base differ in trainable_token_indices, which PEFT can not "
                "switch; merge one of them into a model of its own"
            )
    try:
        with LOADING, _quiet(), warnings.catch_warnings():
            # PEFT only warns about missing weights and leaves them randomly initialised.
            warnings.filterwarnings("error", message=".*missing adapter keys", category=UserWarning)
            if isinstance(model, PeftModel):
                loaded = model.load_adapter(str(adapter), adapter_name=name, is_trainable=trainable, **options)
                if loaded.missing_keys:
                    raise UserWarning("missing adapter keys")
                return model
            return PeftModel.from_pretrained(model, str(adapter), adapter_name=name, is_trainable=trainable, **options)
    except UserWarning as error:
        raise UserError(f"adapter {adapter} lacks weights that its config asks for; copy or train it again") from error
    except _FAILURES as error:
        raise UserError(f"cannot load adapter {adapter}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """First line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _complaint(what: str, path: str | Path, error: Exception) -> str:
    """One line on why something could not be loaded, and what to do."""
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return (
            f"{path} needs Python code from its own folder, which is never run here; "
            "choose a model that transformers knows by itself"
        )
    if "`kernels`" in str(error):
        return (
            f"{path} asks for attention from a kernel on the hub, which is not fetched here; set attn_implementation "
            "to sdpa, eager or flash_attention_2 (in its config.json, or train.model_init_kwargs)"
        )
    return f"cannot load {what}{path}: {first_line(error)}"
