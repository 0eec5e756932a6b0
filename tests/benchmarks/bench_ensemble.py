"""An ensemble of 4 on one frozen base against one member, at inference: both arms read the same texts.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_ensemble [--texts 256] [--layers 8] [--hidden 256]
CPU seconds on one thread, loading left in, best of two; a random float32 Llama. Members are linear probes, or LoRA
adapters in the last layer, in the last quarter of the layers, or in all. What is compared is P(answer 0) of every
member, against the same member alone. The bar, at most 1.5 times one member, is for probes and for the last layer:
adapters in every layer share the weights in memory but not the arithmetic, and no order of work changes that.
"""

import argparse
import os
import random
import tempfile
import time
from itertools import pairwise
from pathlib import Path

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE"):
    os.environ.setdefault(name, "1")

MEMBERS, BAR = 4, 1.5


def base(folder, hidden, layers, kind):
    """Save a random model with a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from tests.tiny import tiny_tokenizer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, num_labels=2, pad_token_id=0,
        bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    model = (LlamaForCausalLM if kind == "causal" else LlamaForSequenceClassification)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def probes(folder, hidden, layers):
    """Models that differ in their heads."""
    import torch
    from transformers import AutoTokenizer

    from debate_rl.trainers.common.settings import Weights

    model = base(folder / "probe0", hidden, layers, "classifier")
    tokenizer = AutoTokenizer.from_pretrained(folder / "probe0")
    for number in range(1, MEMBERS):
        torch.nn.init.normal_(model.score.weight, std=0.05 * number)
        model.save_pretrained(folder / f"probe{number}")
        tokenizer.save_pretrained(folder / f"probe{number}")
    return [Weights(model=str(folder / f"probe{number}")) for number in range(MEMBERS)]


def adapters(folder, hidden, layers, first):
    """Random adapters in the layers from the first on."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from debate_rl.trainers.common.settings import Weights

    root = folder / "base"
    if not root.exists():
        base(root, hidden, layers, "causal")
    found = []
    for number in range(MEMBERS):
        torch.manual_seed(number)
        kept = "|".join(str(layer) for layer in range(first, layers))
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=rf".*layers\.({kept})\..*_proj")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(root), lora)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "lora_B" in key:
                    weight.normal_(0, 0.05)
        path = folder / f"from{first}-{number}"
        model.save_pretrained(path)
        found.append(Weights(model=str(root), adapter=str(path)))
    return found


def texts(count):
    """Prompts of lengths like those of short passages."""
    from debate_rl.weak_to_strong.tasks.items import Sample

    drawn = random.Random(0)
    lengths = [int(drawn.lognormvariate(4.6, 0.4)) for _ in range(count)]
    said = [" ".join(f"w{drawn.randrange(200)}" for _ in range(min(length, 400))) for length in lengths]
    return [Sample(prompt=[{"role": "user", "content": text}], candidates=("w1", "w2")) for text in said]


def timed(work):
    """CPU seconds of the better of two runs, and what it gave."""
    spent = []
    for _ in range(2):
        began = time.process_time()
        found = work()
        spent.append(time.process_time() - began)
    return min(spent), found


def alone(samples, member, readout):
    """One member by the ordinary path."""
    from debate_rl.engines.local.engine import TransformersEngine
    from debate_rl.weak_to_strong.training_cache import Settings, Trainings

    settings = Settings(weak=member.model, strong=member.model, readout=readout)
    return Trainings(settings, TransformersEngine, Path())._alone(member, samples)


def compare(label, samples, members, readout, barred):
    """Print one row; the ratio to the bar where it has one."""
    import numpy as np

    from debate_rl.weak_to_strong.shared_forward import one_base, predict_together

    assert one_base(members, readout)
    one, first = timed(lambda: alone(samples, members[0], readout))
    four, found = timed(lambda: predict_together(samples, members, readout))
    each = [first, *(alone(samples, member, readout) for member in members[1:])]
    gap = max(float(np.abs(a - b).max()) for a, b in zip(found, each, strict=True))
    apart = max(float(np.abs(a - b).max()) for a, b in pairwise(each))
    bar = f"bar {BAR}: {'met' if four <= BAR * one else 'MISSED'}" if barred else "no bar"
    print(f"{label:<22} one {one:6.2f} s   {MEMBERS} together {four:6.2f} s   ratio {four / one:4.2f}   {bar}"
          f"   largest difference {gap:.1e} (members differ by {apart:.2f})")  # fmt: skip
    return gap < 1e-4 and (not barred or four <= BAR * one)


def main():
    import torch

    parser = argparse.ArgumentParser()
    for key, value in (("texts", 256), ("layers", 8), ("hidden", 256)):
        parser.add_argument(f"--{key}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    samples = texts(given.texts)
    size = (given.hidden, given.layers)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [compare("linear probes", samples, probes(folder, *size), "probe", True)]
        for label, first, barred in (
            ("LoRA, last layer", given.layers - 1, True),
            ("LoRA, last quarter", given.layers - given.layers // 4, False),
            ("LoRA, all layers", 0, False),
        ):
            rows.append(compare(label, samples, adapters(folder, *size, first), "answers", barred))
    raise SystemExit(0 if all(rows) else 1)


if __name__ == "__main__":
    main()
