"""Servers as arms of a benchmark, started by the command that `debate-rl serve` prints and asked by the server engine.

CPU seconds are those of the server's processes while it works, this one's included.
"""

import contextlib
import os
import subprocess
import tempfile
import time

import psutil

from debate_rl.arena.rollout import play
from debate_rl.engines.server.commands import Deployment, environment, llama_command, vllm_command
from debate_rl.engines.server.endpoint import Endpoint
from debate_rl.engines.server.engine import ServerEngine
from debate_rl.engines.server.settings import ServerSettings

PORT = 8731
URL = f"http://127.0.0.1:{PORT}/v1"
STARTS = 300
"""Seconds within which a server has to answer."""


def vllm_arm(given, work, debate):
    """What vLLM takes: {work: numbers}, or why it did not start."""
    served = deployment(given, given.model)
    command = vllm_command(served)
    return measured(command, given.vllm, given.model, "vllm", work, debate)


def llama_arm(given, work, debate):
    """What llama.cpp takes; its number format is that of the .gguf file."""
    command = llama_command(deployment(given, given.gguf))
    return measured(command, given.llama, given.model, "llama.cpp", work, debate)


def deployment(given, path):
    """What is served: the model under the name that the engine asks for."""
    longest = (given.tokens or 6900) + 1200 + given.new
    return Deployment(
        name=given.model, path=path, port=PORT, longest=longest, context=8192, cpu=True, dtype=given.dtype
    )


def measured(command, program, model, software, work, debate):
    """Start a server, give it the work, stop it: {work: (requested, written, CPU seconds, wall seconds)}."""
    with tempfile.TemporaryFile() as log, started(command, program, log) as process:
        if not answers(URL, process):
            return {}
        engine = ServerEngine(ServerSettings(url=URL, software=software, timeout=600))
        games, players, judge = debate
        one = work[0].model_copy(update={"sampling": work[0].sampling.model_copy(update={"max_new_tokens": 1})})
        tasks = {
            "prefill": lambda: engine.generate([one]),
            "decoding": lambda: engine.generate(work),
            "Best-of-4": lambda: play(games, players, engine, judge),
        }
        return {name: timed(task, engine, process.pid) for name, task in tasks.items()}


@contextlib.contextmanager
def started(command, program, log):
    """The process of a server, on one thread and without network; it ends with the block, whatever happens there."""
    env = environment(command, {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    process = subprocess.Popen([program, *command.words[1:]], env=env, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def timed(task, engine, pid):
    """Tokens and seconds of a task."""
    prompt, new = engine.prompt_tokens, engine.new_tokens
    cpu, wall = cpu_seconds(pid) + time.process_time(), time.perf_counter()
    task()
    spent = cpu_seconds(pid) + time.process_time() - cpu
    return engine.prompt_tokens - prompt, engine.new_tokens - new, spent, time.perf_counter() - wall


def cpu_seconds(pid):
    """CPU seconds of a process and those it started."""
    seconds = 0.0
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def answers(url, process):
    """Whether a server that is starting comes to list its models."""
    endpoint = Endpoint(ServerSettings(url=url, retries=0, timeout=5))
    deadline = time.monotonic() + STARTS
    while time.monotonic() < deadline and process.poll() is None:
        if isinstance(endpoint.models(), frozenset):
            return True
        time.sleep(1)
    return False
