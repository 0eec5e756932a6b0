"""Any judge on pairs of replies: both orders, one decision each, kept in a file as they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.analysis.judging.decisions import Better, Decision
from debate_rl.analysis.judging.reply_pairs import ReplyPair
from debate_rl.arena.resume_log import Log, Progress
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game.protocol import Protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.judge import AnyJudge, Panel, judge_transcripts, mean_probability
from debate_rl.judges.presentation import EQUAL_WITHIN

CHUNK = 8
"""Pairs between two writes: replies are long, and a pair takes a weak machine seconds."""


def pair_protocol(prompts: str = "default") -> Protocol:
    """The rules under which a judge compares two replies: nobody speaks, there is no passage.

    Args:
        prompts: prompt set; `pairs.judge.j2` words the request where the set has it, else `judge.j2`.
    """
    return Protocol(name="pairs", turns=0, needs_passage=False, prompts=prompts)


def decide(
    pairs: Sequence[ReplyPair],
    judge: AnyJudge,
    engine: Engine,
    protocol: Protocol | None = None,
    log: Path | None = None,
    progress: Progress | None = None,
) -> list[Decision]:
    """Ask a judge about pairs of replies.

    Args:
        pairs: the pairs.
        judge: any judge; one without `both_orders` is asked once a pair.
        engine: answers.
        protocol: see `pair_protocol`.
        log: file to which decisions are added as they are made; those of this judge that it has are not made again.
        progress: called with (pairs done, failed, all).

    Returns:
        One decision for each pair, in order. A verdict that failed is a decision of None in every order.

    Raises:
        UserError: a model that the judge needs is missing, or the judge decided nothing at all.
    """
    rules = protocol or pair_protocol()
    revision = None if isinstance(judge, Panel) else engine.revision(judge.model, judge.adapter)
    failures: list[Failure] = []

    def work(chunk: Sequence[ReplyPair]) -> list[Decision]:
        games = [open_transcript(pair.question, rules, {}) for pair in chunk]
        decisions = []
        for pair, outcome in zip(chunk, judge_transcripts(games, judge, engine), strict=True):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            decisions.append(_decision(pair, outcome, judge.name, revision))
        return decisions

    if log is None:
        decisions = []
        for start in range(0, len(pairs), CHUNK):
            if progress is not None:
                progress(start, len(failures), len(pairs))
            decisions += work(pairs[start : start + CHUNK])
        if progress is not None:
            progress(len(pairs), len(failures), len(pairs))
    else:
        kept = Log[ReplyPair, Decision](
            log,
            Decision,
            # The weights are part of the name: a judge that was trained again decides again.
            name_of_work=lambda pair: f"{judge.name} {revision} {pair.response_model} {pair.id}",
            name_of_result=lambda one: f"{one.judge} {one.revision} {one.response_model} {one.pair}",
            failed=lambda one: None in one.decisions,
        )
        decisions = list(kept.work_off(pairs, work, CHUNK, progress))
    if all(set(decision.decisions) == {None} for decision in decisions):
        why = failures[0].message if failures else "see the file of decisions"
        raise UserError(f"{judge.name} decided none of {len(decisions)} pairs, the first because: {why}")
    return decisions


def _decision(pair: ReplyPair, outcome: Verdict | Failure, judge: str, revision: str | None) -> Decision:
    """What a verdict says in each order, as the judge saw it."""
    decisions: tuple[Better | None, ...] = (None, None)
    if isinstance(outcome, Verdict):
        decisions = tuple(_in_order(outcome, order) for order in _orders(outcome))
    return Decision(
        judge=judge,
        response_model=pair.response_model,
        pair=pair.id,
        source=pair.source,
        label=pair.label,
        decisions=decisions,
        group=pair.group,
        revision=revision,
    )


def _orders(verdict: Verdict) -> list[tuple[int, int]]:
    """Orders in which every judge of a verdict was asked."""
    if verdict.members:
        orders = [_orders(member) for member in verdict.members]
        return [order for order in orders[0] if all(order in others for others in orders)]
    asked = {ask.order for ask in verdict.asks if ask.after_turn is None}
    return [order for order in ((0, 1), (1, 0)) if order in asked]


def _in_order(verdict: Verdict, order: tuple[int, int]) -> Better:
    """The decision of one order: what is listed first is A to the judge."""
    p_first = mean_probability(verdict, order)
    if order == (1, 0):
        p_first = 1 - p_first
    if abs(p_first - 0.5) <= EQUAL_WITHIN:
        return "A=B"
    return "A>B" if p_first > 0.5 else "B>A"
