"""Debates of the project's players, arena and judge against the same work by plain transformers calls.

The plain arm makes one call for every speech and one for every judged pair and shares nothing. Both arms run in one
process on one thread, on a random Qwen3; times are CPU seconds of the process, without loading. Of a plain arm that
would take long a part of the calls, drawn by seed, is run and the time scaled; the table says of how many.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_debate [--quick] [--work debate,debates,tournament]
On a GPU: --device cuda --size 1B (seconds by the wall; bfloat16). The stories are those of ../shared/data/nyu_2023
(DEBATE_RL_SHARED); where they are absent the benchmark says so and ends.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from debate_rl.arena.rollout import play
from debate_rl.arena.schedule import Schedule, mirrors, pairings
from debate_rl.arena.tournament import TournamentSettings, play_tournament
from debate_rl.data.sources import nyu
from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.local.prefix import Row, Trie
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from tests.benchmarks.models import random_model, story_tokenizer
from tests.benchmarks.plain import Calls, Plain, Recorder, clock, differences
from tests.conftest import SHARED
from tests.tiny import tiny_adapter

NEW = 64
STORY = 8_200
"""Tokens of a story, about."""
PERFECT = 22_600
"""Prompt tokens of one debate in the measured script that shares prefixes."""


def engine_of(given):
    return TransformersEngine(
        device=given.device, dtype=given.dtype, batch_tokens=given.batch_tokens, cache_tokens=given.cache_tokens
    )


def shared_arm(given, work):
    """Do some work with a fresh engine: (seconds, recorder)."""
    recorder = Recorder(engine_of(given))
    recorder.engine._networks.load(given.model)
    start = clock(given.device)
    work(recorder)
    return clock(given.device) - start, recorder


def perfect(engine, calls):
    """Prompt tokens of a tree over everything that was asked: each shared beginning once."""
    trie, ends = Trie(), []
    for one in dict.fromkeys([*calls.requests, *calls.choices]):
        row = Row(prompt_ids(engine._networks.load(one.model).tokenizer, one.messages), 1)
        ends.append(trie.add((one.model, one.adapter), row))
    nodes = {node for end in ends for node in end.path}
    return sum(len(node.tokens) for node in nodes)


def show(what, seconds, engine, calls, plain, bar):
    """Print a row of the table: both arms, tokens, memory, and how far the arms' probabilities are apart."""
    spent, runs, scores = plain
    total, usage = len(calls.requests) + len(calls.choices), engine.usage
    verdict, logprob = differences(calls, scores)
    scaled = "" if runs == total else f" (from {runs} of {total} calls)"
    met = "met" if seconds * bar <= spent else "MISSED"
    print(
        f"{what}: {len(calls.requests)} generations, {len(calls.choices)} judge calls\n"
        f"    seconds         plain {spent:.1f}{scaled}, engine {seconds:.1f}: 1/{spent / seconds:.1f}; "
        f"bar 1/{bar}: {met}\n"
        f"    prompt tokens   asked {usage.prompt_tokens:,}, encoded {usage.encoded_tokens:,}, "
        f"a perfect tree {perfect(engine, calls):,}; from earlier calls {usage.reused_tokens:,}\n"
        f"    memory          at most {usage.peak_tokens:,} tokens, {usage.peak_bytes / 2**20:.0f} MiB\n"
        f"    plain - engine  probability {verdict:.0e}, log-probability {logprob:.0e}",
        flush=True,
    )


def one_debate(given, questions, plain):
    """One simultaneous round, N = 4, M = 2, answers in one order: 12 generations and 17 judge calls."""
    player = Debater(name="a", model=given.model, temperature=1.0, best_of=4, opponents=2)
    game = open_transcript(questions[0], load_protocol("debate", max_new_tokens=NEW), {"A": "a", "B": "a"}, 0)
    judge = Judge(model=given.model, both_orders=False)
    seconds, recorder = shared_arm(given, lambda engine: play([game], {"a": player}, engine, judge))
    engine, calls = recorder.engine, recorder.calls
    show("one debate, N = 4, M = 2", seconds, engine, calls, plain.seconds(calls, given.part), 5)
    met = "met" if engine.usage.encoded_tokens <= 1.1 * PERFECT else "MISSED"
    print(f"    tokens' bar     1.1 x {PERFECT:,}: {met}")
    same, count = plain.agreement(engine_of(given), calls.requests)
    print(f"    greedy texts    {same} of {count} the same as those of transformers")


def debates(given, questions, plain):
    """Two rounds on two questions of each of four stories, by plain debaters and by Best-of-4."""
    judge = Judge(model=given.model, both_orders=False)
    rules = load_protocol("debate", max_new_tokens=NEW, turns=2)
    games = [open_transcript(question, rules, {"A": "a", "B": "a"}, 0) for question in questions]
    for best_of in (1, 4):
        player = Debater(name="a", model=given.model, temperature=1.0, best_of=best_of, opponents=2)
        seconds, recorder = shared_arm(given, lambda engine: play(games, {"a": player}, engine, judge))  # noqa: B023
        spent = plain.seconds(recorder.calls, given.part / best_of**2)
        what = f"{len(games)} debates over {len({q.group for q in questions})} stories, 2 rounds, N = {best_of}"
        show(what, seconds, recorder.engine, recorder.calls, spent, 6)


def tournament(given, questions, adapters, plain):
    """Round robin and self-play of two adapters x N; in the plain arm every game is played on its own."""
    players = [
        Debater(name=f"{name}@{n}", model=given.model, adapter=adapter, temperature=1.0, best_of=n, opponents=2)
        for n in (1, 2, 4, 8)
        for name, adapter in zip("ab", adapters, strict=True)
    ]
    rules, judge = load_protocol("debate", max_new_tokens=NEW), Judge(model=given.model, both_orders=False)
    costs = []
    for count in (2, 4, 8):
        some = players[:count]
        with tempfile.TemporaryDirectory() as folder:
            options = {"folder": folder, "settings": TournamentSettings(resamples=50)}
            play_all = partial(play_tournament, some, questions, judge, rules, **options)
            seconds, recorder = shared_arm(given, lambda engine: play_all(engine=engine))  # noqa: B023
        texts = sum(player.best_of + 2 * (player.best_of > 1) for player in some)
        costs.append(f"{count} players ({texts} texts a seat) {seconds:.1f} s")
    recorder.calls = Calls()
    names = [player.name for player in players]
    for game in Schedule([*pairings(names), *mirrors(names)], questions, rules):
        play([game], {player.name: player for player in players}, recorder, judge)
    spent = plain.seconds(recorder.calls, 0.0)
    show(f"round robin, 8 players, {len(questions)} questions", seconds, recorder.engine, recorder.calls, spent, 10)
    print(f"    by players      {', '.join(costs)}")


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer plain calls; 1 question in the tournament")
    parser.add_argument("--part", type=float, default=None, help="share of the plain calls that are made, and scaled")
    parser.add_argument("--work", default="debate,debates,tournament", help="which rows of the table")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=None, help="float32 on CPU, bfloat16 on a GPU")
    parser.add_argument("--size", default="9M", help="9M or 1B")
    parser.add_argument("--batch-tokens", type=int, default=49152)
    parser.add_argument("--cache-tokens", type=int, default=49152)
    given = parser.parse_args()
    given.dtype = given.dtype or ("float32" if given.device == "cpu" else "bfloat16")
    if given.part is None:
        given.part = 0.2 if given.quick else 1.0
    return given


def main():
    given = read_options()
    path = SHARED / "data" / "nyu_2023" / "questions.jsonl"
    if not path.is_file():
        sys.exit(f"skipped: no stories in {path.parent}; set DEBATE_RL_SHARED to the folder that holds data/")
    torch.set_num_threads(1)
    told = {}
    for question in nyu.questions(path):
        told.setdefault(question.group, []).append(question)
    tokenizer = story_tokenizer([own[0].passage for own in told.values()])
    several = [own for own in told.values() if len(own) > 1]
    several.sort(key=lambda own: abs(len(tokenizer(own[0].passage).input_ids) - STORY))
    with tempfile.TemporaryDirectory() as folder:
        given.model = random_model(Path(folder, "base"), tokenizer, given.size)
        adapters = [tiny_adapter(given.model, Path(folder, name), seed, 0.05) for seed, name in ((1, "a"), (2, "b"))]
        name = given.device if given.device == "cpu" else torch.cuda.get_device_name()
        print(
            f"random Qwen3, {given.size}, {given.dtype}, {name}; stories of about {STORY:,} tokens, speeches of {NEW}"
        )
        if "debate" in given.work.split(","):
            one_debate(given, several[0], Plain(given.model, [], given.device, given.dtype))
        if "debates" in given.work.split(","):
            questions = [question for own in several[:4] for question in own[:2]]
            debates(given, questions, Plain(given.model, [], given.device, given.dtype))
        if "tournament" in given.work.split(","):
            questions = [own[0] for own in several[: 1 if given.quick else 4]]
            tournament(given, questions, adapters, Plain(given.model, adapters, given.device, given.dtype))


if __name__ == "__main__":
    main()
