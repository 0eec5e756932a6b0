"""A second judge beside the first: the same finished games judged again without new text, and how far the two agree.

What holds for one judge may be that judge's habit. Where two that share neither weights nor training agree, a result is
about the debates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debate_rl.analysis.columns import cell, columns
from debate_rl.arena.tournament import scores
from debate_rl.engines.request import Engine
from debate_rl.game.verdict import Failure, Leg, Verdict
from debate_rl.intervals import Effect, Estimate, Floats, bootstrap_totals, difference, mean
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.judges.scores import JudgeScores, accuracy, hits
from debate_rl.records import Record

CHUNK = 256
"""Games that are judged in one call."""


class SecondRow(Record):
    """Two judges under one protocol with one player.

    Example:
        SecondRow(protocol="debate", player="dpo", scores=JudgeScores(n=80, ...), failed=0, first=Estimate(value=0.84,
                  ...), difference=Effect(value=-0.06, ...), same=Estimate(value=0.79, ...), correlation=...)
    """

    protocol: str
    player: str
    scores: JudgeScores | None
    """Of the second judge; None where it gave no verdict."""
    failed: int
    """Games without a verdict of the second judge."""
    first: Estimate | None = None
    """Accuracy of the first judge, on the games that both judged; None where there are none, as below."""
    difference: Effect | None = None
    """Accuracy of the second judge minus that of the first, game by game."""
    same: Estimate | None = None
    """Share of games in which both favour the same answer; a judge at one half agrees by half with one that is not."""
    correlation: Estimate | None = None
    """Pearson's, of both judges' probabilities of answer 0; None as well where one of them never changes."""


class SecondJudge(Record):
    """All of them.

    Example:
        SecondJudge(judge="lab-base", first="judge", rows=(SecondRow(...), ...), same=Estimate(...), correlation=...)
    """

    judge: str
    first: str
    rows: tuple[SecondRow, ...]
    same: Estimate | None = None
    """Over all games."""
    correlation: Estimate | None = None

    def __str__(self) -> str:
        """A table with one line for each protocol and player."""
        head = [
            "protocol", "player", f"{self.first}, accuracy", f"{self.judge}, accuracy", "Brier", "difference",
            "same answer", "correlation", "failed",
        ]  # fmt: skip
        rows = [
            [
                row.protocol, row.player, cell(row.first), cell(row.scores.accuracy if row.scores else None),
                cell(row.scores.brier if row.scores else None), cell(row.difference), cell(row.same),
                cell(row.correlation), str(row.failed),
            ]
            for row in self.rows
        ]  # fmt: skip
        said = f"all games: the same answer {cell(self.same)}, correlation {cell(self.correlation)}"
        return f"{columns(head, rows)}\n{said}"


def judge_again(legs: Sequence[Leg], judge: AnyJudge, engine: Engine) -> list[Leg]:
    """Have the finished games judged by another judge; the others stay as they failed. Nothing is generated.

    Returns:
        One leg for each, in order.
    """
    places = [at for at, leg in enumerate(legs) if finished(leg)]
    found = list(legs)
    for start in range(0, len(places), CHUNK):
        chunk = places[start : start + CHUNK]
        games = [legs[at].transcript for at in chunk]
        for at, said in zip(chunk, judge_transcripts(games, judge, engine), strict=True):
            found[at] = Leg(
                transcript=legs[at].transcript,
                verdict=said if isinstance(said, Verdict) else None,
                failure=said if isinstance(said, Failure) else None,
            )
    return found


def finished(leg: Leg) -> bool:
    """Whether all was said: also where the judge then failed, unless its mind had to say who speaks."""
    game = leg.transcript
    judged = leg.failure is None or (leg.failure.seat == "judge" and game.protocol.calls == "order")
    return judged and game.complete


def beside(
    first: Mapping[tuple[str, str], Sequence[Leg]],
    second: Mapping[tuple[str, str], Sequence[Leg]],
    names: tuple[str, str],
) -> SecondJudge:
    """Compare two judges.

    Args:
        first: legs by (protocol, player).
        second: the same games in the same order.
        names: of the judges.
    """
    rows, every = [], []
    for (protocol, player), legs in first.items():
        again = second[protocol, player]
        both = [(a, b) for a, b in zip(legs, again, strict=True) if a.verdict is not None and b.verdict is not None]
        every += both
        known = [(a.p_correct, b.p_correct, a.transcript.question.cluster) for a, b in both]
        p = [(a, b, label) for a, b, label in known if a is not None and b is not None]
        old, new, labels = zip(*p, strict=True) if p else ((), (), ())
        rows.append(
            SecondRow(
                protocol=protocol,
                player=player,
                scores=scores(again) if any(leg.p_correct is not None for leg in again) else None,
                failed=sum(leg.verdict is None for leg in again),
                first=accuracy(old, labels) if p else None,
                difference=difference(hits(new), hits(old), labels) if p else None,
                same=_same(both),
                correlation=_correlation(both),
            )
        )
    return SecondJudge(
        judge=names[1], first=names[0], rows=tuple(rows), same=_same(every), correlation=_correlation(every)
    )


def _probabilities(both: Sequence[tuple[Leg, Leg]]) -> tuple[Floats, Floats, list[str]]:
    """(n,) probabilities of answer 0 by either judge, and the stories."""
    one = np.array([a.verdict.p[0] for a, _ in both if a.verdict is not None], dtype=float)
    two = np.array([b.verdict.p[0] for _, b in both if b.verdict is not None], dtype=float)
    return one, two, [a.transcript.question.cluster for a, _ in both]


def _same(both: Sequence[tuple[Leg, Leg]]) -> Estimate | None:
    if not both:
        return None
    one, two, labels = _probabilities(both)
    return mean(1 - np.abs(hits(one) - hits(two)), labels)


def _correlation(both: Sequence[tuple[Leg, Leg]]) -> Estimate | None:
    one, two, labels = _probabilities(both)
    if len(both) < 2 or np.ptp(one) < 1e-9 or np.ptp(two) < 1e-9:
        return None
    x, y = one - one.mean(), two - two.mean()  # for precision; a correlation does not see it

    def pearson(sums: Floats) -> Floats:
        n, sx, sy, sxx, syy, sxy = sums.T
        spread = np.maximum(sxx - sx**2 / n, 0) * np.maximum(syy - sy**2 / n, 0)
        return np.divide(sxy - sx * sy / n, np.sqrt(spread), out=np.full(len(sums), np.nan), where=spread > 1e-18)

    return bootstrap_totals(pearson, np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y]), labels).estimate()
