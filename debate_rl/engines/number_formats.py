"""Number formats: models write texts in the fastest format of the machine, and their probabilities are read in float32.

Logits in 16 bits put log-odds on steps of 1/16 or 1/8, so that verdicts tie. The noise of a body in 16 bits does less
harm, so the last layer is computed in float32 whatever the format of the others. Of weights that
are held in 4 bits (nf4), the format is that in which their layers compute.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from debate_rl.engines.weights import header, local_folder, weight_files

Format = Literal["float32", "bfloat16", "float16", "nf4", "auto"]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LARGE = 50_000_000
"""Weights from which 16 bits pay on a CPU. Smaller models, such as those of the lab, write the same texts anywhere."""
AMX = "_is_amx_tile_supported"
NF4 = "nf4 "
"""Stands before the format in which weights in 4 bits compute."""
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AMX, AVX512-BF16); others emulate it, which is slower than float32."""
    return cpu_has(AMX) or cpu_has("_is_avx512_bf16_supported")


def cpu_has(instructions: str) -> bool:
    """Whether this CPU has instructions, by the name of PyTorch's question for them."""
    import torch

    supported = getattr(torch.cpu, instructions, None)  # private: another version of torch may not have it
    return supported is not None and bool(supported())


@cache
def stored_format(folder: Path) -> tuple[str | None, int]:
    """Number format of a model's weights, None where they have several or are quantized, and how many there are.

    Raises:
        UserError: a file is not whole.
    """
    formats: dict[str, int] = {}
    for path in weight_files(folder):
        for entry in header(path).values():
            formats[entry["dtype"]] = formats.get(entry["dtype"], 0) + math.prod(entry["shape"])
    only = next(iter(formats)) if len(formats) == 1 else ""
    return _STORED.get(only), sum(formats.values())


def text_format(model: str, device: str) -> str:
    """The fastest number format in which a model writes texts on a device.

    Args:
        model: folder or hub name.
        device: type of the device: cpu, cuda...

    Raises:
        UserError: there is no such model.
    """
    import torch

    stored, count = stored_format(local_folder(model))
    if device == "cpu":
        half = stored is not None and count >= LARGE and cpu_has_bfloat16()
        return "bfloat16" if half else "float32"
    if stored == "float32" and count >= LARGE and device == "cuda" and torch.cuda.is_bf16_supported():
        return "bfloat16"
    return stored or "auto"


def named_format(wanted: Format, model: str) -> str:
    """A number format with `auto` replaced by that of the model's files, where they have one.

    Raises:
        UserError: there is no such model.
    """
    if wanted != "auto":
        return wanted
    return stored_format(local_folder(model))[0] or "auto"


def computes_in(number_format: str) -> str:
    """The format in which a model computes: its own, or the one named after `nf4`."""
    return number_format.removeprefix(NF4)


def network_format(wanted: Format | None, model: str, device: str, reads: bool) -> str:
    """Number format of a model in memory.

    Args:
        wanted: that of the settings; None is the fastest.
        model: folder or hub name.
        device: type of the device: cpu, cuda...
        reads: whether its probabilities are read, else it writes texts.

    Returns:
        Such as "bfloat16"; "nf4 bfloat16" where weights in 4 bits compute in bfloat16.

    Raises:
        UserError: there is no such model.
    """
    if wanted != "nf4":
        return text_format(model, device) if wanted is None else named_format(wanted, model)
    # Four bits are for memory: what is read as a probability still is computed in float32.
    computed = "float32" if reads else text_format(model, device)
    return NF4 + ("float32" if computed == "auto" else computed)


def formats_line(models: Mapping[str, str], device: str, texts: Format | None, probabilities: Format) -> str | None:
    """What the log says of the number formats of a run's models; None where all is float32.

    Args:
        models: folder of each model, by name.
        device: type of the device: cpu, cuda...
        texts: format in which texts are written; None is the fastest.
        probabilities: format in which probabilities are read.
    """
    writers: dict[str, list[str]] = {}
    for name, folder in models.items():
        written = network_format(texts, folder, device, reads=False)
        writers.setdefault(written, []).append(name)
    if set(writers) <= {"float32"} and probabilities == "float32":
        return None
    written_in = ", ".join(f"{number_format} ({', '.join(names)})" for number_format, names in writers.items())
    return (
        f"number formats: texts are written in {written_in}, probabilities are read in {probabilities}; "
        "engine.dtype and engine.judge_dtype set others"
    )


@contextlib.contextmanager
def float32_head(network: Any) -> Iterator[None]:
    """Compute a language model's logits in float32, whatever the format of its body.

    A head that is no plain linear layer, such as one with an adapter on it, stays as it is.
    """
    import torch

    head: Any = network.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32:
        yield
        return
    weight = head.weight.float()
    bias = None if head.bias is None else head.bias.float()
    # On the instance, where it hides the method of the class: the weights may be tied to the embedding.
    vars(head)["forward"] = lambda hidden: torch.nn.functional.linear(hidden.float(), weight, bias)
    try:
        yield
    finally:
        del vars(head)["forward"]
