"""The environment of a debate under the installed `verifiers`: its own runner, a served model, and our judge."""

import asyncio
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import debate_rl as dr
from debate_rl.api.play import shared_engine
from debate_rl.engines.request import Completion, Message, Request, Sampling
from tests import ROOT

CONFIG = ROOT / "configs/quickstart.yaml"
SMALL = ["questions.test=2", "models.judge=lab-base"]


@pytest.fixture(scope="module")
def vf():
    return pytest.importorskip("verifiers.v1", reason="needs the extra `verifiers`")


class Served:
    """A lab model behind OpenAI's chat API; `broken` answers with an error instead."""

    def __init__(self):
        self.bodies, self.broken = [], False
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:  # the model works on one request at a time
                    outer.bodies.append(body)
                    status, answer = (
                        (400, {"error": {"message": "no such model"}}) if outer.broken else (200, told(body))
                    )
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def told(body):
    """The whole answer of a server, as OpenAI's client reads it."""
    request = Request(
        messages=tuple(Message(**message) for message in body["messages"]),
        model="lab-base",
        sampling=Sampling(max_new_tokens=body["max_tokens"], temperature=body.get("temperature", 1.0)),
        seed=len(body["messages"][-1]["content"]),
    )
    (text,) = shared_engine().generate([request])
    assert isinstance(text, Completion)
    usage = {"prompt_tokens": text.prompt_tokens, "completion_tokens": text.new_tokens}
    usage["total_tokens"] = sum(usage.values())
    choice = {"index": 0, "message": {"role": "assistant", "content": text.text}, "finish_reason": text.finish}
    head = {"id": "one", "object": "chat.completion", "created": 0, "model": body["model"]}
    return head | {"choices": [choice], "usage": usage}


@pytest.fixture(scope="module")
def served():
    server = Served()
    yield server
    server.http.shutdown()
    server.http.server_close()


def episodes(vf, environment, url, **sampling):
    """Play every task once, as the runner of verifiers does."""
    from verifiers.v1.types import SamplingConfig

    client = vf.EvalClientConfig(base_url=url, api_key_var="NO_SUCH_KEY")
    context = vf.ModelContext(model="policy", client=client, sampling=SamplingConfig(**sampling))

    async def play():
        async with environment.serving():
            slots = [slot for task in environment.taskset for slot in environment.slots(task)]
            return await asyncio.gather(*(environment.run_slot(slot, context) for slot in slots))

    return asyncio.run(play())


def test_verifiers_finds_the_environment_by_the_name_of_the_package(vf):
    from verifiers.v1.utils.loaders import environment_class, harness_class, taskset_class

    found = (environment_class("debate-rl"), taskset_class("debate-rl"), harness_class("debate-rl"))
    assert found == (dr.DebateEnv, dr.DebateTaskset, dr.DebateHarness)


def test_each_speech_is_a_trace_that_earns_what_the_judge_of_the_config_gives_its_side(vf, served):
    served.broken = False
    environment = dr.load_environment(CONFIG, SMALL, split="test", rewards={"invalid_quotes": 0.5})
    played = episodes(vf, environment, served.url, temperature=0.7)
    config = dr.load_config(CONFIG, SMALL)
    questions = dr.load_questions("lab", split="test", limit=2, seed=config.question_seed)
    assert [episode.task.data.id for episode in played] == [question.id for question in questions]
    for episode, question in zip(played, questions, strict=True):
        assert episode.ok, episode.errors
        assert sorted(trace.agent.name for trace in episode.traces) == ["debater", "opponent"]
        assert all(trace.agent.trainable for trace in episode.traces)
        first, second = sorted(episode.traces, key=lambda trace: trace.metrics["is_side_b"])
        assert first.metrics["p_own"] + second.metrics["p_own"] == pytest.approx(1)
        for trace in (first, second):
            assert trace.rewards["win"].value == trace.metrics["p_own"]
            assert trace.rewards["invalid_quotes"].value == -0.5 * trace.metrics["invalid_quotes"]
            asked = trace.messages[0].content
            assert question.passage[:40] in asked
        # The judge of our own code, asked for the same two speeches, says the same.
        replayed = replay(question, first.last_reply, second.last_reply, config)
        assert first.metrics["p_own"] == pytest.approx(replayed, abs=1e-4)
    assert {body["max_tokens"] for body in served.bodies} == {config.protocol.max_new_tokens or 48}
    assert {body["temperature"] for body in served.bodies} == {0.7}


def replay(question, first, second, config):
    """Probability of side A after two given speeches."""
    from debate_rl.game.transcript import Origin, open_transcript, read_speech
    from debate_rl.judges.judge import judge_transcripts
    from debate_rl.runs.run import Run

    run = Run(config, say=lambda line: None)
    game = open_transcript(question, run.protocol(), {"A": "a", "B": "b"})
    speeches = [
        read_speech(text, game, side, 0, Origin(player=side.lower())) for side, text in (("A", first), ("B", second))
    ]
    (verdict,) = judge_transcripts([game.add(speeches)], run.judge(), shared_engine())
    return verdict.p[0]


def test_an_opponent_with_a_model_of_its_own_is_not_trained(vf, served):
    served.broken = False
    environment = dr.load_environment(CONFIG, [*SMALL, "protocol.turns=2"], opponent={"model": "frozen"}, split="test")
    for episode in episodes(vf, environment, served.url):
        assert episode.ok, episode.errors
        assert len(episode.traces) == 4
        for trace in episode.traces:
            assert trace.agent.trainable == (trace.agent.name == "debater")
            assert trace.agent.config.model == ("policy" if trace.agent.name == "debater" else "frozen")
        assert sorted(trace.metrics["turn"] for trace in episode.traces) == [0, 0, 1, 1]


def test_a_speech_that_was_cut_off_is_masked_as_in_our_own_training(vf, served):
    served.broken = False
    environment = dr.load_environment(CONFIG, SMALL, split="test")
    for episode in episodes(vf, environment, served.url, max_tokens=3):
        assert episode.ok, episode.errors
        assert not any(trace.agent.trainable or trace.rewards for trace in episode.traces)
        assert all("p_own" in trace.metrics for trace in episode.traces)


def test_a_model_that_fails_ends_the_episode_with_an_error_and_no_reward(vf, served):
    served.broken = True
    environment = dr.load_environment(CONFIG, SMALL, split="test")
    for episode in episodes(vf, environment, served.url):
        assert not episode.ok and "failed: agent" in episode.errors[0].message
        assert not any(trace.rewards for trace in episode.traces)


@pytest.mark.parametrize(
    ("overrides", "settings", "said"),
    [
        (["protocol.name=blind"], {}, "nobody speaks"),
        (["players.opening='The answer'"], {}, "plain chat API"),
        ([], {"split": "validation"}, "split"),
        ([], {"rewards": {"winn": 1}}, "winn"),
        (["stages.dop={}"], {}, "did you mean"),
    ],
)
def test_what_can_not_be_played_is_refused_in_one_line(vf, overrides, settings, said):
    with pytest.raises(dr.UserError) as refused:
        dr.load_environment(CONFIG, [*SMALL, *overrides], **settings)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_without_verifiers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers.v1", None)
    with pytest.raises(dr.UserError, match="debate-rl\\[verifiers\\]"):
        dr.load_environment(CONFIG)


def test_the_environment_comes_back_from_the_settings_that_verifiers_sends_to_its_workers(vf):
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    environment = dr.load_environment(CONFIG, SMALL, split="test", rewards={"win": "logit"})
    sent = json.loads(environment.config.model_dump_json())
    again = load_environment(resolve_env_config(sent))
    assert type(again) is dr.DebateEnv and again.config.rewards.win == "logit"
    assert [task.key for task in again.taskset] == [task.key for task in environment.taskset]


@pytest.mark.slow
def test_the_runner_of_verifiers_plays_the_environment_as_the_page_shows(vf, served, tmp_path):
    served.broken = False
    runner = Path(sys.executable).with_name("vf-eval")
    command = f"debate-rl --env.taskset.config {CONFIG} --env.taskset.split test -n 1 -r 1 --model MODEL"
    endpoint = f"--client.base-url {served.url} --client.api-key-var MY_KEY --no-push --output-dir {tmp_path}"
    done = subprocess.run(
        [runner, *command.split(), *endpoint.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "opponent" in done.stdout and "p_own" in done.stdout
