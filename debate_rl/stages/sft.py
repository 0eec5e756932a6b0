"""Supervised finetuning of the debater on transcripts."""

from __future__ import annotations

from pathlib import Path
from random import Random

from debate_rl.config import SftStage, WeakToStrongStage
from debate_rl.data.splits import sample
from debate_rl.data.transcripts import load_transcripts
from debate_rl.experiment import Metrics, Run
from debate_rl.game.transcript import Transcript
from debate_rl.stages import weak_to_strong
from debate_rl.stages.training import start_from, train
from debate_rl.trainers.rows import sft_rows


def transcripts(stage: SftStage, run: Run) -> tuple[list[Transcript], int]:
    """The transcripts to learn from, and how many were left out because something is measured on their story."""
    questions = run.questions("train", stage.limit)
    tested = {question.cluster for question in run.questions("test")}
    for other in run.config.stages.values():
        if isinstance(other, WeakToStrongStage):
            tested |= {item.cluster for item in weak_to_strong.splits(other, run).every}
    found: list[Transcript] = []
    left_out = 0
    for source in stage.transcripts:
        loaded = load_transcripts(source, questions, run.protocol(), run.config.seed, run.config.questions.path)
        kept = [t for t in loaded if t.question.cluster not in tested]
        left_out += len(loaded) - len(kept)
        found += _of_questions(kept, stage.limit, run.config.seed)
    return found, left_out


def _of_questions(found: list[Transcript], limit: int | None, seed: int) -> list[Transcript]:
    """The transcripts of at most so many questions, drawn by the question's name."""
    chosen = {
        question.id for question in sample(list({t.question.id: t.question for t in found}.values()), limit, seed)
    }
    return [t for t in found if t.question.id in chosen]


def run(stage: SftStage, run: Run, out: Path) -> Metrics:
    """Build rows from transcripts and train."""
    found, left_out = transcripts(stage, run)
    base, start = start_from(run, stage.start, run.config.models.debater)
    rows = sft_rows(found)
    learnt = rows if stage.rows is None else Random(run.config.seed).sample(rows, min(stage.rows, len(rows)))
    metrics = train(run, stage, "sft", learnt, out, base, start)
    quotes = [quote for t in found for speech in t.speeches for quote in speech.quotes]
    valid = sum(quote.verdict != "invalid" for quote in quotes)
    return {
        **metrics,
        "rows_built": len(rows),
        "transcripts": len(found),
        "left_out_test_stories": left_out,
        "valid_quotes": valid / len(quotes) if quotes else 0.0,
    }
