"""Peak memory and CPU time of a training step on real text, beside the estimate of `--dry-run`, for each trainer.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_memory [--model FOLDER] [--arms sft:2000 dpo:2000:trl ...]
One thread; rows of real stories (../shared/data/nyu_2023), cut so that a row has the tokens named. An arm is
TRAINER:TOKENS[:trl][:KEY=VALUE...], where `trl` is TRL's own trainer with its defaults on the same rows and KEY=VALUE
sets a field of `train`; `rows=N` and `batch=N` say how many rows there are and how many make a step. Each arm is a
process of its own, so that its peak is its own. CPU seconds are those of the last step: the first one also warms up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import SHARED
from tests.benchmarks.memory import resident

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE", "TRL_EXPERIMENTAL_SILENCE"):
    os.environ.setdefault(name, "1")

ARMS = [f"{kind}:{tokens}" for kind in ("sft", "dpo", "judge", "classifier") for tokens in (2000, 7000)]
ARMS += ["sft:2000:trl", "dpo:2000:trl"]
SPEECH = 200
"""Words of a speech."""
STEPS = 2
GIB = 1 << 30


def words(story: str, count: int, start: int) -> str:
    """Some words of a story, from one of them on."""
    return " ".join(story.split()[start : start + count])


def stories() -> list[str]:
    """The texts of the stories, longest first."""
    lines = (SHARED / "data/nyu_2023/stories.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line)["story"] for line in lines), key=len, reverse=True)


def make_row(kind: str, tokenizer: Any, story: str, tokens: int) -> dict[str, Any]:
    """One row of a trainer's file, with about so many tokens in the longest sequence that the model reads of it."""
    speeches = [words(story, SPEECH, 100), words(story, SPEECH, 400)]
    spoken = max(len(tokenizer(speech)["input_ids"]) for speech in speeches)
    # The template's marks around question and speech take some thirty tokens.
    room = tokens - 32 - (spoken if kind in ("sft", "dpo") else 0)
    text = tokenizer.decode(tokenizer(story)["input_ids"][:room])
    prompt = [{"role": "user", "content": text}]
    if kind == "sft":
        return {"prompt": prompt, "completion": speeches[0]}
    if kind == "dpo":
        return {"prompt": prompt, "chosen": speeches[0], "rejected": speeches[1], "p_chosen": 0.7, "p_rejected": 0.4}
    if kind == "judge":
        return {"prompt": prompt, "candidates": [" A", " B"], "target": 1.0}
    return {"id": "1", "text": text, "target": 1.0}


class Arm:
    """One line of the table.

    Example:
        Arm("sft:2000:bf16=false:rows=4")
    """

    def __init__(self, text: str) -> None:
        kind, tokens, *options = text.split(":")
        self.kind = kind
        self.tokens = int(tokens)
        self.trl = "trl" in options
        self.train: dict[str, Any] = {}
        for option in options:
            key, _, value = option.partition("=")
            if value:
                self.train[key] = json.loads(value)
        self.batch = int(self.train.pop("batch", 1))
        self.rows = int(self.train.pop("rows", self.batch))
        self.rank = int(self.train.pop("r", 16))


def our_trainer(arm: Arm, model: str, rows: list[dict[str, Any]], folder: Path) -> tuple[Any, float]:
    """The project's trainer as a job builds it, and its estimate in bytes."""
    from debate_rl.trainers.common.job import open_trainer
    from debate_rl.trainers.common.memory import memory
    from debate_rl.trainers.common.settings import Job, Lora

    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = Job(
        kind=arm.kind,
        model=model,
        rows=str(file),
        out=str(folder / "out"),
        lora=Lora(r=arm.rank, alpha=arm.rank),
        share_prompt=arm.kind == "dpo",
        train={"max_steps": STEPS, "per_device_train_batch_size": arm.batch, "save_strategy": "no", **arm.train},
    )
    opened = open_trainer(job)
    return opened.trainer, 0.0 if opened.training is None else memory(opened.training).total


def trl_trainer(arm: Arm, model: str, rows: list[dict[str, Any]], folder: Path) -> tuple[Any, float]:
    """TRL's own trainer on the same rows, with its own defaults but for what the machine has not; no estimate."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from debate_rl.trainers.common.settings import Lora

    data = []
    for row in rows:
        found = {"prompt": row["prompt"]}
        for name in ("completion", "chosen", "rejected"):
            if name in row:
                found[name] = [{"role": "assistant", "content": row[name]}]
        data.append(found)
    config_class, trainer_class = (SFTConfig, SFTTrainer) if arm.kind == "sft" else (DPOConfig, DPOTrainer)
    config = config_class(
        output_dir=str(folder / "out"),
        use_cpu=True,
        max_length=None,
        max_steps=STEPS,
        per_device_train_batch_size=arm.batch,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"bf16": False, "gradient_checkpointing": False, **arm.train},
    )
    network = AutoModelForCausalLM.from_pretrained(model)
    trainer = trainer_class(
        model=network,
        args=config,
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=Lora(r=arm.rank, alpha=arm.rank).config("CAUSAL_LM"),
    )
    return trainer, 0.0


def measure(arm: Arm, model: str, folder: Path) -> dict[str, float]:
    """Train some steps in this process: its peak memory and the CPU seconds of the last step."""
    import torch
    from transformers import AutoTokenizer, TrainerCallback

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = stories()
    rows = [make_row(arm.kind, tokenizer, texts[number % len(texts)], arm.tokens) for number in range(arm.rows)]
    make = trl_trainer if arm.trl else our_trainer
    trainer, estimated = make(arm, model, rows, folder)
    times = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.process_time())

    trainer.add_callback(Clock())
    loaded = resident() * 2**20
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"estimate": estimated, "loaded": loaded, "peak": peak, "seconds": times[-1] - times[-2], "loss": losses[0]}


def main() -> None:
    """Measure each arm in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=f"{os.environ.get('DEBATE_RL_MODELS', 'models')}/smollm2-135m")
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--arm", help="measure this one here")
    given = parser.parse_args()
    if given.arm:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Arm(given.arm), given.model, Path(folder))))
        return
    print(f"{'arm':<34}{'estimate':>10}{'loaded':>8}{'peak GiB':>10}{'ratio':>8}{'CPU s':>8}{'loss':>9}")
    for text in given.arms:
        command = [sys.executable, "-m", "tests.benchmarks.bench_memory", "--model", given.model, "--arm", text]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            why = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with {done.returncode}"]
            print(f"{text:<34}  {why[-1][:160]}", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        estimate = found["estimate"] / GIB
        ratio = f"{found['estimate'] / found['peak']:.2f}" if estimate else ""
        shown = f"{estimate:.2f}" if estimate else ""
        sizes = f"{shown:>10}{found['loaded'] / GIB:>8.2f}{found['peak'] / GIB:>10.2f}{ratio:>8}"
        print(f"{text:<34}{sizes}{found['seconds']:>8.1f}{found['loss']:>9.4f}", flush=True)


if __name__ == "__main__":
    main()
