"""Rollouts: many games played in lock-step, so that each turn of all of them is one call to the engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from debate_rl.arena.game_tree import Opponents, Tree, grow
from debate_rl.arena.resume_log import Log, LoggedRecords, Progress
from debate_rl.data.models import model_path
from debate_rl.engines.request import Engine
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Pool
from debate_rl.records import append, read_log


def play(
    games: Sequence[Transcript],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: AnyJudge | None,
    opponents: Opponents = None,
    pools: list[Pool] | None = None,
    asker: AnyJudge | None = None,
) -> list[JudgedDebate]:
    """Play games to their end and judge them: trees without branches (see `game_tree.grow`).

    Args:
        games: opened transcripts, of any protocols and questions.
        players: by the names used in the transcripts.
        engine: answers for all models.
        judge: gives the verdicts and chooses for Best-of-N players; None leaves legs without a verdict.
        opponents: who is simulated as the other side of a Best-of-N player; None simulates the player's own model.
        pools: a list that collects the candidates of Best-of-N players; None collects nothing.
        asker: asks the judge's questions; None is the judge (see `game_tree.grow`).

    Returns:
        One leg per game, in order. A game that fails keeps its speeches so far and says why.
    """
    grown = grow([Tree(game=game) for game in games], players, engine, judge, opponents, pools, asker)
    return [tree.leg(tree.leaves[0]) for tree in grown]


@dataclass(frozen=True)
class LogOptions:
    """Settings of `play_to_file` that few callers change.

    Example:
        LogOptions(chunk=64, pool_path=Path("runs/mine/pools.jsonl"))
    """

    chunk: int = 128
    """Games that are played together and then written."""
    pool_path: Path | None = None
    """Log of the candidates of Best-of-N players; None keeps none."""
    on_leg: Callable[[JudgedDebate], None] | None = None
    """Called with every leg, in the order of the games."""
    asker: AnyJudge | None = None
    """Asks the judge's questions; None is the judge (see `game_tree.grow`)."""


def play_to_file(
    games: Collection[Transcript],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: AnyJudge | None,
    path: Path,
    opponents: Opponents = None,
    progress: Progress | None = None,
    options: LogOptions | None = None,
) -> LoggedRecords[JudgedDebate]:
    """Play games that are not yet in a log, adding each finished chunk to it; a stopped run resumes there.

    Failed legs are in the log as well. Those whose cause may have passed (a server that did not answer) are played
    again by a resumed run.

    Args:
        games: as for `play`. They may be opened one by one (`schedule.Schedule`): memory does not grow with their
            number.
        players: as for `play`.
        engine: as for `play`.
        judge: as for `play`.
        path: the log.
        opponents: as for `play`.
        progress: see `resume_log.Progress`.
        options: chunk size, log of pools and callback; None takes the defaults.

    Returns:
        One leg per game, in the order of `games`, each read from the log when it is asked for.
    """
    options = options or LogOptions()
    pool_path = options.pool_path

    def play_missing(missing: Sequence[Transcript]) -> list[JudgedDebate]:
        pools: list[Pool] = []
        collected = pools if pool_path is not None else None
        legs = play(missing, players, engine, judge, opponents, collected, options.asker)
        # Pools first: after a crash between the two writes the chunk is played again from the store, and `read_pools`
        # counts a pool once. The other way round its legs would count as done and the pools be lost.
        if pool_path is not None:
            append(pool_path, pools)
        return legs

    log = Log[Transcript, JudgedDebate](
        path,
        JudgedDebate,
        name_of_work=lambda game: game.id,
        name_of_result=lambda leg: leg.transcript.id,
        failed=lambda leg: leg.failure is not None,
        again=lambda leg: leg.failure is not None and leg.failure.passing,
    )
    return log.work_off(games, play_missing, options.chunk, progress, options.on_leg)


def check_played(legs: Sequence[JudgedDebate]) -> None:
    """Stop where nothing can be said of any game.

    Raises:
        UserError: every game failed.
    """
    # The first leg alone first: legs of a log are read from the file one by one.
    first_failure = next((leg.failure for leg in legs), None)
    if first_failure is not None and all(leg.failure is not None for leg in legs):
        raise UserError(f"all {len(legs)} debates failed, the first with: {first_failure.message}")


def read_pools(path: Path) -> list[Pool]:
    """Read the pools of a log, each once, however often a stopped run wrote it."""
    pools: dict[tuple[str, Side, int], Pool] = {}
    for pool in read_log(path, Pool):
        pools[(pool.transcript.id, pool.side, pool.turn)] = pool
    return list(pools.values())


def own_engine(folder: str | Path | None = None) -> Engine:
    """Transformers models in this process; with a folder its store stands in front, and no answer is made twice."""
    from debate_rl.engines.local.engine import TransformersEngine  # here: it loads torch

    engine = TransformersEngine(model_path)
    return engine if folder is None else StoredEngine(engine, Path(folder) / "store")
