"""What a command shows while it works, and what it says when it is stopped: real processes, pipes and terminals."""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest
import yaml

STOPPED = 130
COMMAND = [sys.executable, "-m", "debate_rl"]
SHORT = "import sys, time; from debate_rl import terminal; terminal.SILENCE = 0.2\n"
"""A command of a few lines, which is silent for no more than a fifth of a second."""


def config(folder, **changes):
    """A tournament of untrained players on the lab's questions."""
    tree = {
        "name": "t",
        "runs": str(folder / "runs"),
        "questions": {"train": 4, "test": 40},
        "protocol": {"prompts": "lab", "max_new_tokens": 24},
        "tracking": {"mode": "disabled"},
        "stages": {"tournament": {"players": ["base", "base@8"], "resamples": 20}},
    }
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return path


def started(*command):
    """A command in a process of its own, with both streams in one pipe."""
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )


def stopped(process, pattern, number=signal.SIGINT):
    """Send a signal once a line has the pattern; exit code, and what was printed after it."""
    before = []
    for line in process.stdout:
        before.append(line)
        if re.search(pattern, line):
            process.send_signal(number)
            return process.communicate(timeout=120)[0], process.returncode
    raise AssertionError("".join(before))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_swallows_the_interrupt_is_ended_all_the_same(number):
    program = SHORT + (
        "with terminal.stoppable(), terminal.shown('x'):\n"
        "    while True:\n"
        "        try:\n"
        "            print('ready')\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        "            print('swallowed')\n"
    )
    process = started(sys.executable, "-c", program)
    rest, code = stopped(process, "ready", number)
    assert code == STOPPED and "swallowed" in rest and rest.count("to go on") == 1, rest


def test_a_stopped_command_ends_the_processes_that_it_started():
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
    program = SHORT + (
        "import subprocess\n"
        "with terminal.stoppable():\n"
        "    try:\n"
        f"        subprocess.Popen([sys.executable, '-c', {launcher!r}], start_new_session=True).wait()\n"
        "    except KeyboardInterrupt:\n"
        "        terminal.end_stopped()\n"
    )
    process = started(sys.executable, "-c", program)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)  # ends when nobody holds the pipe any more, the sleeper either
    assert process.returncode == STOPPED


def test_a_log_is_told_what_goes_on_where_nothing_is_said():
    program = SHORT + (
        "with terminal.shown('debate-rl x'):\n"
        "    terminal.stage('[3/9] dpo')\n"
        "    with terminal.doing('loading a model'):\n"
        "        time.sleep(2)\n"
        "    terminal.progress(lambda: 'step 3 of 9, loss 0.7, 4 s left')\n"
        "    time.sleep(1)\n"
        "    print('a table')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert done.stdout == "a table\n" and lines[0] == "  debate-rl x: starting"
    assert "  [3/9] dpo: loading a model, 1 s" in lines and "  [3/9] dpo: step 3 of 9, loss 0.7, 4 s left" in lines


def on_a_terminal(command, pattern, send=b"\x03"):
    """Run a command on a terminal of its own and type something once the pattern was shown; exit code and output."""
    pid, screen = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="70")
        os.execvp(command[0], list(map(str, command)))
    shown, typed = b"", False
    while True:
        try:
            ready = select.select([screen], [], [], 120)[0]
            data = os.read(screen, 65536) if ready else b""
        except OSError:  # Linux says so where the other end is closed
            data = b""
        if not data:
            break
        shown += data
        if not typed and re.search(pattern, shown):
            os.write(screen, send)
            typed = True
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, shown.decode(errors="replace")


def test_a_terminal_has_one_line_at_the_bottom_which_goes_where_something_is_printed():
    program = SHORT + (
        "with terminal.shown('x'):\n"
        "    with terminal.doing('reading ' + 90 * 'w'):\n"
        "        time.sleep(2.5)\n"
        "        print('a table')\n"
    )
    code, shown = on_a_terminal([sys.executable, "-c", program], b"never")
    assert code == 0 and "\n  reading" not in shown
    painted = re.findall(r"\r\x1b\[K(reading w+)", shown)
    assert painted and all(len(line) == 69 for line in painted)
    assert re.search(r"\r\x1b\[Ka table", shown)


def test_a_run_is_stopped_at_the_terminal_and_goes_on(tmp_path):
    code, shown = on_a_terminal([*COMMAND, "run", config(tmp_path)], rb"\[1/1\] tournament: started")
    last = shown.splitlines()[-2:]
    assert code == STOPPED and "Traceback" not in shown, shown
    assert "debate-rl: stopped in [1/1] tournament; 0 of 1 stages are finished and kept in" in last[0]
    assert last[1].strip() == f"debate-rl: to go on: debate-rl run {tmp_path / 'c.yaml'}"


def test_a_run_that_waits_for_a_silent_server_is_stopped_as_well(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine = {"kind": "server", "url": f"http://127.0.0.1:{server.getsockname()[1]}/v1"}
        process = started(*COMMAND, "run", config(tmp_path, engine=engine))
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        connection, _ = server.accept()  # it has asked, and gets no answer
        process.send_signal(signal.SIGINT)
        printed = process.communicate()[0]
        watchdog.cancel()
        connection.close()
    assert process.returncode == STOPPED and "Traceback" not in printed, printed
    assert printed.splitlines()[0] in ("  debate-rl run: starting", f"t: 1 stage, into {tmp_path / 'runs' / 't'}")
    assert printed.splitlines()[-1].startswith("debate-rl: to go on: debate-rl run")
    noise = [line for line in printed.splitlines() if not line.startswith((" ", "debate-rl: ", "[", "t: "))]
    assert not noise  # of third parties
