"""Curves of a training in W&B while it trains, in this process or in others that were launched."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from debate_rl.game import run_files
from debate_rl.records import read_json
from debate_rl.runs.tracking import Tracker

EVERY = 2.0
"""Seconds between two looks at the file."""


@contextlib.contextmanager
def live_curve(tracker: Tracker, name: str, out: Path) -> Iterator[None]:
    """Log what a training writes into its folder, from a thread; at its end, all that was not logged yet.

    Args:
        tracker: of the run.
        name: of the training, before the slash of every key.
        out: the training's folder.
    """
    if not tracker.is_on:
        yield
        return
    curve = _Curve(tracker, name, out)
    ended = threading.Event()
    thread = threading.Thread(target=curve.follow, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    curve.log_history()


def log_history(tracker: Tracker, name: str, out: Path) -> None:
    """Log the curve of a training that is finished, if the folder holds one."""
    if (out / run_files.HISTORY).is_file():
        _Curve(tracker, name, out).log_history()


class _Curve:
    """What of a training was logged so far."""

    def __init__(self, tracker: Tracker, name: str, out: Path) -> None:
        self.tracker = tracker
        self.name = name
        self.history = out / run_files.HISTORY
        self.path = out / "checkpoints" / run_files.LIVE
        self.logged: set[tuple[Any, ...]] = set()
        """Step and names of each entry."""
        self.position = 0
        """Bytes of the file that were read."""

    def follow(self, ended: threading.Event) -> None:
        """Look at the file until the training has ended."""
        while not ended.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Log the lines that are new and whole."""
        # The training removes the file when it is finished, and a resumed one begins it anew.
        with contextlib.suppress(OSError, ValueError), self.path.open("rb") as file:
            if self.path.stat().st_size < self.position:
                self.position = 0
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.position += len(line)
                self.log(json.loads(line))

    def log_history(self) -> None:
        """Log all that was not logged yet."""
        for entry in read_json(self.history):
            self.log(entry)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Log an entry over its step, if it was not yet."""
        numbers = {}
        for key, value in entry.items():
            if key != "step" and isinstance(value, int | float) and math.isfinite(value):
                numbers[f"{self.name}/{key}"] = float(value)
        step = float(entry.get("step", 0))
        # One step can have several entries: of the training, of an evaluation, of the games that are watched.
        mark = (step, *sorted(numbers))
        if numbers and mark not in self.logged:
            self.logged.add(mark)
            self.tracker.log(numbers, {f"{self.name}/step": step})
