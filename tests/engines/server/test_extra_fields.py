"""Openings, grammars and repetition penalties at servers, sent under each one's names."""

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.engines.request import Completion, EngineFailure, Message, Request, Sampling
from debate_rl.engines.server.engine import ServerEngine
from debate_rl.errors import UserError
from debate_rl.game.quote_grammar import QuoteRules, quote_grammar
from tests.engines.server.test_engine import send

GRAMMAR = quote_grammar("the pipe was moved to the shed", QuoteRules(min_words=2), inside=True)
HELD = "the pipe was</quote> so there"
SAMPLERS = ["penalties", "temperature", "top_p"]
"""What llama.cpp draws with where nothing is to be left out of its draws in silence."""


def says(content, llguidance=True):
    """A server that answers with a text; as llama.cpp shows them, grammars of schemas are those of its library."""

    def answer(handler, body):
        if "json_schema" not in body:
            send(handler, said(content))
            return
        grammar = "%llguidance {}\nstart: %json {}" if llguidance else "root ::= value"
        send(handler, {"content": "}", "generation_settings": {"grammar": grammar}})

    return answer


def said(content):
    """An answer of one text."""
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def held(seed=0, **changes):
    request = Request(
        messages=(Message(role="user", content="where is it"),),
        model="m",
        opening="The text says: <quote>",
        grammar=GRAMMAR,
        sampling=Sampling(max_new_tokens=30, repetition_penalty=1.2),
        seed=seed,
    )
    return request.model_copy(update=changes)


def written(engine: ServerEngine, *requests):
    answers = engine.generate(requests)
    assert all(isinstance(answer, Completion) for answer in answers)
    return [answer.text for answer in answers]


@pytest.mark.parametrize(
    ("software", "sent"),
    [
        (
            "vllm",
            {
                "structured_outputs": {"grammar": GRAMMAR},
                "repetition_penalty": 1.2,
                "continue_final_message": True,
                "add_generation_prompt": False,
            },
        ),
        ("sglang", {"ebnf": GRAMMAR, "repetition_penalty": 1.2, "continue_final_message": True}),
        ("llama.cpp", {"grammar": GRAMMAR, "repeat_penalty": 1.2, "repeat_last_n": -1, "samplers": SAMPLERS}),
    ],
)
def test_each_server_is_sent_its_own_fields(answering, software, sent):
    server, engine = answering(says(HELD), software=software)
    assert written(engine, held()) == [HELD]
    (body,) = (body for body in server.bodies if "messages" in body)
    assert body["messages"][-1] == {"role": "assistant", "content": "The text says: <quote>"}
    plain = {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
    assert {key: value for key, value in body.items() if key not in plain} == sent
    assert GRAMMAR.startswith("%llguidance {}\n")  # by which SGLang and llama.cpp tell it from their own kinds


def test_plain_requests_carry_none_of_these_fields(answering):
    for software, more in (("vllm", {}), ("llama.cpp", {"samplers": SAMPLERS})):
        server, engine = answering(says("x"), software=software)
        written(engine, held(opening="", grammar=None, sampling=Sampling(max_new_tokens=30)))
        (body,) = server.bodies
        plain = {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
        assert {key: value for key, value in body.items() if key not in plain} == more


def test_an_opening_that_a_server_repeats_is_not_doubled(answering):
    _, engine = answering(lambda handler, body: send(handler, said(f"The text says: <quote>{HELD}")), software="vllm")
    assert written(engine, held()) == [HELD]


def test_texts_under_different_grammars_are_different_requests(answering):
    server, engine = answering(lambda handler, body: send(handler, said(HELD)), software="vllm")
    other = quote_grammar("the pipe was here", QuoteRules(min_words=2), inside=True)
    assert written(engine, held(), held(grammar=other)) == [HELD, HELD]
    assert len(server.bodies) == 2


def test_a_server_that_does_not_know_the_field_is_found_out_by_its_text(answering):
    _, engine = answering(lambda handler, body: send(handler, said("invented words</quote>")), software="vllm")
    with pytest.raises(UserError, match="did not keep to a grammar; start vLLM with .*guidance"):
        engine.generate([held()])


def test_a_server_built_without_the_library_is_refused_with_what_to_do(answering):
    def refuses(handler, body):
        send(handler, {"error": {"message": "failed to parse grammar: llguidance is not enabled"}}, 400)

    _, engine = answering(refuses, software="vllm")
    with pytest.raises(UserError, match="takes no grammar .*start vLLM with"):
        engine.generate([held()])


@pytest.mark.parametrize("shown", [says(HELD, llguidance=False), lambda handler, body: send(handler, {}, 404)])
def test_a_llama_cpp_that_a_grammar_would_end_is_sent_none(answering, shown):
    """Built without the library it aborts at such a grammar; it shows how it was built by what becomes of a schema."""
    server, engine = answering(shown, software="llama.cpp")
    with pytest.raises(UserError, match="does not show that it takes a grammar; build llama.cpp .*LLAMA_LLGUIDANCE=ON"):
        engine.generate([held(), held(seed=1)])
    assert all("messages" not in body for body in server.bodies)


def test_how_a_llama_cpp_was_built_is_asked_once(answering):
    server, engine = answering(says(HELD), software="llama.cpp")
    for seed in range(3):
        assert written(engine, held(seed)) == [HELD]
    assert sum("json_schema" in body for body in server.bodies) == 1


def test_another_refusal_stays_the_failure_of_its_request(answering):
    def refuses(handler, body):
        send(handler, {"error": {"message": "the prompt is too long"}}, 400)

    _, engine = answering(refuses, software="vllm")
    (answer,) = engine.generate([held()])
    assert isinstance(answer, EngineFailure) and "too long" in answer.message


def test_without_knowing_the_server_nothing_is_sent(answering):
    server, engine = answering(lambda handler, body: send(handler, said(HELD)))
    with pytest.raises(UserError, match="set engine.software to vllm, sglang or llama.cpp"):
        engine.generate([held()])
    assert not server.bodies


@pytest.mark.parametrize(
    ("players", "key"),
    [
        ({"quotes": {"constrained": True}}, "quotes.constrained"),
        ({"opening": "I say:"}, "opening"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
    ],
)
def test_a_config_for_an_unknown_server_is_refused_when_it_is_read(players, key):
    engine = {"kind": "server", "url": "http://localhost:8000/v1"}
    with pytest.raises(UserError, match=rf"players\.{key}: OpenAI's API has no field for it; set engine\.software"):
        parse_config({"engine": engine, "players": players})
    assert parse_config({"engine": {**engine, "software": "sglang"}, "players": players}).players.model_dump()
    assert parse_config({"engine": engine, "players": {"top_p": 0.9}}).players.top_p == 0.9
