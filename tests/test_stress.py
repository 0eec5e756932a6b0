"""Runs that are killed at random moments, and files with a changed byte: the result is the same, or there is none.

`KILLS` and `CORRUPTIONS` set how many: `KILLS=200 CORRUPTIONS=100 make test-stress`.
"""

import os
import random
import shutil
import time

import pytest

from debate_rl.errors import UserError
from tests.runs.test_run import results, run, small, start

KILLS = int(os.environ.get("KILLS", "20"))
CORRUPTIONS = int(os.environ.get("CORRUPTIONS", "30"))
STAGES = ("sft", "judge", "preferences", "dpo", "grpo", "tournament", "report")
KEPT = (".lock",)


def litter(folder):
    """Files that a finished run should not have."""
    ends = (".partial", ".sums", "launch.json", "launch.error", ".training.lock", "fingerprint")
    hidden = [path for path in folder.iterdir() if path.name.startswith(".") and path.name not in KEPT]
    return hidden + [path for path in folder.rglob("*") if path.name.endswith(ends)]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(tmp_path):
    whole = small(tmp_path / "a", stages=STAGES)
    begin = time.monotonic()
    run(whole)
    took = time.monotonic() - begin
    chance = random.Random(os.environ.get("SEED", "0"))
    output = tmp_path / "b.txt"
    done = finished = 0
    while done < KILLS:
        folder = tmp_path / f"b{finished}"
        config = small(folder, stages=STAGES)
        while done < KILLS:
            process = start(config, tmp_path / "b.yaml")
            process.join(chance.random() * took / 3)
            if not process.is_alive():
                assert process.exitcode == 0, output.read_text()
                break
            process.kill()
            process.join()
            done += 1
        process = start(config, tmp_path / "b.yaml")
        process.join(600)
        assert process.exitcode == 0, output.read_text()
        assert results(tmp_path / "a" / "small") == results(folder / "small")
        assert litter(folder / "small") == []
        finished += 1
    print(f"\n{done} kills, {finished} runs ended, all equal")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_changed_byte_gives_the_same_result_or_one_line(tmp_path):
    whole = small(tmp_path / "a", stages=STAGES)
    run(whole)
    expected = results(tmp_path / "a" / "small")
    files = sorted(path for path in (tmp_path / "a" / "small").rglob("*") if path.is_file() and path.stat().st_size)
    chance = random.Random(os.environ.get("SEED", "0"))
    said = same = 0
    for _ in range(CORRUPTIONS):
        folder = tmp_path / "c"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "a", folder)
        path = folder / chance.choice(files).relative_to(tmp_path / "a")
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        config = whole.model_copy(update={"runs": str(folder)})
        try:
            run(config)
        except UserError as error:
            assert "\n" not in str(error), path
            said += 1
            continue
        assert results(folder / "small") == expected, path
        same += 1
    print(f"\n{CORRUPTIONS} changed bytes: {said} refused in one line, {same} with the same result")
