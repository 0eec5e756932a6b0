"""What a step's rollout costs beside what the engine needs for the same speeches and verdicts.

The trainer's arm is all that TRL waits for: games, prompts, the judge's matrix, rewards, token sequences, from the live
model in training. The engine's arm is one `generate` and one `choose` of exactly the requests that the trainer made,
by an engine of its own with the policy's adapter loaded from disk. CPU seconds of the process, the best of some runs.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_grpo [--questions 8] [--copies 8]
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from debate_rl.data.models import model_path
from debate_rl.data.questions import load_questions
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.game.protocol import load_protocol
from debate_rl.judges.judge import Judge
from debate_rl.records import write
from debate_rl.trainers.common.arguments import training_arguments
from debate_rl.trainers.common.build_trainer import build_trainer, prepare
from debate_rl.trainers.common.load import load_tokenizer
from debate_rl.trainers.common.settings import Job, Lora
from debate_rl.trainers.grpo.groups import arguments_of
from debate_rl.trainers.grpo.settings import Online, Rewards

RUNS = 3


def trainer_of(folder, questions, copies):
    """A trainer on lab questions; the adapter is new, so its numbers are those of the base at an adapter's cost."""
    write(folder / "questions.jsonl", load_questions("lab", None, "train", questions, 0))
    online = Online(
        protocol=load_protocol("debate", prompts="lab", max_new_tokens=48), judge=Judge(model=model_path("lab-small")),
        rewards=Rewards(truncated="keep"),
    )  # fmt: skip
    job = Job(
        kind="grpo", model=model_path("lab-base"), rows=str(folder / "questions.jsonl"), out=str(folder / "out"),
        lora=Lora(r=16, alpha=32), online=online,
        train={"max_steps": 1, "num_generations": copies, "per_device_train_batch_size": 2 * copies * questions,
               "gradient_accumulation_steps": 1},
    )  # fmt: skip
    config = training_arguments("grpo", job.train, folder / "checkpoints", 0, arguments_of(online, job.train))
    tokenizer = load_tokenizer(job.model)
    trainer = build_trainer(job, tokenizer, prepare(job, tokenizer), config, [])
    trainer.model.save_pretrained(folder / "adapter")
    return trainer


def seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


def recorded(trainer, keys):
    """What the trainer asks of its engine in a rollout."""
    requests, choices, engine = [], [], trainer.engine
    generate, choose = engine.generate, engine.choose
    engine.generate = lambda asked: requests.extend(asked) or generate(asked)
    engine.choose = lambda asked: choices.extend(asked) or choose(asked)
    trainer.judge.engine = engine
    trainer.roll(keys)
    del engine.generate, engine.choose
    return requests, choices


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--copies", type=int, default=8)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trainer = trainer_of(folder, wanted.questions, wanted.copies)
        keys = [row["prompt"] for row in trainer.train_dataset for _ in range(wanted.copies)]
        requests, choices = recorded(trainer, keys)
        own = [
            request.model_copy(update={"model": model_path("lab-base"), "adapter": str(folder / "adapter")})
            for request in requests
        ]
        engine = TransformersEngine()
        arms = {"engine": [], "rollout": []}

        def plain():
            engine.release()
            engine.generate(own)
            engine.choose(choices)

        plain()  # loads the models
        for _ in range(RUNS):
            arms["engine"].append(seconds(plain))
            arms["rollout"].append(seconds(lambda: trainer.roll(keys)))
        same = sum(a.text == b.text for a, b in zip(engine.generate(own), trainer_texts(trainer), strict=True))
    best = {name: min(found) for name, found in arms.items()}
    print(f"{len(requests)} speeches ({same} the same in both arms), {len(set(choices))} questions to the judge")
    print(f"engine {best['engine']:.2f} s, rollout {best['rollout']:.2f} s: {best['rollout'] / best['engine']:.2f}x")


def trainer_texts(trainer):
    """The policy's speeches of the last rollout, in the order of its requests: game by game, A then B."""
    return [speech for leg in trainer.played.legs for speech in leg.transcript.speeches]


if __name__ == "__main__":
    main()
