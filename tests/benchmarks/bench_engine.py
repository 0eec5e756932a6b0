"""Shared beginnings against plain transformers calls: N speeches from one prompt, and an N x M matrix of verdicts.

The plain arm is `generate` for one request at a time, and for the batch of all of them (`num_return_sequences`).
Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_engine
On a GPU: --device cuda --size 1B, which prints tokens a second by the wall and the memory of either arm.
"""

import argparse
import random
import tempfile
from pathlib import Path

import torch

from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Choice, Message, Request, Sampling
from tests.benchmarks.models import random_model, story_tokenizer
from tests.benchmarks.plain import Plain, clock

SPEECHES, OPPONENTS, NEW = 8, 4, 64
WORDS = [f"word{i}" for i in range(1000)]


def text(count, seed):
    return " ".join(random.Random(seed).choices(WORDS, k=count))


class Timer:
    """Seconds and, on a GPU, MiB at most, of what is done inside."""

    def __init__(self, device):
        self.device, self.seconds, self.memory = device, 0.0, ""

    def __enter__(self):
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        self._start = clock(self.device)
        return self

    def __exit__(self, *_):
        self.seconds = clock(self.device) - self._start
        if self.device != "cpu":
            self.memory = f", {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"


def batch(plain, request):
    """All speeches in one call of transformers, which encodes the prompt once for each of them."""
    ids = plain._ids(request)
    with torch.inference_mode():
        plain.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0, num_return_sequences=SPEECHES,
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=NEW,
        )  # fmt: skip


def line(what, timers, new):
    cells = [
        f"{name} {timer.seconds:.2f} s ({new / timer.seconds:,.0f}/s{timer.memory})" for name, timer in timers.items()
    ]
    ratios = [f"{timer.seconds / timers['engine'].seconds:.1f}x" for name, timer in timers.items() if name != "engine"]
    print(f"{what}\n    {'; '.join(cells)}; ratio {', '.join(ratios)}", flush=True)


def compare(given, model, length):
    """Both works at one length of the shared beginning, in words."""
    engine = TransformersEngine(device=given.device, dtype=given.dtype, batch_tokens=1 << 17)
    plain = Plain(model, [], given.device, given.dtype)
    shared = text(length, 0)
    prompt = (Message(role="user", content=shared),)
    sampling = Sampling(max_new_tokens=NEW)
    requests = [Request(messages=prompt, model=model, sampling=sampling, seed=seed) for seed in range(SPEECHES)]
    own, other = [text(40, 1 + i) for i in range(SPEECHES)], [text(40, 50 + i) for i in range(OPPONENTS)]
    choices = [
        Choice(messages=(Message(role="user", content=f"{shared} {a} {b}"),), model=model, candidates=("a", "b"))
        for a in own
        for b in other
    ]
    engine.generate([Request(messages=(Message(role="user", content="a"),), model=model, sampling=sampling)])
    engine.release()
    timers = {name: Timer(given.device) for name in ("one by one", "batch", "engine")}
    with timers["one by one"]:
        for request in requests:
            plain.generate(request)
    with timers["batch"]:
        batch(plain, requests[0])
    with timers["engine"]:
        engine.generate(requests)
    tokens = engine.usage.prompt_tokens // SPEECHES
    line(f"{SPEECHES} speeches of {NEW} tokens, prompt of {tokens:,}; new tokens a second", timers, SPEECHES * NEW)
    engine.release()
    timers = {name: Timer(given.device) for name in ("one by one", "engine")}
    with timers["one by one"]:
        scores = [plain.choose(choice) for choice in choices]
    with timers["engine"]:
        found = engine.choose(choices)
    line(f"{SPEECHES} x {OPPONENTS} verdicts after the same; verdicts a second", timers, len(choices))
    gap = max((torch.tensor(a.logprobs) - b).abs().max().item() for a, b in zip(found, scores, strict=True))
    print(f"    largest difference of a log-probability: {gap:.0e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=None, help="float32 on CPU, bfloat16 on a GPU")
    parser.add_argument("--size", default="9M", help="9M or 1B")
    parser.add_argument("--lengths", type=int, nargs="+", default=[300, 1200])
    given = parser.parse_args()
    given.dtype = given.dtype or ("float32" if given.device == "cpu" else "bfloat16")
    torch.set_num_threads(1)
    name = given.device if given.device == "cpu" else torch.cuda.get_device_name()
    print(f"random Qwen3, {given.size}, {given.dtype}, {name}")
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder), story_tokenizer([text(2000, 99)], 2048), given.size)
        for length in given.lengths:
            compare(given, model, length)


if __name__ == "__main__":
    main()
