"""What a model judge's verdict is read from, and what is subtracted from it."""

import math

import pytest

from debate_rl.data.models import model_path
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.judge import Judge, judge_transcripts, probability
from tests.engines.wire import WireServer, server_engine
from tests.judges.games import asked, game

LONG = Question(id="q", text="where ?", answers=("in the old shed", "barn"), correct=0, passage="it is in the shed .")


def by_words(each):
    """Log-probabilities of candidates: the words' number times what one word has in a choice."""
    return ScriptedEngine(score=lambda choice: [each(choice, one) * len(one.split()) for one in choice.candidates])


def listed_first(choice):
    """The answer that a default prompt lists first, or whose side speaks first where answers are not listed."""
    content = choice.messages[-1].content
    if "(A) " in content:
        return content.split("(A) ")[1].split(" (B)")[0]
    return content.split('<speech for="')[1].split('"')[0]


def test_answers_are_read_by_the_word_and_asked_for_by_the_prompt():
    engine = by_words(lambda choice, one: -1.0 if one == "barn" else -0.9)
    (verdict,) = judge_transcripts([game(LONG, prompts="default")], Judge(model="m", readout="answers"), engine)
    # Summed, four words at -0.9 would lose against one at -1.
    assert verdict.p[0] == pytest.approx(1 / (1 + math.exp(-0.1)))
    assert verdict.asks[0].logprobs == pytest.approx((-0.9, -1.0))
    for choice in engine.choices:
        assert choice.candidates == LONG.answers
        content = choice.messages[-1].content
        assert content.endswith("Reply with the answer alone, in a few words.") and "Answers:" not in content


def test_orders_are_averaged_in_log_odds():
    def score(choice, one):
        favoured = 4.0 if one == listed_first(choice) else 0.0
        return favoured + (0.5 if one == "barn" else 0.0) - 6.0

    judges = [Judge(model="m", readout="answers"), Judge(model="m", readout="answers", both_orders=False)]
    both, one = (judge_transcripts([game(LONG, prompts="default")], judge, by_words(score))[0] for judge in judges)
    assert both.p[0] == pytest.approx(1 / (1 + math.exp(0.5)))  # whatever the judge thinks of what is listed first
    assert one.p[0] == pytest.approx(1 / (1 + math.exp(-3.5)))


def test_what_the_judge_says_without_the_debate_is_subtracted():
    def score(choice, one):
        content = choice.messages[-1].content
        believes = 3.0 if one == "barn" else 0.0
        heard = 1.0 if one != "barn" and "said A" in content else 0.0
        assert "it is in the shed" not in content or "<text>" in content
        return believes + heard - 5.0

    judge = Judge(model="m", readout="answers_pmi")
    games = [game(LONG, prompts="default"), game(LONG, "blind", "default"), game(LONG, "open_book", "default")]
    debate, blind, open_book = judge_transcripts(games, judge, by_words(score))
    assert debate.p[0] == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert blind.p[0] == open_book.p[0] == pytest.approx(0.5)


@pytest.mark.parametrize(("readout", "prompts"), [("letters", "default"), ("answers", "default"), ("letters", "lab")])
def test_the_preference_for_what_is_listed_first_is_asked_once_a_shape(readout, prompts):
    def score(choice, one):
        content = choice.messages[-1].content
        listed = content.split("answers : ")[1].split(" or ")[0] if prompts == "lab" else listed_first(choice)
        knows = 0.7 if "N/A" not in content and one in ("A", "w1") else 0.0
        return (2.0 if one in (listed, "A") else 0.0) + knows - 4.0

    games = [game(asked(number), prompts=prompts) for number in range(3)]
    judge = Judge(model="m", readout=readout, debias="prior", both_orders=False)
    engine = by_words(score)
    verdicts = judge_transcripts(games, judge, engine)
    assert [one.p[0] for one in verdicts] == pytest.approx([1 / (1 + math.exp(-0.7))] * 3)
    assert len(engine.choices) == 3 + 2 and engine.calls == 1


def test_a_failure_of_what_is_subtracted_fails_the_game():
    def score(choice):
        if "N/A" in choice.messages[-1].content:
            raise RuntimeError("gone")
        return [0.0, 0.0]

    found = judge_transcripts([game(LONG)], Judge(model="m", debias="prior"), ScriptedEngine(score=score))
    assert isinstance(found[0], Failure) and found[0].message == "gone"


def test_the_lab_model_reads_answers_of_one_token_as_its_own_candidates(question, tmp_path):
    engine = StoredEngine(TransformersEngine(model_path, device="cpu"), tmp_path)
    games = [game(question, name) for name in ("debate", "blind")]
    letters = judge_transcripts(games, Judge(model="lab-small"), engine)
    answers = judge_transcripts(games, Judge(model="lab-small", readout="answers"), engine)
    assert engine.misses == 4  # the same choices: the second judge reads the store
    for one, other in zip(letters, answers, strict=True):
        assert [ask.logprobs for ask in other.asks] == [ask.logprobs for ask in one.asks]
        gap = sum(ask.logprobs[0] - ask.logprobs[1] for ask in one.asks) / 2
        assert other.p[0] == pytest.approx(probability((gap, 0.0)))
    pmi = judge_transcripts(games, Judge(model="lab-small", readout="answers_pmi"), engine)
    assert pmi[1].p == (0.5, 0.5) and isinstance(pmi[0], Verdict)
    plain = judge_transcripts(games, Judge(model="lab-small", debias="prior"), engine)
    assert all(isinstance(one, Verdict) for one in plain)


def test_a_server_that_scores_whole_answers_can_be_read_and_another_says_so_in_a_line():
    local = ScriptedEngine()
    judge = Judge(model="m", readout="answers")
    whole = WireServer(
        local,
        scores=lambda messages: {"x": -1.0},
        tokenize=lambda said: list(range(len(said.split()))) if isinstance(said, str) else [0] * 5,
        token_logprobs=lambda tokens: [-0.5] * (len(tokens) - 1),
    )
    first = WireServer(local, scores=lambda messages: {"barn": -0.2, "x": -3.0})
    try:
        (verdict,) = judge_transcripts([game(LONG)], judge, server_engine(whole.url))
        assert verdict.asks[0].logprobs == pytest.approx((-0.5, -0.5))
        with pytest.raises(UserError, match=r"judge.readout answers needs engines that score whole answers"):
            judge_transcripts([game(LONG)], judge, server_engine(first.url))
    finally:
        whole.close()
        first.close()
