"""Swiss pairing: a few rounds for many players, each against one with about as many points, nobody twice.

A round robin of P players has P (P - 1) / 2 pairs, a Swiss schedule P / 2 a round. The pairs of a round are a matching
of least cost (Edmonds' blossom algorithm, networkx): first no pair twice, then pairs that link groups of players who
have not met through others (ratings of unlinked groups can not be compared), then a small difference in points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from debate_rl.arena.schedule import Seating
from debate_rl.errors import UserError

FEWEST = 4
"""Players from which a Swiss schedule can be shorter than a round robin."""
_TWICE = 10**12
_UNLINKED = 10**9
_POINTS = 10**4
"""Costs of a pair: that has met; that links nothing new while groups are apart; for the square of a point's distance.
Each is above all that the next ones can add up to."""


class Round(NamedTuple):
    """One round.

    Example:
        Round(pairs=(("dpo", "sft"), ("dpo2", "sft2")), bye="base")
    """

    pairs: tuple[Seating, ...]
    bye: str | None
    """The player who rests, where their number is odd: of those who have not rested the one with the fewest points,
    among those without whom the others can be paired and none meets another twice."""

    @property
    def seatings(self) -> list[Seating]:
        """Each pair twice, sides swapped."""
        both: list[Seating] = []
        for first, second in self.pairs:
            both += [(first, second), (second, first)]
        return both


def swiss_fault(players: int, rounds: int) -> str | None:
    """Explain why so many players can not play so many Swiss rounds; None if they can."""
    if players < FEWEST:
        return (
            f"schedule: swiss needs {FEWEST} players or more, got {players}; schedule: round_robin has every pair meet"
        )
    fewest, most = math.ceil(math.log2(players)), math.ceil(players / 2)
    if rounds < fewest:
        return f"rounds: {players} players need {fewest} Swiss rounds or more to be compared, got {rounds}"
    # Until then everyone has at least half of the others left to meet, and a pairing exists (Dirac's theorem).
    if rounds > most:
        return (
            f"rounds: {players} players play {most} Swiss rounds without meeting twice, got {rounds}; set rounds to "
            f"{most} or less, or schedule: round_robin"
        )
    return None


def next_round(players: Sequence[str], earlier: Sequence[Round], points: Mapping[str, float]) -> Round:
    """Pair the players for the next round.

    Args:
        players: names; of equal players the one listed first stands higher.
        earlier: rounds played.
        points: points of each player so far, without its byes.
    """
    import networkx as nx  # here: the import takes 0.2 s, which other tournaments need not pay

    rested = [one.bye for one in earlier if one.bye is not None]
    # A bye is a point: a rest must not send a player down to weaker ones.
    totals = {player: points.get(player, 0.0) + rested.count(player) for player in players}
    order = sorted(players, key=lambda player: -totals[player])
    met = nx.Graph()
    met.add_nodes_from(players)
    for one in earlier:
        met.add_edges_from(one.pairs)
    may_rest: list[str | None] = [None]
    if len(order) % 2:
        lowest_first = order[::-1]
        lowest_first.sort(key=rested.count)
        may_rest = [*lowest_first]
    for bye in may_rest:
        paired = [player for player in order if player != bye]
        pairs = _matched(paired, totals, met)
        if not any(met.has_edge(*pair) for pair in pairs):
            return Round(tuple(pairs), bye)
    # More rounds than `swiss_fault` allows: somebody meets somebody again.
    bye = may_rest[0]
    return Round(tuple(_matched([player for player in order if player != bye], totals, met)), bye)


def _matched(order: Sequence[str], totals: Mapping[str, float], met: Any) -> list[Seating]:
    """The pairs of least cost (see the module), the higher player of each first, in the order of the higher ones.

    Args:
        order: the players to be paired, the highest first.
        totals: points of each, byes included.
        met: networkx graph whose edges are the pairs of earlier rounds.
    """
    import networkx as nx

    group = {}
    for number, members in enumerate(nx.connected_components(met)):
        group.update(dict.fromkeys(members, number))
    graph = nx.Graph()
    for high, first in enumerate(order):
        for low in range(high + 1, len(order)):
            second = order[low]
            cost = round(_POINTS * (totals[first] - totals[second]) ** 2) + (low - high)
            cost += _UNLINKED * (group[first] == group[second])
            cost += _TWICE * met.has_edge(first, second)
            graph.add_edge(first, second, weight=-cost)
    places = {player: place for place, player in enumerate(order)}
    pairs: list[Seating] = []
    for pair in nx.max_weight_matching(graph, maxcardinality=True):
        first, second = sorted(pair, key=places.__getitem__)
        pairs.append((first, second))
    return sorted(pairs, key=lambda pair: places[pair[0]])


def planned_rounds(players: Sequence[str], rounds: int) -> list[Round]:
    """The rounds that would be played if the player listed first always won: as many games, other pairs.

    Raises:
        UserError: so many players can not play so many rounds.
    """
    fault = swiss_fault(len(players), rounds)
    if fault:
        raise UserError(fault)
    planned: list[Round] = []
    points = dict.fromkeys(players, 0.0)
    places = {player: place for place, player in enumerate(players)}
    for _ in range(rounds):
        planned.append(next_round(players, planned, points))
        for pair in planned[-1].pairs:
            points[min(pair, key=places.__getitem__)] += 1
    return planned


def seatings_of(rounds: Iterable[Round]) -> list[Seating]:
    """The seatings of several rounds, one after the other."""
    seatings: list[Seating] = []
    for one in rounds:
        seatings += one.seatings
    return seatings
