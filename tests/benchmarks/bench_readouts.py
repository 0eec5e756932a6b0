"""How much a small model's verdicts say, by readout: accuracy on SciQ without and with the supporting text.

    python -m tests.benchmarks.bench_readouts smollm2-135m 200

Needs the model (`debate-rl models get smollm2-135m`) and the real data (DEBATE_RL_SHARED); where either is absent it
says so and ends. The first 60 questions are left out: the prompt of `readout: answers` was chosen on them.
"""

from __future__ import annotations

import json
import sys

from debate_rl.data.models import model_path
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Verdict
from debate_rl.judges.judge import Judge, judge_transcripts
from debate_rl.judges.scores import judge_scores
from tests import SHARED

LEFT_OUT = 60
LEAST_WORDS = 26
"""Of the supporting text."""


def questions(count: int) -> list[Question]:
    """SciQ test questions with two answers, the correct one first in every second."""
    path = SHARED / "data/binary_tasks/sciq_test.jsonl"
    if not path.is_file():
        sys.exit(f"skipped: no {path}; set DEBATE_RL_SHARED to the folder that holds data/")
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    rows = [row for row in rows if len((row.get("support") or "").split()) >= LEAST_WORDS]
    asked = []
    for number, row in enumerate(rows[LEFT_OUT : LEFT_OUT + count]):
        pair = (row["correct_answer"], row["distractor1"])
        correct = number % 2
        answers = pair if correct == 0 else pair[::-1]
        asked.append(
            Question(id=str(number), text=row["question"], answers=answers, correct=correct, passage=row["support"])
        )
    return asked


def main(model: str = "smollm2-135m", count: int = 200) -> None:
    """Print one line a readout and protocol."""
    try:
        path = model_path(model)
    except UserError as error:
        sys.exit(f"skipped: {error}")
    asked = questions(count)
    engine = TransformersEngine(device="cpu", dtype="float32")
    print(f"{model}, {len(asked)} SciQ questions\nreadout      protocol   accuracy                 Brier")
    for readout in ("letters", "answers", "answers_pmi"):
        judge = Judge(name=readout, model=path, readout=readout)
        for name in ("blind", "open_book"):
            games = [open_transcript(question, load_protocol(name, needs_passage=False), {}) for question in asked]
            verdicts = judge_transcripts(games, judge, engine)
            decided = [pair for pair in zip(asked, verdicts, strict=True) if isinstance(pair[1], Verdict)]
            p = [verdict.p[question.correct or 0] for question, verdict in decided]
            scores = judge_scores(p, [question.id for question, _ in decided])
            accuracy = f"{scores.accuracy.value:.2f} [{scores.accuracy.low:.2f}, {scores.accuracy.high:.2f}]"
            print(f"{readout:<12} {name:<10} {accuracy:<24} {scores.brier.value:.3f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
