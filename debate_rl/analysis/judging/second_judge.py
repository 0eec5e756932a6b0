"""A second judge beside the first: the same finished games judged again, and how far the two judges agree.

A result with one judge may be that judge's habit. Where two judges that share neither weights nor training agree, the
result is about the debates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debate_rl.analysis.columns import cell, columns
from debate_rl.analysis.judging.kappa import cohen_kappa
from debate_rl.arena.tournament import scores
from debate_rl.engines.request import Engine
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.intervals import Effect, Estimate, Floats, bootstrap_totals, difference, mean
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.judges.scores import JudgeScores, accuracy, hits
from debate_rl.records import Record

CHUNK = 256
"""Games judged in one call."""


class SecondRow(Record):
    """Comparison of two judges under one protocol with one player.

    Example:
        SecondRow(protocol="debate", player="dpo", scores=JudgeScores(n=80, ...), failed=0, first=Estimate(value=0.84,
                  ...), difference=Effect(value=-0.06, ...), same=Estimate(value=0.79, ...), correlation=...)
    """

    protocol: str
    player: str
    scores: JudgeScores | None
    """Scores of the second judge; None where it gave no verdict."""
    failed: int
    """Games without a verdict of the second judge."""
    first: Estimate | None = None
    """Accuracy of the first judge on the games that both judged; None, as the next three, where there are none."""
    difference: Effect | None = None
    """Accuracy of the second judge minus that of the first, game by game."""
    same: Estimate | None = None
    """Share of games in which both favour the same answer; a verdict of one half agrees by half with any other."""
    correlation: Estimate | None = None
    """Pearson correlation of both judges' probabilities of answer 0; None also where one judge never changes."""
    kappa: Estimate | None = None
    """Cohen's kappa of the favoured answers: agreement beyond what both judges' habits give. None also where both
    always favour the same one."""


class SecondJudge(Record):
    """Comparison of two judges over all protocols and players.

    Example:
        SecondJudge(judge="lab-base", first="judge", rows=(SecondRow(...), ...), same=Estimate(...), correlation=...)
    """

    judge: str
    first: str
    rows: tuple[SecondRow, ...]
    same: Estimate | None = None
    """Share of the same answers over all games."""
    correlation: Estimate | None = None
    kappa: Estimate | None = None

    def __str__(self) -> str:
        """A table with one line for each protocol and player."""
        head = [
            "protocol",
            "player",
            f"{self.first}, accuracy",
            f"{self.judge}, accuracy",
            "Brier",
            "difference",
            "same answer",
            "correlation",
            "kappa",
            "failed",
        ]
        lines = []
        for row in self.rows:
            lines.append(
                [
                    row.protocol,
                    row.player,
                    cell(row.first),
                    cell(row.scores.accuracy if row.scores else None),
                    cell(row.scores.brier if row.scores else None),
                    cell(row.difference),
                    cell(row.same),
                    cell(row.correlation),
                    cell(row.kappa),
                    str(row.failed),
                ]
            )
        total = f"all games: the same answer {cell(self.same)}, correlation {cell(self.correlation)}, "
        total += f"kappa {cell(self.kappa)}"
        return f"{columns(head, lines)}\n{total}"


def judge_again(legs: Sequence[JudgedDebate], judge: AnyJudge, engine: Engine) -> list[JudgedDebate]:
    """Have the finished games judged by another judge; unfinished legs stay as they are.

    Returns:
        One leg for each given leg, in order.
    """
    finished_at = [index for index, leg in enumerate(legs) if finished(leg)]
    rejudged = list(legs)
    for start in range(0, len(finished_at), CHUNK):
        chunk = finished_at[start : start + CHUNK]
        games = [legs[index].transcript for index in chunk]
        # A leg is made anew: the first judge's verdict or failure must not stay beside the new one.
        for index, game, outcome in zip(chunk, games, judge_transcripts(games, judge, engine), strict=True):
            if isinstance(outcome, Verdict):
                rejudged[index] = JudgedDebate(transcript=game, verdict=outcome)
            else:
                rejudged[index] = JudgedDebate(transcript=game, failure=outcome)
    return rejudged


def finished(leg: JudgedDebate) -> bool:
    """Whether all speeches of a game were made, so that it can be judged."""
    game = leg.transcript
    # A game whose judge failed is finished all the same, unless the judge's verdicts decide who speaks: then the turns
    # after the failure were never played.
    judgeable = leg.failure is None or (leg.failure.seat == "judge" and game.protocol.calls == "order")
    return judgeable and game.complete


def beside(
    first: Mapping[tuple[str, str], Sequence[JudgedDebate]],
    second: Mapping[tuple[str, str], Sequence[JudgedDebate]],
    names: tuple[str, str],
) -> SecondJudge:
    """Compare two judges on the same games.

    Args:
        first: legs of the first judge by (protocol, player).
        second: the same games in the same order, judged by the second judge.
        names: names of the first and the second judge.
    """
    rows = []
    judged_by_both: list[tuple[JudgedDebate, JudgedDebate]] = []
    for key, first_legs in first.items():
        both = []
        for pair in zip(first_legs, second[key], strict=True):
            if pair[0].verdict is not None and pair[1].verdict is not None:
                both.append(pair)
        judged_by_both += both
        rows.append(_row(key, second[key], both))
    return SecondJudge(
        judge=names[1],
        first=names[0],
        rows=tuple(rows),
        same=_same(judged_by_both),
        correlation=_correlation(judged_by_both),
        kappa=_kappa(judged_by_both),
    )


def _row(
    key: tuple[str, str], second: Sequence[JudgedDebate], both: Sequence[tuple[JudgedDebate, JudgedDebate]]
) -> SecondRow:
    """Compare the judges under one (protocol, player); `both` holds the pairs of legs with two verdicts."""
    first_p = []
    second_p = []
    clusters = []
    for one, two in both:
        if one.p_correct is not None and two.p_correct is not None:
            first_p.append(one.p_correct)
            second_p.append(two.p_correct)
            clusters.append(one.transcript.question.cluster)
    return SecondRow(
        protocol=key[0],
        player=key[1],
        scores=scores(second) if any(leg.p_correct is not None for leg in second) else None,
        failed=sum(leg.verdict is None for leg in second),
        first=accuracy(first_p, clusters) if first_p else None,
        difference=difference(hits(second_p), hits(first_p), clusters) if first_p else None,
        same=_same(both),
        correlation=_correlation(both),
        kappa=_kappa(both),
    )


def _probabilities(both: Sequence[tuple[JudgedDebate, JudgedDebate]]) -> tuple[Floats, Floats, list[str]]:
    """(n,) probabilities of answer 0 by either judge, and the clusters of the questions."""
    first_p = np.array([one.verdict.p[0] for one, _ in both if one.verdict is not None], dtype=float)
    second_p = np.array([two.verdict.p[0] for _, two in both if two.verdict is not None], dtype=float)
    clusters = [one.transcript.question.cluster for one, _ in both]
    return first_p, second_p, clusters


def _same(both: Sequence[tuple[JudgedDebate, JudgedDebate]]) -> Estimate | None:
    """Share of games in which both judges favour the same answer."""
    if not both:
        return None
    first_p, second_p, clusters = _probabilities(both)
    return mean(1 - np.abs(hits(first_p) - hits(second_p)), clusters)


def _kappa(both: Sequence[tuple[JudgedDebate, JudgedDebate]]) -> Estimate | None:
    """Cohen's kappa of the favoured answers; one half favours neither, which is a decision of its own."""
    if not both:
        return None
    first_p, second_p, clusters = _probabilities(both)
    return cohen_kappa(hits(first_p).tolist(), hits(second_p).tolist(), clusters)


def _correlation(both: Sequence[tuple[JudgedDebate, JudgedDebate]]) -> Estimate | None:
    """Pearson correlation of the judges' probabilities, with an interval over clusters."""
    first_p, second_p, clusters = _probabilities(both)
    if len(both) < 2 or np.ptp(first_p) < 1e-9 or np.ptp(second_p) < 1e-9:
        return None
    # A correlation does not change with the mean; centred values keep the sums of squares below precise.
    x = first_p - first_p.mean()
    y = second_p - second_p.mean()

    def pearson(sums: Floats) -> Floats:
        n, sx, sy, sxx, syy, sxy = sums.T
        spread = np.maximum(sxx - sx**2 / n, 0) * np.maximum(syy - sy**2 / n, 0)
        return np.divide(sxy - sx * sy / n, np.sqrt(spread), out=np.full(len(sums), np.nan), where=spread > 1e-18)

    # All that Pearson needs are sums, so a resample of clusters adds up rows instead of copying games.
    terms = np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
    return bootstrap_totals(pearson, terms, clusters).estimate()
