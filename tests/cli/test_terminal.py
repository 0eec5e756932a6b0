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
from tests import ROOT, forked
from tests.cli.test_main import config, models
from tests.command import mistake
from tests.runs.test_run import small, wait_for
from tests.tiny import tiny_model

STOPPED = 130
KEPT = "debate-rl: stopped. Finished stages, games and answers are kept; the same command goes on from here."


@pytest.fixture
def said(tmp_path):
    """File that takes what a command prints."""
    return tmp_path / "said.txt"


@pytest.fixture
def started(said):
    """Starts commands that print to `said`; none outlives its test."""
    processes = []

    def start(*words):
        processes.append(forked.start("debate_rl", *words, output=said))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.join()


def cpu_seconds(process):
    """CPU time of a process so far."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="CPU time of another process is read from /proc")
@pytest.mark.parametrize("words", [["run"], ["run", "--dry-run"], ["plan"], ["debate"], ["dpo"], ["judge", "train"]])
def test_the_first_output_comes_before_anything_heavy_is_loaded(words):
    began = time.monotonic()
    command = [sys.executable, "-m", "debate_rl", *words, "configs/quickstart.yaml", "runs=/nowhere"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(
        command, cwd=ROOT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **streams
    ) as process:
        line = process.stdout.readline()
        seconds, used = time.monotonic() - began, cpu_seconds(process)
        process.kill()
    print(f"{' '.join(words)}: {line.strip()!r} after {seconds:.2f} s, {used:.2f} s of CPU")
    # The clock of a busy machine says little. What loads torch and transformers first takes five seconds of CPU.
    assert "at work" in line and used < 1.5


def stopped(process, said, pattern, number=signal.SIGINT):
    """Send a signal once it has said what the pattern finds: the lines that it said in all."""
    wait_for(lambda: said.is_file() and re.search(pattern, said.read_text()), process)
    assert process.is_alive(), said.read_text()
    return end(process, said, number)[1]


def end(process, said, number=signal.SIGINT):
    """Send a signal: seconds until the process ended, and the lines that it said in all."""
    began = time.monotonic()
    os.kill(process.pid, number)
    process.join(120)
    seconds = time.monotonic() - began
    print(f"ended {seconds:.2f} s after signal {number}")
    return seconds, said.read_text().strip().splitlines()


def played_until_stopped(tmp_path, **changes):
    """A tournament that takes minutes."""
    stages = {"tournament": {"players": ["base", "base@8"], "resamples": 20}}
    questions = {"train": 4, "test": 400}
    return config(tmp_path, stages=stages, questions=questions, **changes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_what_is_kept_and_how_to_go_on(started, said, tmp_path, number):
    process = started("run", played_until_stopped(tmp_path))
    lines = stopped(process, said, r"\[1/1\] tournament: started", number)
    assert process.exitcode == STOPPED and lines[-1] == KEPT and "Traceback" not in said.read_text()


def test_a_training_that_is_stopped_says_the_same(started, said, tmp_path):
    train = {"max_steps": 100_000, "save_steps": 50_000, "logging_steps": 1, "per_device_train_batch_size": 1}
    path = config(tmp_path, stages={"sft": {"limit": 4, "lora": {"r": 2}, "train": train}})
    process = started("run", path)
    lines = stopped(process, said, "'loss'")
    assert process.exitcode == STOPPED and lines[-1] == KEPT and "Traceback" not in said.read_text()


def test_ctrl_c_ends_a_run_whose_server_hangs(started, said, tmp_path):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        hanging.settimeout(120)
        connections = []
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/v1"
        engine = {"kind": "server", "url": url, "timeout": 300, "concurrency": 4}
        process = started("run", played_until_stopped(tmp_path, engine=engine))
        connections.append(hanging.accept()[0])
        connections[0].recv(1)  # a request is under way
        seconds, lines = end(process, said)
        for connection in connections:
            connection.close()
    assert process.exitcode == STOPPED and lines[-1] == KEPT, lines
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
