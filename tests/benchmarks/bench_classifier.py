"""A training step of the weak-to-strong classifier at batch 32: rows packed inside the batch, against one example at a
time and against the whole batch padded in input order. The batches, their order and the seed are the same in all arms.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_classifier [--steps 30] [--hidden 128] [--layers 4]
One thread, CPU ms of a step after the first, collator, optimizer and Trainer included; float32, a random Llama,
every weight trained. Texts: the word that decides the label stands at the end, after filler of lengths drawn to look
like SciQ's questions (short), or log-normal with one in thirty above 250 tokens (heavy-tailed).
"""

import argparse
import contextlib
import os
import random
import tempfile
import time

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE"):
    os.environ.setdefault(name, "1")

BATCH, TEST = 32, 320
ARMS = {"one at a time": 1, "padded batch": None, "packed (ours)": "ours"}
"""Token budget of a chunk: one row each; all rows; that of the trainer."""


def texts(tail, count, seed):
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


def model(hidden, layers):
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, num_labels=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForSequenceClassification(config)


def clock(trainer):
    """CPU seconds at the end of each step, filled while it trains."""
    from transformers import TrainerCallback

    ended = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            ended.append(time.process_time())

    trainer.add_callback(Clock())
    return ended


def arm(budget, rows, held_out, given):
    """CPU ms a step, the losses of the steps, and accuracy on held-out rows."""
    import torch

    from debate_rl.trainers.arguments import training_arguments
    from debate_rl.trainers.binary import token_budget
    from debate_rl.trainers.classifier import ClassifierCollator, ClassifierTrainer, class_logits

    train = {
        "max_steps": given.steps, "per_device_train_batch_size": BATCH, "learning_rate": 2e-3, "logging_steps": 1,
        "use_cpu": True, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config = training_arguments("classifier", train, folder, seed=0)
        size = token_budget(config) if budget == "ours" else budget
        trainer = ClassifierTrainer(
            model=model(given.hidden, given.layers), args=config, train_dataset=rows,
            data_collator=ClassifierCollator(0, size),
        )  # fmt: skip
        ended = clock(trainer)
        with contextlib.redirect_stdout(None):
            trainer.train()
    batch = ClassifierCollator(0, 2048)(held_out)
    with torch.inference_mode():
        right = (class_logits(trainer.model.eval(), batch).argmax(1) == batch["target"]).float().mean().item()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # The first step warms up; a step lasts from the end of the one before, so that collating and logging count.
    return 1000 * (ended[-1] - ended[0]) / (len(ended) - 1), losses, right


def main():
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, tail in (("short", False), ("heavy-tailed", True)):
        rows, held_out = texts(tail, BATCH * given.steps, 0), texts(tail, TEST, 1)
        lengths = sorted(len(row["input_ids"]) for row in rows)
        mean, middle, longest = sum(lengths) / len(lengths), lengths[len(lengths) // 2], lengths[-1]
        print(f"{name}: mean {mean:.0f} tokens, median {middle}, longest {longest}")
        found = {label: arm(budget, rows, held_out, given) for label, budget in ARMS.items()}
        ours, own, _ = found["packed (ours)"]
        print(f"{'arm':<20}{'CPU ms a step':>14}{'ours takes':>12}{'accuracy':>10}{'largest loss difference':>26}")
        for label, (spent, losses, right) in found.items():
            gap = max(abs(a - b) for a, b in zip(losses, own, strict=True))
            print(f"{label:<20}{spent:>14.1f}{ours / spent:>11.2f}x{right:>10.3f}{gap:>26.1e}")


if __name__ == "__main__":
    main()
