import pytest

from debate_rl.analysis.judging.prior_accuracy import by_knowledge, knowledge
from tests.analysis.test_accuracy import legs


@pytest.mark.parametrize(
    ("p", "unsure", "known"),
    [(0.5, 0.0, "unsure"), (0.6, 0.1, "unsure"), (0.61, 0.1, "right"), (0.4, 0.1, "unsure"), (0.39, 0.1, "wrong"),
     (0.51, 0.0, "right"), (0.49, 0.0, "wrong")],
)  # fmt: skip
def test_a_blind_verdict_is_right_wrong_or_neither(question, p, unsure, known):
    assert set(knowledge(legs(question, "blind", "-", [p, p]), unsure).values()) == {known}


def test_each_group_has_its_own_scores_and_they_add_up(question):
    blind = legs(question, "blind", "-", [0.9] * 4 + [0.1] * 3 + [0.55] * 2 + [0.9])
    debate = legs(question, "debate", "x", [0.9] * 4 + [0.9, 0.9, 0.2] + [0.1] * 2 + [0.9])
    found = by_knowledge({("debate", "x"): debate, ("blind", "-"): blind[:-1]})
    assert found.questions == {"right": 4, "wrong": 3, "unsure": 2} and found.left_out == 1
    rows = {row.known: row for row in found.rows}
    assert {known: row.accuracy.n for known, row in rows.items()} == found.questions
    assert rows["right"].accuracy.value == 1 and rows["unsure"].accuracy.value == 0
    assert rows["wrong"].accuracy.value == pytest.approx(2 / 3) and rows["wrong"].accuracy.clusters == 2
    assert rows["right"].brier.value == pytest.approx(0.01)


def test_the_bare_question_must_have_been_asked(question):
    open_book = legs(question, "open_book", "-", [0.9] * 4)
    assert by_knowledge({("open_book", "-"): open_book}) is None
    failed = legs(question, "blind", "-", [0.9] * 2, failed=2)
    assert by_knowledge({("blind", "-"): failed}) is None
