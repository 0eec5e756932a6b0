"""Rollouts: many games played in lock-step, so that each turn of all of them is one call to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from debate_rl.engines.request import Engine
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Leg, Verdict
from debate_rl.judges.judge import Judge, judge_transcripts
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Pool, Seat, speak
from debate_rl.records import append, read_log

Progress = Callable[[int, int, int], None]
"""Called with (games done, failed, all) after each chunk."""


def play(
    games: Sequence[Transcript],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: Judge | None,
    opponents: Mapping[str, Debater] | None = None,
    pools: list[Pool] | None = None,
) -> list[Leg]:
    """Play games to their end and judge them.

    Args:
        games: opened transcripts, of any protocols and questions.
        players: by the names used in the transcripts.
        engine: answers for all models.
        judge: gives the verdicts and chooses for Best-of-N players; None leaves legs without a verdict.
        opponents: who is simulated as the other side of a Best-of-N player; None simulates the player's own model.
        pools: collects the candidates of Best-of-N players, where wanted.

    Returns:
        One leg a game, in order. A game that fails keeps its speeches so far and says why.
    """
    current = list(games)
    failures: dict[int, Failure] = {}
    for turn in range(max((game.protocol.turns for game in games), default=0)):
        at, seats = _seats(current, failures, turn, players, opponents or {})
        spoken = speak(seats, engine, (lambda trials: judge_transcripts(trials, judge, engine)) if judge else None)
        for index, result in zip(at, spoken, strict=True):
            if result.failure is not None:
                failures.setdefault(index, result.failure)
            elif result.speech is not None:
                current[index] = current[index].add([result.speech])
            if result.pool is not None and pools is not None:
                pools.append(result.pool)
    return _judged(current, failures, judge, engine)


def _seats(
    games: Sequence[Transcript],
    failures: Mapping[int, Failure],
    turn: int,
    players: Mapping[str, Debater],
    opponents: Mapping[str, Debater],
) -> tuple[list[int], list[Seat]]:
    """Everyone who speaks in a turn, with the index of their game. All see the games as they stand before the turn."""
    at: list[int] = []
    seats: list[Seat] = []
    for index, game in enumerate(games):
        if index in failures or turn >= game.protocol.turns:
            continue
        for side in game.speakers(turn):
            player = players[game.players[side]]
            at.append(index)
            seats.append(Seat(game, side, turn, player, opponents.get(player.name, player)))
    return at, seats


def _judged(
    games: Sequence[Transcript], failures: Mapping[int, Failure], judge: Judge | None, engine: Engine
) -> list[Leg]:
    """Judge the games that were played to their end."""
    whole = [index for index in range(len(games)) if index not in failures]
    verdicts: dict[int, Verdict | Failure] = {}
    if judge is not None:
        answers = judge_transcripts([games[index] for index in whole], judge, engine)
        verdicts = dict(zip(whole, answers, strict=True))
    legs = []
    for index, game in enumerate(games):
        found = failures.get(index) or verdicts.get(index)
        if isinstance(found, Failure):
            legs.append(Leg(transcript=game, failure=found))
        else:
            legs.append(Leg(transcript=game, verdict=found))
    return legs


def play_to_file(
    games: Sequence[Transcript],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: Judge | None,
    path: Path,
    opponents: Mapping[str, Debater] | None = None,
    pool_path: Path | None = None,
    chunk: int = 128,
    progress: Progress | None = None,
) -> list[Leg]:
    """Play games that are not yet in a log, adding each finished chunk to it; a stopped run goes on where it was.

    Failed legs are in the log as well and are tried again by a run that starts anew, not by one that goes on.

    Returns:
        One leg a game, in the order of `games`.
    """
    done = {leg.transcript.id: leg for leg in read_log(path, Leg)}
    missing = [game for game in {game.id: game for game in games}.values() if game.id not in done]
    for start in range(0, len(missing), chunk):
        pools: list[Pool] = []
        legs = play(missing[start : start + chunk], players, engine, judge, opponents, pools)
        # Pools first: after a crash between the two the chunk is played again from the store; pools count once.
        if pool_path is not None:
            append(pool_path, pools)
        append(path, legs)
        done.update((leg.transcript.id, leg) for leg in legs)
        if progress is not None:
            failed = sum(leg.failure is not None for leg in done.values())
            progress(len(done), failed, len(done) + len(missing) - start - len(legs))
    return [done[game.id] for game in games]


def read_pools(path: Path) -> list[Pool]:
    """Pools of a log, each once, however often a stopped run wrote it."""
    found: dict[tuple[str, Side, int], Pool] = {}
    for pool in read_log(path, Pool):
        found[(pool.transcript.id, pool.side, pool.turn)] = pool
    return list(found.values())
