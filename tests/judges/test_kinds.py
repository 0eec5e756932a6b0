"""The kinds of judge as a config chooses them, up to a run against a real server."""

import json
import math

import pytest

from debate_rl.config.tree import dump_config, load_config, parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import Judge, Panel, Probe, ReasoningJudge, StatedJudge
from debate_rl.judges.probe import save_probe
from debate_rl.records import read
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from tests.engines.server.test_engine import Server, logprobs, send, text


def config(tmp_path, **changes):
    tree = {
        "name": "k", "runs": str(tmp_path), "questions": {"train": 2, "test": 3}, "tracking": {"mode": "disabled"},
        "protocol": {"max_new_tokens": 8}, "models": {"judge": "j"},
        "stages": {"oversight": {"players": ["base"], "protocols": ["debate", "single", "blind"]}},
    }  # fmt: skip
    return parse_config({**tree, **changes})


def chosen(tmp_path, **judge):
    return Run(config(tmp_path, judge=judge)).judge()


def test_a_config_chooses_the_kind(tmp_path):
    assert chosen(tmp_path) == Judge(name="base judge", model="j")
    assert chosen(tmp_path, both_orders=False, min_answer_mass=0.1, name="n") == Judge(
        name="n", model="j", both_orders=False, min_answer_mass=0.1
    )
    assert chosen(tmp_path, readout="answers", debias="prior") == Judge(
        name="base judge", model="j", readout="answers", debias="prior"
    )
    assert chosen(tmp_path, kind="reasoning", votes=3, combine="majority") == ReasoningJudge(
        name="reasoning base judge", model="j", votes=3, combine="majority"
    )
    assert chosen(tmp_path, kind="stated", model="api", temperature=0.7, max_new_tokens=9) == StatedJudge(
        name="stated api", model="api", temperature=0.7, max_new_tokens=9
    )
    panel = chosen(tmp_path, kind="panel", members=[{}, {"kind": "stated"}], combine="weighted")
    assert isinstance(panel, Panel) and panel.combine == "weighted"
    assert [type(member) for member in panel.members] == [Judge, StatedJudge]


def test_a_probe_is_read_from_its_file(tmp_path):
    probe = Probe(model="m", weights=(0.5, 1.0), bias=0.1, revision="r", n=4, stories=2)
    save_probe(tmp_path / "p.json", probe)
    path = str(tmp_path / "p.json")
    assert chosen(tmp_path, kind="probe", path=path) == probe
    assert chosen(tmp_path, kind="probe", path=path, name="n", both_orders=False) == probe.model_copy(
        update={"name": "n", "both_orders": False}
    )
    with pytest.raises(UserError, match="file not found"):
        chosen(tmp_path, kind="probe", path=str(tmp_path / "none.json"))


def test_a_dumped_config_is_the_same_one(tmp_path):
    found = config(tmp_path, judge={"kind": "panel", "members": [{}, {"kind": "reasoning"}]})
    (tmp_path / "c.yaml").write_text(dump_config(found))
    assert load_config(tmp_path / "c.yaml") == found


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"kind": "probe"}, "probe and path belong together"),
        ({"kind": "panel"}, "panel and members belong together"),
        ({"votes": 3}, "votes is of kind reasoning and stated, not of model"),
        ({"adapter": "a"}, "set model as well"),
        ({"readout": "answers", "kind": "stated"}, "readout is of kind model, not of stated"),
        ({"check": True, "kind": "panel", "members": [{}]}, "check is of kind model, not of panel"),
        ({"readout": "words"}, "'letters', 'answers' or 'answers_pmi'"),
        ({"readout": "answers_pmi", "debias": "prior"}, "subtracts the preference for a label already"),
        ({"kind": "votes"}, "'model', 'reasoning', 'stated', 'probe' or 'panel'"),
        ({"kin": "model"}, "did you mean 'judge.kind'"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, judge, said):
    with pytest.raises(UserError, match=said):
        config(tmp_path, judge=judge)


def test_engine_settings_that_do_not_fit(tmp_path):
    for engine in ({"kind": "server"}, {"url": "http://localhost:1/v1"}):
        with pytest.raises(UserError, match="kind: server and url belong together"):
            config(tmp_path, engine=engine)
    missing = {"kind": "server", "url": "http://localhost:1/v1", "key_env": "NO_SUCH_KEY"}
    with pytest.raises(UserError, match="NO_SUCH_KEY is not set"):
        _ = Run(config(tmp_path, engine=missing)).engine


def test_a_run_counts_statements_that_can_not_be_read(tmp_path):
    def write(request):
        said = request.messages[-1].content
        if "P(A) = ..." not in said:
            return "speech"
        return "no idea" if unlucky in said else "P(A) = 70%"

    run = Run(config(tmp_path, judge={"kind": "stated"}), engine=ScriptedEngine(write), say=lambda line: None)
    unlucky = run.questions("test")[0].text
    metrics = run_stages(run)["oversight"]
    legs = read(tmp_path / "k" / "oversight" / "debates.jsonl", JudgedDebate)
    failed = [leg.failure.kind for leg in legs if leg.transcript.question.text == unlucky]
    assert set(failed) == {"unparsed"} and metrics["failed"] == len(failed) < len(legs) == 9
    assert sum(row["scores"]["n"] for row in metrics["rows"]) == 9 - len(failed)


def test_a_run_at_a_server(tmp_path):
    """Debaters and a reasoning judge at one endpoint, which is busy at first; what was answered is not asked again."""

    busy = []

    def answer(handler, prompt, number):
        if number == 1 and "Debater A" in prompt:
            busy.append(prompt)
            send(handler, {"error": {"message": "busy"}}, 429)
        elif "reply with the letter of" in prompt:
            send(handler, logprobs(A=0.8, B=0.1))
        else:
            send(handler, text("speech"))

    server = Server(answer)
    changes = {"engine": {"kind": "server", "url": server.url}, "judge": {"kind": "reasoning", "votes": 2}}
    try:
        metrics = run_stages(Run(config(tmp_path, **changes), say=lambda line: None))["oversight"]
    finally:
        server.http.shutdown()
    assert metrics["failed"] == 0
    legs = read(tmp_path / "k" / "oversight" / "debates.jsonl", JudgedDebate)
    assert all(leg.verdict.p[0] == pytest.approx(0.5) for leg in legs)  # it always takes A, the one listed first
    assert {ask.text for leg in legs for ask in leg.verdict.asks} == {"re speech"}
    ask = legs[0].verdict.asks[0]
    assert math.exp(ask.logprobs[0]) == pytest.approx(0.8) and ask.order == (0, 1)
    paid = [json.dumps(body, sort_keys=True) for body in server.bodies]
    assert len(paid) - len(set(paid)) == len(busy) > 0
