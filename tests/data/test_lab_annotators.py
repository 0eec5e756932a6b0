import inspect
from collections import Counter
from random import Random

import pytest

from debate_rl.data.lab import annotators
from debate_rl.data.lab.annotators import GPT, HUMAN, MIXES, draw, sentences, speech, speeches
from debate_rl.data.lab.world import questions
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.game.quotes import check_quotes

MADE = questions(n=150, seed=3)


def quotes_of(skill, side=0):
    rng = Random(skill)
    for question in MADE:
        text = speech(question, side, skill, rng)
        (quote,) = check_quotes(text, question.passage)
        yield question, text, quote


@pytest.mark.parametrize("side", [0, 1])
def test_decisive_speech_is_the_contract(side):
    for question, text, quote in quotes_of("decisive", side):
        assert text == f"the answer is {question.answers[side]} because <quote> {question.evidence[side]} </quote>"
        assert quote.verdict == "exact"


def test_weak_quotes_are_true_and_about_the_thing_but_not_decisive():
    kinds = Counter()
    for question, _, quote in quotes_of("weak"):
        assert quote.verdict == "exact"
        assert quote.text.strip().startswith(f"the {question.id.rsplit('-', 1)[1]} ")
        assert quote.text.strip() != question.evidence[0]
        kinds[question.evidence[0].startswith(quote.text.strip())] += 1
    assert kinds[True] > 20 and kinds[False] > 20


def test_irrelevant_quotes_are_true_and_beside_the_point():
    for question, _, quote in quotes_of("irrelevant"):
        assert quote.verdict == "exact" and quote.text.strip() not in question.evidence


def test_misquotes_differ_by_one_word_and_are_never_exact():
    for question, _, quote in quotes_of("misquote"):
        assert quote.verdict in ("near", "invalid")
        pairs = zip(quote.text.split(), question.evidence[0].split(), strict=True)
        assert sum(said != true for said, true in pairs) == 1


def test_retellings_are_no_quotes():
    near = 0
    for _, _, quote in quotes_of("retell"):
        assert quote.verdict != "exact"
        assert quote.text.strip().startswith(("at ", "it is told that "))
        near += quote.verdict == "near"
    assert near < 40


def test_wordy_is_long_and_slangy_is_slang():
    assert all(len(text.split()) > 30 for _, text, _ in quotes_of("wordy"))
    assert all({"yo", "nah", "legit"} & set(text.split()) for _, text, _ in quotes_of("slangy"))


def test_no_speech_depends_on_which_answer_is_correct():
    for question in MADE[:40]:
        other = question.model_copy(update={"correct": 1 - question.correct})
        unknown = question.model_copy(update={"correct": None})
        for skill in HUMAN:
            said = {speech(q, 1, skill, Random(5)) for q in (question, other, unknown)}
            assert len(said) == 1
    assert ".correct" not in inspect.getsource(annotators)


def test_mixes_sum_to_one_and_gpt_is_cleaner():
    assert all(abs(sum(mix.values()) - 1) < 1e-9 for mix in MIXES.values())
    rng = Random(0)
    exact = dict.fromkeys(MIXES, 0)
    for name in MIXES:
        for question in MADE:
            for text in speeches(question, name, rng):
                exact[name] += check_quotes(text, question.passage)[0].verdict == "exact"
    assert exact["gpt"] == 300 and 225 < exact["human"] < 280
    assert 0.85 < sum(draw(GPT, rng) == "decisive" for _ in range(1000)) / 1000 < 0.97


def test_same_seed_same_speeches():
    assert speeches(MADE[0], "human", Random(1)) == speeches(MADE[0], "human", Random(1))


def test_sentences_cut_a_passage_whole():
    assert sentences("a was b.  c saw.") == ["a was b.", "  c saw."]


def test_mistakes_say_the_fix():
    with pytest.raises(UserError, match="did you mean 'misquote'"):
        speech(MADE[0], 0, "misqote", Random(0))
    with pytest.raises(UserError, match="did you mean 'human'"):
        speeches(MADE[0], "humans", Random(0))
    with pytest.raises(UserError, match="no passage or evidence"):
        speech(Question(id="q", text="?", answers=("a", "b")), 0, "weak", Random(0))
