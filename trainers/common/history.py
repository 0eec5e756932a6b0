"""What a training logged: the same for a job that was killed and resumed as for one that was not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from debate_rl.engines.weights import write_sums
from debate_rl.errors import UserError

_THIS_PART_ONLY = ("num_tokens", "num_input_tokens_seen", "step_time")
"""Counters that start at 0 again when a job is resumed, and times."""


class LogBeforeSave(TrainerCallback):
    """Logs at each checkpoint, so that no mean spans one: after a kill its first part would be missing."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a log where a checkpoint is due."""
        if control.should_save:
            control.should_log = True
        return control


class SumsAfterSave(TrainerCallback):
    """Writes the checksums of a finished checkpoint, by which a damaged one is told from a whole one.

    Where several processes save, each writes files of its own at its own time, so there none are written.
    """

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Write them beside the checkpoint's files."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.world_size == 1 and folder.is_dir():
            write_sums(folder)
        return control


def history(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a Trainer's log, one a logging step, without the summary at the end and what a resume changes."""
    entries = [entry for entry in log if "train_runtime" not in entry]
    return [
        {
            name: value
            for name, value in entry.items()
            if name not in _THIS_PART_ONLY and not name.endswith(("_runtime", "_per_second"))
        }
        for entry in entries
    ]


def mean_loss(entries: Sequence[dict[str, Any]]) -> float:
    """Mean training loss over all steps, from the means that were logged.

    Raises:
        UserError: the loss stopped being a number, so the weights are spoilt.
    """
    total, last = 0.0, 0
    for entry in entries:
        if "loss" not in entry:
            continue
        if not math.isfinite(entry["loss"]):
            raise UserError(f"the loss is {entry['loss']} at step {entry['step']}; lower train.learning_rate")
        total += entry["loss"] * (entry["step"] - last)
        last = entry["step"]
    return total / max(last, 1)
