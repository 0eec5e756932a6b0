import pytest

from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure, JudgedDebate, Verdict
from debate_rl.judges.check import check_games, check_one_judge
from tests.judges.games import asked, game


def leg(number, judge="j", revision="r1", **fields):
    verdict = Verdict(judge=judge, p=(0.6, 0.4), revision=revision)
    return JudgedDebate(transcript=game(asked(number), **fields), verdict=verdict)


def test_verdicts_of_one_judge_are_fine():
    failed = JudgedDebate(transcript=game(asked(9)), failure=Failure(seat="judge", kind="x", message="y"))
    assert check_one_judge([leg(1), leg(2), leg(1, name="single"), failed]) == "j"


def test_mixed_verdicts_are_named():
    with pytest.raises(UserError, match=r"two judges are mixed: 'j' \(revision r1, 2 legs\) and 'k' \(revision r1, 1"):
        check_one_judge([leg(1), leg(2), leg(3, judge="k")])
    with pytest.raises(UserError, match=r"'j' \(revision r1, 1 legs\) and 'j' \(revision r2, 1 legs\)"):
        check_one_judge([leg(1), leg(2, revision="r2")])
    with pytest.raises(UserError, match="no leg with a verdict"):
        check_one_judge([])


def test_duplicates_are_named():
    with pytest.raises(UserError, match=r"question 'q1' by x and y is there 2 times .*two runs mixed"):
        check_one_judge([leg(1), leg(1), leg(2)])
    with pytest.raises(UserError, match="'q1' by x and y is there 2 times"):
        check_games([game(asked(1)), game(asked(1))])
    with pytest.raises(UserError, match="'q2' stands in two stories"):
        check_games([game(asked(1)), game(asked(2, text="where is w1 ?"))])


def test_unknown_answers_are_named():
    assert check_games([game(asked(1)), game(asked(2, correct=1))]) == [0, 1]
    with pytest.raises(UserError, match="'q3' has no correct answer"):
        check_games([game(asked(3, correct=None))])
    with pytest.raises(UserError, match="no finished games"):
        check_games([])
