"""Processes that must not outlive the one that started them: trainings that a run launched, the seeds of a study.

A process that is killed can not tell its children. Each child looks for it instead: between a run and its training
stands `accelerate launch`, which would go on by itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

MARK = "DEBATE_RL_LAUNCHED_BY"
"""Environment variable of launched trainings: the process that launched them (see `process_mark`)."""


def process_mark(pid: int) -> str:
    """A process by its number and, where the system tells, its start time: numbers are given again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        # A killed process stays as a zombie until somebody waits for it; it holds and does nothing.
        return "" if fields[0] == "Z" else f"{pid}:{fields[19]}"
    except (OSError, IndexError):
        return f"{pid}:"


def end_with(mark: str | None) -> None:
    """End this process within half a second of the end of another.

    Args:
        mark: of the other process; None does nothing.
    """
    if mark is None:
        return

    def watch() -> None:
        while _is_alive(mark):
            time.sleep(0.5)
        print("the run that started this process is gone; it ends here and goes on with the run", file=sys.stderr)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_alive(mark: str) -> bool:
    """Whether the process of a mark still runs."""
    pid = int(mark.partition(":")[0])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_mark(pid) == mark
