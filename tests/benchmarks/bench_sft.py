"""SFT on the speeches of the real human debates: tokens per second of our trainer and of TRL's own on the same rows.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_sft [--rows 48] [--all] [--hidden 64] [--layers 2] [--heads 4]
One thread, CPU seconds, a random Llama (debate_rl.data.tiny), rows of one a step, every weight trained. Rows are built
from all speeches and counted; --rows of them, drawn by seed, are trained on by both, --all by ours as well.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset

from debate_rl.data.tiny import build
from debate_rl.data.transcripts import load_transcripts
from debate_rl.game.protocol import load_protocol
from debate_rl.trainers.common.load import load_model, load_tokenizer
from debate_rl.trainers.common.rows import sft_rows
from debate_rl.trainers.sft import encode_speeches, sft_trainer
from tests.conftest import SHARED


def settings(folder, steps):
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder, use_cpu=True, bf16=False, max_length=None, per_device_train_batch_size=1, max_steps=steps,
        gradient_checkpointing=False, disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
        learning_rate=1e-4, logging_steps=1,
    )  # fmt: skip


def trained(trainer):
    """CPU seconds of a training, and its losses."""
    start = time.process_time()
    trainer.train()
    seconds = time.process_time() - start
    return seconds, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def theirs(model, tokenizer, rows, folder):
    """TRL's own trainer: prompts and completions as messages, its defaults for them."""
    from trl import SFTTrainer

    data = [{"prompt": r.prompt, "completion": [{"role": "assistant", "content": r.completion}]} for r in rows]
    config = settings(folder, len(rows))
    trainer = SFTTrainer(
        model=load_model(model), args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer
    )
    assert len(trainer.train_dataset) == len(rows)
    return trained(trainer)


def ours(model, tokenizer, encoded, folder):
    trainer = sft_trainer(load_model(model), tokenizer, Dataset.from_list(encoded), settings(folder, len(encoded)))
    assert len(trainer.train_dataset) == len(encoded)
    return trained(trainer)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--hidden", type=int, default=64, help="width of the model; --all takes hours at 64")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--all", action="store_true", help="ours on all speeches as well")
    given = parser.parse_args()
    torch.set_num_threads(1)
    nyu = SHARED / "data/nyu_2023"
    if not nyu.exists():
        print(f"{nyu} not found; nothing to train on")
        return
    with tempfile.TemporaryDirectory() as folder:
        model = str(build(Path(folder) / "model", nyu / "stories.jsonl", given.hidden, given.layers, heads=given.heads))
        tokenizer = load_tokenizer(model)
        corpus = load_transcripts("nyu", [], load_protocol("debate"), 0, path=str(nyu))
        rows = sft_rows(corpus.transcripts)
        speeches = sum(len(game.speeches) for game in corpus.transcripts)
        start = time.process_time()
        encoded = encode_speeches(tokenizer, rows)
        spent = time.process_time() - start
        lengths = [len(row["input_ids"]) for row in encoded]
        print(f"{speeches:,} speeches, {len(rows):,} rows, {sum(lengths):,} tokens, the longest {max(lengths):,}; "
              f"encoded in {spent:.0f} CPU s")  # fmt: skip
        chosen = random.Random(0).sample(range(len(rows)), given.rows)
        tokens = sum(lengths[place] for place in chosen)
        first, losses = theirs(model, tokenizer, [rows[place] for place in chosen], folder)
        second, own = ours(model, tokenizer, [encoded[place] for place in chosen], folder)
        print(f"{'what':<44}{'TRL':>12}{'ours':>12}{'ratio':>8}")
        what = f"{given.rows} rows, {tokens:,} tokens, CPU s"
        print(f"{what:<44}{first:>12.1f}{second:>12.1f}{first / second:>7.2f}x")
        print(f"{'tokens per CPU second':<44}{tokens / first:>12.0f}{tokens / second:>12.0f}{first / second:>7.2f}x")
        gap = max(abs(a - b) for a, b in zip(losses, own, strict=True))
        every = second * sum(lengths) / tokens
        print(f"largest difference of a step's loss {gap:.1e}; all rows would take ours about {every:.0f} CPU s")
        if given.all:
            whole, found = ours(model, tokenizer, encoded, folder)
            speed = sum(lengths) / whole
            print(f"ours on all {len(found):,} rows: {whole:.0f} CPU s, {speed:.0f} tokens per CPU second")


if __name__ == "__main__":
    main()
