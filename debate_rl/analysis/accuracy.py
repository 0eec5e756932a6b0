"""Judge accuracy by protocol and player, with differences paired by question; and by pair of players."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from numpy.typing import ArrayLike

from debate_rl.analysis.significance import Condition, compare
from debate_rl.arena.tournament import scores
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate
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
    """Difference of Brier scores; below 0 is better under the first. None in files of earlier versions."""
    log_score: Effect | None = None
    """Difference in bits. None in files of earlier versions."""


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
    """The judge on debates of different players, compared with their debates with themselves.

    Example:
        CrossPlay(scores=JudgeScores(n=480, ...), pairs=(Pair(first="base", second="dpo", ...),),
                  minus_self=Effect(value=-0.02, low=-0.05, high=0.01, ...))
    """

    scores: JudgeScores
    pairs: tuple[Pair, ...]
    minus_self: Effect | None = None
    """Accuracy in cross-play minus that in self-play, question by question; None without self-play."""


def accuracy_table(legs: Mapping[tuple[str, str], Sequence[JudgedDebate]]) -> list[Row]:
    """One row for each (protocol, player).

    Raises:
        UserError: a (protocol, player) has no verdict at all.
    """
    rows = []
    for (protocol, player), group in legs.items():
        failed = sum(leg.verdict is None for leg in group)
        # A row of no verdicts has no accuracy to show; leaving it out silently would hide a broken protocol.
        if failed == len(group):
            raise UserError(f"protocol {protocol!r}, player {player!r}: no leg with a verdict, of {len(group)}")
        rows.append(Row(protocol=protocol, player=player, scores=scores(group), failed=failed))
    return rows


def paired_differences(
    legs: Mapping[tuple[str, str], Sequence[JudgedDebate]], reference: str = "debate"
) -> list[Difference]:
    """Compare the reference protocol with each other one, over the questions on which both have a verdict.

    A protocol without players (blind, open-book; player "-") is compared with every player's reference, and every
    player's protocol with a reference without players.
    """
    references = {player: group for (protocol, player), group in legs.items() if protocol == reference}
    differences = []
    for (protocol, player), group in legs.items():
        if protocol == reference:
            continue
        for reference_player, reference_legs in references.items():
            # The same debater on both sides, so that only the protocol differs.
            is_comparable = player == reference_player or "-" in (player, reference_player)
            if not is_comparable or not _questions(reference_legs) & _questions(group):
                continue
            effects = {}
            for name, score in _SCORES.items():
                first = _condition(reference, reference_legs, score)
                second = _condition(protocol, group, score)
                effects[name] = compare(first, second).difference
            debater = reference_player
            if debater == "-":
                debater = player
            differences.append(Difference(first=reference, second=protocol, player=debater, **effects))
    return differences


def cross_play(legs: Sequence[JudgedDebate]) -> CrossPlay | None:
    """Score the judge on debates of different players, all together and by pair; None if it judged none.

    Args:
        legs: cross-play and self-play of a tournament.
    """
    pairs: dict[tuple[str, ...], list[JudgedDebate]] = {}
    cross, alone = [], []
    for leg in legs:
        if leg.p_correct is None:
            continue
        # Sorted: dpo on side A against sft, and the seats swapped, are one pair.
        names = tuple(sorted(set(leg.transcript.players.values())))
        if len(names) == 2:
            pairs.setdefault(names, []).append(leg)
        elif len(names) == 1:
            alone.append(leg)
    for group in pairs.values():
        cross += group
    if not cross:
        return None
    minus_self = None
    # Paired by question: cross-play may be played on more questions than self-play.
    if _questions(cross) & _questions(alone):
        minus_self = compare(_condition("cross-play", cross), _condition("self-play", alone)).difference
    return CrossPlay(
        scores=scores(cross),
        pairs=tuple(_pair(first, second, group) for (first, second), group in pairs.items()),
        minus_self=minus_self,
    )


def _pair(first: str, second: str, legs: Sequence[JudgedDebate]) -> Pair:
    """Accuracy, Brier and log score of one pair's legs."""
    p_correct, stories = p_correct_of(legs)
    estimates = {name: mean(score(p_correct), stories) for name, score in _SCORES.items()}
    return Pair(first=first, second=second, **estimates)


def p_correct_of(legs: Sequence[JudgedDebate]) -> tuple[list[float], list[str]]:
    """The judge's probability of the correct answer, and the story, of each leg with a verdict and a known answer."""
    p_correct, stories = [], []
    for leg in legs:
        if leg.p_correct is not None:
            p_correct.append(leg.p_correct)
            stories.append(leg.transcript.question.cluster)
    return p_correct, stories


def _squares(p_correct: ArrayLike) -> Floats:
    """Brier score of each verdict."""
    return (1 - probabilities(p_correct)) ** 2


_SCORES: dict[str, Callable[[ArrayLike], Floats]] = {"accuracy": hits, "brier": _squares, "log_score": bits}
"""Scores of a verdict, by field of `Difference` and `Pair`."""


def _questions(legs: Sequence[JudgedDebate]) -> set[str]:
    """Questions with a verdict and a known answer."""
    return {leg.transcript.question.id for leg in legs if leg.p_correct is not None}


def _condition(name: str, legs: Sequence[JudgedDebate], score: Callable[[ArrayLike], Floats] = hits) -> Condition:
    """A score of each verdict, by default whether the judge was right, by question."""
    questions, p_correct, stories = [], [], []
    for leg in legs:
        if leg.p_correct is not None:
            questions.append(leg.transcript.question.id)
            p_correct.append(leg.p_correct)
            stories.append(leg.transcript.question.cluster)
    return Condition(name, questions, score(p_correct), stories)
