"""Legs of a stage, read once: the transcripts to show, the failed ones, and what the rating plot needs.

Which transcripts are shown depends on their ids alone (hashes of question, protocol, players and seed), never on what
was said or decided.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure, Leg
from debate_rl.records import explain, lines

Pairing = tuple[str, ...]
"""Players of a leg, sorted."""


class Judged(NamedTuple):
    """A verdict on a player's debate with itself."""

    player: str
    p_correct: float
    cluster: str


class Failed(NamedTuple):
    """A leg that could not be played or judged."""

    question: str
    protocol: str
    players: tuple[tuple[str, str], ...]
    """(side, player) pairs."""
    failure: Failure


class Legs(NamedTuple):
    """What the page needs of a stage's legs.

    Example:
        Legs(stage="tournament", played=960, candidates={("debate", ("dpo", "sft")): [("08c1...", Leg(...)), ...]},
             failed=[], self_play=[Judged("dpo", 0.72, "lab-7"), ...], unit="stories")
    """

    stage: str
    played: int
    candidates: dict[tuple[str, Pairing], list[tuple[str, Leg]]]
    """Judged legs with speeches by (protocol, players): those with the lowest ids, in order."""
    failed: list[Failed]
    self_play: list[Judged]
    unit: str
    """What the clusters are: stories, questions, or both."""


def read_legs(stage: str, path: Path, keep: int) -> Legs:
    """Read a stage's legs one at a time: a tournament on long stories is larger than memory should hold.

    Args:
        stage: its name.
        path: legs.jsonl.
        keep: candidates for each (protocol, players).

    Raises:
        UserError: a line is malformed; names file and line.
    """
    candidates: dict[tuple[str, Pairing], list[tuple[str, Leg]]] = defaultdict(list)
    failed: list[Failed] = []
    self_play: list[Judged] = []
    count, grouped = 0, 0
    for number, value in lines(path):
        try:
            leg = Leg.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {explain(error)}") from error
        count += 1
        game = leg.transcript
        grouped += bool(game.question.group)
        if leg.failure is not None:
            failed.append(Failed(game.question.id, game.protocol.name, tuple(game.players.items()), leg.failure))
        if leg.p_correct is not None and len(game.players) == 2 and len(set(game.players.values())) == 1:
            self_play.append(Judged(game.players["A"], leg.p_correct, game.question.cluster))
        if leg.verdict is not None and game.speeches and keep:
            held = candidates[game.protocol.name, tuple(sorted(set(game.players.values())))]
            insort(held, (game.id, leg), key=lambda entry: entry[0])
            del held[keep:]
    unit = "stories" if grouped == count else "questions" if grouped == 0 else "stories or single questions"
    return Legs(stage, count, dict(candidates), failed, self_play, unit)


def sample(stages: Iterable[Legs], count: int) -> list[tuple[str, Leg]]:
    """Choose the transcripts to show: protocols in turn, within a protocol the pairings in turn, by id within those.

    Returns:
        (stage, leg) of at most `count` different games, those of one protocol together.
    """
    seen: set[str] = set()
    by_protocol: dict[str, list[tuple[int, str, str, Leg]]] = defaultdict(list)
    for stage in stages:
        for (protocol, _), held in sorted(stage.candidates.items()):
            fresh = [(name, leg) for name, leg in held if name not in seen]
            seen.update(name for name, _ in fresh)
            by_protocol[protocol] += [(rank, name, stage.stage, leg) for rank, (name, leg) in enumerate(fresh)]
    ranked = [
        (rank, protocol, stage, leg)
        for protocol, entries in by_protocol.items()
        for rank, (_, _, stage, leg) in enumerate(sorted(entries, key=lambda entry: entry[:3]))
    ]
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:count]
    return [(stage, leg) for _, _, stage, leg in sorted(chosen, key=lambda entry: (entry[1], entry[0]))]


def failures_by_kind(failed: Sequence[Failed]) -> dict[str, int]:
    """How many legs failed in each way, the commonest first."""
    counts: dict[str, int] = defaultdict(int)
    for leg in failed:
        counts[leg.failure.kind] += 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
