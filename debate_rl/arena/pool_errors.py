"""Errors put into the verdicts on a pool of speeches, at a known rate: what a worse judge would have said of them."""

from __future__ import annotations

from debate_rl.game.transcript import Transcript
from debate_rl.judges.errors import Kind, inject
from debate_rl.players.speak import Pool, make_pool


def with_errors(pool: Pool, rate: float, kind: Kind = "flip", seed: int = 0) -> Pool:
    """Put errors into each verdict of a pool, and score and choose again.

    Args:
        pool: candidates with the judge's probabilities.
        rate: share of errors, 0 to 1.
        kind: see `judges.errors`.
        seed: seed of the draws.
    """
    name = f"{error_name(pool.transcript)} {pool.side} {pool.turn}"
    p = []
    for index, row in enumerate(pool.p):
        verdict_names = [f"{name} {index} {column}" for column in range(len(row))]
        p.append(inject(row, verdict_names, rate, kind, seed).tolist())
    return make_pool(
        pool.transcript, pool.side, pool.turn, pool.player, pool.candidates, pool.opponents, p, pool.aggregate
    )


def error_name(game: Transcript) -> str:
    """Name of a game for drawing its errors."""
    # Not the game's id: that changes when protocols get new fields, and every published table with it.
    return f"{game.question.id} {game.protocol.name} {sorted(game.players.items())} {game.seed}"
