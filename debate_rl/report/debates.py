"""A stage's legs, read once: the transcripts to show, the failed legs, and who won against whom.

Which transcripts are shown depends on their ids alone (hashes of question, protocol, players and seed), never on what
was said or decided.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from debate_rl.analysis.behaviour.behaviour import wins
from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.records import explain, lines
from debate_rl.report.chart import WinRate

Pairing = tuple[str, ...]
"""Players of a leg, sorted."""
Candidates = dict[tuple[str, Pairing], list[tuple[str, JudgedDebate]]]
"""Judged legs with speeches, with their ids, by protocol and players."""


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
        Legs(stage="tournament", played=960,
             candidates={("debate", ("dpo", "sft")): [("08c1...", JudgedDebate(...)), ...]},
             failed=[], games={("dpo", "sft"): [0.71, 0.48, ...], ("sft", "dpo"): [0.29, 0.52, ...]}, unit="stories")
    """

    stage: str
    played: int
    candidates: Candidates
    """The legs with the lowest ids of every (protocol, players), in order."""
    failed: list[Failed]
    games: dict[tuple[str, str], list[float]]
    """The judge's probability for the first player in each of its games against the second."""
    unit: str
    """What the clusters are: stories, questions, or both."""

    def win_rates(self, players: Sequence[str]) -> list[WinRate]:
        """Mean of `games` for every pair of these players that met, in their order."""
        rates = []
        for player in players:
            for opponent in players:
                p = self.games.get((player, opponent))
                if p:
                    rates.append(WinRate(player, opponent, sum(p) / len(p), len(p)))
        return rates


def read_legs(stage: str, path: Path, keep: int, show: Callable[[JudgedDebate], None] | None = None) -> Legs:
    """Read a stage's legs one at a time: a tournament on long stories is larger than memory should hold.

    Args:
        stage: its name.
        path: debates.jsonl.
        keep: candidates for each (protocol, players).
        show: takes every leg, such as to write it for the page.

    Raises:
        UserError: a line is malformed; names file and line.
    """
    candidates: Candidates = defaultdict(list)
    failed: list[Failed] = []
    games: dict[tuple[str, str], list[float]] = defaultdict(list)
    count, grouped = 0, 0
    for line_number, value in lines(path):
        try:
            leg = JudgedDebate.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{line_number}: {explain(error)}") from error
        if show is not None:
            show(leg)
        game = leg.transcript
        count += 1
        grouped += bool(game.question.group)
        if leg.failure is not None:
            failed.append(Failed(game.question.id, game.protocol.name, tuple(game.players.items()), leg.failure))
        if leg.verdict is not None and game.speeches and keep:
            candidate_legs = candidates[game.protocol.name, tuple(sorted(set(game.players.values())))]
            # Insert in order and cut at once, so that memory never holds more than is shown.
            insort(candidate_legs, (game.id, leg), key=lambda entry: entry[0])
            del candidate_legs[keep:]
        # Two entries for a game of different players, none for self-play and failed games.
        sides = wins([leg])
        if len(sides) == 2:
            first, second = sides
            games[first.player, second.player].append(first.p)
            games[second.player, first.player].append(second.p)
    return Legs(stage, count, dict(candidates), failed, dict(games), _unit(grouped, count))


def _unit(grouped: int, count: int) -> str:
    if grouped == count:
        return "stories"
    return "questions" if grouped == 0 else "stories or single questions"


def sample(stages: Iterable[Legs], count: int) -> list[tuple[str, JudgedDebate]]:
    """Choose the transcripts to show: protocols in turn, within a protocol the pairings in turn, by id within those.

    Returns:
        (stage, leg) of at most `count` different games, those of one protocol together.
    """
    seen: set[str] = set()
    by_protocol: dict[str, list[tuple[int, str, str, JudgedDebate]]] = defaultdict(list)
    for stage in stages:
        for (protocol, _), candidate_legs in sorted(stage.candidates.items()):
            # The same game can stand in a tournament and an oversight stage: it is shown once.
            fresh = [(id_, leg) for id_, leg in candidate_legs if id_ not in seen]
            seen.update(id_ for id_, _ in fresh)
            by_protocol[protocol] += [(rank, id_, stage.stage, leg) for rank, (id_, leg) in enumerate(fresh)]
    # Rank within the pairing comes first: the second game of a pairing waits until all pairings have one.
    ranked = []
    for protocol, entries in by_protocol.items():
        in_turn = sorted(entries, key=lambda entry: entry[:3])
        ranked += [(rank, protocol, stage_name, leg) for rank, (_, _, stage_name, leg) in enumerate(in_turn)]
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:count]
    chosen.sort(key=lambda entry: (entry[1], entry[0]))
    return [(stage_name, leg) for _, _, stage_name, leg in chosen]


def failures_by_kind(failed: Sequence[Failed]) -> dict[str, int]:
    """How many legs failed in each way, the commonest first."""
    counts: dict[str, int] = defaultdict(int)
    for leg in failed:
        counts[leg.failure.kind] += 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
