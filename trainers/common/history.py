"""The log of a training, the same for a job that was killed and resumed as for one that was not."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from debate_rl.engines.weights import write_sums
from debate_rl.errors import UserError
from debate_rl.game import run_files

_THIS_PART_ONLY = ("num_tokens", "num_input_tokens_seen", "step_time")
"""Counters that start at 0 again when a job is resumed, and times."""


class LogBeforeSave(TrainerCallback):
    """Logs at each checkpoint.

    Logged losses are means since the last log. A mean that spans a checkpoint would lose its first part in a resume.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a log if a checkpoint is due."""
        if control.should_save:
            control.should_log = True
        return control


class SumsAfterSave(TrainerCallback):
    """Writes the checksums of a finished checkpoint, which tell a damaged one from a whole one.

    It writes none if several processes train: each saves its own files at its own time.
    """

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Write the checksums into the checkpoint's folder."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.world_size == 1 and folder.is_dir():
            write_sums(folder)
        return control


class LiveLog(TrainerCallback):
    """Writes each entry of the log to a file at once, for those who watch while it trains.

    The first of several processes writes it. A resumed training begins it anew: its history is whole in the end.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Begin an empty file."""
        if state.is_world_process_zero:
            path = Path(args.output_dir) / run_files.LIVE
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Add the newest entry as a line."""
        if state.is_world_process_zero and state.log_history:
            lines = [json.dumps(entry) + "\n" for entry in history(state.log_history[-1:])]
            # Only a view of what history.json will hold: an entry that can not be written as JSON is not worth a crash.
            with (
                contextlib.suppress(TypeError, OSError),
                (Path(args.output_dir) / run_files.LIVE).open("a", encoding="utf-8") as file,
            ):
                file.writelines(lines)
        return control


def history(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a Trainer's log, one for each logging step.

    The summary at the end is left out, and so are values that differ after a resume.
    """
    entries = []
    for entry in log:
        if "train_runtime" not in entry:
            entries.append({name: value for name, value in entry.items() if not _changes_on_resume(name)})
    return entries


def _changes_on_resume(name: str) -> bool:
    """Whether a logged value counts from the start of the process, or is a time."""
    return name in _THIS_PART_ONLY or name.endswith(("_runtime", "_per_second"))


def mean_loss(entries: Sequence[dict[str, Any]]) -> float:
    """Mean training loss over all steps, from the means that were logged.

    Raises:
        UserError: the loss stopped being a number, so the weights are spoilt.
    """
    total = 0.0
    last = 0
    for entry in entries:
        if "loss" not in entry:
            continue
        if not math.isfinite(entry["loss"]):
            raise UserError(f"the loss is {entry['loss']} at step {entry['step']}; lower train.learning_rate")
        # The logged loss is the mean of the steps since the last log.
        total += entry["loss"] * (entry["step"] - last)
        last = entry["step"]
    return total / max(last, 1)
