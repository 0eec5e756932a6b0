"""Request fields that a model refuses: learnt from its first refusal, or said beforehand by `engine.refused`."""

import json

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.engines.request import Choice, Completion, Message, Request, Sampling
from debate_rl.runs.run import Run
from tests.command import mistake
from tests.engines.server.test_engine import logprobs, send, text


def asked(content, model="m", seed=0, **sampling):
    messages = (Message(role="user", content=content),)
    return Request(messages=messages, model=model, seed=seed, sampling=Sampling(**sampling))


def choice(model="m"):
    return Choice(messages=(Message(role="user", content="A or B"),), model=model, candidates=("A", "B"))


def newer(*refused, models=("m",), limit="max_completion_tokens"):
    """Answers as OpenAI's newer models: some fields are refused, one at a time, by name."""

    def answer(handler, body):
        for name in ("max_tokens", *refused) if body["model"] in models else ():
            if name in body:
                hint = f" Use '{limit}' instead." if name == "max_tokens" else " Only the default value is supported."
                message = f"Unsupported parameter: '{name}' is not supported with this model.{hint}"
                error = {"message": message, "param": name, "code": "unsupported_parameter"}
                send(handler, {"error": error}, 400)
                return
        send(handler, logprobs(A=0.7, B=0.2) if body.get("logprobs") else text(body["messages"][-1]["content"]))

    return answer


def test_each_refused_field_costs_one_request_and_later_ones_send_what_the_model_takes(answering):
    server, engine = answering(newer("temperature", "top_p"))
    texts = engine.generate([asked(f"say {n}", temperature=0.5, top_p=0.9, max_new_tokens=9) for n in range(5)])
    assert all(isinstance(one, Completion) for one in texts)
    assert len(server.bodies) == 5 + 3
    for body in server.bodies[3:]:
        assert body["max_completion_tokens"] == 9 and not {"max_tokens", "temperature", "top_p"} & set(body)
    engine.generate([asked("again")])
    assert len(server.bodies) == 9


def test_a_temperature_that_is_not_taken_is_said_once(answering, capsys):
    _, engine = answering(newer("temperature", "top_p"))
    engine.generate([asked(f"say {n}", temperature=0.5) for n in range(5)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("m takes no temperature")  # top_p was what the server takes anyhow


def test_many_requests_at_a_time_learn_the_same(answering):
    server, engine = answering(newer("temperature", "top_p"), concurrency=8)
    texts = engine.generate([asked(f"say {n}", temperature=0.5) for n in range(40)])
    assert all(isinstance(one, Completion) for one in texts)
    assert len(server.bodies) <= 40 + 3 * 8  # those under way when the first was refused


def test_what_one_model_refuses_another_is_still_sent(answering):
    server, engine = answering(newer("temperature", models=("new",)))
    for model in ("new", "old"):
        assert isinstance(engine.generate([asked("hi", model, temperature=0.5, max_new_tokens=9)])[0], Completion)
    last = server.bodies[-1]
    assert (last["model"], last["max_tokens"], last["temperature"]) == ("old", 9, 0.5)


def test_verdicts_of_a_newer_model_are_asked_for_with_what_it_takes(answering):
    server, engine = answering(newer("temperature", "top_p"))
    scores = [engine.choose([choice()])[0] for _ in range(3)]
    assert all(one.logprobs[0] > one.logprobs[1] for one in scores)
    assert len(server.bodies) == 3 + 3 and server.bodies[-1]["max_completion_tokens"] == 1


def test_a_model_that_gives_no_log_probabilities_says_what_to_change(answering):
    server, engine = answering(newer("temperature", "top_p", "logprobs"))
    failure = engine.choose([choice()])[0]
    assert failure.kind == "log-probabilities" and "kind: stated" in failure.message
    assert "logprobs" in server.bodies[-1], "a verdict can not be done without"


def test_a_setting_says_beforehand_what_a_model_takes(answering):
    server, engine = answering(newer("temperature", "top_p"), refused={"m": ("max_tokens", "temperature", "top_p")})
    assert isinstance(engine.generate([asked("hi", temperature=0.5, max_new_tokens=9)])[0], Completion)
    assert len(server.bodies) == 1 and server.bodies[0]["max_completion_tokens"] == 9


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("temperature", "temperature must be between 0 and 2"),
        (
            "temperature",
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
        ),
        ("max_tokens", "max_tokens is too large: 9000. This model supports at most 4096 completion tokens."),
        ("max_tokens", "max_tokens cannot be greater than 4096"),
        ("temperature", "temperature: 3 is not supported, it can not exceed 2"),
    ],
)
def test_a_refused_value_fails_its_own_request_and_nothing_is_left_out_for_others(answering, field, message):
    def answer(handler, body):
        if body.get(field, 0) > (2 if field == "temperature" else 4096):
            send(handler, {"error": {"message": message, "param": field}}, 400)
        else:
            send(handler, text("x"))

    server, engine = answering(answer)
    wrong = asked("hot", temperature=3.0) if field == "temperature" else asked("long", max_new_tokens=9000)
    failure, fine = engine.generate([wrong, asked("fine", temperature=0.5, max_new_tokens=9)])
    assert failure.kind == "request" and message in failure.message and isinstance(fine, Completion)
    assert (server.bodies[-1]["temperature"], server.bodies[-1]["max_tokens"]) == (0.5, 9)


@pytest.mark.parametrize(
    "message",
    [
        "This model does not accept the parameter temperature",
        "The following parameters are forbidden: temperature",
        "temperature is fixed at 1 for this model",
        "Invalid parameter: temperature. Reasoning models only accept temperature=1",
        "Argument not recognised: temperature",
        "no such parameter: temperature",
        "invalid temperature: only 1 is allowed for this model",
        "The parameter temperature has been disabled",
    ],
)
def test_a_refusal_in_other_words_is_understood(answering, message):
    def answer(handler, body):
        if "temperature" in body:
            send(handler, {"error": {"message": message}}, 400)
        else:
            send(handler, text("x"))

    _, engine = answering(answer)
    assert isinstance(engine.generate([asked("hi", temperature=0.5)])[0], Completion)


def test_stop_texts_that_are_too_many_for_a_server_are_not_left_out(answering):
    def answer(handler, body):
        send(handler, {"error": {"message": "stop: cannot have more than 4 sequences"}}, 400)

    _, engine = answering(answer)
    assert engine.generate([asked("hi", stop=("a", "b", "c", "d", "e"))])[0].kind == "request"


@pytest.mark.parametrize(
    ("top_p", "message"),
    [
        (0.9, "`top_p` is not supported together with `temperature` for this model"),
        (1.0, "`temperature` and `top_p` cannot both be specified for this model"),
    ],
    ids=["the first that is named", "the one that changes nothing"],
)
def test_of_two_fields_that_do_not_go_together_one_is_left_out(answering, top_p, message):
    def answer(handler, body):
        if "temperature" in body and "top_p" in body:
            send(handler, {"error": {"message": message}}, 400)
        else:
            send(handler, text("x"))

    server, engine = answering(answer)
    assert isinstance(engine.generate([asked("hi", temperature=0.5, top_p=top_p)])[0], Completion)
    assert server.bodies[-1]["temperature"] == 0.5 and "top_p" not in server.bodies[-1]


def test_engine_refused_of_a_config_reaches_the_server(answering, tmp_path):
    server, _ = answering(newer("temperature"))
    engine = {"kind": "server", "url": server.url, "refused": {"m": ["max_tokens", "temperature"]}}
    tree = {
        "name": "r", "runs": str(tmp_path), "engine": engine, "tracking": {"mode": "disabled"},
        "models": dict.fromkeys(("debater", "judge", "weak", "strong"), "m"),
        "stages": {"tournament": {"players": ["base", "base@2"]}},
    }  # fmt: skip
    run = Run(parse_config(tree), say=lambda line: None)
    assert isinstance(run.engine.generate([asked("hi", temperature=0.5, max_new_tokens=9)])[0], Completion)
    (body,) = server.bodies
    assert body["max_completion_tokens"] == 9 and not {"max_tokens", "temperature"} & set(body)


def test_a_field_that_can_not_be_left_out_is_one_line(tmp_path, call):
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"name": "r", "engine": {"kind": "server", "refused": {"m": ["messages"]}}}))
    assert "refused" in mistake(call("run", path, "--dry-run"))
