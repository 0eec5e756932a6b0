"""Merge a LoRA adapter into its base: a model of its own, on which a new adapter can be trained."""

from __future__ import annotations

import shutil
from pathlib import Path

from debate_rl.engines import load
from debate_rl.engines.number_formats import stored_format
from debate_rl.engines.weights import BASE_FILE, check_adapter, check_weights, fingerprint, header, write_sums
from debate_rl.errors import UserError
from debate_rl.records import Record, write_json


class Merged(Record):
    """What was merged.

    Example:
        Merged(modules=224, number_format="bfloat16", base="9f86d081884c7d65", fingerprint="60303ae22b998861")
    """

    modules: int
    """Layers that the adapter changed."""
    number_format: str
    """Number format of the merged weights: that of the base's files."""
    base: str
    """Fingerprint of the base."""
    fingerprint: str
    """Fingerprint of the merged model."""


def merge_adapter(model: str, adapter: str, out: Path) -> Merged:
    """Save W + (alpha / r) B A for every adapted weight W, with the base's tokenizer and template.

    The sum is computed in float32 and rounded once to the format of the base's files, so that the merged model takes
    as much room as its base. It has its final name only when it is complete.

    Args:
        model: folder or hub name of the base.
        adapter: folder of a LoRA adapter of this base.
        out: folder of the merged model; one that is there already is replaced.

    Raises:
        UserError: model or adapter is missing or damaged, or the adapter is of another base.
    """
    from transformers import AutoModelForCausalLM

    base = check_weights(model)
    check_adapter(model, adapter)
    number_format = stored_format(base)[0] or "float32"
    network = load.load_network(AutoModelForCausalLM, model, number_format)
    # The adapter is held in float32, and peft's plain merge adds in place: the sum is rounded once. Its `safe_merge`
    # would round the adapter's part first.
    network = load.load_adapter(network, adapter, "default", autocast_adapter_dtype=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    merged = network.merge_and_unload()
    if not all(bool(weight.isfinite().all()) for weight in merged.parameters()):
        raise UserError(f"adapter {adapter} merged into {model} gives weights that are no numbers; train it again")
    merged.save_pretrained(partial)
    load.load_tokenizer(model).save_pretrained(partial)
    base_fingerprint = fingerprint(model)
    write_json(partial / BASE_FILE, {"model": model, "fingerprint": base_fingerprint})
    write_sums(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    modules = sum(".lora_A." in name for name in header(Path(adapter) / "adapter_model.safetensors"))
    return Merged(modules=modules, number_format=number_format, base=base_fingerprint, fingerprint=fingerprint(out))
