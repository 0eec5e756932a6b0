"""Debates as logs of Inspect (UK AISI), through its own API: a log a stage, a sample a debate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debate_rl.arena.tournament import Tally
from debate_rl.errors import UserError
from debate_rl.export.tables import Part, correct_side
from debate_rl.game import run_files
from debate_rl.game.transcript import seen_by_judge, with_questions
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Estimate

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalResults, EvalSample

SCORER = "judge"


def write_logs(parts: Sequence[Part], out: Path) -> list[Path]:
    """Write RUN_STAGE.eval for every stage with debates, and one more for each other file of judged debates.

    Raises:
        UserError: inspect_ai is not installed, or no stage has debates.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise UserError(
            "--to inspect needs the package inspect_ai: pip install 'debate-rl[inspect]', or pip install inspect-ai"
        ) from error
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for part in parts:
        by_file: dict[str, list[JudgedDebate]] = {}
        for file, leg in part.legs():
            by_file.setdefault(file, []).append(leg)
        for file, legs in by_file.items():
            # A judge stage has the same debates under the judge before and after its training.
            name = part.stage.name if file == run_files.DEBATES else f"{part.stage.name}_{Path(file).stem}"
            path = out / f"{part.run}_{name}.eval"
            write_eval_log(_log(part, name, legs), str(path))
            paths.append(path)
    if not paths:
        raise UserError("no finished stage of this run has debates; there is nothing to export to inspect")
    return paths


def _log(part: Part, name: str, legs: Sequence[JudgedDebate]) -> EvalLog:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, EvalStats

    samples = [_sample(leg, number) for number, leg in enumerate(legs, start=1)]
    judges = sorted({leg.verdict.judge for leg in legs if leg.verdict is not None})
    written = datetime.fromtimestamp((part.stage.folder / run_files.STAGE).stat().st_mtime, timezone.utc)
    began = written - timedelta(seconds=float(part.stage.timing.get("seconds") or 0))
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=began.isoformat(),
            task=f"debate-rl/{name}",
            task_id=f"{part.run}-{name}",
            dataset=EvalDataset(name=name, samples=len(samples)),
            model=", ".join(judges) or "none",
            config=EvalConfig(),
            metadata={"run": part.run, "stage": part.stage.name, "kind": part.stage.kind},
        ),
        results=_results(legs),
        stats=EvalStats(started_at=began.isoformat(), completed_at=written.isoformat()),
        samples=samples,
    )


def _sample(leg: JudgedDebate, number: int) -> EvalSample:
    """One debate: its speeches as messages, each named by side and player, and the verdict as the output."""
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput

    game = leg.transcript
    first, second = game.question.answers
    asked = f"{game.question.text}\n\nA: {first}\nB: {second}"
    messages: list[Any] = [ChatMessageUser(content=asked)]
    for speech, questions in with_questions(seen_by_judge(game, game.present), game.asked):
        heading = f"{speech.side} ({game.players.get(speech.side)}), turn {speech.turn + 1}"
        messages.append(ChatMessageAssistant(content=f"**{heading}**\n\n{speech.text}"))
        for question in questions:
            messages.append(ChatMessageUser(content=f"**{question.origin.player} asks**\n\n{question.text}"))
    verdict = "no verdict"
    if leg.verdict is not None:
        verdict = f"p(A) = {leg.verdict.p[0]:.3f}, p(B) = {leg.verdict.p[1]:.3f}"
    elif leg.failure is not None:
        verdict = f"failed at seat {leg.failure.seat}: {leg.failure.kind}: {leg.failure.message}"
    return EvalSample(
        # Numbered: a run may hold one game twice, and ids of samples must differ.
        id=f"{number}-{game.id}",
        epoch=1,
        input=asked,
        choices=[first, second],
        target=correct_side(game) or "unknown",
        messages=messages,
        output=ModelOutput.from_content(leg.verdict.judge if leg.verdict else "none", verdict),
        scores=_scores(leg),
        metadata={
            "question": game.question.id,
            "story": game.question.cluster,
            "protocol": game.protocol.name,
            "players": dict(game.players),
            "seed": game.seed,
            "failure": None if leg.failure is None else leg.failure.model_dump(mode="json"),
        },
    )


def _scores(leg: JudgedDebate) -> dict[str, Any] | None:
    """The probability of the correct answer; a failed debate has no score, since it is no wrong verdict."""
    from inspect_ai.scorer import Score

    if leg.verdict is None or leg.p_correct is None:
        return None
    answer = "A" if leg.verdict.p[0] >= 0.5 else "B"
    return {
        SCORER: Score(value=leg.p_correct, answer=answer, explanation=f"p(correct) = {leg.p_correct:.3f}"),
    }


def _results(legs: Sequence[JudgedDebate]) -> EvalResults:
    """Accuracy and Brier score with their intervals over stories, as the report gives them."""
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    tally = Tally()
    for leg in legs:
        tally.add(leg)
    metrics = {}
    if tally.p:
        scores = tally.scores()
        named: dict[str, Estimate] = {"accuracy": scores.accuracy, "brier": scores.brier}
        for name, estimate in named.items():
            interval = {"low": estimate.low, "high": estimate.high, "stories": estimate.clusters}
            metrics[name] = EvalMetric(name=name, value=estimate.value, metadata=interval)
    judged = len(tally.p)
    score = EvalScore(
        name=SCORER, scorer=SCORER, scored_samples=judged, unscored_samples=len(legs) - judged, metrics=metrics
    )
    return EvalResults(total_samples=len(legs), completed_samples=len(legs), scores=[score])
