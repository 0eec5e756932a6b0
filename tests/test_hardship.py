"""Kills at random moments and damaged bytes, in small; `python -m tests.hardship` does it with every kind of stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import hardship

ROOT = Path(__file__).resolve().parent.parent


def test_games_killed_at_random_moments_end_the_same_and_leave_no_litter(tmp_path):
    found = hardship.kill_runs(tmp_path, 12, hardship.GAMES)
    assert sum(found["kills"].values()) == 12 and found["finished"] >= 1
    assert found["different"] == [] and found["litter"] == []


def test_a_damaged_byte_of_a_run_gives_the_same_result_or_one_line(tmp_path):
    found = hardship.damage_runs(tmp_path, 24, hardship.GAMES)
    assert found["other"] == [] and found["same"] + found["one line"] == 24
    assert found["one line"] > 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("what", "count"), [("kills", 200), ("damage", 100)])
def test_runs_with_every_kind_of_stage(tmp_path, what, count):
    command = [sys.executable, "-m", "tests.hardship", what, str(count), str(tmp_path / what)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["temporary files left"] == []
    if what == "kills":
        assert sum(found["kills"].values()) == count and found["different"] == found["litter"] == []
    else:
        assert found["other"] == []
