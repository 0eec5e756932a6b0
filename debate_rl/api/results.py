"""What the front door's functions return: lists of records that print as short tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, overload

from debate_rl.arena.tournament import scores
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.scores import JudgeScores
from debate_rl.players.speak import Pool

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 10
"""Rows of a printed table."""


class Debates(Sequence[JudgedDebate]):
    """Judged debates, in the order of their questions.

    Attributes:
        pools: the candidates of Best-of-N players with their scores, which `preferences` makes rows of.
    """

    def __init__(self, legs: Sequence[JudgedDebate], pools: Sequence[Pool] = ()) -> None:
        self._legs = list(legs)
        self.pools = list(pools)

    def __len__(self) -> int:
        return len(self._legs)

    @overload
    def __getitem__(self, index: int) -> JudgedDebate: ...
    @overload
    def __getitem__(self, index: slice) -> Debates: ...
    def __getitem__(self, index: int | slice) -> JudgedDebate | Debates:
        if isinstance(index, slice):
            legs = self._legs[index]
            games = {leg.transcript.id for leg in legs}
            return Debates(legs, [pool for pool in self.pools if pool.transcript.id in games])
        return self._legs[index]

    def __iter__(self) -> Iterator[JudgedDebate]:
        return iter(self._legs)

    @property
    def failed(self) -> list[JudgedDebate]:
        """Debates that could not be played or judged; `leg.failure` says why."""
        return [leg for leg in self._legs if leg.failure is not None]

    @property
    def judge_scores(self) -> JudgeScores:
        """Accuracy, Brier score and calibration of the judge, with intervals clustered by story.

        Raises:
            UserError: no debate has a verdict and a known answer.
        """
        return scores(self._legs)

    def to_frame(self) -> pd.DataFrame:
        """One row a debate: question, answers, players, speeches, the judge's probability, whether it was right."""
        import pandas as pd  # here: it takes a second, and the command line does without

        return pd.DataFrame([_row(leg) for leg in self._legs])

    def __repr__(self) -> str:
        """A short table."""
        try:
            accuracy = f", judge accuracy {self.judge_scores.accuracy}"
        except UserError:
            accuracy = ""
        lines = [f"{len(self)} debates, {len(self.failed)} failed{accuracy}"]
        for leg in self._legs[:_SHOWN]:
            question, players, p, _ = _cells(leg)
            lines.append(f"  {question[:60]:<60}  {players:<20}  p(correct) {p}")
        if len(self) > _SHOWN:
            lines.append(f"  ... {len(self) - _SHOWN} more; to_frame() has them all")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same in a notebook; hostile text stays text."""
        head = "".join(f"<th>{name}</th>" for name in ("question", "players", "p(correct)", "failure"))
        body = ""
        for leg in self._legs[:_SHOWN]:
            body += "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(leg)) + "</tr>"
        summary = escape(repr(self).splitlines()[0])
        return f"<p>{summary}</p><table><tr>{head}</tr>{body}</table>"


def _cells(leg: JudgedDebate) -> tuple[str, str, str, str]:
    """One debate in a printed table: question, players, probability of the correct answer, failure."""
    p = "-" if leg.p_correct is None else f"{leg.p_correct:.2f}"
    failure = "" if leg.failure is None else leg.failure.message
    return leg.transcript.question.text, " v ".join(leg.transcript.players.values()), p, failure


def _row(leg: JudgedDebate) -> dict[str, Any]:
    """One debate as plain values."""
    game = leg.transcript
    p_correct = leg.p_correct
    row: dict[str, Any] = {
        "question": game.question.text,
        "answer_a": game.question.answers[0],
        "answer_b": game.question.answers[1],
        "correct": None if game.question.correct is None else "AB"[game.question.correct],
        "protocol": game.protocol.name,
        "player_a": game.players.get("A"),
        "player_b": game.players.get("B"),
        "speeches": [speech.text for speech in game.speeches],
        "p_a": None if leg.verdict is None else leg.verdict.p[0],
        "p_correct": p_correct,
        "right": None if p_correct is None else p_correct > 0.5,
        "failure": None if leg.failure is None else leg.failure.message,
    }
    if game.protocol.judge_questions:
        row["judge_questions"] = [question.text for question in game.asked]
    return row
