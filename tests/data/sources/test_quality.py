import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.sources import quality
from debate_rl.errors import UserError
from tests import SHARED

DATA = SHARED / "data"


def item(number=1, gold=2, votes=(3, 3, 1), difficult=1):
    """A question in the owner's form; the options say their numbers."""
    return {
        "question": f" Who kept the lamp number {number}?\n",
        "question_unique_id": f"T_{number}",
        "options": [f"Option {i} of {number} " for i in (1, 2, 3, 4)],
        "gold_label": gold,
        "difficult": difficult,
        "validation": [{"untimed_answer": gold, "untimed_best_distractor": vote} for vote in votes],
        "speed_validation": [],
    }


def article(number=1, items=None, text="The lamp stood in the tower."):
    return {
        "article_id": str(number),
        "set_unique_id": f"{number}_X",
        "article": text,
        "questions": items or [item(number)],
    }


def written(folder, rows, name="own.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_question_has_the_correct_answer_and_the_mode_of_the_best_distractors(tmp_path):
    (question,) = quality.load(written(tmp_path, [article()]))
    assert question.id == "quality-T_1"
    assert question.text == "Who kept the lamp number 1?"
    assert set(question.answers) == {"Option 2 of 1", "Option 3 of 1"}
    assert question.answers[question.correct] == "Option 2 of 1"
    assert (question.group, question.passage, question.source) == ("1", "The lamp stood in the tower.", "quality")


def test_sides_are_balanced_and_follow_the_seed(tmp_path):
    path = written(tmp_path, [article(n) for n in range(200)])
    sides = [q.correct for q in quality.load(path)]
    assert 70 <= sum(sides) <= 130
    assert sides == [q.correct for q in quality.load(path)]
    assert sides != [q.correct for q in quality.load(path, seed=1)]


def test_ties_of_the_distractor_are_drawn_and_votes_for_the_truth_do_not_count(tmp_path):
    rows = [article(n, [item(n, gold=2, votes=(2, 2, 2, 1, 4, None))]) for n in range(60)]
    wrong = [q.answers[1 - q.correct][:8] for q in quality.load(written(tmp_path, rows))]
    assert set(wrong) == {"Option 1", "Option 4"}
    assert 10 <= wrong.count("Option 1") <= 50


def test_without_votes_every_wrong_option_may_be_the_distractor(tmp_path):
    rows = [article(n, [item(n, votes=())]) for n in range(60)]
    wrong = {q.answers[1 - q.correct][:8] for q in quality.load(written(tmp_path, rows))}
    assert wrong == {"Option 1", "Option 3", "Option 4"}


def test_the_hard_slice_and_stories_left_out(tmp_path):
    rows = [article(n, [item(2 * n, difficult=0), item(2 * n + 1, difficult=1)]) for n in range(5)]
    path = written(tmp_path, rows)
    assert [q.id for q in quality.load(path, hard_only=True)] == [f"quality-T_{2 * n + 1}" for n in range(5)]
    assert {q.group for q in quality.load(path, without={"1", "3"})} == {"0", "2", "4"}
    assert len(quality.load(path, limit=3)) == 3


def test_the_older_layout_with_numbered_fields(tmp_path):
    row = {"article_id": 7, "unique_id": "7_Y", "article": ["<p>One lamp.</p>\n", "<p>Two lamps.</p>"]}
    for number, speed in ((1, [1, 1, 2]), (2, [3, 2, 2])):
        row |= {f"question{number}": f"Question {number}?", f"question{number}_gold_label": 1}
        row |= {f"question{number}option{i}": f"answer {i}" for i in (1, 2, 3, 4)}
        row |= {f"question{number}_eval3s": [4, 4, 2], f"question{number}_annotator_speed_answers": speed}
    path = written(tmp_path, [row, row])
    first, second = quality.load(path)
    assert (first.id, second.id, first.group) == ("quality-7_Y-1", "quality-7_Y-2", "7")
    assert set(first.answers) == {"answer 1", "answer 4"}
    assert first.passage == "One lamp.\n\nTwo lamps."
    assert quality.load(path, hard_only=True) == [second]  # none of three timed annotators was right


def test_the_owners_folder_gives_three_splits_that_share_no_story(tmp_path):
    rows = [article(n) for n in range(12)]
    written(tmp_path, rows[:6], "QuALITY.v1.0.1.train")
    written(tmp_path, rows[:4], "QuALITY.v1.0.1.htmlstripped.train")
    written(tmp_path, rows[6:], "QuALITY.v1.0.1.dev")
    groups = {s: {q.group for q in quality.load(tmp_path, split=s)} for s in ("train", "validation", "test")}
    assert groups["train"] == {"0", "1", "2", "3"}  # the stripped file comes first
    assert groups["validation"] | groups["test"] == {str(n) for n in range(6, 12)}
    assert len(groups["validation"]) == len(groups["test"]) == 3
    assert groups["test"] == {q.group for q in quality.load(tmp_path, split="test", seed=9)}
    every = quality.load(tmp_path)
    assert {(q.split, q.group) for q in every} == {(s, g) for s, names in groups.items() for g in names}


def test_a_file_of_another_name_is_cut_by_story(tmp_path):
    path = written(tmp_path, [article(n) for n in range(20)])
    parts = [quality.load(path, split=s) for s in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [14, 3, 3]
    assert len({q.id for part in parts for q in part}) == 20
    assert quality.load(written(tmp_path, [article()], "x.train"), split="test") == []


def test_html_becomes_paragraphs():
    text = (
        "<!DOCTYPE html><html><head><title>No</title><style>p {}</style></head><body>\n <h1>\n  The Lamp\n </h1>\n"
        "<p>\n  It was <i>not</i>\nlit&mdash;&quot;yet&quot; &amp; cold<br/>\n then</p><hr/>"
        "<p><img alt='A' src='a.png'/>t last &lt;it&gt; burnt.</p><table><tr><td>7</td></tr></table></body></html>"
    )
    assert quality.strip_html(text) == 'The Lamp\n\nIt was not lit—"yet" & cold\nthen\n\nAt last <it> burnt.'


@given(st.text(alphabet=st.characters(exclude_characters="<", codec="utf-8")))
def test_plain_text_is_left_alone(text):
    assert quality.strip_html(text) == text.strip()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"gold_label": 5}, r"own.jsonl:2: questions.0: .*gold_label 5 is not between 1 and 4"),
        ({"gold_label": None}, r"own.jsonl:2: questions.0.gold_label"),
        ({"options": "none"}, r"own.jsonl:2: questions.0.options"),
        ({"question": None}, r"own.jsonl:2: questions.0.question"),
        ({"question_unique_id": "T_1"}, r"own.jsonl:2: another question is also called 'quality-T_1'"),
    ],
)
def test_malformed_rows_are_named_by_file_and_line(tmp_path, change, complaint):
    path = written(tmp_path, [article(), article(2, [item(2) | change])])
    with pytest.raises(UserError, match=complaint):
        quality.load(path)


def test_the_owners_test_file_is_refused(tmp_path):
    bare = {key: value for key, value in item().items() if key != "gold_label"}
    with pytest.raises(UserError, match=r"QuALITY.v1.0.1.test:1: .*test file has none"):
        quality.load(written(tmp_path, [article(1, [bare])], "QuALITY.v1.0.1.test"))


def test_what_to_download_is_said(tmp_path):
    with pytest.raises(UserError, match=r"needs a path: download .*github.com/nyu-mll/quality"):
        quality.load()
    with pytest.raises(UserError, match=r"has no file QuALITY.v1.0.1.htmlstripped.dev; download"):
        quality.load(tmp_path, split="test")
    with pytest.raises(UserError, match="not found.*download"):
        quality.load(tmp_path / "absent")


@pytest.mark.skipif(
    not (DATA / "quality_example.jsonl").exists(), reason="needs the shared data: quality_example.jsonl"
)
def test_a_real_article():
    questions = quality.load(DATA / "quality_example.jsonl")
    assert len(questions) == 5  # the file holds one article twice
    assert all(len(set(q.answers)) == 2 for q in questions)
    assert {len(q.passage) for q in questions} == {len(questions[0].passage)}
    assert len(questions[0].passage) > 20_000
    assert "<" not in questions[0].passage
