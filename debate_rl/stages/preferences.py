"""Preferences: Best-of-N pools on training questions, judged, become rows of chosen and rejected speeches."""

from __future__ import annotations

from pathlib import Path

from debate_rl.arena.rollout import play_to_file, read_pools
from debate_rl.arena.schedule import self_play
from debate_rl.config import PreferencesStage
from debate_rl.errors import UserError
from debate_rl.experiment import Metrics, Run
from debate_rl.game.prompts import debater_messages
from debate_rl.game.transcript import Transcript
from debate_rl.players.speak import Pool
from debate_rl.records import write
from debate_rl.trainers.rows import PreferenceRow, preference_rows


def games(stage: PreferencesStage, run: Run) -> list[Transcript]:
    """Self-play of the Best-of-N player on training questions."""
    player = f"{stage.player}@{stage.best_of}"
    return self_play([player], run.questions("train", stage.questions), run.protocol(stage.protocol), run.config.seed)


def rows_of(pool: Pool, pairs: int, min_gap: float) -> list[PreferenceRow]:
    """Preference rows of one pool: the widest gaps between its candidates' scores."""
    question = pool.transcript.question
    return preference_rows(
        debater_messages(pool.transcript, pool.side, pool.turn),
        [(speech.text, score) for speech, score in zip(pool.candidates, pool.scores, strict=True)],
        pairs_per_pool=pairs, min_gap=min_gap, question=question.id, group=question.cluster,
        side=pool.side, turn=pool.turn,
    )  # fmt: skip


def run(stage: PreferencesStage, run: Run, out: Path) -> Metrics:
    """Play, keep the pools, make rows."""
    player = run.debater(f"{stage.player}@{stage.best_of}", stage.opponents)
    planned = games(stage, run)
    legs = play_to_file(
        planned, {player.name: player}, run.engine, run.judge(), out / "legs.jsonl",
        pool_path=out / "pools.jsonl", progress=run.progress(out),
    )  # fmt: skip
    place = {game.id: index for index, game in enumerate(planned)}
    pools = sorted(read_pools(out / "pools.jsonl"), key=lambda p: (place[p.transcript.id], p.turn, p.side))
    rows = [row for pool in pools for row in rows_of(pool, stage.pairs_per_pool, stage.min_gap)]
    if not rows:
        raise UserError("preferences: no two candidates differ in the judge's eyes; raise best_of or look at the judge")
    write(out / "legs.jsonl", legs)
    write(out / "pools.jsonl", pools)
    write(out / "rows.jsonl", rows)
    run.tracker.artifact(f"{run.label}-preferences", "dataset", out / "rows.jsonl", {"player": player.name})
    return {
        "pools": len(pools),
        "pairs": len(rows),
        "mean_gap": sum(row.p_chosen - row.p_rejected for row in rows) / len(rows),
        "side_a": sum(row.side == "A" for row in rows) / len(rows),
        "failed": sum(leg.failure is not None for leg in legs),
    }
