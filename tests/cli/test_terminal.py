"""What a command shows while it works, and what it says when it is stopped: real processes, real signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module

import pytest
import yaml

from debate_rl.arena import progress
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from tests.cli.test_main import config, models
from tests.command import mistake
from tests.runs.test_run import ROOT, small
from tests.tiny import tiny_model

STOPPED = 130
KEPT = "debate-rl: stopped. Finished stages, games and answers are kept; the same command goes on from here."


@pytest.fixture
def started():
    """Starts commands with both streams in one pipe; none outlives its test."""
    processes = []

    def start(*words):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "debate_rl", *map(str, words)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def cpu_seconds(process):
    """CPU time of a process so far."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="CPU time of another process is read from /proc")
@pytest.mark.parametrize("words", [["run"], ["run", "--dry-run"], ["plan"], ["debate"], ["dpo"], ["judge", "train"]])
def test_the_first_output_comes_before_anything_heavy_is_loaded(started, words):
    began = time.monotonic()
    process = started(*words, "configs/quickstart.yaml", "runs=/nowhere")
    line = process.stdout.readline()
    seconds, used = time.monotonic() - began, cpu_seconds(process)
    print(f"{' '.join(words)}: {line.strip()!r} after {seconds:.2f} s, {used:.2f} s of CPU")
    # The clock of a busy machine says little. What loads torch and transformers first takes five seconds of CPU.
    assert "at work" in line and used < 1.5


def stopped(process, pattern, number=signal.SIGINT):
    """Send a signal once a line has the pattern: seconds it took to end, and the last lines."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return end(process, number)
    raise AssertionError("".join(lines))


def end(process, number=signal.SIGINT):
    """Send a signal: seconds until the process ended, and what it still said."""
    began = time.monotonic()
    process.send_signal(number)
    process.wait(timeout=120)
    seconds = time.monotonic() - began
    print(f"ended {seconds:.2f} s after signal {number}")
    return seconds, process.stdout.read()


def played_until_stopped(tmp_path, **changes):
    """A tournament that takes minutes."""
    stages = {"tournament": {"players": ["base", "base@8"], "resamples": 20}}
    questions = {"train": 4, "test": 400}
    return config(tmp_path, stages=stages, questions=questions, **changes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_what_is_kept_and_how_to_go_on(started, tmp_path, number):
    process = started("run", played_until_stopped(tmp_path))
    _, said = stopped(process, r"\[1/1\] tournament: started", number)
    assert process.returncode == STOPPED and said.strip().splitlines()[-1] == KEPT and "Traceback" not in said


def test_a_training_that_is_stopped_says_the_same(started, tmp_path):
    train = {"max_steps": 100_000, "save_steps": 50_000, "logging_steps": 1, "per_device_train_batch_size": 1}
    path = config(tmp_path, stages={"sft": {"limit": 4, "lora": {"r": 2}, "train": train}})
    process = started("run", path)
    _, said = stopped(process, "'loss'")
    assert process.returncode == STOPPED and said.strip().splitlines()[-1] == KEPT and "Traceback" not in said


def test_ctrl_c_ends_a_run_whose_server_hangs(started, tmp_path):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        hanging.settimeout(120)
        connections = []
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/v1"
        engine = {"kind": "server", "url": url, "timeout": 300, "concurrency": 4}
        process = started("run", played_until_stopped(tmp_path, engine=engine))
        connections.append(hanging.accept()[0])
        connections[0].recv(1)  # a request is under way
        seconds, said = end(process)
        for connection in connections:
            connection.close()
    lines = said.strip().splitlines()
    assert process.returncode == STOPPED and lines[-1] == KEPT, said
    assert seconds < 60  # the engine itself would wait for 300
    assert all(re.match(r"(  )?\S+c.yaml: at work|\[1/1\] tournament|  \[1/1\]|debate-rl: |$", line) for line in lines)


def test_every_stage_says_which_of_how_many_it_is(tmp_path):
    lines = []
    stages = {"tournament": {"players": ["base", "base@2"], "resamples": 20}, "report": {}}
    run_stages(Run(small(tmp_path, own=stages), ScriptedEngine(), say=lines.append))
    assert "[1/2] tournament: started" in lines and "[2/2] report: started" in lines
    assert any(re.search(r"tournament: 24 of 24 debates, 0 failed", line) for line in lines), lines


def test_work_that_says_nothing_for_long_is_said_to_go_on(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.02)
    lines, enough = [], threading.Event()

    def say(line):
        lines.append(line)
        if len(lines) == 3:
            enough.set()

    with progress.heartbeat("[3/9] dpo", say):
        assert enough.wait(60)
    assert lines[0] == "  [3/9] dpo: at work for 0 s"
    with progress.heartbeat("[3/9] dpo", lines.append, last_said=lambda: time.monotonic() + 1):
        count = len(lines)
        time.sleep(0.2)
    assert len(lines) == count  # another one speaks


def test_a_stage_that_says_nothing_for_long_is_said_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.02)
    spoken = threading.Event()

    def say(line):
        if "[1/1] tournament: at work for" in line:
            spoken.set()

    def silent(stage, run, out):
        assert spoken.wait(60)
        return {}

    run_stages(Run(small(tmp_path, stages=("tournament",)), ScriptedEngine(), say=say), {"tournament": silent})


BRACKETS = "is [/red] [bold]x[/] :smile: [link=a]b \\[ ?"


def test_brackets_and_colons_are_printed_as_they_are(call, tmp_path, question):
    odd = {"text": BRACKETS, "answers": ("[/a]", "[red]b"), "passage": f"{question.passage} {BRACKETS}"}
    rows = [question.model_copy(update={**odd, "id": s, "split": s, "group": s}) for s in ("train", "test")]
    (tmp_path / "q.jsonl").write_text("\n".join(row.model_dump_json() for row in rows))
    source = {"source": "file", "path": str(tmp_path / "q.jsonl"), "train": 1, "test": 1}
    folder = tiny_model(tmp_path / "[red]model[:smile:]")
    path = config(tmp_path, questions=source, models=models(folder), runs=str(tmp_path / "[b]runs"))
    code, out, _ = call("debate", path)
    flat = " ".join(out.split())
    assert code == 0 and flat.count(BRACKETS) == 2 and "A: [/a]" in out and "B: [red]b" in out
    code, out, _ = call("run", path, "--dry-run")
    flat = " ".join(out.split())
    assert code == 0 and BRACKETS in flat and "[red]model[:smile:]" in out.replace("\n", "")
    assert "[b]runs" in out.replace("\n", "")
    assert "[/red]" in mistake(call("run", path, "stages.tournament.players=[base, '[/red]']"))


def test_a_refused_connection_is_one_line(call, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    engine = {"kind": "server", "url": f"http://127.0.0.1:{port}/v1", "retries": 0}
    for words in (("run",), ("debate",)):
        said = mistake(call(*words, config(tmp_path, engine=engine)))
        assert f"http://127.0.0.1:{port}/v1" in said and "server" in said
    tree = yaml.safe_load(config(tmp_path, engine=engine).read_text())
    assert tree["engine"]["url"] in mistake(call("run", tmp_path / "c.yaml"))


def test_ctrl_c_while_the_command_line_is_loaded_is_one_line(monkeypatch, capsys):
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "debate_rl.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "debate_rl.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        import_module("debate_rl.__main__").main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "debate-rl: stopped before anything was begun; nothing was changed"
