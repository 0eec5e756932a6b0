"""Every way in which a server goes wrong for a while: a run, resumed if need be, ends as one at a healthy server."""

import json
import math
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from debate_rl.arena.rollout import LogOptions, check_played, play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.engines.parallel import Parallel
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.verdict import PASSING_KINDS
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.records import digest
from tests.engines.server.fault_modes import ENDLESS, MODES, send
from tests.engines.wire import server_engine

FAULTY = 3
"""Answers of each kind that go wrong before all is well."""
RUNS = 8
"""More than enough: a run that stops at each fault meets six."""


class SickServer:
    """Samples by its seed; its first answers of each kind go wrong in one way.

    Args:
        fault: see `fault_modes`; None is a healthy server.
    """

    def __init__(self, fault=None):
        self.fault = fault
        self.left = {False: FAULTY if fault else 0, True: FAULTY if fault else 0}
        self.given = Counter()
        """Right answers, by what was asked: what is paid for."""
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                send(self, {"data": [{"id": "m"}]})

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                scored = bool(asked.get("logprobs"))
                answer = outer.answer(asked, scored)
                with lock:
                    faulty = outer.left[scored] > 0
                    outer.left[scored] -= faulty
                if faulty and outer.fault(self, answer, scored) is not False:
                    return
                with lock:
                    outer.given[digest(asked)] += 1
                send(self, answer)

            def log_message(self, *words):
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request, client):
                pass  # the client has gone, as it should

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.gone = threading.Event()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, asked, scored):
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        if not scored:
            said = {"role": "assistant", "content": f"speech {digest([asked['messages'], asked['seed']])}"}
            return {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}
        share = int(digest(asked["messages"])[:4], 16) / 70_000 + 0.03
        top = [{"token": "A", "logprob": math.log(share)}, {"token": "B", "logprob": math.log(1 - share)}]
        choice = {"message": {"content": "A"}, "logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}
        return {"choices": [choice], "usage": usage}

    def close(self):
        self.http.gone.set()
        self.http.shutdown()
        self.http.server_close()


def play(server, questions, folder, timeout=30.0):
    """One run, as a process would make it: engine, store and log are opened anew."""
    engine = server_engine(server.url, concurrency=2, retries=1, timeout=timeout, backoff=0.001, deployed="here")
    front = Parallel(StoredEngine(engine, folder / "store"), engine)
    games = self_play(["x"], questions, load_protocol("debate", turns=1))
    players = {"x": Debater(name="x", model="m")}
    legs = play_to_file(games, players, front, Judge(model="m"), folder / "debates.jsonl", options=LogOptions(chunk=3))
    check_played(legs)
    return list(legs)


@pytest.fixture
def questions(question):
    return [question.model_copy(update={"id": f"q{n}", "text": f"{question.text} {n}"}) for n in range(4)]


@pytest.fixture
def start():
    """Opens servers; they end with the test."""
    opened = []

    def go(fault=None):
        opened.append(SickServer(fault))
        return opened[-1]

    yield go
    for server in opened:
        server.close()


def test_there_are_a_hundred_modes():
    assert len(MODES) >= 100


@pytest.mark.parametrize("mode", MODES)
def test_a_fault_that_passes_costs_nothing_that_a_resume_does_not_bring_back(
    mode, start, questions, tmp_path, monkeypatch
):
    monkeypatch.setattr("debate_rl.engines.server.endpoint.LONGEST_WAIT", 0.02)
    monkeypatch.setattr("debate_rl.engines.server.endpoint.BODY_TIMEOUTS", 1)
    healthy = play(start(), questions, tmp_path / "healthy")
    assert all(leg.verdict is not None for leg in healthy)
    server, legs = start(MODES[mode]), []
    for _ in range(RUNS):
        try:
            legs = play(server, questions, tmp_path / "sick", 1.0 if mode in ENDLESS else 30.0)
        except UserError as error:
            assert "\n" not in str(error)  # one line, and the same command goes on
            continue
        failures = [leg.failure for leg in legs if leg.failure is not None]
        assert {failure.kind for failure in failures} <= PASSING_KINDS
        if not failures:
            break
    assert legs == healthy
    assert server.given and set(server.given.values()) == {1}
    assert sum(server.left.values()) == 0
