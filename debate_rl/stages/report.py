"""Report stage: the table of effects and one HTML page, from the run's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from debate_rl.analysis.effects.table import effects, write_effects
from debate_rl.analysis.judging.judge_errors import judge_errors
from debate_rl.game import run_files
from debate_rl.stages.base import Stage, StageResult

if TYPE_CHECKING:
    from debate_rl.runs.run import Run


class ReportStage(Stage):
    """The HTML page."""

    repeats: ClassVar[bool] = True
    uses_models: ClassVar[bool] = False

    kind: Literal["report"] = "report"
    transcripts: int = Field(default=12, ge=0)
    """Number of transcripts shown in full."""
    judge_errors: bool = False
    """Also score the run again with errors put into its verdicts, like `debate-rl judge errors`; takes about 30 seconds
    for a study of the lab."""

    def builds_on(self, name: str, other: Stage) -> bool:
        """Whether the page reads another stage: it shows all of them."""
        return True

    def execute(self, run: Run, out: Path) -> StageResult:
        """Write the effects, the page and, if asked for, the effects of errors in the verdicts."""
        table = effects([run.folder])
        write_effects(out / run_files.EFFECTS, [run.config.seed], table)
        errors = judge_errors(run.folder) if self.judge_errors else None
        page = run.write_page(out, self.transcripts, table, errors)
        run.say(f"  {run.folder / out.name.lstrip('.') / page.name}")
        return StageResult()
