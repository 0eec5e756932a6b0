import json
import math
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Sampling, Scores
from debate_rl.engines.server.first_token import candidate_scores
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from tests.engines.wire import server_engine

KEY = "sk-very-secret-0123456789"


class Server:
    """A real HTTP server whose answer to each try is given by a function of (prompt, number of the try)."""

    def __init__(self, answer):
        self.answer = answer
        self.tries = Counter()
        self.bodies, self.headers = [], []
        self.busy = self.most_busy = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
                with lock:
                    outer.tries[prompt] += 1
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.busy += 1
                    outer.most_busy = max(outer.most_busy, outer.busy)
                    number = outer.tries[prompt]
                try:
                    outer.answer(self, prompt, number)
                finally:
                    with lock:
                        outer.busy -= 1

            def log_message(self, *words):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def send(handler, value, status=200, cut=0, **headers):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    for name, content in headers.items():
        handler.send_header(name.replace("_", "-"), content)
    handler.end_headers()
    handler.wfile.write(data[: len(data) - cut])
    if cut:
        handler.close_connection = True


def text(prompt, finish="stop"):
    message = {"role": "assistant", "content": f"re {prompt}"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def logprobs(**tokens):
    top = [{"token": token, "logprob": math.log(p)} for token, p in tokens.items()]
    choice = {"message": {"content": "A"}, "finish_reason": "length", "logprobs": {"content": [{"top_logprobs": top}]}}
    return {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 1}}


@pytest.fixture
def serve():
    """Start a server for an answering function: (server, engine)."""
    started = []

    def start(answer, **settings):
        server = Server(answer)
        started.append(server)
        return server, server_engine(server.url, **{"backoff": 0.01, "timeout": 5.0, "retries": 3, **settings})

    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()


def requests(count, **fields):
    return [Request(messages=(Message(role="user", content=f"say {i}"),), model="m", **fields) for i in range(count)]


def choice(prompt="which", candidates=("A", "B")):
    return Choice(messages=(Message(role="user", content=prompt),), model="m", candidates=candidates)


def test_equal_requests_of_a_call_are_paid_for_once(serve):
    server, engine = serve(lambda h, prompt, n: send(h, text(f"{prompt}, try {n}")))
    answers = engine.generate(requests(3) + requests(3))
    assert len(server.bodies) == 3 and answers[:3] == answers[3:]


def test_texts_come_in_order_with_their_sampling(serve):
    server, engine = serve(lambda h, prompt, n: send(h, text(prompt)))
    sampling = Sampling(max_new_tokens=9, temperature=0.3, top_p=0.9, stop=("END",))
    found = engine.generate(requests(20, sampling=sampling, seed=2**40 + 5, adapter="run/dpo-7"))
    assert [one.text for one in found] == [f"re say {i}" for i in range(20)]
    assert (found[0].prompt_tokens, found[0].new_tokens, found[0].finish) == (7, 3, "stop")
    sent = server.bodies[0]
    assert {key: sent[key] for key in ("model", "max_tokens", "temperature", "top_p", "stop")} == {
        "model": "run/dpo-7", "max_tokens": 9, "temperature": 0.3, "top_p": 0.9, "stop": ["END"],
    }  # fmt: skip
    assert (engine.prompt_tokens, engine.new_tokens) == (140, 60)
    assert engine.generate([]) == []


def test_no_more_requests_than_wanted_are_under_way(serve):
    def slow(handler, prompt, number):
        time.sleep(0.05)
        send(handler, text(prompt))

    server, engine = serve(slow, concurrency=3)
    engine.generate(requests(12))
    assert server.most_busy == 3


def drop(handler):
    handler.close_connection = True
    handler.connection.close()


FAULTS = {
    "rate limit": lambda h, prompt: send(h, {"error": {"message": "slow down"}}, 429),
    "server error": lambda h, prompt: send(h, b"oops", 500),
    "truncated": lambda h, prompt: send(h, text(prompt), cut=10),
    "dropped": lambda h, prompt: drop(h),
    "hang": lambda h, prompt: time.sleep(0.6),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_tried_again(serve, fault):
    def answer(handler, prompt, number):
        if number <= 2 and prompt == "say 1":
            FAULTS[fault](handler, prompt)
        else:
            send(handler, text(prompt))

    server, engine = serve(answer, timeout=0.3)
    assert [one.text for one in engine.generate(requests(3))] == ["re say 0", "re say 1", "re say 2"]
    assert server.tries == {"say 0": 1, "say 1": 3, "say 2": 1}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("rate limit", "rate limit"),
        ("server error", "server"),
        ("truncated", "connection"),
        ("dropped", "connection"),
        ("hang", "time-out"),
    ],
)
def test_a_lasting_fault_fails_its_own_request_only(serve, fault, kind):
    server, engine = serve(
        lambda h, prompt, n: FAULTS[fault](h, prompt) if prompt == "say 1" else send(h, text(prompt)),
        timeout=0.3, retries=2,
    )  # fmt: skip
    found = engine.generate(requests(3))
    assert [isinstance(one, Completion) for one in found] == [True, False, True]
    assert found[1].kind == kind and server.url in found[1].message
    assert server.tries["say 1"] == 3


def test_the_server_says_how_long_to_wait(serve):
    def answer(handler, prompt, number):
        if number == 1:
            send(handler, {}, 429, Retry_After="1")
        else:
            send(handler, text(prompt))

    _, engine = serve(answer)
    began = time.monotonic()
    assert isinstance(engine.generate(requests(1))[0], Completion)
    assert time.monotonic() - began >= 1


def test_half_a_batch_missing_and_answers_of_no_form_are_failures(serve):
    broken = {
        "say 0": {"choices": []},
        "say 1": {"error": "gone"},
        "say 2": b"<html>proxy</html>",
        "say 3": text("say 3", finish="content_filter"),
        "say 4": [1, 2],
        "say 5": {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
    }
    server, engine = serve(lambda h, prompt, n: send(h, broken.get(prompt, text(prompt))))
    found = engine.generate(requests(8))
    assert [getattr(one, "kind", "fine") for one in found] == [
        "malformed", "malformed", "malformed", "filtered", "malformed", "no text", "fine", "fine",
    ]  # fmt: skip
    assert set(server.tries.values()) == {1}


def test_a_request_too_long_is_not_tried_again(serve):
    server, engine = serve(
        lambda h, prompt, n: send(h, text(prompt)) if prompt == "say 0"
        else send(h, {"error": {"message": "maximum context length is 8192"}}, 400)
    )  # fmt: skip
    found = engine.generate(requests(2))
    assert found[1] == EngineFailure(
        kind="context", message=f"{server.url} answered 400: maximum context length is 8192"
    )
    assert server.tries["say 1"] == 1


def test_choices_are_scored_by_the_first_token(serve):
    server, engine = serve(lambda h, prompt, n: send(h, logprobs(**{"A": 0.5, " A": 0.1, "B": 0.2, "The": 0.1})))
    (found,) = engine.choose([choice()])
    assert [math.exp(p) for p in found.logprobs] == pytest.approx([0.6, 0.2]) and found.prompt_tokens == 11
    assert {key: server.bodies[0][key] for key in ("max_tokens", "logprobs", "top_logprobs", "temperature")} == {
        "max_tokens": 1, "logprobs": True, "top_logprobs": 20, "temperature": 1.0,
    }  # fmt: skip


def test_a_candidate_that_is_not_shown_gets_its_upper_bound():
    assert candidate_scores(("A", "B"), [("A", math.log(0.9)), ("x", math.log(0.04))]) == pytest.approx(
        (math.log(0.9), math.log(0.04))
    )
    assert candidate_scores(("A", "B"), [("A", math.log(0.9)), ("x", math.log(0.09))])[1] == pytest.approx(
        math.log(0.01)
    )
    assert candidate_scores(("A", "B"), [("A", 0.0)])[1] == pytest.approx(math.log(1e-9))
    assert candidate_scores(("A", "B"), [("The", -0.1)]) is None and candidate_scores(("A", "B"), []) is None


def test_a_server_without_log_probabilities_says_what_to_change(serve):
    answers = {
        "none": lambda h: send(h, text("x")),
        "null": lambda h: send(h, {"choices": [{"message": {"content": "A"}, "logprobs": None}]}),
        "refused": lambda h: send(h, {"error": {"message": "logprobs is not supported"}}, 400),
    }
    server, engine = serve(lambda h, prompt, n: answers[prompt](h))
    for found in engine.choose([choice(name) for name in answers]):
        assert found.kind == "log-probabilities" and "kind: stated" in found.message
    assert set(server.tries.values()) == {1}


def test_an_answer_that_begins_with_neither_name(serve):
    _, engine = serve(
        lambda h, prompt, n: send(h, logprobs(The=0.7, I=0.2) if prompt == "x" else logprobs(A=0.7, B=0.2))
    )
    neither, fine = engine.choose([choice("x"), choice("y")])
    assert neither.kind == "neither" and "'The'" in neither.message and isinstance(fine, Scores)


def test_the_key_is_sent_and_never_told(serve, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("MY_KEY", KEY)

    def answer(handler, prompt, number):
        if prompt == "say 0":
            send(handler, text(prompt))
        else:
            send(handler, {"error": {"message": f"bad header {handler.headers['Authorization']}"}}, 400)

    server, engine = serve(answer, key_env="MY_KEY")
    found = StoredEngine(engine, tmp_path).generate(requests(2))
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "***" in found[1].message
    told = repr(found) + repr(engine) + "".join(p.read_text() for p in tmp_path.iterdir()) + "".join(capfd.readouterr())
    assert KEY not in told


def test_mistakes_that_concern_every_request_end_the_run(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    _, engine = serve(lambda h, prompt, n: send(h, {"error": {"message": f"no key {KEY}"}}, 401), key_env="MY_KEY")
    with pytest.raises(UserError, match=r"refuses the key .*\$MY_KEY") as raised:
        engine.generate(requests(3))
    assert KEY not in str(raised.value)
    _, engine = serve(lambda h, prompt, n: send(h, {"error": {"message": "model m not found"}}, 404))
    with pytest.raises(UserError, match="model m not found"):
        engine.choose([choice()])
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UserError, match="MY_KEY is not set"):
        server_engine("http://localhost:1/v1", key_env="MY_KEY")
    for url in ("localhost:8000", "http://user:pass@host/v1"):
        with pytest.raises(UserError, match="engine.url") as raised:
            server_engine(url)
        assert "pass@" not in str(raised.value)


def test_a_server_that_is_not_there_is_found_out_once():
    engine = server_engine("http://127.0.0.1:9/v1", retries=2, backoff=0.05, concurrency=2)
    began = time.monotonic()
    with pytest.raises(UserError, match="is the server up"):
        engine.generate(requests(200))
    assert time.monotonic() - began < 3


def test_nothing_is_paid_for_twice(serve, tmp_path):
    down = {"say 1"}
    server, engine = serve(
        lambda h, prompt, n: send(h, {}, 500) if prompt in down else send(h, text(prompt)), retries=0
    )
    first = StoredEngine(engine, tmp_path).generate(requests(3))
    assert isinstance(first[1], EngineFailure)
    down.clear()
    again = StoredEngine(engine, tmp_path).generate(requests(3))
    assert [one.text for one in again] == ["re say 0", "re say 1", "re say 2"]
    assert server.tries == {"say 0": 1, "say 1": 2, "say 2": 1}
    moved = server_engine("http://127.0.0.1:9/v1", deployed=engine.deployed)
    assert moved.revision("m", None) == engine.revision("m", None) != engine.revision("m", "adapter")


def test_a_redirect_does_not_take_the_key_elsewhere(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    other, _ = serve(lambda h, prompt, n: send(h, text(prompt)))
    _, engine = serve(lambda h, prompt, n: send(h, {}, 307, Location=f"{other.url}/chat/completions"), key_env="MY_KEY")
    (found,) = engine.generate(requests(1))
    assert found.kind == "server" and "307" in found.message and not other.tries


def test_a_candidate_in_pieces_is_not_scored(serve):
    top = [("shed", math.log(0.4)), ("c", math.log(0.5))]
    assert candidate_scores(("shed", "cabin"), top) is None
    assert candidate_scores(("shed", "cabin"), [(" shed", -1.0), (" ", -2.0), ("cow", -2.0)]) is not None
    assert candidate_scores(("shed", "cabin"), [("shed", -1.0), ("cabin", -2.0), ("c", -3.0)]) is not None
    _, engine = serve(lambda h, prompt, n: send(h, logprobs(shed=0.4, c=0.5)))
    (found,) = engine.choose([choice(candidates=("shed", "cabin"))])
    assert found.kind == "neither" and "labels" in found.message and "'c'" in found.message


def test_numbers_of_no_form_are_failures(serve):
    def scored(p=-0.1, **fields):
        top = [{"token": "A", "logprob": p}]
        return {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}], **fields}

    answers = {
        "list": scored(usage=[1]), "big": scored(1e4), "nan": scored(math.nan), "inf": scored(math.inf),
        "count": scored(usage={"prompt_tokens": math.inf}), "fine": scored(),
    }  # fmt: skip
    _, engine = serve(lambda h, prompt, n: send(h, answers[prompt]))
    found = engine.choose([choice(name) for name in answers])
    assert [getattr(one, "kind", "fine") for one in found] == ["malformed"] * 5 + ["fine"]
    said = {"say 0": {**text("x"), "usage": [1]}, "say 1": {**text("x"), "usage": {"prompt_tokens": math.inf}}}
    _, engine = serve(lambda h, prompt, n: send(h, said[prompt]))
    assert [one.kind for one in engine.generate(requests(2))] == ["malformed"] * 2


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://host:abc/v1", "http://host:99999", "http://:80/v1", "ftp://host", "http://ho st/v1",
     "http://me:hunter2@host/v1", "http://hunter2@host", "http://host/v1?key=hunter2", "http://me:hunter2@host:abc"],
)  # fmt: skip
def test_what_is_no_url_is_said_without_repeating_it(url):
    with pytest.raises(UserError, match="engine.url: ") as raised:
        server_engine(url)
    assert "hunter2" not in str(raised.value)
    with pytest.raises(UserError, match="NAME of an environment variable") as raised:
        server_engine("http://[::1]:8000/v1", key_env=KEY)
    assert KEY not in str(raised.value)
