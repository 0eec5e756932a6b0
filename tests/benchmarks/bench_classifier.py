"""A training step of the weak-to-strong classifier at batch 32: rows laid in one line inside the batch, against one
example at a time and against the batch padded in input order. All arms are the same trainer, model, rows and order.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_classifier [--texts short heavy sciq hh] [--shape 64 3 128 4]
One thread, CPU ms of a step after the first, collator, optimizer and logging included; float32, a random Llama, every
weight trained; `--shape` gives pairs of width and layers, at first those of the lab models. Texts: short and heavy are
made, the word that decides the label before the end, after filler of lengths like SciQ's questions, or log-normal with
one in thirty above 250 tokens. sciq and hh are real rows of ../shared, a number for each word.
"""

import argparse
import contextlib
import os
import random
import re
import tempfile
import time
import zlib

from tests import SHARED

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE"):
    os.environ.setdefault(name, "1")

BATCH, TEST, RATE = 32, 320, 2e-3
ARMS = {"one at a time": (1, False), "padded batch": (None, False), "one line (ours)": (4096, True)}
"""Token budget of a chunk, which one row exceeds, and whether rows are laid in lines."""
REAL = {"sciq": "sciq_weak_labels_naive.jsonl", "hh": "hh_harmless_test.jsonl"}


def made(tail, count, seed):
    """Encoded rows: filler, then a token of the class, then the end that is read."""
    drawn = random.Random(seed)
    rows = []
    for _ in range(count):
        length = int(drawn.lognormvariate(3.4, 1.15) if tail else drawn.lognormvariate(3.1, 0.35))
        label = drawn.random() < 0.5
        ids = [drawn.randrange(20, 2000) for _ in range(min(max(length, 4), 800))]
        ids[-2] = drawn.randrange(4, 12) if label else drawn.randrange(12, 20)
        rows.append({"input_ids": [*ids[:-1], 3], "target": float(label), "weight": 1.0})
    return rows


def real(task, count):
    """Encoded rows of a task, repeated where it has fewer."""
    from debate_rl.data.tasks.binary_items import load

    items = load(task, SHARED / "data/binary_tasks" / REAL[task], balanced=False).items
    words = [re.findall(r"\w+|[^\w\s]", item.text)[-1000:] for item in items]
    rows = [
        {"input_ids": [zlib.crc32(word.encode()) % 2000 + 4 for word in text] + [3], "target": item.label, "weight": 1}
        for text, item in zip(words, items, strict=True)
    ]
    random.Random(0).shuffle(rows)
    return [rows[place % len(rows)] for place in range(count)]


def model(hidden, layers):
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, num_labels=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForSequenceClassification(config)


def arguments(folder, steps):
    from debate_rl.trainers.common.arguments import training_arguments

    train = {
        "max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": RATE, "logging_steps": 1,
        "use_cpu": True, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    return training_arguments("classifier", train, folder, seed=0)


def arm(rows, steps, shape, budget, lined):
    """CPU seconds at the end of each step, losses, and the trained model, by the trainer with this collator."""
    from transformers import TrainerCallback

    from debate_rl.trainers.classifier import ClassifierCollator, ClassifierTrainer

    ended = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            ended.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        config, network = arguments(folder, steps), model(*shape)
        trainer = ClassifierTrainer(
            model=network, args=config, train_dataset=rows, callbacks=[Clock()],
            data_collator=ClassifierCollator(0, budget, lined),
        )  # fmt: skip
        with contextlib.redirect_stdout(None):
            trainer.train()
    return ended, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], network


def gradient_gap(batch, shape):
    """Largest difference between our gradient of a batch and that of one example at a time, over the gradient."""
    import torch

    from debate_rl.trainers.classifier import ClassifierCollator, class_logits
    from debate_rl.trainers.common.binary_trainer import xent

    networks = [model(*shape), model(*shape)]
    for network, collator in zip(networks, (ClassifierCollator(0, 4096, True), ClassifierCollator(0, 1)), strict=True):
        given = collator(batch)
        xent(class_logits(network, given).flip(-1), given["target"], 0.0).mean().backward()
    pairs = zip(*(network.parameters() for network in networks), strict=True)
    return max(float(torch.norm(a.grad - b.grad) / torch.norm(b.grad).clamp(min=1e-9)) for a, b in pairs)


def compare(rows, held_out, shape, steps):
    """Print the three arms."""
    import torch

    from debate_rl.trainers.classifier import ClassifierCollator, class_logits

    found = {label: arm(rows, steps, shape, *how) for label, how in ARMS.items()}
    spent = {label: 1000 * (ended[-1] - ended[0]) / (len(ended) - 1) for label, (ended, *_) in found.items()}
    print(f"  {'arm':<18}{'CPU ms a step':>14}{'ours takes':>12}{'accuracy':>10}{'largest loss difference':>26}")
    for label, (_, losses, network) in found.items():
        batch = ClassifierCollator(0, 2048)(held_out)
        with torch.inference_mode():
            right = (class_logits(network.eval(), batch).argmax(1) == batch["target"]).float().mean().item()
        gap = max(abs(a - b) for a, b in zip(losses, found["one line (ours)"][1], strict=True))
        ratio = spent["one line (ours)"] / spent[label]
        print(f"  {label:<18}{spent[label]:>14.1f}{ratio:>11.2f}x{right:>10.3f}{gap:>26.1e}")
    print(f"  gradient of a batch against one example at a time: {gradient_gap(rows[:BATCH], shape):.1e} of its norm")


def main():
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--shape", type=int, nargs="+", default=[64, 3])
    parser.add_argument("--texts", nargs="+", default=["short", "heavy"], choices=["short", "heavy", *REAL])
    given = parser.parse_args()
    torch.set_num_threads(1)
    count = BATCH * given.steps
    for name in given.texts:
        if name in REAL:
            rows = real(name, count + TEST)
        else:
            rows = made(name == "heavy", count, 0) + made(name == "heavy", TEST, 1)
        lengths = sorted(len(row["input_ids"]) for row in rows[:count])
        for shape in zip(given.shape[::2], given.shape[1::2], strict=True):
            print(
                f"{name}: mean {sum(lengths) / count:.0f} tokens, median {lengths[count // 2]}, longest {lengths[-1]}"
            )
            print(f"  model {shape[0]} wide, {shape[1]} layers")
            compare(rows[:count], rows[count:], shape, given.steps)


if __name__ == "__main__":
    main()
