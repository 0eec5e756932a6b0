"""Runs of several processes: started by hand, as torchrun or srun would, and by accelerate."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from debate_rl.config.tree import load_config
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import read
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from tests import ROOT, forked
from tests.rank import scripted
from tests.tiny import tiny_model

WORDS = ["the", "answer", "is", "shed", "barn", "A", "B"]


def config(folder, name, **changes):
    """A tournament and self-play of a Best-of-N player, in a file."""
    tree = {
        "name": name,
        "runs": str(folder),
        "questions": {"train": 6, "test": 10},
        "tracking": {"mode": "disabled"},
        "protocol": {"prompts": "lab", "max_new_tokens": 8},
        "stages": {
            "tournament": {"players": ["base", "base@4"], "resamples": 20},
            "oversight": {"players": ["base@2"], "protocols": ["debate", "single"], "second": None},
        },
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def environment(**changes):
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}


def ranks(size, path, *words):
    """So many processes of tests/rank.py: their exit codes and what each said."""
    outputs = [path.with_suffix(f".{rank}.txt") for rank in range(size)]
    return forked.run_ranks(outputs, "tests.rank", path, *words), [output.read_text() for output in outputs]


def results(folder):
    """What a run made, byte by byte, without times."""
    names = ("debates.jsonl", "metrics.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.json*")) if p.name in names}


def played(folder):
    """What was said and how it was judged, game by game."""
    legs = [
        leg for stage in ("tournament", "oversight") for leg in read(folder / stage / "debates.jsonl", JudgedDebate)
    ]
    return [([speech.text for speech in leg.transcript.speeches], leg.verdict.p) for leg in legs]


def same(games, others):
    """The same texts; probabilities differ in their last digits, by what a model reads beside them."""
    pairs = list(zip(games, others, strict=True))
    return all(a[0] == b[0] for a, b in pairs) and max(abs(a[1][0] - b[1][0]) for a, b in pairs) < 1e-5


def kept(folder):
    """Names of the answers in a run's store, each as often as it was made."""
    lines = [line for path in (folder / "store").glob("*.jsonl") for line in path.read_text().splitlines()[1:]]
    return [line[2:18] for line in lines]


def answered(out):
    """Requests that rank 0 answered itself, and what the others did."""
    found = re.search(r"answered (\d+) (.*)", out)
    return int(found[1]), eval(found[2])


def test_two_processes_leave_the_files_of_one_and_a_dead_one_loses_nothing(tmp_path):
    alone = scripted()
    run_stages(Run(load_config(config(tmp_path, "one")), alone, say=lambda line: None))
    every = len(alone.requests) + len(alone.choices)
    codes, outs = ranks(2, config(tmp_path, "two"))
    assert codes == [0, 0], outs
    own, others = answered(outs[0])
    assert own + others[1] == every and min(own, others[1]) > every / 5
    one = results(tmp_path / "one")
    assert len(one) > 4 and results(tmp_path / "two") == one
    codes, outs = ranks(2, config(tmp_path, "dead"), 25)
    assert codes == [0, -9] and "rank 1 is gone; the others do its part" in outs[0], outs
    own, others = answered(outs[0])
    assert others == {1: None} and every / 2 < own <= every and len(kept(tmp_path / "dead")) == every
    assert results(tmp_path / "dead") == one


@pytest.mark.slow
def test_accelerate_launches_a_run_whose_killed_rank_is_made_up_for(tmp_path):
    models = dict.fromkeys(("debater", "judge", "weak", "strong"), tiny_model(tmp_path / "model", words=WORDS))
    paths = {name: config(tmp_path, name, models=models) for name in ("one", "two", "killed")}
    alone = [sys.executable, "-m", "debate_rl", "run"]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--num_machines",
        "1",
        "--main_process_port",
        "0",
        "-m",
        "debate_rl",
        "run",
    ]

    def run(command, name):
        return subprocess.run(
            [*command, str(paths[name])], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=400
        )

    for command, name in ((alone, "one"), (launch, "two")):
        done = run(command, name)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes answer" in done.stdout
    one = played(tmp_path / "one")
    assert len(one) == 60 and same(played(tmp_path / "two"), one)

    process = subprocess.Popen([*launch, str(paths["killed"])], cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
    store = tmp_path / "killed" / "store"
    while process.poll() is None and not any(store.glob("*.jsonl")):
        pass
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(ranks[-1]), 9)
    process.communicate(timeout=120)
    before = len(kept(tmp_path / "killed"))
    done = run(launch, "killed")
    assert done.returncode == 0, done.stderr[-2000:]
    assert same(played(tmp_path / "killed"), one)
    names = kept(tmp_path / "killed")
    assert 0 < before < len(names) == len(set(names))  # what was answered before was not answered again
