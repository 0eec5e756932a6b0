"""What servers are sent and how long they are waited for: seeds, fields, `Retry-After`, texts that no file holds."""

import threading
import time
from email.utils import formatdate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from debate_rl.arena.rollout import play
from debate_rl.arena.schedule import self_play
from debate_rl.engines.parallel import Parallel
from debate_rl.engines.request import Choice, Completion, Message, Request, Sampling
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.server.endpoint import LONGEST_WAIT, wait_asked
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.verdict import PASSING_KINDS
from debate_rl.players.debater import Debater
from debate_rl.records import digest
from tests.command import mistake
from tests.engines.server.test_engine import logprobs, send, text
from tests.engines.wire import WireServer, server_engine


def asked(content="where is the pipe", seed=0, **sampling):
    messages = (Message(role="user", content=content),)
    return Request(messages=messages, model="m", seed=seed, sampling=Sampling(**sampling))


def choice(model="m"):
    return Choice(messages=(Message(role="user", content="A or B"),), model=model, candidates=("A", "B"))


def by_seed(handler, body):
    """A server whose noise is the seed and nothing else, as vLLM's: n draws take seed, seed + 1, ..."""
    drawn = [f"noise {digest(body['seed'] + index)}" for index in range(body.get("n", 1))]
    choices = [{"message": {"content": one}, "finish_reason": "stop"} for one in drawn]
    send(handler, {"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def test_sides_turns_and_questions_are_drawn_independently_where_the_noise_is_the_seed(answering, question, tmp_path):
    questions = [question.model_copy(update={"id": f"q{n}", "text": f"{question.text} {n}"}) for n in range(6)]
    games = self_play(["x"], questions, load_protocol("debate", turns=2))
    _, engine = answering(by_seed)
    front = Parallel(StoredEngine(engine, tmp_path), engine)
    legs = play(games, {"x": Debater(name="x", model="m")}, front, None)
    speeches = [speech.text for leg in legs for speech in leg.transcript.speeches]
    assert len(speeches) == 24 == len(set(speeches))
    _, other = answering(by_seed)
    again = play(games, {"x": Debater(name="x", model="m")}, other, None)
    assert [speech.text for leg in again for speech in leg.transcript.speeches] == speeches


def test_draws_from_one_prompt_differ_and_come_again(answering):
    draws = [asked(seed=seed) for seed in range(5)]
    _, engine = answering(by_seed)
    texts = [one.text for one in engine.generate(draws)]
    assert len(set(texts)) == 5 and [one.text for one in answering(by_seed)[1].generate(draws)] == texts


def current(*refused, limit="max_completion_tokens", words="Unsupported parameter: '{}' is not supported"):
    """Answers as OpenAI's current models: refuses some parameters, one at a time, by name."""

    def answer(handler, body):
        known = {"max_tokens", "max_completion_tokens"} - {limit}
        for name in (*known, *refused):
            value = body.get(name)
            if value is not None and not (name == "temperature" and value == 1):
                hint = f" with this model. Use '{limit}' instead." if name in known else " with this model."
                error = {"message": words.format(name) + hint, "param": name, "code": "unsupported_parameter"}
                send(handler, {"error": error}, 400)
                return
        send(handler, logprobs(A=0.7, B=0.2) if body.get("logprobs") else text(body["messages"][-1]["content"]))

    return answer


def test_what_a_model_refuses_is_learnt_once_and_then_it_is_sent_what_it_takes(answering, capsys):
    server, engine = answering(current("temperature", "top_p"))
    texts = engine.generate([asked(f"say {n}", temperature=0.5, max_new_tokens=9) for n in range(5)])
    assert all(isinstance(one, Completion) for one in texts)
    assert len(server.bodies) == 5 + 3  # max_tokens, temperature and top_p, each refused once
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 9 and not {"max_tokens", "temperature", "top_p"} & set(last)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "m takes no temperature" in said  # top_p was 1 anyhow


def test_a_refusal_of_two_together_leaves_out_the_one_that_changes_nothing(answering, capsys):
    def answer(handler, body):
        if "top_p" in body:
            said = "`temperature` and `top_p` cannot both be specified for this model"
            send(handler, {"error": {"message": said}}, 400)
        else:
            send(handler, text("x"))

    server, engine = answering(answer)
    assert isinstance(engine.generate([asked(temperature=0.5)])[0], Completion)
    assert server.bodies[-1]["temperature"] == 0.5 and len(server.bodies) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "said",
    [
        "temperature must be between 0 and 2",
        "max_tokens is too large: 5000, this model writes at most 4096",
        "please stop: the gateway is in maintenance",
    ],
)
def test_a_refusal_of_a_value_changes_nothing_that_is_sent(answering, said):
    ill = [True]

    def answer(handler, body):
        if ill:
            send(handler, {"error": {"message": said}}, 400)
        else:
            send(handler, text("x"))

    server, engine = answering(answer)
    (lost,) = engine.generate([asked(temperature=0.5, stop=("END",))])
    assert lost.kind == "request" and said in lost.message and len(server.bodies) == 1
    ill.clear()
    assert isinstance(engine.generate([asked(temperature=0.5, stop=("END",))])[0], Completion)
    assert server.bodies[1] == server.bodies[0]


def test_a_setting_says_beforehand_what_a_model_takes(answering):
    refused = {"m": ["max_tokens", "temperature", "top_p"]}
    server, engine = answering(current("temperature", "top_p"), refused=refused)
    assert isinstance(engine.generate([asked(temperature=0.5)])[0], Completion) and len(server.bodies) == 1


def test_texts_are_cut_at_stop_texts_where_the_model_takes_none(answering):
    _, engine = answering(current("stop"))
    (found,) = engine.generate([asked("say END more", stop=("END", "more"))])
    assert (found.text, found.finish) == ("re say ", "stop")


@pytest.mark.parametrize("status", [500, 503, 400])
def test_an_outage_does_not_make_a_server_one_that_writes_a_text_at_a_time(answering, status):
    """Else all later draws would pay for their prompt one by one."""
    ill = [True]

    def answer(handler, body):
        if ill:
            send(handler, {"error": {"message": "gone for a moment"}}, status)
        else:
            by_seed(handler, body)

    server, engine = answering(answer, retries=0)
    draws = [asked(seed=seed) for seed in range(8)]
    lost = engine.generate(draws)
    assert {one.kind for one in lost} <= PASSING_KINDS and len(server.bodies) == 2
    ill.clear()
    assert all(isinstance(one, Completion) for one in engine.generate(draws)) and server.bodies[-1]["n"] == 8


@pytest.mark.parametrize("status", [400, 403])
def test_a_judge_at_a_model_without_log_probabilities_says_what_to_change(answering, status):
    error = {"error": {"message": "You are not allowed to request logprobs from this model"}}
    _, engine = answering(lambda handler, body: send(handler, error, status))
    (found,) = engine.choose([choice()])
    assert found.kind == "log-probabilities" and "kind: stated" in found.message and "\n" not in found.message
    _, engine = answering(current())
    assert engine.choose([choice()])[0].logprobs[0] > -0.4


def test_an_account_without_credit_is_one_line_at_once(answering):
    error = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    server, engine = answering(lambda handler, body: send(handler, error, 429))
    with pytest.raises(UserError, match="no credit left .*top it up"):
        engine.generate([asked()])
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("0.5", 0.5), (" 7 ", 7.0), ("86400", LONGEST_WAIT), ("1e300", LONGEST_WAIT)]
    + [(value, 0.0) for value in ("", "-5", "soon", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "5, 5", "0x10")],
)
def test_how_long_a_server_is_waited_for(value, seconds):
    assert wait_asked(value) == seconds


def test_a_date_is_a_wait_until_then():
    assert 20 < wait_asked(formatdate(time.time() + 50, usegmt=True)) <= 50


@given(st.text())
def test_whatever_stands_in_retry_after_is_a_bounded_wait(value):
    assert 0 <= wait_asked(value) <= LONGEST_WAIT


@pytest.mark.parametrize("value", ["0.5", "-5", "soon", "86400", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "date"])
def test_waits_are_bounded_and_long_ones_are_said(answering, monkeypatch, capsys, value):
    slept = []
    monkeypatch.setattr("debate_rl.engines.server.endpoint.time.sleep", slept.append)
    asks = formatdate(time.time() + 7200, usegmt=True) if value == "date" else value

    def answer(handler, body):
        if len(server.bodies) == 1:
            send(handler, {"error": {"message": "slow down"}}, 429, Retry_After=asks)
        else:
            send(handler, text("x"))

    server, engine = answering(answer, retries=1)
    assert isinstance(engine.generate([asked()])[0], Completion)
    waits = [seconds for seconds in slept if seconds]
    assert len(waits) == 1 and 0 <= waits[0] <= LONGEST_WAIT + 1
    said = capsys.readouterr().err
    if value in ("86400", "date"):
        assert waits[0] >= LONGEST_WAIT and said.count("\n") == 1 and "Retry-After" in said
    else:
        assert waits[0] < 1 and not said


@pytest.mark.parametrize("dirt", [r"a \ud800 b", r"a \udc00 b", r"a \u0000 b", "a \0 b", "a \udfff b"])
def test_a_text_that_no_file_can_hold_is_cleaned_where_it_enters(answering, tmp_path, dirt):
    body = f'{{"choices": [{{"message": {{"content": "{dirt}"}}, "finish_reason": "stop"}}]}}'
    _, engine = answering(lambda handler, asked: send(handler, body.encode("utf-8", "surrogatepass")))
    (found,) = StoredEngine(engine, tmp_path).generate([asked()])
    assert found.text == "a \N{REPLACEMENT CHARACTER} b"
    assert StoredEngine(engine, tmp_path).generate([asked()]) == [found] and digest(found)


def test_an_emoji_in_escapes_stays_what_it_is(answering):
    body = b'{"choices": [{"message": {"content": "\\ud83d\\ude00 \\u0041"}, "finish_reason": "stop"}]}'
    _, engine = answering(lambda handler, asked: send(handler, body))
    assert engine.generate([asked()])[0].text == "\N{GRINNING FACE} A"


@pytest.mark.parametrize("path", ["_tokens", "token_logprobs"])
def test_what_may_pass_does_not_turn_exact_probabilities_into_bounds(path):
    """A candidate that is not among the likeliest tokens is scored whole, by a part of the server that fails once."""
    faults = [True]
    server = WireServer(
        ScriptedEngine(),
        scores=lambda messages: {"A": -0.1, "x": -3.0},
        tokenize=lambda said: [len(said), 2, 3],
        token_logprobs=lambda tokens: [-1.5] * (len(tokens) - 1),
    )
    whole = getattr(server, path)

    def flaky(asked):
        if faults and faults.pop():
            if path == "_tokens":
                return {"error": {"message": "oops"}}, 500
            raise ConnectionError  # the handler dies, and the connection with it
        return whole(asked)

    setattr(server, path, flaky)
    server.http.handle_error = lambda *client: None
    engine = server_engine(server.url, retries=0, timeout=5.0)
    lost, found = [engine.choose([choice()])[0] for _ in range(2)]
    server.close()
    assert lost.kind in PASSING_KINDS and found.logprobs == (-4.5, -4.5)


@pytest.mark.parametrize(("timings", "counted"), [({"predicted_n": 8}, 8 + 16 + 2), ({"predicted_n": 4}, 8), (None, 8)])
def test_texts_that_llama_cpp_leaves_out_of_its_usage_are_counted(answering, timings, counted):
    """Its usage and its timings are those of the first text; where they are not, usage counts all."""
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in ("a" * 32, "b" * 64, "c" * 8)]
    usage = {"prompt_tokens": 7, "completion_tokens": 8}
    _, engine = answering(lambda handler, body: send(handler, {"choices": choices, "usage": usage, "timings": timings}))
    found = engine.generate([asked(seed=seed) for seed in range(3)])
    assert sum(one.new_tokens for one in found) == engine.new_tokens == counted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
PLACES = {
    "text": ("choices", "choices.0", "choices.0.message", "choices.0.message.content", "choices.0.finish_reason",
             "choices.0.index", "choices.0.token_ids", "usage", "usage.prompt_tokens", "usage.completion_tokens",
             "usage.prompt_tokens_details", "usage.completion_tokens_details", "prompt_token_ids"),
    "score": ("choices", "choices.0", "choices.0.logprobs", "choices.0.logprobs.content", "usage",
              "choices.0.logprobs.content.0", "choices.0.logprobs.content.0.top_logprobs",
              "choices.0.logprobs.content.0.top_logprobs.0", "choices.0.logprobs.content.0.top_logprobs.0.logprob",
              "choices.0.logprobs.content.0.top_logprobs.0.token"),
}  # fmt: skip
"""What may be wrong in an answer."""


def with_value(answer, place, value):
    """An answer with something else in one place."""
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = answer
    for part in path:
        inner = inner[part]
    inner[last] = value
    return answer


@pytest.mark.parametrize("kind", PLACES)
def test_whatever_stands_in_an_answer_is_an_answer_or_a_failure_that_a_file_can_hold(answering, kind):
    sent = [{}]
    _, engine = answering(lambda handler, body: send(handler, sent[0]), keep_tokens=True)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from(PLACES[kind]), JSON)
    def check(place, value):
        healthy = text("x") if kind == "text" else logprobs(A=0.6, B=0.3)
        sent[0] = with_value(healthy, place, value)
        answers = engine.generate([asked()]) if kind == "text" else engine.choose([choice()])
        assert answers[0].model_dump_json()

    check()


def test_no_connection_is_lost_to_bodies_that_are_given_up(answering, monkeypatch):
    """Else the pool is empty after as many of them as there are connections, and the next request waits forever."""
    monkeypatch.setattr("debate_rl.engines.server.endpoint.BODY_TIMEOUTS", 1)
    over = threading.Event()

    def answer(handler, body):
        if len(server.bodies) > 4:
            send(handler, text("x"))
            return
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not over.wait(0.02):
                handler.wfile.write(b" ")
        except OSError:
            handler.close_connection = True

    server, engine = answering(answer, timeout=0.2, retries=0)
    kinds = [getattr(engine.generate([asked(f"say {n}")])[0], "kind", "fine") for n in range(6)]
    over.set()
    assert kinds == ["time-out"] * 4 + ["fine"] * 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no.such.host.invalid/v1", "https://127.0.0.1:9/v1"])
def test_a_refused_connection_is_one_line(url, tmp_path, call):
    config = tmp_path / "t.yaml"
    config.write_text(
        f"name: t\nruns: {tmp_path / 'runs'}\nquestions: {{train: 2, test: 2}}\ntracking: {{mode: disabled}}\n"
        f"models: {{debater: m, judge: m}}\nengine: {{kind: server, url: '{url}', retries: 0}}\n"
        "stages: {tournament: {players: [base, base@2], resamples: 20}}\n"
    )
    line = mistake(call("run", config))
    assert "no answer from" in line and "is the server up" in line and "answered before" not in line
