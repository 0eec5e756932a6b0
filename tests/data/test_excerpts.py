"""Excerpts of long passages: nearest first, in story order, within the limit, the same for everyone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.config.tree import parse_config
from debate_rl.data.excerpts import excerpt_of, with_excerpts, words_count
from debate_rl.data.shorten import MARK
from debate_rl.data.sources import nyu
from debate_rl.errors import UserError
from debate_rl.game.prompts import critique_messages, debater_messages, judge_messages
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.runs.run import Run

FILLER = "Rain fell on the quiet hills for hours, and nobody came along the road to see it."


def asked(paragraphs, **changes):
    question = Question(
        id="q", text="Where is the pipe?", answers=("the barn", "the shed"), passage="\n\n".join(paragraphs)
    )
    return question.model_copy(update=changes)


def words(text):
    return len(text.split())


def test_paragraphs_near_to_question_and_answers_stay_in_story_order():
    near = ["The pipe was carried to the barn.", "Ines swept the shed and found no pipe."]
    paragraphs = [FILLER, near[0], FILLER, FILLER, near[1], FILLER]
    excerpt = excerpt_of(asked(paragraphs), 20, words)
    assert excerpt == f"{MARK}\n\n{near[0]}\n\n{MARK}\n\n{near[1]}\n\n{MARK}"


def test_neither_answer_is_favoured():
    paragraphs = [FILLER, "In the barn.", FILLER, "In the shed.", FILLER]
    one = excerpt_of(asked(paragraphs), 12, words)
    other = excerpt_of(asked(paragraphs, answers=("the shed", "the barn")), 12, words)
    assert one == other and "barn" in one and "shed" in one


def test_a_passage_that_fits_is_shown_whole():
    assert excerpt_of(asked([FILLER]), words(FILLER), words) is None
    (question,) = with_excerpts([asked([FILLER])], 1000)
    assert question.excerpt is None and question.shown_passage == FILLER
    assert "excerpt" not in question.model_dump()


def test_words_that_stand_nowhere_leave_the_beginning():
    excerpt = excerpt_of(asked([f"{n} {FILLER}" for n in range(6)], text="?", answers=("x", "y")), 40, words)
    assert excerpt.startswith("0 Rain") and excerpt.endswith(MARK)


def test_what_is_to_be_kept_goes_first():
    paragraphs = [FILLER, "The pipe is in the barn.", "Nothing of it was ever said again."]
    start = "\n\n".join(paragraphs).index("Nothing")
    excerpt = excerpt_of(asked(paragraphs), 9, words, keep=[(start, start + 5)])
    assert excerpt == f"{MARK}\n\n{paragraphs[2]}"


def test_a_long_paragraph_gives_its_sentences_and_a_long_sentence_its_words():
    text = " ".join([FILLER, FILLER, "The pipe is in the barn!", FILLER])
    assert excerpt_of(asked([text]), 10, words) == f"{MARK}\n\nThe pipe is in the barn!\n\n{MARK}"
    assert excerpt_of(asked(["pipe " * 50]), 5, words) == f"pipe pipe pipe pipe {MARK}"


@given(st.lists(st.lists(st.sampled_from(["pipe", "barn", "rain.", "it", "\u00e9t\u00e9"]), min_size=1, max_size=9),
                min_size=1, max_size=12), st.integers(2, 40))  # fmt: skip
def test_an_excerpt_keeps_to_the_limit_and_to_the_story(paragraphs, limit):
    question = asked([" ".join(paragraph) for paragraph in paragraphs])
    excerpt = excerpt_of(question, limit, words)
    if excerpt is None:
        assert words(question.passage) <= limit
        return
    assert 0 < words(excerpt) <= limit and MARK in excerpt
    place = 0
    for piece in excerpt.split(MARK):
        found = question.passage.find(piece.strip(), place)
        assert found >= place
        place = found + len(piece.strip())


def test_an_excerpt_chosen_once_stays():
    question = asked([FILLER] * 9, excerpt="chosen before")
    assert with_excerpts([question], 5, words) == [question]
    with pytest.raises(UserError, match="at least 1"):
        with_excerpts([question], 0)


def test_every_seat_sees_the_excerpt_and_quotes_are_checked_against_the_whole_story():
    hidden = "Ines whistled all the way home to her sister."
    (question,) = with_excerpts([asked([FILLER, "The pipe is in the barn.", hidden, *[FILLER] * 9])], 12, words)
    game = open_transcript(question, load_protocol("debate"), {"A": "x", "B": "y"})
    speech = read_speech("<quote>Ines whistled all the way</quote>", game, "A", 0, Origin(player="x"))
    assert [quote.verdict for quote in speech.quotes] == ["exact"]
    book = open_transcript(question, load_protocol("open_book"), {})
    prompts = [debater_messages(game, "A", 0), critique_messages(game, speech), judge_messages(book, (), (0, 1))]
    for prompt in prompts:
        text = prompt[-1]["content"]
        assert question.excerpt in text and hidden not in text
    blind = judge_messages(game.add([speech]), ("A", "B"), (0, 1))
    assert question.excerpt not in blind[-1]["content"]


def test_questions_of_a_run_are_cut_by_the_debaters_tokenizer_and_by_words_without_one():
    settings = {"questions": {"train": 3, "test": 2}, "protocol": {"prompts": "lab", "passage_tokens": 20}}
    questions = Run(parse_config({**settings, "stages": {}})).questions("test")
    assert all(MARK in question.excerpt for question in questions)
    server = {"engine": {"kind": "server", "url": "http://localhost:1/v1"}, "models": {"debater": "elsewhere"}}
    by_words = Run(parse_config({**settings, **server, "stages": {}})).questions("test")
    assert all(words_count(question.shown_passage) <= 20 for question in by_words)
    assert [question.passage for question in by_words] == [question.passage for question in questions]


def test_real_stories_are_cut_to_a_tenth(shared_data):
    questions = nyu.questions(shared_data / "nyu_2023", limit=5)
    shown = with_excerpts(questions, 700)
    for question in shown:
        assert 500 < words_count(question.excerpt) <= 700 < words_count(question.passage)
