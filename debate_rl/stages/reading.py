"""Untrained models as judges without debates: how well each reads, with the passage and without it."""

from __future__ import annotations

from pathlib import Path

from debate_rl.arena.tournament import scores
from debate_rl.config.stages import ReadingStage
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.game.verdict import Failure, Leg
from debate_rl.judges.judge import Judge, judge_transcripts
from debate_rl.records import write
from debate_rl.runs.run import Metrics, Run

PROTOCOLS = ("open_book", "blind")


def _asked(stage: ReadingStage, run: Run) -> list[Transcript]:
    """Every test question under both protocols."""
    questions = run.questions("test", stage.questions)
    seed = run.config.seed
    return [open_transcript(question, run.protocol(name), {}, seed) for name in PROTOCOLS for question in questions]


def games(stage: ReadingStage, run: Run) -> list[Transcript]:
    """What each model is asked; nobody speaks."""
    return _asked(stage, run) * len(stage.models)


def run(stage: ReadingStage, run: Run, out: Path) -> Metrics:
    """Ask every model, and score its answers."""
    asked = _asked(stage, run)
    legs: list[Leg] = []
    rows = []
    for model in stage.models:
        found = judge_transcripts(asked, Judge(name=model, model=model), run.engine)
        read = [
            Leg(transcript=game, failure=one) if isinstance(one, Failure) else Leg(transcript=game, verdict=one)
            for game, one in zip(asked, found, strict=True)
        ]
        for name in PROTOCOLS:
            scored = scores([leg for leg in read if leg.transcript.protocol.name == name])
            run.say(f"  {model:<12} {name:<10} accuracy {scored.accuracy}")
            rows.append({"model": model, "protocol": name, "scores": scored.model_dump(mode="json")})
        legs += read
    write(out / "legs.jsonl", legs)
    return {"rows": rows, "failed": sum(leg.failure is not None for leg in legs)}
