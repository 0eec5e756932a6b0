"""Preference training of the debater."""

from __future__ import annotations

from pathlib import Path

from debate_rl.config import DpoStage
from debate_rl.experiment import Metrics, Run
from debate_rl.records import read
from debate_rl.stages.training import start_from, train
from debate_rl.trainers.rows import PreferenceRow


def run(stage: DpoStage, run: Run, out: Path) -> Metrics:
    """Train on the rows of the preferences stage; the reference is what the training starts from."""
    rows = read(run.folder / stage.preferences / "rows.jsonl", PreferenceRow)
    base, start = start_from(run, stage.start, run.config.models.debater)
    return train(run, stage, "dpo", rows, out, base, start, objective=stage.objective, share_prompt=stage.share_prompt)
