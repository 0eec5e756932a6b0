"""The report: one HTML page from the run's files."""

from __future__ import annotations

from pathlib import Path

from debate_rl.config import ReportStage
from debate_rl.experiment import Metrics, Run
from debate_rl.report.page import write_report


def run(stage: ReportStage, run: Run, out: Path) -> Metrics:
    """Write the page."""
    page = write_report(run.folder, out, stage.transcripts)
    run.say(f"  {run.folder / out.name.lstrip('.') / page.name}")
    return {}
