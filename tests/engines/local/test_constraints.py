"""Grammars, openings and repetition penalties in the local engine, with a lab model."""

import pytest
import torch

from debate_rl.data.models import model_path
from debate_rl.data.questions import load_questions
from debate_rl.engines.grammars import Grammars, follows
from debate_rl.engines.load import load_tokenizer
from debate_rl.engines.local.engine import TransformersEngine, uniforms
from debate_rl.engines.local.sampling import Draw, decode
from debate_rl.engines.opening import request_ids
from debate_rl.engines.request import Completion, EngineFailure, Message, Request, Sampling
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.quote_grammar import QuoteRules, quote_grammar
from debate_rl.game.quotes import check_quotes
from debate_rl.game.transcript import Speech, open_transcript
from debate_rl.game.verdict import Verdict
from debate_rl.players.debater import Debater
from debate_rl.players.draw import Draw as SpeechDraw
from debate_rl.players.draw import write
from debate_rl.players.speak import Seat, speak
from tests.tiny import tiny_model

OPENING = "the answer is {answer}. <quote>"


@pytest.fixture(scope="module")
def stories():
    return load_questions("lab", None, "train", 2, 0)


@pytest.fixture(scope="module")
def engine():
    return TransformersEngine(model_path)


def requests_of(stories, **manner):
    """Requests of both sides of every story; the model draws hot, so that it invents quotes where it may."""
    player = Debater("base", model="lab-base", temperature=1.6, **manner)
    rules = load_protocol("debate", prompts="lab", max_new_tokens=28)
    games = [open_transcript(story, rules, {"A": "base", "B": "base"}, seed=2) for story in stories]
    return [player.request(game, side, 0) for game in games for side in "AB"]


def quotes_of(stories, requests, answers):
    passages = [story.passage for story in stories for _ in "AB"]
    found = []
    for passage, request, answer in zip(passages, requests, answers, strict=True):
        found += check_quotes(request.opening + answer.text, passage)
    return found


def test_constrained_quotes_are_exact_where_free_ones_are_not(engine, stories):
    rules = QuoteRules(constrained=True, min_words=3)
    free, held = requests_of(stories), requests_of(stories, quotes=rules, opening=OPENING)
    assert any(quote.verdict != "exact" for quote in quotes_of(stories, free, engine.generate(free)))
    quotes = quotes_of(stories, held, engine.generate(held))
    assert len(quotes) >= len(held)
    for quote in quotes:
        assert quote.verdict == "exact" and len(quote.text.split()) >= 3


def test_a_constrained_request_is_answered_the_same_alone_and_among_free_ones(engine, stories):
    manners = [
        {"quotes": QuoteRules(constrained=True)},
        {},
        {"repetition_penalty": 1.3, "top_p": 0.9},
        {"quotes": QuoteRules(constrained=True, sentences=True), "opening": OPENING, "repetition_penalty": 1.1},
    ]
    mixed = [request for manner in manners for request in requests_of(stories[:2], **manner)]
    together = engine.generate(mixed)
    alone = TransformersEngine(model_path, batch_tokens=256, cache_tokens=0)
    assert [alone.generate([request])[0] for request in mixed] == together
    assert len({answer.text for answer in together}) > len(mixed) // 2


def test_a_plain_request_has_the_key_and_the_random_numbers_that_it_had_before_there_were_grammars(stories):
    request = requests_of(stories[:1])[0]
    assert set(request.model_dump()) == {"messages", "model", "adapter", "sampling", "seed"}
    assert set(request.sampling.model_dump()) == {"max_new_tokens", "temperature", "top_p", "stop"}
    held = request.model_copy(update={"grammar": "start: /a/"})
    assert (uniforms(held) == uniforms(request)).all()


def test_the_store_keeps_free_and_constrained_answers_apart(engine, stories, tmp_path):
    (free, *_), (held, *_) = requests_of(stories[:1]), requests_of(stories[:1], quotes=QuoteRules(constrained=True))
    opened = free.model_copy(update={"opening": "it is"})
    penalised = free.model_copy(update={"sampling": free.sampling.model_copy(update={"repetition_penalty": 1.2})})
    stored = StoredEngine(engine, tmp_path)
    first = stored.generate([free, held, opened, penalised])
    assert (stored.misses, stored.hits) == (4, 0)
    assert stored.generate([free, held, opened, penalised]) == first and stored.hits == 4


def test_best_of_n_picks_among_constrained_speeches(engine, stories):
    quotes = QuoteRules(constrained=True)
    player = Debater("base@4", model="lab-base", temperature=1.6, best_of=4, quotes=quotes, opening=OPENING)
    rules = load_protocol("debate", prompts="lab", max_new_tokens=28)
    game = open_transcript(stories[0], rules, {"A": "base@4", "B": "base@4"}, seed=2)

    def longest(transcripts):
        return [Verdict(judge="length", p=(0.6, 0.4)) for _ in transcripts]

    (result,) = speak([Seat(game, "A", 0, player, (player,))], engine, longest)
    assert len(result.pool.candidates) == 4
    for speech in (*result.pool.candidates, *result.pool.opponents):
        assert speech.text.startswith("the answer is ")
        assert speech.quotes and all(quote.verdict == "exact" for quote in speech.quotes)


def test_a_speech_tells_how_it_was_held(engine, stories):
    rules = load_protocol("debate", prompts="lab", max_new_tokens=28)
    game = open_transcript(stories[0], rules, {"A": "x", "B": "x"})
    quotes = QuoteRules(constrained=True)
    player = Debater("x", model="lab-base", quotes=quotes, opening=OPENING, repetition_penalty=1.1)
    plain, held = write(
        [SpeechDraw(game, "A", 0, Debater("x", model="lab-base")), SpeechDraw(game, "A", 0, player)], engine
    )
    assert held.origin.opening == f"the answer is {stories[0].answers[0]}. <quote>"
    assert (held.origin.quotes, held.origin.repetition_penalty) == (quotes, 1.1)
    assert Speech.model_validate_json(held.model_dump_json()) == held
    assert not {"opening", "quotes", "repetition_penalty"} & set(plain.origin.model_dump())


def test_an_answer_goes_on_from_its_opening(engine):
    tokenizer = load_tokenizer(model_path("lab-base"))
    messages = (Message(role="user", content="where is the pipe"),)
    request = Request(messages=messages, model="lab-base", opening="the answer is", sampling=Sampling(temperature=0))
    plain = request.model_copy(update={"opening": ""})
    ids = request_ids(tokenizer, request)
    assert ids[: len(request_ids(tokenizer, plain))] == request_ids(tokenizer, plain)
    assert tokenizer.decode(ids).endswith("the answer is")
    (answer,) = engine.generate([request])
    assert answer.prompt_tokens == len(ids)


class Fixed:
    """Rows with the same logits at every step."""

    def __init__(self, *logits):
        self.logits = torch.tensor(logits)

    def step(self, tokens, going):
        if going is not None:
            self.logits = self.logits[going]


def test_a_repetition_penalty_divides_positive_logits_of_what_was_read_and_multiplies_negative_ones():
    sampling = Sampling(max_new_tokens=3, temperature=0, repetition_penalty=2)
    free = Sampling(max_new_tokens=3, temperature=0)
    rows = Fixed([4.0, 3.0, -1.0, 1.9], [4.0, 3.0, -1.0, 1.9])
    draws = [Draw(sampling, torch.rand(3).numpy(), prompt=(3,)), Draw(free, torch.rand(3).numpy(), prompt=(3,))]
    # 4 is drawn, then counts 2 against 3, then 3 counts 1.5 against 2.
    first, second = decode(rows, draws, frozenset(), lambda row, tokens: False)
    assert first.tokens == [0, 1, 0] and second.tokens == [0, 0, 0]


def test_a_tokenizer_that_can_not_write_the_passage_fails_that_request_alone(tmp_path):
    model = tiny_model(tmp_path)
    grammar = quote_grammar("xyzzy plugh frotz w3", QuoteRules(min_words=2), inside=True)
    messages = (Message(role="user", content="w1 w2"),)
    held = Request(messages=messages, model=model, grammar=grammar, sampling=Sampling(max_new_tokens=5))
    failed, fine = TransformersEngine().generate([held, held.model_copy(update={"grammar": None})])
    assert isinstance(failed, EngineFailure) and failed.kind == "grammar" and "no token" in failed.message
    assert isinstance(fine, Completion)


def test_end_tokens_are_allowed_where_a_grammar_is_complete_and_only_there():
    tokenizer = load_tokenizer(model_path("lab-base"))
    end = tokenizer.eos_token_id
    matcher = Grammars(tokenizer, len(tokenizer), [end]).matcher('%llguidance {}\nstart: " the" " pipe"\n')
    for word in ("the", "pipe"):
        assert not matcher.allowed()[end]
        matcher.read(tokenizer.convert_tokens_to_ids(word))
    assert matcher.allowed().nonzero()[0].tolist() == [end]


def test_a_grammar_with_a_mistake_is_refused_in_one_line():
    tokenizer = load_tokenizer(model_path("lab-base"))
    with pytest.raises(UserError, match="a grammar can not be compiled") as refusal:
        Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id]).matcher("start: (")
    assert "\n" not in str(refusal.value)
    assert not follows("start: (", "a")
