"""Checks before verdicts are scored or learnt from: one judge, every game once, answers known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate


def check_games(games: Sequence[Transcript]) -> list[int]:
    """Check that games can be learnt from, and return the index of the correct answer of each.

    Raises:
        UserError: no games, an answer is unknown, a game is there twice, or one question stands in two stories.
    """
    if not games:
        raise UserError("no finished games; give transcripts or judged debates with speeches")
    correct: list[int] = []
    story_of: dict[tuple[str, tuple[str, str], str | None], str] = {}
    for game in games:
        question = game.question
        if question.correct is None:
            raise UserError(f"question {question.id!r} has no correct answer; leave it out, or add `correct`")
        # A question in two stories would stand on both sides of a split by story.
        content = (question.text, question.answers, question.passage)
        if story_of.setdefault(content, question.cluster) != question.cluster:
            raise UserError(f"question {question.id!r} stands in two stories; give both the same `group`, or drop one")
        correct.append(question.correct)
    _check_unique(games)
    return correct


def check_one_judge(legs: Sequence[JudgedDebate]) -> str:
    """Check that legs hold one judge's verdicts, and return its name; legs without a verdict are passed over.

    Raises:
        UserError: no verdict, verdicts of two judges or of two revisions of one, or a game is there twice.
    """
    judges = Counter((leg.verdict.judge, leg.verdict.revision) for leg in legs if leg.verdict is not None)
    if not judges:
        raise UserError("no leg with a verdict; give legs that were judged")
    if len(judges) > 1:
        first, second = judges.most_common(2)
        raise UserError(
            f"verdicts of two judges are mixed: {_described(first)} and {_described(second)}; "
            "score each one's legs by itself"
        )
    _check_unique([leg.transcript for leg in legs])
    return next(iter(judges))[0]


def _described(counted: tuple[tuple[str, str | None], int]) -> str:
    """A judge, the revision that answered, and its number of verdicts."""
    (name, revision), count = counted
    return f"{name!r} (revision {revision or 'unknown'}, {count} legs)"


def _check_unique(games: Sequence[Transcript]) -> None:
    """Refuse games that are there twice."""
    counts = Counter(game.id for game in games)
    game_id, count = counts.most_common(1)[0]
    if count > 1:
        game = next(game for game in games if game.id == game_id)
        players = " and ".join(game.players.values()) or "nobody"
        raise UserError(
            f"question {game.question.id!r} by {players} is there {count} times with the same rules and seed; "
            "give each game once (two runs mixed?)"
        )
