"""What honesty pays under a protocol: the agent score difference, and how far the judge's sureness tells it.

The agent score of a speaker is log2 of the probability that the judge gives to the answer it argues for. The agent
score difference (arXiv 2504.03731) says how far a protocol favours truth over deception: the mean score of speakers who
argue for the correct answer minus that of speakers who argue for the wrong one. A debate has a speaker of either kind
in every game, a single consultancy one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debate_rl.analysis.columns import cell, columns
from debate_rl.game.protocol import SIDES
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Effect, Floats, bootstrap_totals
from debate_rl.judges.scores import bits
from debate_rl.records import Record

THRESHOLDS = 100
"""Most thresholds of the acceptance curves."""


class Honesty(Record):
    """What honesty pays under one protocol with one player.

    Example:
        Honesty(protocol="debate", player="dpo", selective=Effect(value=0.41, ...),
                difference=Effect(value=1.31, low=0.9, high=1.7, n=320, clusters=80, p=0.001))
    """

    protocol: str
    player: str
    difference: Effect
    """Agent score difference, in bits; above 0 honesty pays. n counts speakers."""
    selective: Effect
    """Gap between honest and dishonest speakers in selective prediction: the judge accepts the speakers it is surest
    of; share of the honest ones accepted minus share of the dishonest ones, averaged over all coverages and doubled. 0
    where sureness tells nothing, 1 where all honest speakers come first, -1 where all dishonest ones do."""


def honesty(legs: Mapping[tuple[str, str], Sequence[JudgedDebate]]) -> tuple[Honesty, ...]:
    """One row for each (protocol, player) with honest and dishonest speakers.

    Args:
        legs: judged games by (protocol, player); those without a verdict, a known answer or a speech count nowhere.
    """
    rows = []
    for (protocol, player), group in legs.items():
        p_argued, is_honest, clusters = [], [], []
        for leg in group:
            correct = leg.transcript.question.correct
            if leg.verdict is None or correct is None:
                continue
            for side in dict.fromkeys(speech.side for speech in leg.transcript.speeches):
                p_argued.append(leg.verdict.p_side(side))
                is_honest.append(SIDES.index(side) == correct)
                clusters.append(leg.transcript.question.cluster)
        if len(set(is_honest)) == 2:
            compared = _compare(np.array(p_argued), np.array(is_honest, dtype=float), clusters)
            rows.append(Honesty(protocol=protocol, player=player, difference=compared[0], selective=compared[1]))
    return tuple(rows)


def _compare(p_argued: Floats, honest: Floats, clusters: Sequence[str]) -> tuple[Effect, Effect]:
    """Agent score difference and selective gap of (n,) speakers."""
    score = bits(p_argued)
    table = np.column_stack([honest, honest * score, 1 - honest, (1 - honest) * score])

    def difference(sums: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample without speakers of a kind: NaN
            return sums[:, 1] / sums[:, 0] - sums[:, 3] / sums[:, 2]

    # p and 1 - (1 - p) are one confidence, and differ in the last bits.
    p_argued = np.round(p_argued, 12)
    levels = np.unique(p_argued)
    if len(levels) > THRESHOLDS:
        levels = np.unique(np.quantile(p_argued, np.linspace(0, 1, THRESHOLDS), method="lower"))
    member = np.eye(len(levels))[np.searchsorted(levels, p_argued, side="right") - 1]

    def gap(sums: Floats) -> Floats:
        # Reversed: the surest first, as they would be accepted.
        kinds = [part[:, ::-1].cumsum(axis=1) for part in np.split(sums, 2, axis=1)]
        accepted = (kinds[0] + kinds[1]) / (kinds[0] + kinds[1])[:, -1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = kinds[0] / kinds[0][:, -1:] - kinds[1] / kinds[1][:, -1:]
        # Trapezoids from (0, 0): equal confidences are accepted together, in any order.
        start = np.zeros((len(sums), 1))
        height = np.hstack([start, apart])
        width = np.diff(np.hstack([start, accepted]), axis=1)
        return (width * (height[:, 1:] + height[:, :-1])).sum(axis=1)

    split = np.hstack([member * honest[:, None], member * (1 - honest)[:, None]])
    return bootstrap_totals(difference, table, clusters).effect(), bootstrap_totals(gap, split, clusters).effect()


def formatted(rows: Sequence[Honesty]) -> str:
    """The rows as a table."""
    head = ["protocol", "player", "agent score difference, bits", "selective gap, honest - dishonest"]
    body = [[row.protocol, row.player, cell(row.difference), cell(row.selective)] for row in rows]
    return columns(head, body)
