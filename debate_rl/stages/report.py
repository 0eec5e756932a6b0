"""The report: the table of effects and one HTML page, from the run's files."""

from __future__ import annotations

from pathlib import Path

from debate_rl.analysis.effects.table import effects, write_effects
from debate_rl.analysis.judging.judge_errors import judge_errors
from debate_rl.config.stages import ReportStage
from debate_rl.records import write_json
from debate_rl.report.page import ERRORS, write_report
from debate_rl.runs.run import Metrics, Run


def run(stage: ReportStage, run: Run, out: Path) -> Metrics:
    """Write the effects, the page and, where they are wanted, what errors of the judge would do."""
    table = effects([run.folder])
    write_effects(out / "effects.json", [run.config.seed], table)
    errors = judge_errors(run.folder) if stage.judge_errors else None
    if errors is not None:
        write_json(out / ERRORS, errors.model_dump(mode="json"))
    page = write_report(run.folder, out, stage.transcripts, table, errors)
    run.say(f"  {run.folder / out.name.lstrip('.') / page.name}")
    return {}
