"""Verdicts, legs and matches: the judge's probabilities for a transcript, and the winner over two of them."""

from __future__ import annotations

from pydantic import Field

from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.records import Record


class Ask(Record):
    """One question to the judge: what it was shown, and its raw answer.

    Example:
        Ask(sides=("B", "A"), logprobs=(-0.41, -1.09))
    """

    sides: tuple[Side, ...]
    """Sides shown, in order; empty for a blind or open-book judge, whose answers are listed in `order`."""
    order: tuple[int, int] = (0, 1)
    """Order in which the two answers were listed."""
    logprobs: tuple[float, float]
    """Raw log-probability of answer 0 and of answer 1 (natural log, summed over tokens); of a judge that reads the
    answers' words, or subtracts what it would say anyway, their scores (see `judges.readout`)."""
    after_turn: int | None = None
    """Number of turns played when the judge was asked; None at the end."""
    draw: int = 0
    """Number of the vote, for a judge with several; each vote writes its own text."""
    text: str | None = None
    """Text that the judge wrote: its scratchpad, or the statement that was read. No other seat is shown it."""


class Verdict(Record):
    """A judge's probability of each answer.

    Example:
        Verdict(judge="lab-base", p=(0.72, 0.28), asks=(Ask(...), Ask(...)), revision="9f86d081884c7d65")
    """

    judge: str
    p: tuple[float, float]
    """Probability that answer 0 (side A) and answer 1 (side B) is correct; sums to 1."""
    asks: tuple[Ask, ...] = ()
    after_turn: tuple[tuple[float, float], ...] = ()
    """Probabilities after each turn, where the protocol asks then."""
    members: tuple[Verdict, ...] = ()
    """Verdict of each judge of a panel."""
    revision: str | None = None

    def p_side(self, side: Side) -> float:
        """Probability of the answer that a side argues."""
        return self.p[0] if side == "A" else self.p[1]


# A server in trouble may refuse in any way, "request" and "malformed" included, and trying a refused request again
# costs nothing. A failure that depends on the game alone (such as "context") is not among them: it would come again.
PASSING_KINDS = frozenset(
    {
        "rate limit",
        "server",
        "time-out",
        "connection",
        "unreachable",
        "malformed",
        "request",
        "no text",
        "log-probabilities",
    }
)
"""Kinds of failures whose cause may pass: a resumed run tries these again."""


class Failure(Record):
    """The reason why a leg could not be played or judged. It is never scored as a loss.

    Example:
        Failure(seat="B", turn=1, kind="context", message="prompt of 9120 tokens and 300 new ones exceed 8192")
    """

    seat: str
    """"A", "B" or "judge"."""
    turn: int | None = None
    kind: str
    message: str

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed at another time."""
        return self.kind in PASSING_KINDS


class JudgedDebate(Record):
    """A transcript with its verdict, or with its failure: one line of a stage's `debates.jsonl`.

    Example:
        JudgedDebate(transcript=Transcript(...), verdict=Verdict(judge="lab-base", p=(0.72, 0.28)))
    """

    transcript: Transcript
    verdict: Verdict | None = None
    failure: Failure | None = None

    @property
    def p_correct(self) -> float | None:
        """The judge's probability of the correct answer; None without a verdict or a known answer."""
        correct = self.transcript.question.correct
        if self.verdict is None or correct is None:
            return None
        return self.verdict.p[correct]


class Match(Record):
    """Two legs of one pairing on one question, sides swapped.

    Example:
        Match(legs=(JudgedDebate(...), JudgedDebate(...)))
    """

    legs: tuple[JudgedDebate, JudgedDebate] = Field(min_length=2)

    def probability(self, player: str) -> float | None:
        """Mean probability the judge gave a player over both legs; None if a leg failed."""
        probabilities = []
        for leg in self.legs:
            # A failed leg is no loss: without it the sides would no longer be balanced, so the match has no result.
            if leg.verdict is None:
                return None
            for side, name in leg.transcript.players.items():
                if name == player:
                    probabilities.append(leg.verdict.p_side(side))
        if not probabilities:
            return None
        return sum(probabilities) / len(probabilities)

    @property
    def winner(self) -> str | None:
        """The player with the higher mean probability; None for a tie, self-play or a failed leg."""
        players = sorted(set(self.legs[0].transcript.players.values()))
        if len(players) != 2:
            return None
        first = self.probability(players[0])
        second = self.probability(players[1])
        if first is None or second is None or first == second:
            return None
        return players[0] if first > second else players[1]
