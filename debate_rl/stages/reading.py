"""Reading: how well untrained models judge without debates, with the passage and without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from debate_rl.arena.tournament import scores
from debate_rl.game import run_files
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.judges.judge import Judge, judge_transcripts
from debate_rl.judges.scores import JudgeScores
from debate_rl.records import Record, write
from debate_rl.stages.base import Stage, StageResult
from debate_rl.stages.workload import Rehearsed, some_games

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debate_rl.config.settings import Models
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

PROTOCOLS = ("open_book", "blind")


class Reading(Record):
    """One untrained model under one protocol."""

    model: str
    protocol: str
    scores: JudgeScores


class ReadingResult(StageResult):
    """Untrained models as judges without debates."""

    rows: tuple[Reading, ...] = Field(min_length=1)
    failed: int = 0


class ReadingStage(Stage):
    """Untrained models as judges of the test questions without debates, with the passage and without it."""

    kind: Literal["reading"] = "reading"
    models: tuple[str, ...] = Field(default=("lab-base", "lab-small"), min_length=1)
    """Lab models, folders or hub names."""
    questions: int | None = Field(default=None, ge=1)
    """Test questions; empty takes all."""

    def models_used(self, models: Models) -> Iterator[tuple[str, str]]:
        """Its own; those of the config are not used."""
        for model in self.models:
            yield "models", model

    def protocols_named(self) -> Iterator[str]:
        """Its two."""
        yield from PROTOCOLS

    def _asked(self, run: Run) -> list[Transcript]:
        """Every test question under both protocols; nobody speaks."""
        questions = run.questions("test", self.questions)
        seed = run.config.seed
        asked: list[Transcript] = []
        for name in PROTOCOLS:
            protocol = run.protocol(name)
            asked += [open_transcript(question, protocol, {}, seed) for question in questions]
        return asked

    def games(self, run: Run) -> list[Transcript]:
        """What each model is asked."""
        return self._asked(run) * len(self.models)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Ask every model about some of the questions."""
        asked = self._asked(run)
        shown = some_games(asked)
        for model in self.models:
            judge_transcripts(shown, Judge(name=model, model=model), engine)
        return Rehearsed(len(asked) * len(self.models), len(asked) / max(len(shown), 1), engine.asked)

    def plan_note(self, run: Run) -> str:
        """Nobody speaks."""
        return "verdicts alone"

    def execute(self, run: Run, out: Path) -> ReadingResult:
        """Ask every model, and score its answers."""
        asked = self._asked(run)
        legs: list[JudgedDebate] = []
        rows = []
        for model in self.models:
            answers = judge_transcripts(asked, Judge(name=model, model=model), run.engine)
            read = []
            for game, answer in zip(asked, answers, strict=True):
                answered = {"failure": answer} if isinstance(answer, Failure) else {"verdict": answer}
                read.append(JudgedDebate(transcript=game, **answered))
            for name in PROTOCOLS:
                scored = scores([leg for leg in read if leg.transcript.protocol.name == name])
                run.say(f"  {model:<12} {name:<10} accuracy {scored.accuracy}")
                rows.append(Reading(model=model, protocol=name, scores=scored))
            legs += read
        write(out / run_files.DEBATES, legs)
        return ReadingResult(rows=tuple(rows), failed=sum(leg.failure is not None for leg in legs))
