"""Judge accuracy by protocol and player, on the same questions, with paired differences; by pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from numpy.typing import ArrayLike

from debate_rl.analysis.significance import Condition, compare
from debate_rl.arena.tournament import scores
from debate_rl.errors import UserError
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Effect, Estimate, Floats, mean
from debate_rl.judges.scores import JudgeScores, bits, hits, probabilities
from debate_rl.records import Record


class Row(Record):
    """The judge under one protocol with one player.

    Example:
        Row(protocol="debate", player="dpo", scores=JudgeScores(n=80, ...), failed=0)
    """

    protocol: str
    player: str
    scores: JudgeScores
    failed: int
    """Legs without a verdict."""


class Difference(Record):
    """How much better the judge does under one protocol than under another, question by question.

    Example:
        Difference(first="debate", second="single", player="dpo", accuracy=Effect(value=0.09, low=0.02, high=0.17, ...),
                   brier=Effect(value=-0.03, ...), log_score=Effect(value=0.11, ...))
    """

    first: str
    second: str
    player: str
    accuracy: Effect
    brier: Effect | None = None
    """Below 0 is better under the first; None in files of earlier versions, as below."""
    log_score: Effect | None = None
    """Bits."""


class Pair(Record):
    """The judge on the debates of two players with each other.

    Example:
        Pair(first="base", second="dpo", accuracy=Estimate(value=0.72, ...), brier=..., log_score=...)
    """

    first: str
    second: str
    accuracy: Estimate
    brier: Estimate
    log_score: Estimate


class CrossPlay(Record):
    """The judge on debates of different players, beside their debates with themselves.

    Example:
        CrossPlay(scores=JudgeScores(n=480, ...), pairs=(Pair(first="base", second="dpo", ...),),
                  minus_self=Effect(value=-0.02, low=-0.05, high=0.01, ...))
    """

    scores: JudgeScores
    pairs: tuple[Pair, ...]
    minus_self: Effect | None = None
    """Accuracy in cross-play minus that in self-play, question by question; None without self-play."""


def accuracy_table(legs: Mapping[tuple[str, str], Sequence[Leg]]) -> list[Row]:
    """One row for each (protocol, player).

    Raises:
        UserError: one without any verdict.
    """
    for (protocol, player), found in legs.items():
        if all(leg.verdict is None for leg in found):
            raise UserError(f"protocol {protocol!r}, player {player!r}: no leg with a verdict, of {len(found)}")
    return [
        Row(protocol=protocol, player=player, scores=scores(found), failed=sum(leg.verdict is None for leg in found))
        for (protocol, player), found in legs.items()
    ]


def paired_differences(legs: Mapping[tuple[str, str], Sequence[Leg]], reference: str = "debate") -> list[Difference]:
    """The reference protocol against each other one, over the questions that both have a verdict on.

    A protocol without players (blind, open-book) is compared with every player's reference, and every player's
    protocol with a reference without players.
    """
    found = []
    for (protocol, player), others in legs.items():
        for (name, debater), base in legs.items():
            if name != reference or protocol == reference or not (player == debater or "-" in (player, debater)):
                continue
            if _ids(base) & _ids(others):
                effects = {
                    score: compare(_condition(reference, base, of), _condition(protocol, others, of)).difference
                    for score, of in _SCORES.items()
                }
                who = player if debater == "-" else debater
                found.append(Difference(first=reference, second=protocol, player=who, **effects))
    return found


def cross_play(legs: Sequence[Leg]) -> CrossPlay | None:
    """The judge on debates of different players, all together and by pair; None where it gave no verdict on any.

    Args:
        legs: of a tournament, cross-play and self-play.
    """
    judged = [leg for leg in legs if leg.p_correct is not None]
    pairs: dict[tuple[str, ...], list[Leg]] = {}
    for leg in judged:
        pairs.setdefault(tuple(sorted(set(leg.transcript.players.values()))), []).append(leg)
    cross = [leg for names, found in pairs.items() if len(names) == 2 for leg in found]
    alone = [leg for names, found in pairs.items() if len(names) == 1 for leg in found]
    if not cross:
        return None
    paired = _ids(cross) & _ids(alone)
    return CrossPlay(
        scores=scores(cross),
        pairs=tuple(_pair(*names, found) for names, found in pairs.items() if len(names) == 2),
        minus_self=compare(_condition("cross-play", cross), _condition("self-play", alone)).difference
        if paired
        else None,
    )


def _pair(first: str, second: str, legs: Sequence[Leg]) -> Pair:
    """The light scores of one pair's legs."""
    judged = [(leg.p_correct, leg.transcript.question.cluster) for leg in legs if leg.p_correct is not None]
    found = {name: mean(of([p for p, _ in judged]), [label for _, label in judged]) for name, of in _SCORES.items()}
    return Pair(first=first, second=second, **found)


def _squares(p_correct: ArrayLike) -> Floats:
    """Brier score of each verdict."""
    return (1 - probabilities(p_correct)) ** 2


_SCORES: dict[str, Callable[[ArrayLike], Floats]] = {"accuracy": hits, "brier": _squares, "log_score": bits}


def _ids(legs: Sequence[Leg]) -> set[str]:
    """Questions with a verdict and a known answer."""
    return {leg.transcript.question.id for leg in legs if leg.p_correct is not None}


def _condition(name: str, legs: Sequence[Leg], of: Callable[[ArrayLike], Floats] = hits) -> Condition:
    """A score of each verdict, by default whether the judge was right, by question."""
    judged = [(leg.transcript.question, leg.p_correct) for leg in legs if leg.p_correct is not None]
    return Condition(name, [q.id for q, _ in judged], of([p for _, p in judged]), [q.cluster for q, _ in judged])
