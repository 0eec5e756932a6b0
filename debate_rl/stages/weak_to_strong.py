"""Weak-to-strong: trained debaters help weak supervisors, whose labels teach a strong student."""

from __future__ import annotations

from pathlib import Path

from debate_rl.arena.rollout import play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.config import WeakToStrongStage
from debate_rl.data import binary_tasks
from debate_rl.data.questions import load_questions
from debate_rl.errors import UserError
from debate_rl.experiment import Metrics, Run
from debate_rl.game.protocol import Protocol
from debate_rl.game.transcript import Transcript
from debate_rl.records import write
from debate_rl.weak_to_strong.items import Item, Splits, claims, split_items, task_items, with_debate


def splits(stage: WeakToStrongStage, run: Run) -> Splits:
    """D1, D2 and test of the stage's task; the lab's come from stories that no debater was trained on."""
    total = stage.supervisor + stage.student + stage.test
    if stage.task == "lab":
        wanted = run.config.questions
        questions = load_questions(
            wanted.source, wanted.path, "validation", total + 2, run.config.seed,
            family=wanted.family, knobs=wanted.knobs, hard_only=wanted.hard_only,
        )  # fmt: skip
        items = claims(questions, run.config.seed, stage.supervisor_reads_passage)
    else:
        found = binary_tasks.load(stage.task, stage.path, limit=total, seed=run.config.seed)
        items = task_items(found.items)
    return split_items(items, stage.supervisor, stage.student, stage.test, run.config.seed)


def _items(parts: Splits) -> list[Item]:
    return [*parts.supervisor, *parts.student, *parts.test]


def _protocol(stage: WeakToStrongStage, run: Run) -> Protocol:
    """The run's debate, or for a task of claims the claim debate."""
    return run.protocol() if stage.task == "lab" else run.protocol("claim")


def games(stage: WeakToStrongStage, run: Run) -> list[Transcript]:
    """One debate an item for each member of the ensemble, by a seed of its own."""
    if "debate" not in stage.context:
        return []
    questions = [item.question for item in _items(splits(stage, run))]
    seeds = range(run.config.seed, run.config.seed + stage.ensemble)
    return [game for seed in seeds for game in self_play([stage.debater], questions, _protocol(stage, run), seed)]


def run(stage: WeakToStrongStage, run: Run, out: Path) -> Metrics:
    """Play the debates, train supervisors, students and ceiling, measure PGR."""
    from debate_rl.weak_to_strong.study import Settings, plain_contexts, run_study  # here: it loads torch

    parts = splits(stage, run)
    contexts = {"none": plain_contexts(parts, stage.ensemble)}
    if "debate" in stage.context:
        contexts["debate"] = _debates(stage, run, out, parts)
    models = run.config.models
    settings = Settings(
        weak=run.resolve(models.weak), strong=run.resolve(models.strong), ensemble=stage.ensemble, seeds=stage.seeds,
        lora=stage.lora, train=stage.train, launch=stage.launch, seed=run.config.seed,
    )  # fmt: skip
    metrics = run_study(parts, contexts, settings, out / "trainings")
    for method in metrics["methods"]:
        run.say(f"  {method['name']:<8} {method['pgr_text']}")
    return metrics


def _debates(stage: WeakToStrongStage, run: Run, out: Path, parts: Splits) -> list[dict[str, str]]:
    """For each member, every item's text with the debate of the member's seed after it.

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
    items = _items(parts)
    return [
        {
            item.id: with_debate(item.weak_text, leg.transcript)
            for item, leg in zip(items, legs[start : start + len(items)], strict=True)
        }
        for start in range(0, len(legs), len(items))
    ]
