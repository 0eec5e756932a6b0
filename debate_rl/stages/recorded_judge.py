"""A judge that learns human confidences on some stories and is compared with the humans on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from debate_rl.data.sources.nyu import CONDITIONS
from debate_rl.data.sources.nyu import games as recorded_games
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.protocol import Side
from debate_rl.game.question import Split
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.agreement import Agreement, agreement, formatted
from debate_rl.judges.calibration import fit_calibrator, split_clusters
from debate_rl.judges.human_records import legs
from debate_rl.judges.judge import Judge, judge_transcripts
from debate_rl.records import write, write_json
from debate_rl.stages.judge_result import JudgeResult, before_and_after, judge_twice
from debate_rl.stages.training import train, trained_judge
from debate_rl.trainers.common.rows import judge_rows

if TYPE_CHECKING:
    from debate_rl.runs.run import Run
    from debate_rl.stages.judge import JudgeStage


def execute(stage: JudgeStage, run: Run, out: Path, share: float) -> JudgeResult:
    """Learn the final probabilities of live judges on training stories; predict them on test stories.

    Args:
        stage: its settings; `questions` bounds the training games.
        run: whose questions are the recorded debates.
        out: the stage's working folder.
        share: of the training stories, held out to calibrate on.

    Raises:
        UserError: the questions are of another source, or no game is judged.
    """
    taught, held_out = divided(stage, run, share)
    targets = [_p(leg) for leg in taught]
    rows = judge_rows([leg.transcript for leg in taught], targets, readout=run.config.judge.readout)
    metrics = train(run, stage, "judge", rows, out, run.config.models.judge)
    before = run.read_as_set(Judge(name="untrained judge", model=run.config.models.judge))
    after, failed = trained_judge(stage, run, out, "finetuned judge"), 0
    if stage.calibrate != "none":
        pairs = _verdicts(held_out, after, run)
        failed = len(held_out) - len(pairs)
        if failed:
            run.say(f"  {failed} of {len(held_out)} verdicts to calibrate on failed; they count for nothing")
        # Calibrated to what people said and not to the truth: this judge is to predict people.
        p = [verdict.p[0] for _, verdict in pairs]
        human_p = [_p(leg) for leg, _ in pairs]
        stories = [leg.transcript.question.cluster for leg, _ in pairs]
        calibrator = fit_calibrator(stage.calibrate, p, human_p, stories)
        write_json(out / run_files.CALIBRATOR, calibrator.model_dump(mode="json"))
        after = after.model_copy(update={"calibrator": calibrator})
    compared = _compare(judged(stage, run, "test"), before, after, constants(taught), run, out)
    return JudgeResult(**metrics, failed_calibration=failed, **compared)


def divided(stage: JudgeStage, run: Run, share: float) -> tuple[list[JudgedDebate], list[JudgedDebate]]:
    """The recorded games that the judge learns from, and those, of other stories, that it is calibrated on."""
    learnt = judged(stage, run, "train")[: stage.questions]
    if stage.calibrate == "none":
        return learnt, []
    labels = [leg.transcript.question.cluster for leg in learnt]
    held_out, kept = split_clusters(labels, share, run.config.seed)
    return [learnt[int(index)] for index in kept], [learnt[int(index)] for index in held_out]


def judged(stage: JudgeStage, run: Run, split: Split) -> list[JudgedDebate]:
    """Recorded games of a split with the live judge's final probabilities, in an order drawn by seed; those that the
    authors analysed, where that is known.

    Raises:
        UserError: it is not said where they lie, the judge would learn on stories of the test questions, or none is
            judged.
    """
    questions = run.config.questions
    if stage.path is None and questions.source != "nyu":
        raise UserError(
            "a judge stage with `from: recorded` reads questions: {source: nyu, path: ...}, or its own path"
        )
    if questions.source != "nyu" and questions.human is None:
        raise UserError(
            "the judge learns from recorded debates, whose stories may be those of the test questions; set "
            f"questions.human={stage.path}, which leaves those questions out"
        )
    path = stage.path or questions.path
    recorded = recorded_games(path, split=split)
    # Without the authors' list, which says what their paper analysed, all judged games count.
    analysed = [game for game in recorded if game.in_paper] or recorded
    judged = legs(analysed)
    if not judged:
        raise UserError(f"{path}: no game of split {split!r} has a final judgement")
    # Drawn, since a stage takes the first ones: in the file's order these would be the same under every seed.
    order = np.random.default_rng(run.config.seed).permutation(len(judged))
    return [judged[int(index)] for index in order]


def _p(leg: JudgedDebate) -> float:
    """The human's probability of answer 0."""
    if leg.verdict is None:
        raise ValueError("a leg without a verdict")
    return leg.verdict.p[0]


def _verdicts(humans: Sequence[JudgedDebate], judge: Judge, run: Run) -> list[tuple[JudgedDebate, Verdict]]:
    """The humans' legs with the judge's verdicts on them, where there is one."""
    answers = judge_transcripts([leg.transcript for leg in humans], judge, run.engine)
    return [(leg, verdict) for leg, verdict in zip(humans, answers, strict=True) if isinstance(verdict, Verdict)]


def constants(taught: Sequence[JudgedDebate]) -> dict[tuple[Side, ...], float]:
    """The constant predictor: its probability of answer 0, by who speaks.

    Where both sides speak it is one half (and not in the mapping). For a lone consultant it is how far people believed
    the consultants of the training games, whichever side they spoke for.
    """
    believed = []
    for leg in taught:
        speakers = leg.transcript.present
        if leg.verdict is not None and len(speakers) == 1:
            believed.append(leg.verdict.p_side(speakers[0]))
    belief = float(np.mean(believed)) if believed else 0.5
    return {("A",): belief, ("B",): 1 - belief}


def _compare(
    humans: Sequence[JudgedDebate],
    before: Judge,
    after: Judge,
    known: Mapping[tuple[Side, ...], float],
    run: Run,
    out: Path,
) -> dict[str, Any]:
    """Compare humans, the constant predictor, the untrained and the finetuned judge on the same test games.

    Returns:
        Five fields of a `JudgeResult`.
    """
    twice = judge_twice([leg.transcript for leg in humans], before, after, run.engine)
    if not twice.indices:
        raise UserError(f"neither {before.name} nor {after.name} has a verdict on a test game; see the context length")
    human_legs = [humans[index] for index in twice.indices]
    write(out / run_files.HUMAN_DEBATES, human_legs)
    write(out / run_files.BASE_DEBATES, list(map(_leg, human_legs, twice.before)))
    write(out / run_files.TEST_DEBATES, list(map(_leg, human_legs, twice.after)))

    targets = [_p(leg) for leg in human_legs]
    stories = [leg.transcript.question.cluster for leg in human_legs]
    correct = [leg.transcript.question.correct or 0 for leg in human_legs]
    constant = [known.get(leg.transcript.present, 0.5) for leg in human_legs]
    rows = _human_rows(human_legs)
    rows.append(agreement("constant", constant, targets, correct, stories, None))
    for judge, verdicts in ((before, twice.before), (after, twice.after)):
        p = [verdict.p[0] for verdict in verdicts]
        rows.append(agreement(judge.name, p, targets, correct, stories, constant))
    run.say(formatted(rows))
    measured = before_and_after(twice, [leg.transcript.question for leg in human_legs])
    return {**measured, "humans": tuple(rows), "failed": len(humans) - len(human_legs)}


def _human_rows(legs: Sequence[JudgedDebate]) -> list[Agreement]:
    """The humans' scores by condition, then for all of them."""
    parts: list[tuple[str, list[JudgedDebate]]] = []
    for condition in CONDITIONS:
        part = [leg for leg in legs if _condition(leg) == condition]
        parts.append((f"{condition} (human judge)", part))
    parts.append(("all human judges", list(legs)))
    rows = []
    for name, part in parts:
        if part:
            p = [_p(leg) for leg in part]
            correct = [leg.transcript.question.correct or 0 for leg in part]
            stories = [leg.transcript.question.cluster for leg in part]
            rows.append(agreement(name, p, p, correct, stories))
    return rows


def _condition(leg: JudgedDebate) -> str:
    """Who spoke, and whether against someone, as the recorded games are named."""
    players = leg.transcript.players
    return f"{next(iter(players.values()))} {'debate' if len(players) == 2 else 'consultancy'}"


def _leg(human: JudgedDebate, verdict: Verdict) -> JudgedDebate:
    """The game with the model's verdict in place of the human's."""
    return human.model_copy(update={"verdict": verdict})
