"""Attacks in a judge stage: on the base judge and on the finetuned one, over the same test debates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debate_rl.game.transcript import Transcript
from debate_rl.judges.attacks.robustness import AttackTable, attack_judge
from debate_rl.judges.attacks.suffix_search import Found
from debate_rl.judges.judge import AnyJudge
from debate_rl.records import digest, write
from debate_rl.stages.base import Metrics

if TYPE_CHECKING:
    from debate_rl.runs.run import Run
    from debate_rl.stages.judge import JudgeStage


def compare_attacks(
    games: Sequence[Transcript],
    before: AnyJudge,
    after: AnyJudge,
    stage: JudgeStage,
    run: Run,
    out: Path,
    learnt: Sequence[Sequence[Found]] = (),
) -> Metrics:
    """Attack the base judge and the finetuned one on the same debates; the trials are written to `attacks.jsonl`.

    Args:
        games: finished test debates.
        before: the base judge.
        after: the finetuned judge.
        stage: settings; `attacks` and `attack_games` count.
        run: the experiment.
        out: the stage's working folder.
        learnt: suffixes of the adversarial rounds, for the report.

    Returns:
        `attacks`, the two tables, and the main numbers by attack and judge: the change of accuracy when the wrong side
        attacks, and the gap and lean of sycophancy. Empty where the stage asks for no attacks.
    """
    if not stage.attacks:
        return {}
    sample = draw(games, stage.attack_games)
    source = f"{len(sample)} of {len(games)} test debates of {stage.players[-1]}, protocol {run.protocol().name}"
    trials: list[Any] = []
    tables: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for when, judge in (("before", before), ("after", after)):
        attacked = attack_judge(sample, judge, run.engine, stage.attacks)
        trials += attacked.trials
        table = attacked.table.model_copy(update={"source": source})
        run.say(str(table))
        tables[when] = table.model_dump(mode="json")
        for name, value in _numbers(table).items():
            numbers[f"attack_{name}_{when}"] = value
    write(out / "attacks.jsonl", trials)
    rounds = []
    for suffixes in learnt:
        texts: list[str] = []
        for suffix in suffixes:
            texts += suffix.texts
        rounds.append(texts)
    return {"attacks": {**tables, "taught": sorted(set(stage.train_attacks)), "rounds": rounds}, **numbers}


def _numbers(table: AttackTable) -> dict[str, Any]:
    """The estimates shown in a run's summary, by attack."""
    numbers: dict[str, Any] = {}
    for row in table.rows:
        if row.accuracy is not None:
            numbers[row.attack] = row.accuracy.model_dump(mode="json")
    if table.sycophancy is not None:
        numbers["sycophancy"] = table.sycophancy.gap.model_dump(mode="json")
        if table.sycophancy.lean is not None:
            numbers["sycophancy_lean"] = table.sycophancy.lean.model_dump(mode="json")
    return numbers


def draw(games: Sequence[Transcript], count: int | None) -> list[Transcript]:
    """A sample of `count` games, drawn by their ids so that both judges meet the same ones; None takes all."""
    return sorted(games, key=lambda game: digest(["attacked", game.id]))[:count]
