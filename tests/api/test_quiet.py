"""A program of a user's own sees what it prints itself, and finds its warnings and logs as it set them."""

import os
import subprocess
import sys

import pytest

PLAY = """
import logging, warnings
import debate_rl as dr
from accelerate.utils import extract_model_from_parallel
from torch.nn import Linear

def settings():
    from transformers.utils import logging as told
    filters = [entry for entry in warnings.filters if "debate" in str(entry) or entry[2] is FutureWarning]
    return filters, told.get_verbosity(), told.is_progress_bar_enabled(), logging.root.level, logging.root.handlers

before = settings()
questions = dr.load_questions("lab", split="test", limit=2)
player = dr.Debater("base", model="lab-base", best_of=2)
judge = dr.Judge(model="lab-base")
rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
debates = dr.play(player, player, questions, judge, rules)
extract_model_from_parallel(Linear(1, 1))  # as saving a whole model does
assert settings() == before, (before, settings())
print(len(debates), "debates")
"""
TRAIN = """
dpo = dr.train_dpo(player, dr.preferences(debates), out="dpo", max_steps=1)
dr.train_judge(judge, debates, out="judge", max_steps=1)
dr.play_tournament([player, dpo], questions, judge, rules, folder="tournament")
assert settings() == before, (before, settings())
"""


def printed(program, folder):
    """What a program prints, on both streams, in a process that nobody has silenced."""
    silenced = ("HF_HUB_DISABLE_PROGRESS_BARS", "TRL_EXPERIMENTAL_SILENCE", "DS_ACCELERATOR", "TOKENIZERS_PARALLELISM")
    env = {name: value for name, value in os.environ.items() if name not in (*silenced, "WANDB_MODE")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_playing_prints_nothing_of_its_libraries(tmp_path):
    assert printed(PLAY, tmp_path) == ("2 debates\n", "")


@pytest.mark.slow
def test_neither_do_training_and_a_tournament(tmp_path):
    assert printed(PLAY + TRAIN, tmp_path) == ("2 debates\n", "")


@pytest.mark.parametrize(
    ("own", "expected"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_that_wait_give_their_core_away_unless_told_otherwise(own, expected):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {**{name: value for name, value in os.environ.items() if name not in names}, **own}
    program = "import os, debate_rl; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
