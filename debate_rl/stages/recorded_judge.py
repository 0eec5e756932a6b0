"""A judge that learns human confidences on some stories and is compared with the humans on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from debate_rl.data.sources.nyu import CONDITIONS
from debate_rl.data.sources.nyu import games as recorded_games
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.question import Split
from debate_rl.game.verdict import Leg, Verdict
from debate_rl.judges.agreement import Agreement, agreement, formatted
from debate_rl.judges.calibration import fit_calibrator, split_clusters
from debate_rl.judges.human_records import legs
from debate_rl.judges.judge import Judge, judge_transcripts
from debate_rl.judges.scores import judge_change, judge_scores
from debate_rl.records import write, write_json
from debate_rl.stages.base import Metrics
from debate_rl.stages.training import train
from debate_rl.trainers.common.rows import judge_rows

if TYPE_CHECKING:
    from debate_rl.runs.run import Run
    from debate_rl.stages.judge import JudgeStage


def execute(stage: JudgeStage, run: Run, out: Path, share: float) -> Metrics:
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
    metrics = train(run, stage, "judge", judge_rows([leg.transcript for leg in taught], targets), out,
                    run.config.models.judge)  # fmt: skip
    before = Judge(name="untrained judge", model=run.config.models.judge)
    after, failed = _finetuned(stage, run, out), 0
    if stage.calibrate != "none":
        pairs = _verdicts(held_out, after, run)
        failed = len(held_out) - len(pairs)
        if failed:
            run.say(f"  {failed} of {len(held_out)} verdicts to calibrate on failed; they count for nothing")
        calibrator = fit_calibrator(
            stage.calibrate, [verdict.p[0] for _, verdict in pairs], [_p(leg) for leg, _ in pairs],
            [leg.transcript.question.cluster for leg, _ in pairs],
        )  # fmt: skip
        write_json(out / "calibrator.json", calibrator.model_dump(mode="json"))
        after = after.model_copy(update={"calibrator": calibrator})
    compared = _compare(judged(run, "test"), before, after, constants(taught), run, out)
    return {**metrics, "failed_calibration": failed, **compared}


def divided(stage: JudgeStage, run: Run, share: float) -> tuple[list[Leg], list[Leg]]:
    """The recorded games that the judge learns from, and those, of other stories, that it is calibrated on."""
    learnt = judged(run, "train")[: stage.questions]
    if stage.calibrate == "none":
        return learnt, []
    labels = [leg.transcript.question.cluster for leg in learnt]
    held_out, kept = split_clusters(labels, share, run.config.seed)
    return [learnt[int(index)] for index in kept], [learnt[int(index)] for index in held_out]


def judged(run: Run, split: Split) -> list[Leg]:
    """Recorded games of a split with the live judge's final probabilities, in an order drawn by seed; those that the
    authors analysed, where that is known."""
    questions = run.config.questions
    if questions.source != "nyu":
        raise UserError("a judge stage with `from: recorded` reads questions: {source: nyu, path: ...}")
    found = recorded_games(questions.path, split=split)
    kept = [game for game in found if game.in_paper] or found
    judged = legs(kept)
    if not judged:
        raise UserError(f"{questions.path}: no game of split {split!r} has a final judgement")
    order = np.random.default_rng(run.config.seed).permutation(len(judged))
    return [judged[int(index)] for index in order]


def _p(leg: Leg) -> float:
    """The human's probability of answer 0."""
    if leg.verdict is None:
        raise ValueError("a leg without a verdict")
    return leg.verdict.p[0]


def _finetuned(stage: JudgeStage, run: Run, out: Path) -> Judge:
    """The judge that was just trained."""
    if stage.lora is None:
        return Judge(name="finetuned judge", model=str(out / "model"))
    return Judge(name="finetuned judge", model=run.config.models.judge, adapter=str(out / "adapter"))


def _verdicts(humans: Sequence[Leg], judge: Judge, run: Run) -> list[tuple[Leg, Verdict]]:
    """The humans' legs with the judge's verdicts on them, where there is one."""
    found = judge_transcripts([leg.transcript for leg in humans], judge, run.engine)
    return [(leg, verdict) for leg, verdict in zip(humans, found, strict=True) if isinstance(verdict, Verdict)]


def constants(taught: Sequence[Leg]) -> dict[tuple[Side, ...], float]:
    """By who speaks, what a predictor says of answer 0 that knows nothing else: one half where both sides speak, of a
    lone consultant how far people believed those of the training games, whichever side they spoke for."""
    believed = [leg.verdict.p_side(side) for leg in taught if leg.verdict is not None
                for side in leg.transcript.present if len(leg.transcript.present) == 1]  # fmt: skip
    alone = float(np.mean(believed)) if believed else 0.5
    return {("A",): alone, ("B",): 1 - alone}


def _compare(
    humans: Sequence[Leg], before: Judge, after: Judge, known: Mapping[tuple[Side, ...], float], run: Run, out: Path
) -> Metrics:
    """Humans, constant, untrained and finetuned judge on the same test games."""
    old, new = (_verdicts(humans, judge, run) for judge in (before, after))
    both = {leg.transcript.id for leg, _ in old} & {leg.transcript.id for leg, _ in new}
    if not both:
        raise UserError(f"neither {before.name} nor {after.name} has a verdict on a test game; see the context length")
    old, new = ([pair for pair in side if pair[0].transcript.id in both] for side in (old, new))
    kept = [leg for leg, _ in new]
    models = [[_leg(*pair) for pair in side] for side in (old, new)]
    for name, side in (("human_legs.jsonl", kept), ("base_legs.jsonl", models[0]), ("test_legs.jsonl", models[1])):
        write(out / name, side)
    wanted, labels = [_p(leg) for leg in kept], [leg.transcript.question.cluster for leg in kept]
    correct = [leg.transcript.question.correct or 0 for leg in kept]
    constant = [known.get(leg.transcript.present, 0.5) for leg in kept]
    rows = _human_rows(kept)
    for name, p, against in (
        ("constant", constant, None),
        (before.name, [verdict.p[0] for _, verdict in old], constant),
        (after.name, [verdict.p[0] for _, verdict in new], constant),
    ):
        rows.append(agreement(name, p, wanted, correct, labels, against))
    run.say(formatted(rows))
    p_old, p_new = ([verdict.p[leg.transcript.question.correct or 0] for leg, verdict in side] for side in (old, new))
    return {
        "before": judge_scores(p_old, labels).model_dump(mode="json"),
        "after": judge_scores(p_new, labels).model_dump(mode="json"),
        "change": judge_change(p_new, p_old, labels).model_dump(mode="json"),
        "humans": [row.model_dump(mode="json") for row in rows],
        "failed": len(humans) - len(kept),
    }


def _human_rows(kept: Sequence[Leg]) -> list[Agreement]:
    """The humans by condition, then all of them."""
    condition = {leg.transcript.id: _condition(leg) for leg in kept}
    parts = {f"{name} (human judge)": [leg for leg in kept if condition[leg.transcript.id] == name]
             for name in CONDITIONS}  # fmt: skip
    rows = []
    for name, part in [*parts.items(), ("all human judges", list(kept))]:
        if part:
            p = [_p(leg) for leg in part]
            questions = [leg.transcript.question for leg in part]
            rows.append(agreement(name, p, p, [q.correct or 0 for q in questions], [q.cluster for q in questions]))
    return rows


def _condition(leg: Leg) -> str:
    """Who spoke, and whether against someone, as the recorded games are named."""
    players = leg.transcript.players
    return f"{next(iter(players.values()))} {'debate' if len(players) == 2 else 'consultancy'}"


def _leg(human: Leg, verdict: Verdict) -> Leg:
    """The game with the model's verdict in place of the human's."""
    return human.model_copy(update={"verdict": verdict})
