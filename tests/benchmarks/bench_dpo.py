"""A DPO step on a long prompt with two short speeches: TRL's own with its reference forward, against one shared prompt
and a cached reference.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_dpo [--prompt 8000] [--speech 200] [--checkpointing]
One thread, CPU seconds, float32, a random Llama of 6 layers, 256 wide, every weight trained. Each arm is a process of
its own, so that its peak memory is its own; the step is loss and gradients, without the optimizer's.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE", "TRL_EXPERIMENTAL_SILENCE"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")

ARMS = ("trl", "ours")


def words(count, seed):
    from tests.trainers.tiny import TEXT

    plain = [word for word in TEXT.split() if word.isalpha()]
    return " ".join(random.Random(seed).choices(plain, k=count))


def models():
    """A policy that has moved from its reference, and the reference: the same in both arms."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=16384,
    )  # fmt: skip
    torch.manual_seed(0)
    reference = LlamaForCausalLM(config)
    policy = LlamaForCausalLM(config)
    policy.load_state_dict(reference.state_dict())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.002 * torch.randn_like(parameter))
    return policy, reference


def settings(folder, **fields):
    from trl import DPOConfig

    return DPOConfig(
        output_dir=folder, use_cpu=True, bf16=False, max_length=None, per_device_train_batch_size=1, beta=0.1,
        disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False, **fields,
    )  # fmt: skip


def trl_trainer(rows, folder, checkpointing):
    from datasets import Dataset
    from trl import DPOTrainer

    from tests.trainers.tiny import make_tokenizer

    policy, reference = models()
    data = [
        {name: [{"role": "user" if name == "prompt" else "assistant", "content": text}] for name, text in row.items()}
        for row in rows
    ]
    return DPOTrainer(
        model=policy, ref_model=reference, args=settings(folder, gradient_checkpointing=checkpointing),
        train_dataset=Dataset.from_list(data), processing_class=make_tokenizer("chatml"),
    )  # fmt: skip


def our_trainer(rows, folder, checkpointing):
    from datasets import Dataset

    from debate_rl.trainers.common.pairs import encode_pairs
    from debate_rl.trainers.common.rows import PreferenceRow
    from debate_rl.trainers.common.settings import Objective
    from debate_rl.trainers.dpo import dpo_trainer
    from tests.trainers.tiny import ask, make_tokenizer

    policy, reference = models()
    tokenizer = make_tokenizer("chatml")
    objective = Objective(target="binary", sft_weight=0, normalise=False)
    pairs = [
        PreferenceRow(
            prompt=ask(row["prompt"]), chosen=row["chosen"], rejected=row["rejected"], p_chosen=0.7, p_rejected=0.4
        )
        for row in rows
    ]
    config = settings(folder, gradient_checkpointing=checkpointing, precompute_ref_log_probs=True)
    data = Dataset.from_list(encode_pairs(tokenizer, pairs, objective))
    return dpo_trainer(policy, tokenizer, data, config, objective, ref_model=reference, share_prompt=True)


def arm(given):
    """Time one arm; leave its gradients in a file and print the figures as JSON."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    speeches = {"chosen": words(given.speech, 1), "rejected": words(given.speech, 2)}
    make = trl_trainer if given.arm == "trl" else our_trainer
    trainer = make([{"prompt": words(given.prompt, 0), **speeches}], str(Path(given.out).parent), given.checkpointing)
    batch = next(iter(trainer.get_train_dataloader()))
    start = time.process_time()
    if given.arm == "ours":
        trainer.compute_ref_log_probs(trainer.ref_model, batch)  # once more what the trainer has cached
    cache = time.process_time() - start
    model = trainer.accelerator.prepare(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    if given.arm == "ours":
        trainer._check_shared(model)  # once a training
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    seconds = []
    for _ in range(given.repeats):
        model.zero_grad()
        start = time.process_time()
        loss = trainer.training_step(model, batch)
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    save_file({key: p.grad for key, p in trainer.model.named_parameters()}, given.out)
    found = {"seconds": min(seconds), "cache": cache, "loss": loss.item(), "peak": peak, "step": peak - before}
    print(json.dumps({**found, "tokens": batch["input_ids"].numel()}))


def gradient_gap(files):
    """Largest difference of two sets of gradients, over the largest gradient."""
    from safetensors.torch import load_file

    first, second = map(load_file, files)
    return max((first[k] - second[k]).abs().max().item() for k in first) / max(
        tensor.abs().max().item() for tensor in first.values()
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=ARMS)
    parser.add_argument("--out")
    parser.add_argument("--prompt", type=int, default=8000)
    parser.add_argument("--speech", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=2, help="the best counts")
    parser.add_argument("--checkpointing", action="store_true")
    given = parser.parse_args()
    if given.arm:
        arm(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.safetensors") for name in ARMS}
        found = {}
        for name, file in files.items():
            command = [sys.executable, "-m", "tests.benchmarks.bench_dpo", *sys.argv[1:], "--arm", name, "--out", file]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name] = json.loads(printed.splitlines()[-1])
        gap = gradient_gap(files.values())
    trl, ours = found["trl"], found["ours"]
    print(f"prompt of {given.prompt:,} words, two speeches of {given.speech}, checkpointing {given.checkpointing}")
    print(f"{'what':<52}{'TRL':>12}{'shared':>12}{'ratio':>8}")
    for what, key, unit in (
        ("tokens encoded by the policy", "tokens", 1),
        ("a step, CPU s", "seconds", 1),
        ("peak memory of the process, MiB", "peak", 1 << 20),
        ("peak memory over what was held before, MiB", "step", 1 << 20),
    ):
        print(f"{what:<52}{trl[key] / unit:>12.1f}{ours[key] / unit:>12.1f}{trl[key] / ours[key]:>7.2f}x")
    both = trl["seconds"] / (ours["seconds"] + ours["cache"])
    print(f"{'with the reference computed once, for a single epoch':<52}{'':>12}"
          f"{ours['seconds'] + ours['cache']:>12.1f}{both:>7.2f}x")  # fmt: skip
    print(
        f"loss {trl['loss']:.7f} and {ours['loss']:.7f}; largest gradient difference {gap:.1e} of the largest gradient"
    )


if __name__ == "__main__":
    main()
