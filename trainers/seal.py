"""Checkpoints sealed when they are whole: a list of checksums, written last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from debate_rl.engines.checksums import write_checksums


class SealCheckpoint(TrainerCallback):
    """Writes the checksums of each checkpoint, so that a resume never starts from other bytes than were saved."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal the checkpoint of this step, once every process has written its part."""
        if args.world_size > 1:
            args.distributed_state.wait_for_everyone()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.process_index == 0 and folder.is_dir():
            write_checksums(folder)
