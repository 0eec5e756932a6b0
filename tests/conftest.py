"""What tests of several rooms need: real data where it is, tiny models, and a quiet, offline process."""

import os

from tests import SHARED

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import gc
import sys

import pytest
from hypothesis import HealthCheck, settings

from debate_rl.game.question import Question

# A busy machine is no failure of a test. `make test` tries the same cases every time, so that it is not green by luck;
# `make test-search` looks for new ones.
settings.register_profile(
    "fixed",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
    max_examples=50,
)
settings.register_profile(
    "search",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=int(os.environ.get("EXAMPLES", "300")),
    print_blob=True,
)
settings.load_profile("fixed")


def pytest_collection_finish():
    """What is imported by now lives on: garbage collections, two for every training, need not walk it."""
    gc.freeze()


@pytest.fixture
def shared_data():
    """Folder of real data, beside the project; tests that need it are skipped where it is not."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set DEBATE_RL_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def question():
    """A question of the kind the lab asks."""
    return Question(
        id="q1",
        text="where was the pipe at the end of the day ?",
        answers=("shed", "barn"),
        correct=0,
        passage="the pipe was moved to the barn at noon. the cup was moved to the hall at dusk. "
        "the pipe was moved to the shed at dusk.",
        group="story-1",
        source="test",
    )


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    from debate_rl.cli.main import main  # here: most tests do not need it

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["debate-rl", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run
