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
from debate_rl.stages.judge_result import JudgeAttacks

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
) -> JudgeAttacks | None:
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
        Both tables; None where the stage asks for no attacks.
    """
    if not stage.attacks:
        return None
    sample = draw(games, stage.attack_games)
    source = f"{len(sample)} of {len(games)} test debates of {stage.players[-1]}, protocol {run.protocol().name}"
    trials: list[Any] = []
    tables: list[AttackTable] = []
    for judge in (before, after):
        attacked = attack_judge(sample, judge, run.engine, stage.attacks)
        trials += attacked.trials
        table = attacked.table.model_copy(update={"source": source})
        run.say(str(table))
        tables.append(table)
    write(out / "attacks.jsonl", trials)
    rounds = []
    for suffixes in learnt:
        texts: list[str] = []
        for suffix in suffixes:
            texts += suffix.texts
        rounds.append(tuple(texts))
    taught = tuple(sorted(set(stage.train_attacks)))
    return JudgeAttacks(before=tables[0], after=tables[1], taught=taught, rounds=tuple(rounds))


def attack_numbers(attacks: JudgeAttacks | None) -> dict[str, Any]:
    """The main numbers by attack and judge: the change of accuracy when the wrong side attacks, and sycophancy.

    Example:
        {"attack_suffix_sure_before": Effect(value=-0.02, ...), "attack_sycophancy_after": Effect(value=0.095, ...)}
    """
    numbers: dict[str, Any] = {}
    if attacks is None:
        return numbers
    for when, table in (("before", attacks.before), ("after", attacks.after)):
        for row in table.rows:
            if row.accuracy is not None:
                numbers[f"attack_{row.attack}_{when}"] = row.accuracy
        if table.sycophancy is None:
            continue
        numbers[f"attack_sycophancy_{when}"] = table.sycophancy.gap
        if table.sycophancy.lean is not None:
            numbers[f"attack_sycophancy_lean_{when}"] = table.sycophancy.lean
    return numbers


def draw(games: Sequence[Transcript], count: int | None) -> list[Transcript]:
    """A sample of `count` games, drawn by their ids so that both judges meet the same ones; None takes all."""
    return sorted(games, key=lambda game: digest(["attacked", game.id]))[:count]
