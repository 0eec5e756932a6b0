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
    """Attack the base judge and the finetuned one on the same debates; their trials go to `attacks.jsonl`.

    `learnt` are the suffixes of the adversarial rounds, for the report.

    Returns:
        `attacks`, the two tables, and beside it the numbers that matter most, by attack and judge: change of accuracy
        when the wrong side attacks, and the gap and lean of sycophancy. Nothing where the stage asks for no attacks.
    """
    if not stage.attacks:
        return {}
    drawn = draw(games, stage.attack_games)
    source = f"{len(drawn)} of {len(games)} test debates of {stage.players[-1]}, protocol {run.protocol().name}"
    found = {
        when: attack_judge(drawn, judge, run.engine, stage.attacks)
        for when, judge in (("before", before), ("after", after))
    }
    write(out / "attacks.jsonl", [trial for one in found.values() for trial in one.trials])
    tables = {when: one.table.model_copy(update={"source": source}) for when, one in found.items()}
    for table in tables.values():
        run.say(str(table))
    numbers: dict[str, Any] = {}
    for when, table in tables.items():
        numbers |= {f"attack_{name}_{when}": value for name, value in _numbers(table).items()}
    shown: dict[str, Any] = {when: table.model_dump(mode="json") for when, table in tables.items()}
    texts = [[text for one in each for text in one.texts] for each in learnt]
    return {"attacks": {**shown, "taught": sorted(set(stage.train_attacks)), "rounds": texts}, **numbers}


def _numbers(table: AttackTable) -> dict[str, Any]:
    """The estimates that a run's summary shows, by attack."""
    found: dict[str, Any] = {
        row.attack: row.accuracy.model_dump(mode="json") for row in table.rows if row.accuracy is not None
    }
    if table.sycophancy is not None:
        found["sycophancy"] = table.sycophancy.gap.model_dump(mode="json")
        if table.sycophancy.lean is not None:
            found["sycophancy_lean"] = table.sycophancy.lean.model_dump(mode="json")
    return found


def draw(games: Sequence[Transcript], count: int | None) -> list[Transcript]:
    """So many games, drawn by name; None takes all."""
    return sorted(games, key=lambda game: digest(["attacked", game.id]))[:count]
