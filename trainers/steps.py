"""How far a training is, for the terminal and for logs: step, loss, time left."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from transformers import TrainerCallback

from debate_rl import terminal

EVERY = 10.0
"""Seconds between two lines of a log, at least."""


class StepsLine(TrainerCallback):
    """Prints a line at the end of a training and, where there is no terminal, now and then before.

    Example:
        [4/9] dpo: step 12 of 44, loss 0.687, 20 s left
    """

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._first = self._step = self._steps = self._saved = 0
        self._loss: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Begin at the step of the checkpoint that the training goes on from."""
        self._began = self._said = time.monotonic()
        self._first = self._step = self._saved = state.global_step
        self._steps = state.max_steps
        if state.is_world_process_zero:
            terminal.progress(self.text, self.kept)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        """Take note of the loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Take note of the step."""
        self._step = state.global_step
        if state.is_world_process_zero and not terminal.is_live() and time.monotonic() - self._said >= EVERY:
            self._print()

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Take note of the checkpoint."""
        self._saved = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Say how long it took."""
        self._step = state.global_step
        if state.is_world_process_zero:
            self._print()
            terminal.progress(None)

    def text(self) -> str:
        """How far the training is now."""
        seconds, new = time.monotonic() - self._began, self._step - self._first
        text = f"step {self._step:,} of {self._steps:,}"
        if self._loss is not None:
            text += f", loss {float(self._loss):.4g}"
        if self._step >= self._steps:
            return f"{text}, {terminal.duration(seconds)}"
        if new:
            return f"{text}, {terminal.duration(seconds * (self._steps - self._step) / new)} left"
        return f"{text}, {terminal.duration(seconds)} so far" if seconds >= 1 else text

    def kept(self) -> str:
        """The checkpoint that a stopped training goes on from."""
        return f"a checkpoint of step {self._saved:,} of {self._steps:,}" if self._saved else ""

    def _print(self) -> None:
        """Add a line to the log."""
        self._said = time.monotonic()
        label = terminal.stage_label()
        # The run that launched this process keeps a line at the bottom of the terminal: it is written over.
        start = "\r\x1b[K" if terminal.STAGE_VARIABLE in os.environ and sys.stdout.isatty() else ""
        print(f"{start}  {label}: {self.text()}" if label else f"{start}  {self.text()}", flush=True)
