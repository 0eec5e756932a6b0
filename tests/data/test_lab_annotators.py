import inspect
import re
from random import Random

import pytest

from debate_rl.data.lab import annotators
from debate_rl.data.lab.annotators import GPT, HUMAN, MIXES, draw, sentences, speech, speeches
from debate_rl.data.lab.vocabulary import KINDS
from debate_rl.data.lab.world import FAMILIES, questions
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.game.quotes import check_quotes

MADE = questions(n=150, seed=3)
EVERY = [question for family in FAMILIES for question in questions(family, n=40, seed=3)]


def spoken(skill, side=0, made=MADE):
    """Speeches of a skill with their checked quotes."""
    rng = Random(skill)
    for question in made:
        text = speech(question, side, skill, rng)
        yield question, text, check_quotes(text, question.passage)


@pytest.mark.parametrize("side", [0, 1])
def test_decisive_speech_is_the_contract(side):
    for question, text, quotes in spoken("decisive", side, EVERY):
        said = " and ".join(f"<quote> {sentence} </quote>" for sentence in question.evidence[side])
        assert text == f"the answer is {question.answers[side]} because {said}"
        assert [quote.verdict for quote in quotes] == ["exact"] * len(question.evidence[side])


def test_weak_quotes_are_true_and_share_a_word_but_are_not_decisive():
    for question, _, (quote,) in spoken("weak", made=EVERY):
        said, own = quote.text.strip(), question.evidence[0]
        assert quote.verdict == "exact" and said not in own
        others = [s for s in sentences(question.passage) if s not in own]
        words = {word for sentence in own for word in re.findall(r"\w+", sentence) if word in KINDS}
        near = [s for s in others if words & set(re.findall(r"\w+", s))]
        assert said in (near or others)


def test_weak_falls_back_on_what_there_is():
    only = "the pipe was moved to the shed at dusk by ines."
    alone = MADE[0].model_copy(update={"passage": only, "evidence": ((only,), ())})
    for skill in ("weak", "irrelevant"):
        assert only in speech(alone, 0, skill, Random(0))


def test_irrelevant_quotes_are_true_and_beside_the_point():
    for question, _, (quote,) in spoken("irrelevant", made=EVERY):
        said, every = quote.text.strip(), {s for backing in question.evidence for s in backing}
        assert quote.verdict == "exact"
        assert said not in every or set(sentences(question.passage)) == every


def test_misquotes_differ_by_one_word_from_a_decisive_sentence():
    for question, _, (quote,) in spoken("misquote", made=EVERY):
        said = quote.text.split()
        apart = [sum(a != b for a, b in zip(said, sentence.split(), strict=True)) for sentence in question.evidence[0]]
        assert 1 in apart
    assert all(quote.verdict in ("near", "invalid") for _, _, (quote,) in spoken("misquote"))


def test_retellings_are_no_quotes():
    near = 0
    for _, _, (quote,) in spoken("retell"):
        assert quote.verdict != "exact"
        near += quote.verdict == "near"
    assert near < 75


def test_wordy_is_long_and_slangy_is_slang():
    assert all(len(text.split()) > 25 for _, text, _ in spoken("wordy"))
    assert all({"yo", "nah", "legit"} & set(text.split()) for _, text, _ in spoken("slangy"))
    for skill in ("wordy", "slangy"):
        decisive = sum(quotes[0].text.strip() in question.evidence[0] for question, _, quotes in spoken(skill))
        assert 65 < decisive < 115
        assert all(quote.verdict == "exact" for _, _, quotes in spoken(skill) for quote in quotes)


def test_no_speech_depends_on_which_answer_is_correct():
    for question in EVERY[::4]:
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
    assert exact["gpt"] == 300 and 260 < exact["human"] < 296
    assert 0.85 < sum(draw(GPT, rng) == "decisive" for _ in range(1000)) / 1000 < 0.97


def test_same_seed_same_speeches():
    assert speeches(MADE[0], "human", Random(1)) == speeches(MADE[0], "human", Random(1))


def test_sentences_cut_a_passage_whole():
    assert sentences("a was b.  c saw.") == ["a was b.", "c saw."]


def test_mistakes_say_the_fix():
    with pytest.raises(UserError, match="did you mean 'misquote'"):
        speech(MADE[0], 0, "misqote", Random(0))
    with pytest.raises(UserError, match="did you mean 'human'"):
        speeches(MADE[0], "humans", Random(0))
    with pytest.raises(UserError, match="no passage or evidence"):
        speech(Question(id="q", text="?", answers=("a", "b")), 0, "weak", Random(0))
