"""Weak-to-strong: trained debaters help weak supervisors, whose labels teach a strong student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.arena.rollout import play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.config_stages import WeakToStrongStage
from debate_rl.data import binary_tasks
from debate_rl.data.binary_tasks import BinaryItem
from debate_rl.data.questions import claims, load_questions
from debate_rl.errors import UserError
from debate_rl.experiment import Metrics, Run, open_engine
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.records import write
from debate_rl.weak_to_strong.ensemble import MOST_MEMBERS
from debate_rl.weak_to_strong.items import Sample, Splits, items_of, plain_samples, sample_of, split_items

SPARE = 8
"""Items loaded beyond those used: splits do not cut stories, so the parts miss their sizes by less than a story."""


def splits(stage: WeakToStrongStage, run: Run) -> Splits:
    """D1, D2 and test of the stage's task; questions come from stories that no debater was trained or rated on."""
    total = stage.supervisor + stage.student + stage.test
    found: Sequence[Question | BinaryItem]
    if stage.task in ("questions", "claims"):
        wanted = run.config.questions
        found = load_questions(
            wanted.source, wanted.path, "validation", total + SPARE, run.config.question_seed,
            family=wanted.family, knobs={**wanted.knobs, **stage.knobs}, hard_only=wanted.hard_only,
            human=wanted.human,
        )  # fmt: skip
        found = claims(found, run.config.question_seed) if stage.task == "claims" else found
    else:
        found = binary_tasks.load(stage.task, stage.path, limit=total + SPARE, seed=run.config.question_seed).items
    return split_items(items_of(found), stage.supervisor, stage.student, stage.test, run.config.question_seed)


def _protocol(stage: WeakToStrongStage, run: Run) -> Protocol:
    """The stage's protocol, else the run's own for questions and the claim debate for the others."""
    return run.protocol(stage.protocol or (None if stage.task == "questions" else "claim"))


def games(stage: WeakToStrongStage, run: Run) -> list[Transcript]:
    """One debate an item for each member of the ensemble, by a seed of its own."""
    if not stage.draws:
        return []
    questions = [item.question for item in splits(stage, run).every]
    first = run.config.seed * stage.draws  # the runs of a study draw no debate twice
    seeds = range(first, first + stage.draws)
    return [game for seed in seeds for game in self_play([stage.debater], questions, _protocol(stage, run), seed)]


def run(stage: WeakToStrongStage, run: Run, out: Path) -> Metrics:
    """Play the debates, train supervisors, students and ceiling, measure PGR."""
    from debate_rl.weak_to_strong.study import Settings, run_study  # here: it loads torch

    parts = splits(stage, run)
    blind = run.protocol("blind")
    plain = plain_samples(parts.every, blind, stage.supervisor_reads_passage)
    contexts: dict[str, list[dict[str, Sample]]] = {"none": [plain] * MOST_MEMBERS}
    if stage.draws:
        contexts["debate"] = _debates(stage, run, out, parts)
    models = run.config.models
    settings = Settings(
        weak=run.resolve(models.weak), strong=run.resolve(models.strong), readout=stage.readout, seeds=stage.seeds,
        lora=stage.lora, train=stage.train, quantize=stage.quantize, launch=stage.launch,
        processes=run.config.hardware.cards if run.config.hardware and stage.launch else None,
        seed=run.config.seed * stage.seeds,  # the runs of a study train no model twice
    )  # fmt: skip
    metrics = run_study(
        parts,
        contexts,
        plain_samples(parts.every, blind, True),
        settings,
        lambda: open_engine(run.config, run.resolve),
        out / "trainings",
        stage.rows,
    )
    for method in metrics["methods"]:
        accuracies = ", ".join(f"{key} {method[key]['value']:.3f}" for key in ("supervisor", "labels", "student"))
        run.say(f"  {method['name']:<8} {accuracies}, PGR {method['pgr_text']}")
    alone = {"weak alone": "weak", "strong untrained": "untrained", "ceiling": "ceiling"}
    values = [f"{shown} {metrics[key]['value']:.3f}" for shown, key in alone.items() if metrics[key]]
    run.say(f"  {', '.join(values)}")
    return metrics


def _debates(stage: WeakToStrongStage, run: Run, out: Path, parts: Splits) -> list[dict[str, Sample]]:
    """For each member, every item with the debate of the member's seed.

    Raises:
        UserError: a debate failed; the supervisor would read an item without one.
    """
    player = run.debater(stage.debater)
    planned = games(stage, run)
    legs = play_to_file(
        planned, {player.name: player}, run.engine, None, out / "legs.jsonl", progress=run.progress(out)
    )
    failed = [leg.failure for leg in legs if leg.failure is not None]
    if failed:
        raise UserError(f"weak_to_strong: {len(failed)} debates failed, the first with: {failed[0].message}")
    write(out / "legs.jsonl", legs)
    count = len(parts.every)
    return [
        {
            leg.transcript.question.id: sample_of(
                leg.transcript, stage.supervisor_reads_passage and bool(leg.transcript.question.passage)
            )
            for leg in legs[start : start + count]
        }
        for start in range(0, len(legs), count)
    ]
