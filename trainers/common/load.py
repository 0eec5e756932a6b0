"""Load base models and tokenizers from a folder or hub name: safetensors only, no code from the model's repository."""

from __future__ import annotations

from typing import Any, Literal

from debate_rl.engines import load
from debate_rl.engines.quantized import check_installed, has_experts, nf4_options, quantize_experts
from debate_rl.engines.weights import check_adapter, check_sums, check_weights
from debate_rl.errors import UserError
from debate_rl.trainers.common.settings import Dtype

_SCALE = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
"""Fields of a LoRA config that change the policy while its weights stay the same."""


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a model, with a padding token.

    Raises:
        UserError: no such model, or it has no tokenizer that can be read.
    """
    check_weights(model)
    tokenizer = load.load_tokenizer(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise UserError(f"the tokenizer of {model} has no padding, end or unknown token; set its pad_token and save it")
    return tokenizer


def load_model(
    model: str,
    kind: Literal["causal", "classifier", "reward"] = "causal",
    adapter: str | None = None,
    trainable: bool = True,
    dtype: Dtype = "auto",
    quantize: Literal["nf4"] | None = None,
    **options: Any,
) -> Any:
    """A base model, with a LoRA adapter on it if one is given. It stays on the CPU unless it is quantized.

    Args:
        model: folder or hub name.
        kind: a language model, one with a new head of two classes, or one with a head that gives a reward.
        adapter: folder of a LoRA adapter of this base.
        trainable: whether the adapter will be trained.
        dtype: type of the base's weights; `auto` is float32 on CPU and bfloat16 on a GPU that has it.
        quantize: hold the base's weights in 4 bits.
        options: further arguments of from_pretrained, such as `attn_implementation`.

    Raises:
        UserError: no such model, no weights, or an adapter of another base.
    """
    import transformers

    check_weights(model)
    if adapter is not None:
        check_adapter(model, adapter)
    auto = transformers.AutoModelForCausalLM if kind == "causal" else transformers.AutoModelForSequenceClassification
    if kind != "causal":
        options["num_labels"] = 2 if kind == "classifier" else 1
    experts = quantize is not None and has_experts(model)
    if quantize is not None:
        check_installed("quantize")
        options |= nf4_options(torch_dtype(dtype), "cpu" if experts else _device())
    level = transformers.logging.get_verbosity()
    if kind != "causal":
        # transformers warns that the new head has random weights, as it should have.
        transformers.logging.set_verbosity_error()
    try:
        network = load.load_network(auto, model, torch_dtype(dtype), **options)
    finally:
        transformers.logging.set_verbosity(level)
    if experts:
        quantize_experts(network, _device())
    if kind != "causal":
        from debate_rl.trainers.common.heads import compute_in_float32  # here: it loads torch

        compute_in_float32(network, model)
    network.config.use_cache = False
    if adapter is None:
        return network
    return _with_adapter(network, adapter, trainable, quantize is not None)


def torch_dtype(dtype: Dtype) -> Any:
    """The torch type by its name; `auto` is bfloat16 on a GPU that has it, else float32."""
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def float32_head(model: Any) -> None:
    """Let the head of a model on a CPU compute in float32 under autocast.

    In bfloat16 the logits of two answers lie on a grid of 1/8, and verdicts on a grid with them.
    """
    import torch

    class Float32Linear(torch.nn.Linear):
        def forward(self, states: Any) -> Any:
            with torch.autocast("cpu", enabled=False):
                return super().forward(states.to(self.weight.dtype))

    head = model.get_output_embeddings() or getattr(model, "score", None)
    # The class changes, not the instance's `forward`: peft trains a copy of a classifier's head, and a copy of a
    # function would still call the head that it was made for.
    if type(head) is torch.nn.Linear and head.weight.device.type == "cpu":
        head.__class__ = Float32Linear


def _device() -> Any:
    """This process's device."""
    from accelerate import PartialState

    return PartialState().device


def _with_adapter(base: Any, adapter: str, trainable: bool, quantized: bool) -> Any:
    """Put a LoRA adapter on a model, under the name `default` that TRL looks for."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    # ZeRO-3 gathers parameters of one type only, so there the adapter keeps the base's.
    cast = quantized or not is_deepspeed_zero3_enabled()
    return load.load_adapter(base, adapter, "default", trainable, autocast_adapter_dtype=cast)


def other_scale(adapter: str, r: int, alpha: int) -> str | None:
    """A warning if a training asks for another rank or scale than the adapter it continues from has.

    Returns:
        The warning, or None where they agree.
    """
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(adapter)
    if (config.r, config.lora_alpha) == (r, alpha):
        return None
    return (
        f"goes on from adapter {adapter} with r {config.r} and alpha {config.lora_alpha}; "
        f"lora's r {r} and alpha {alpha} are not used: an adapter keeps its rank; for a new one on top of it, start "
        "from a stage of kind merge"
    )


def start_from(model: Any, adapter: str) -> None:
    """Copy an adapter's weights into the one that is trained, `default`; the reference's stay as they are.

    Raises:
        UserError: the adapter is of another rank or scale, or has other modules.
    """
    from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict

    check_sums(adapter)
    start = LoraConfig.from_pretrained(adapter)
    reference = model.peft_config["default"]
    for name in _SCALE:
        # Weights of the same shape load without an error, but with another scale they are another policy.
        if getattr(start, name) != getattr(reference, name):
            raise UserError(
                f"adapter {adapter} has {name} {getattr(start, name)} and the reference {getattr(reference, name)}; "
                "give both the same rank, alpha and modules"
            )
    try:
        loaded = set_peft_model_state_dict(model, load_peft_weights(adapter, device="cpu"), adapter_name="default")
    except RuntimeError as error:
        raise UserError(
            f"adapter {adapter} is of another shape than the reference; give both the same rank and modules"
        ) from error
    # The base's weights and the reference's are missing too, as they should be.
    missing = [name for name in loaded.missing_keys if ".default" in name]
    if missing or loaded.unexpected_keys:
        raise UserError(f"adapter {adapter} has other modules than the reference; give both the same target_modules")
