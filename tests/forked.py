"""Programs in real processes, forked from one that has imported the libraries: a start takes a moment, not ten seconds.

The process that is forked computes nothing, so that it has no threads whose locks a fork would inherit.
"""

import os
import runpy
import socket
import sys
from multiprocessing import get_context

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(
    ["debate_rl.cli.main", "debate_rl.runs.execute", "debate_rl.trainers.dpo", "debate_rl.trainers.grpo.trainer", "trl"]
)


def _run(module, words, output, env):
    with open(output, "wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(env)
    sys.stdout.reconfigure(line_buffering=True)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def start(module, *words, output=os.devnull, **env):
    """Start `python -m MODULE WORDS`.

    Args:
        module: its name; `debate_rl` is the command line.
        words: of the command.
        output: file that takes what it prints.
        env: what is changed in its environment.

    Returns:
        The process, of multiprocessing: it has `kill`, `join`, `is_alive` and `exitcode`.
    """
    process = SERVER.Process(target=_run, args=(module, [str(word) for word in words], str(output), env))
    process.start()
    return process


def run_ranks(outputs, module, *words):
    """Run processes that find each other, as torchrun or srun would start them.

    Args:
        outputs: a file for each of them, which takes what it prints.
        module: its name.
        words: of the command.

    Returns:
        Their exit codes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": str(len(outputs)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        start(module, *words, output=output, RANK=str(rank), LOCAL_RANK=str(rank), **place)
        for rank, output in enumerate(outputs)
    ]
    for process in processes:
        process.join(240)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()  # one that hangs: its code is None
    return codes
