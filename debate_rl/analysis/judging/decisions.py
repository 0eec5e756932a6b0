"""Decisions of judges on pairs of replies, scored by JudgeBench's rule (arXiv 2410.12784).

A judge is asked about a pair in both orders. Each order that names the better reply gives +1, each that names the other
one -1, a tie or no decision 0; the pair is right where the sum is above 0. Judges without order effects (reward models)
are asked once. Counting half a point for two orders that disagree is another rule, with other numbers: see `half`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from debate_rl.analysis.columns import cell, columns
from debate_rl.analysis.judging.kappa import cohen_kappa
from debate_rl.errors import UserError, existing
from debate_rl.intervals import Estimate, mean
from debate_rl.records import Record, explain, lines

RULE = "JudgeBench"
FOLLOWS_ORDER = 0.2
"""Share of pairs decided alike in both orders below which a judge is said to go by the order; guessing gives 1/2."""
Better = Literal["A>B", "B>A", "A=B"]
_TURNED: dict[str | None, Better | None] = {"A>B": "B>A", "B>A": "A>B", "A=B": "A=B", None: None}
"""The same decision with both replies in each other's place."""


class Decision(Record):
    """What a judge decided on one pair.

    Example:
        Decision(judge="o1-mini-2024-09-12", response_model="gpt-4o-2024-05-13", pair="310930bc", label="A>B",
                 source="livecodebench", decisions=("A>B", "B>A"))
    """

    judge: str
    response_model: str = ""
    """Model that wrote both replies, where one did."""
    pair: str
    source: str = ""
    label: Literal["A>B", "B>A"]
    decisions: tuple[Better | None, ...] = Field(min_length=1, max_length=2)
    """One for each order, as the judge saw it: in the second order the replies have changed places, so `B>A` there
    prefers the pair's A. None where the judge said nothing that can be read."""
    group: str = ""
    """Request that the pair shares with others; they are resampled together."""
    revision: str | None = None
    """Fingerprint of the judge's weights, where they are known."""

    @property
    def unturned(self) -> tuple[Better | None, ...]:
        """The decisions with A and B as the pair has them."""
        return (self.decisions[0], *(_TURNED[decision] for decision in self.decisions[1:]))

    @property
    def points(self) -> int:
        """Orders that name the better reply, minus those that name the other one."""
        return sum((one == self.label) - (one == _TURNED[self.label]) for one in self.unturned)

    @property
    def orders_right(self) -> int:
        """Orders that name the better reply."""
        return sum(one == self.label for one in self.unturned)

    @property
    def cluster(self) -> str:
        """The unit of resampling."""
        return self.group or self.pair


class BenchmarkRow(Record):
    """One judge on pairs of replies.

    Example:
        BenchmarkRow(judge="o1-mini-2024-09-12", n=350, rule="JudgeBench", accuracy=65.71, interval=(60.6, 70.6),
                     consistent=0.709, both=0.606, one=0.334, none=0.06, half=77.3, failed=0)
    """

    judge: str
    n: int
    """Pairs."""
    rule: str = RULE
    accuracy: float
    """Percent of pairs that are right by the rule."""
    interval: tuple[float, float] | None
    """95 % bootstrap over pairs (over requests where several pairs share one), in percent; None for one pair."""
    consistent: float | None
    """Share of pairs with the same decision in both orders; None, as the next three, for a judge that is asked once."""
    both: float | None = None
    """Share of pairs that are right in both orders."""
    one: float | None = None
    """Share of pairs that are right in one order alone."""
    none: float | None = None
    """Share of pairs that are right in no order."""
    half: float
    """Percent of points where two orders that disagree, or a tie, count half a point: not JudgeBench's rule."""
    failed: int
    """Pairs without a decision in some order."""
    groups_right: float | None = None
    """Percent of requests of which every pair is right, as RewardBench 2 counts best-of-4; None where no request has
    several pairs."""
    sources: dict[str, float] = {}
    """Accuracy by source, in percent, as the rule counts."""
    kappa: dict[str, Estimate] = {}
    """Cohen's kappa with each other judge on the same pairs and orders."""


def read_decisions(path: str | Path) -> list[Decision]:
    """Read recorded decisions: lines of `Decision`, or JudgeBench's own outputs (a file, or a folder of them).

    Raises:
        UserError: the path is missing, has no decisions, or a line is malformed; names file, line and field.
    """
    place = existing(path, "file of decisions")
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    decisions = []
    for file in files:
        for number, row in lines(file):
            try:
                decisions.append(_decision(row, file))
            except (ValidationError, KeyError, TypeError) as error:
                why = explain(error) if isinstance(error, ValidationError) else _lacking(error)
                raise UserError(f"{file}:{number}: no decision of a judge on a pair ({why})") from error
    if not decisions:
        raise UserError(f"{path}: no decisions; give JSON lines with judge, pair, label and decisions")
    return decisions


def _decision(row: Mapping[str, Any], file: Path) -> Decision:
    """A line of a file; what is not needed of it is left out."""
    if "judgments" in row:
        return _raw_output(row, file)
    if "pair" not in row and "decisions" not in row:
        raise KeyError("decisions")
    known = {name: row[name] for name in Decision.model_fields if row.get(name) is not None}
    return Decision.model_validate(known)


def _raw_output(row: Mapping[str, Any], file: Path) -> Decision:
    """A line of JudgeBench's `outputs`: the pair with the judge's texts. The file's name says who judged."""
    words = dict(part.split("=", 1) for part in file.stem.split(",") if "=" in part)
    said = [None if judgment is None else judgment["decision"] for judgment in row["judgments"]]
    return Decision.model_validate(
        {
            "judge": words.get("judge_model") or row.get("judge_name") or file.stem,
            "response_model": row.get("response_model") or "",
            "pair": row["pair_id"],
            "source": row.get("source") or "",
            "label": row["label"],
            # Anything else that a judge's text was read as is no decision, as in JudgeBench's own count.
            "decisions": [one if one in _TURNED else None for one in said],
        }
    )


def _lacking(error: Exception) -> str:
    return f"no field {error.args[0]!r}" if isinstance(error, KeyError) else str(error)


def score_decisions(decisions: Sequence[Decision]) -> list[BenchmarkRow]:
    """One row for each judge, in the order of the file.

    Raises:
        UserError: no decisions, or a judge decided one pair twice.
    """
    by_judge: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_judge.setdefault(decision.judge, []).append(decision)
    if not by_judge:
        raise UserError("no decisions to score; give a file with one line for each pair")
    for judge, own in by_judge.items():
        seen: set[tuple[str, str]] = set()
        for decision in own:
            key = decision.pair, decision.response_model
            if key in seen:
                raise UserError(f"judge {judge!r} decided pair {decision.pair!r} twice; keep one line a pair")
            seen.add(key)
    kappas = _kappas(by_judge)
    return [_row(judge, own, kappas.get(judge, {})) for judge, own in by_judge.items()]


class _Shares(NamedTuple):
    """Shares of pairs by what both orders say; None for a judge that is asked once."""

    consistent: float | None = None
    both: float | None = None
    one: float | None = None
    none: float | None = None


def _row(judge: str, own: Sequence[Decision], kappas: dict[str, Estimate]) -> BenchmarkRow:
    """Score one judge."""
    points = np.array([decision.points for decision in own])
    right = points > 0
    estimate = mean(100.0 * right, [decision.cluster for decision in own])
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = (estimate.low, estimate.high)
    shares = _Shares()
    twice = [decision for decision in own if len(decision.decisions) == 2]
    if twice:
        orders = np.array([decision.orders_right for decision in twice])
        shares = _Shares(
            consistent=float(np.mean([decision.unturned[0] == decision.unturned[1] for decision in twice])),
            both=float(np.mean(orders == 2)),
            one=float(np.mean(orders == 1)),
            none=float(np.mean(orders == 0)),
        )
    return BenchmarkRow(
        judge=judge,
        n=len(own),
        accuracy=float(100 * right.mean()),
        interval=interval,
        half=float(100 * (1 + np.sign(points)).mean() / 2),
        failed=sum(None in decision.decisions for decision in own),
        groups_right=_groups_right(own, right.tolist()),
        sources=_by_source(own, right.tolist()),
        kappa=kappas,
        consistent=shares.consistent,
        both=shares.both,
        one=shares.one,
        none=shares.none,
    )


def _groups_right(own: Sequence[Decision], right: Sequence[bool]) -> float | None:
    """Percent of requests of which every pair is right."""
    all_right: dict[str, bool] = {}
    for decision, hit in zip(own, right, strict=True):
        all_right[decision.cluster] = all_right.get(decision.cluster, True) and hit
    if len(all_right) == len(own):
        return None
    return 100 * sum(all_right.values()) / len(all_right)


def _by_source(own: Sequence[Decision], right: Sequence[bool]) -> dict[str, float]:
    """Accuracy by source, in percent; none where all pairs have one source."""
    hits: dict[str, list[bool]] = {}
    for decision, hit in zip(own, right, strict=True):
        # JudgeBench counts the 14 subjects of MMLU-Pro as one category.
        source = "mmlu-pro" if decision.source.startswith("mmlu-pro") else decision.source
        hits.setdefault(source, []).append(hit)
    if len(hits) < 2:
        return {}
    return {source: 100 * sum(values) / len(values) for source, values in sorted(hits.items())}


def _kappas(by_judge: Mapping[str, Sequence[Decision]]) -> dict[str, dict[str, Estimate]]:
    """Kappa of every two judges that decided some of the same pairs."""
    keyed = {}
    for judge, own in by_judge.items():
        keyed[judge] = {(decision.pair, decision.response_model): decision for decision in own}
    kappas: dict[str, dict[str, Estimate]] = {}
    for first, second in combinations(keyed, 2):
        ours, theirs, clusters = [], [], []
        for key, decision in keyed[first].items():
            other = keyed[second].get(key)
            # Order by order, as far as both were asked in it.
            for one, two in zip(decision.unturned, other.unturned if other else (), strict=False):
                ours.append(one)
                theirs.append(two)
                clusters.append(decision.cluster)
        kappa = cohen_kappa(ours, theirs, clusters) if ours else None
        if kappa is not None:
            kappas.setdefault(first, {})[second] = kappa
            kappas.setdefault(second, {})[first] = kappa
    return kappas


def formatted(rows: Sequence[BenchmarkRow]) -> str:
    """The rows as tables: accuracy and consistency, accuracy by source, kappa between judges."""
    head = ["judge", "pairs", f"accuracy, % ({RULE}'s rule)", "half points, %", "same in both orders"]
    head += ["right in both", "in one", "in none", "failed"]
    body = []
    for row in rows:
        ends = "[no interval]" if row.interval is None else f"[{row.interval[0]:.2f}, {row.interval[1]:.2f}]"
        line = [row.judge, str(row.n), f"{row.accuracy:.2f} {ends}", f"{row.half:.2f}"]
        line += ["-" if share is None else f"{share:.3f}" for share in (row.consistent, row.both, row.one, row.none)]
        body.append([*line, str(row.failed)])
    parts = [columns(head, body)]
    sources: dict[str, None] = {}
    for row in rows:
        sources.update(dict.fromkeys(row.sources))
    if sources:
        body = []
        for row in rows:
            cells = [f"{row.sources[name]:.2f}" if name in row.sources else "-" for name in sources]
            body.append([row.judge, *cells])
        parts.append(columns(["accuracy by source, %", *sources], body))
    for row in rows:
        if row.groups_right is not None:
            parts.append(
                f"{row.judge}: {row.groups_right:.2f} % of requests with every pair right (RewardBench 2's rule)"
            )
    for row in rows:
        if row.consistent is not None and row.consistent < FOLLOWS_ORDER:
            parts.append(
                f"{row.judge}: its decisions follow the order in which the replies are listed; for a small model try "
                "--readout answers"
            )
    kappas = []
    for first, second in combinations(rows, 2):
        if second.judge in first.kappa:
            kappas.append([first.judge, second.judge, cell(first.kappa[second.judge])])
    if kappas:
        parts.append(columns(["Cohen's kappa of", "and", "on the same pairs and orders"], kappas))
    return "\n\n".join(parts)
