"""Models whose linear layers are held in 4 bits (NF4 with double quantization, Dettmers et al. 2023).

Trainings (`quantize: nf4`) and play (`engine.dtype: nf4`) load them by the same functions, so an adapter plays on the
very weights that it was trained on.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from debate_rl.engines.load import text_config
from debate_rl.errors import UserError


def check_installed(key: str) -> None:
    """Make sure that 4-bit weights can be held here.

    Args:
        key: the setting that asks for them, for the message.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{key}: nf4 needs bitsandbytes, which is not installed: pip install bitsandbytes")


def nf4_options(compute_dtype: Any, device: Any) -> dict[str, Any]:
    """Options of `from_pretrained` that load a model in 4 bits.

    Args:
        compute_dtype: torch type in which its layers compute.
        device: where it is placed; under ZeRO-3 DeepSpeed places it itself.
    """
    from transformers import BitsAndBytesConfig
    from transformers.integrations import is_deepspeed_zero3_enabled

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
    if is_deepspeed_zero3_enabled():
        return {"quantization_config": config}
    return {"quantization_config": config, "device_map": {"": device}}


def has_experts(model: str | Path) -> bool:
    """Whether a model is a mixture of experts."""
    text = text_config(model)
    return (getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None) or 1) > 1


def quantize_experts(model: Any, device: Any) -> None:
    """Quantize a mixture's experts to 4 bits, table by table, and move the model to its device.

    transformers 5 keeps experts as tables of three dimensions, which its quantization of linear layers skips: nine
    tenths of a Mixtral would stay in 16 bits, more than a card of 80 GB holds. So a mixture is loaded on the CPU, where
    it fits, and moved here.
    """
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    for module in model.modules():
        for name, table in list(module.named_parameters(recurse=False)):
            if table.ndim == 3:
                table.data = table.data.to(device)
                replace_parameter_4bit(module, name, compress_statistics=True, quant_type="nf4", blocksize=64)
    if device.type != "cpu":
        model.to(device)


def compute_in_float32(model: Any) -> None:
    """Have the 4-bit layers of a model on a CPU compute in float32, as they are asked to.

    On CPUs with AVX512-BF16 bitsandbytes repacks a layer at its first call and computes in bfloat16 from then on,
    whatever its compute type is: probabilities would have three digits, and others on other machines.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
