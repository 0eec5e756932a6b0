"""Runs that are killed at random moments, and runs whose files are damaged: what they end with.

    python -m tests.hardship kills 200 FOLDER [SEED]     every stage that plays, trains or reports
    python -m tests.hardship damage 100 FOLDER [SEED]    one byte of one file of a finished or unfinished run

Everything is loaded once, and each run is a process forked from here, so that a kill hits work and not imports.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

from debate_rl.config import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.experiment import Run, run_stages
from debate_rl.stages import FUNCTIONS

LORA = {"r": 4, "alpha": 8}
TRAIN = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "max_steps": 6, "save_steps": 2}
GAMES = {
    "tournament": {"players": ["base", "base@2"], "resamples": 50, "readings": 4},
    "oversight": {"players": ["base"], "protocols": ["debate", "single", "blind"]},
}
"""Of scripts, which take no time."""
EVERY = {
    "sft": {"limit": 8, "lora": LORA, "train": TRAIN},
    "judge": {"questions": 12, "players": ["base"], "protocols": ["debate"], "calibrate": "none", "lora": LORA,
              "train": TRAIN},
    "preferences": {"player": "sft", "best_of": 2, "opponents": 1, "questions": 8},
    "dpo": {"start": "sft", "lora": LORA, "train": TRAIN},
    "grpo": {"start": "sft", "lora": LORA, "questions": 6, "rewards": {"truncated": "keep"},
             "train": {"max_steps": 4, "save_steps": 1, "num_generations": 2, "per_device_train_batch_size": 8,
                       "gradient_accumulation_steps": 1, "learning_rate": 4e-3},
             "watch": {"every": 2, "questions": 4, "second": "lab-base"}},
    "tournament": {"players": ["base", "sft", "dpo", "grpo"], "resamples": 50, "readings": 4},
    "report": {},
}  # fmt: skip
NOT_RESULTS = ("timing.json", "stage.json", "result.json", "job.json", "code.json")
"""Files with times, places or dates in them."""


def config(folder, stages):
    """A run of these stages that takes seconds."""
    return parse_config({
        "name": "hard", "runs": str(folder), "questions": {"train": 24, "test": 6}, "tracking": {"mode": "disabled"},
        "protocol": {"prompts": "lab", "max_new_tokens": 16}, "stages": stages,
        "models": {"debater": "lab-small", "judge": "lab-small"},
        "engine": {"cache_tokens": 0, "threads": 1},  # what was asked before a kill can not show in the last bits
    })  # fmt: skip


def begin(folder, stages):
    """Start a run in a process of its own; exit code 2 for a mistake, which is the only line of `said`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(BaseException), (Path(folder) / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        engine = ScriptedEngine() if stages is GAMES else None
        try:
            run_stages(Run(config(folder, stages), engine), FUNCTIONS)
            code = 0
        except UserError as error:
            (Path(folder) / "said").write_text(str(error))
            code = 2
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def end(pid):
    """Wait for a run; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def results(folder):
    """What a run is about, by file: all but times and places; and the weights."""
    found = {}
    for path in sorted((folder / "hard").rglob("*")):
        name = str(path.relative_to(folder / "hard"))
        lasting = path.suffix in (".json", ".jsonl", ".safetensors", ".csv") and path.name not in NOT_RESULTS
        if path.is_file() and lasting and not name.startswith("store/"):
            # Judges and players of an online training name the place of their adapters, in a copied run the old one.
            data = re.sub(rb"/(whole|run\d+)/hard", b"/hard", path.read_bytes())
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def names(folder):
    """Every file of a run's folder but the answers' own."""
    files = (str(path.relative_to(folder)) for path in (folder / "hard").rglob("*") if not path.is_dir())
    return {name for name in files if not name.startswith("hard/store/")}


def reference(folder, stages):
    """A run that nothing happens to: its folder and the seconds it took."""
    (folder / "whole").mkdir(parents=True)
    # Once in this process, so that no fork has to import what it needs.
    run_stages(Run(config(folder / "warm", GAMES), ScriptedEngine(), say=lambda line: None), FUNCTIONS)
    shutil.rmtree(folder / "warm")
    began = time.monotonic()
    code = end(begin(folder / "whole", stages))
    assert code == 0, (folder / "whole" / "output").read_text()[-3000:]
    return folder / "whole", time.monotonic() - began


def kill_runs(folder, count, stages, seed=0):
    """Kill runs at random moments until so many kills hit, and let each run go on to its end.

    Returns:
        kills, by the stage that was at work; runs that were finished; files that differ; litter.
    """
    whole, seconds = reference(folder, stages)
    expected, clean = results(whole), names(whole)
    draw = random.Random(seed)
    hit, finished, different, litter = {}, 0, set(), set()
    place = None
    while sum(hit.values()) < count or place is not None:
        if place is None:
            place = folder / f"run{finished}"
            place.mkdir()
        pid = begin(place, stages)
        if sum(hit.values()) < count:
            time.sleep(draw.uniform(0, min(seconds, 0.1 + 0.35 * seconds)))
            os.kill(pid, signal.SIGKILL)
        code = end(pid)
        if code == -signal.SIGKILL:
            at_work = [path.name[1:] for path in (place / "hard").glob(".*") if path.is_dir()]
            hit[" ".join(at_work) or "between"] = hit.get(" ".join(at_work) or "between", 0) + 1
            continue
        assert code == 0, (place / "output").read_text()[-3000:]
        found = results(place)
        different |= {name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)}
        litter |= names(place) - clean
        finished += 1
        print(
            f"{sum(hit.values())} kills, {finished} runs: {different or 'equal'}, litter {len(litter)}", file=sys.stderr
        )
        shutil.rmtree(place)
        place = None
    return {"kills": hit, "finished": finished, "different": sorted(different), "litter": sorted(litter)}


def damage_runs(folder, count, stages, seed=0):
    """Damage one byte of a run, let it go on, and see what comes of it.

    Returns:
        How many ended the same, how many in one line, and every other end, which there must not be.
    """
    whole, seconds = reference(folder, stages)
    expected = results(whole)
    draw = random.Random(seed)
    ends = {"same": 0, "one line": 0, "other": [], "damaged while at work": 0}
    for number in range(count):
        place = folder / f"run{number}"
        if number % 2:
            place.mkdir()
            pid = begin(place, stages)
            time.sleep(draw.uniform(0.1, 0.9) * seconds)
            os.kill(pid, signal.SIGKILL)
            ends["damaged while at work"] += end(pid) == -signal.SIGKILL
        else:
            shutil.copytree(whole, place)
        files = sorted(path for path in (place / "hard").rglob("*") if path.is_file() and path.stat().st_size)
        if files:
            path = draw.choice(files)
            data = bytearray(path.read_bytes())
            at = draw.randrange(len(data))
            data[at] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
        code = end(begin(place, stages))
        said = (place / "said").read_text() if code == 2 else ""
        if code == 0 and results(place) == expected:
            ends["same"] += 1
        elif code == 2 and said and "\n" not in said:
            ends["one line"] += 1
        else:
            tail = (place / "output").read_text()[-1500:]
            other = [name for name, sha in results(place).items() if expected.get(name) != sha]
            ends["other"].append([str(path), at, code, said or tail if code else other])
        print(number + 1, ends, file=sys.stderr)
        shutil.rmtree(place)
    return ends


def main(what, count, folder, seed=0):
    """Do it and print what came of it."""
    import peft  # noqa: F401
    import trl  # noqa: F401

    from debate_rl.trainers import grpo, job, sft  # noqa: F401

    os.environ["TMPDIR"] = str(Path(folder) / "tmp")
    (Path(folder) / "tmp").mkdir(parents=True)
    began = time.monotonic()
    found = {"kills": kill_runs, "damage": damage_runs}[what](Path(folder), int(count), EVERY, seed)
    left = [str(path) for path in (Path(folder) / "tmp").rglob("*") if path.is_file()]
    print(json.dumps({**found, "temporary files left": left, "minutes": round((time.monotonic() - began) / 60, 1)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
