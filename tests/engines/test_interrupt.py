"""Ctrl-C at a server that hangs: real processes, real signals."""

import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys
from debate_rl.engines.parallel import Parallel
from debate_rl.engines.request import Message, Request
from debate_rl.engines.server import ServerEngine
from debate_rl.engines.store import StoredEngine

url, store, count = sys.argv[1:]
engine = ServerEngine(url, concurrency=4, timeout=300)
asked = [Request(messages=(Message(role="user", content=f"say {n}"),), model="m") for n in range(int(count))]
try:
    Parallel(StoredEngine(engine, store), engine).generate(asked)
except KeyboardInterrupt:
    print("stopped", flush=True)
    raise SystemExit(130)
"""


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("takes", [True, False])
def test_ctrl_c_ends_a_run_while_its_server_hangs(tmp_path, count, takes):
    """The server takes a connection and says nothing, or does not even take it: one request under way, or several."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/v1"
        run = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, url, str(tmp_path), str(count)], stdout=subprocess.PIPE, text=True
        )
        try:
            if takes:
                hanging.settimeout(120)
                connection, _ = hanging.accept()
                connection.recv(1)  # a request is under way
            else:
                wait_for_connection(hanging)
            began = time.monotonic()
            os.kill(run.pid, signal.SIGINT)
            out, _ = run.communicate(timeout=60)  # the engine itself would wait for 300 seconds
            print(f"ended {time.monotonic() - began:.2f} s after Ctrl-C")
        finally:
            run.kill()
    assert (out, run.returncode) == ("stopped\n", 130)


def wait_for_connection(listener):
    """Until somebody waits to be taken, without taking them."""
    assert select.select([listener], [], [], 120)[0]
