"""Attacks in a run: on the base judge and the finetuned one in a judge stage, and on any judge over kept debates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from debate_rl.analysis.judging.rejudge import stages_with
from debate_rl.config.training_stages import JudgeStage
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.judges.attacks.robustness import Attacked, AttackTable, attack_judge
from debate_rl.judges.attacks.suffix_search import Found, Search
from debate_rl.judges.human import saved_games
from debate_rl.judges.judge import AnyJudge
from debate_rl.records import digest, write
from debate_rl.runs.reopen import judge_of, kept_run
from debate_rl.runs.run import Metrics, Run, open_engine


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


def attack_run(
    folder: str | Path,
    judge: str,
    names: bool | tuple[str, ...] = True,
    stage: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Attacked:
    """Attack a judge on the debates that a run kept; nothing is generated, and nothing is written into the run.

    Args:
        folder: runs/NAME, of a study runs/NAME/seed0.
        judge: a judge stage of the run, `base` for its judge model, or another model.
        names: attacks, or True for all.
        stage: whose debates; None takes the test debates of the run's judge stage, else those of the first tournament
            or oversight stage. Of a stage with several protocols, those of the run's own.
        limit: at most so many debates, drawn by name.
        seed: of the search for a suffix.

    Raises:
        UserError: the folder is no run, has no such stage, or kept no debates.
    """
    run = kept_run(folder)
    source, games = _kept(run, stage)
    engine, search = open_engine(run.config, run.resolve), Search(seed=seed)
    found = attack_judge(draw(games, limit), judge_of(run, judge), engine, names, search)
    return found.model_copy(update={"table": found.table.model_copy(update={"source": source})})


def _kept(run: Run, stage: str | None) -> tuple[str, list[Transcript]]:
    """Debates of one stage under one protocol, each once, and which they are, in words.

    Raises:
        UserError: no stage is named and none has test debates of the run's protocol; or the named one has no debates,
            or several protocols without the run's own.
    """
    own = run.protocol().name
    if stage is not None:
        return _of_protocol(stage, saved_games(run.folder, stage), own)
    for name, made in run.config.stages.items():
        path = run.folder / name / "test_legs.jsonl"
        if made.kind == "judge" and path.is_file():
            return _of_protocol(f"test debates of {name}", saved_games(path), own)
    for name, made in run.config.stages.items():
        path = run.folder / name / "legs.jsonl"
        if made.kind in ("tournament", "oversight") and path.is_file():
            games = saved_games(path)
            if any(game.protocol.name == own for game in games):
                return _of_protocol(f"test debates of {name}", games, own)
    raise UserError(
        f"{run.folder} kept no test debates of protocol {own!r}; name a stage with --stage{stages_with(run.folder)}"
    )


def _of_protocol(source: str, games: Sequence[Transcript], own: str) -> tuple[str, list[Transcript]]:
    """The games of the run's own protocol; of another one where all are of that."""
    names = sorted({game.protocol.name for game in games})
    if own not in names and len(names) > 1:
        raise UserError(f"{source}: no debate of protocol {own!r}, but of {', '.join(names)}; name another stage")
    wanted = own if own in names else names[0]
    kept = [game for game in games if game.protocol.name == wanted]
    left = f"; {len(games) - len(kept)} of other protocols left out" if len(kept) < len(games) else ""
    return f"{source}, protocol {wanted}{left}", kept
