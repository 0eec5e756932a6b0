"""Every protocol on the same questions and debaters, a second judge beside, and the commands that print it."""

import json
import re

import pytest

from debate_rl.analysis.judging.rejudge import saved_legs
from debate_rl.analysis.oversight import Oversight
from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate
from debate_rl.plan.plan import plan
from debate_rl.records import append, digest, read, read_json
from debate_rl.runs.execute import needed, run_stages
from debate_rl.runs.run import Run
from debate_rl.runs.study import seed_configs
from debate_rl.stages import oversight
from debate_rl.stages.oversight import OversightStage
from tests.command import mistake

EVERY = OversightStage().protocols
COUNT = 8


def speak(request):
    """Every other speech has a true quote."""
    return "<quote>the pipe was moved</quote> so" if int(digest(request), 16) % 2 else "it was so"


def judge(choice):
    """`small` leans to the shed, more so with the passage, and to who quotes; `other` doubts who quotes."""
    text = " ".join(message.content for message in choice.messages)
    quoting = re.findall(r"for (\w+) : <v_quote>", text)
    shed = 0.0 if choice.model == "other" else 3.0 if "moved to the shed at dusk" in text else 0.2
    gain = -0.5 if choice.model == "other" else 1.0
    return [shed * (answer == "shed") + gain * (answer in quoting) for answer in choice.candidates]


@pytest.fixture
def tree(tmp_path, question):
    """Test questions about a file's stories; the shed is right in every other."""
    changes = [
        {"id": f"q{i}", "group": f"g{i}", "correct": i % 2, "passage": f"{question.passage} day {i}."}
        for i in range(60)
    ]
    every = [question.model_copy(update=change) for change in changes]
    (tmp_path / "q.jsonl").write_text("\n".join(one.model_dump_json() for one in every))
    source = {"source": "file", "path": str(tmp_path / "q.jsonl"), "train": 2, "test": COUNT}
    return {
        "name": "r", "runs": str(tmp_path / "runs"), "questions": source, "tracking": {"mode": "disabled"},
        "models": {"debater": "owner/small", "judge": "owner/small"}, "protocol": {"prompts": "lab"},
        "stages": {"oversight": {"players": ["base"]}},
    }  # fmt: skip


def played(tree, out, score=judge, **stage):
    """Run the oversight stage alone: its metrics, and the engine that answered."""
    config = parse_config({**tree, "stages": {**tree["stages"], "oversight": {"players": ["base"], **stage}}})
    engine = ScriptedEngine(speak, score)
    run = Run(config, engine, say=lambda line: None)
    return config.stages["oversight"].execute(run, out), engine


def test_every_protocol_of_the_design_is_played_on_the_same_questions(tree, tmp_path):
    found, _ = played(tree, tmp_path / "out")
    assert [row.protocol for row in found.rows] == list(EVERY) and found.failed == 0
    assert {row.scores.n for row in found.rows} == {COUNT}
    assert {row.player for row in found.rows if row.protocol in ("blind", "open_book")} == {"-"}
    assert [(one.first, one.second, one.player) for one in found.differences] == [
        ("debate", name, "base") for name in EVERY if name != "debate"
    ]
    assert all(one.accuracy.n == one.brier.n == one.log_score.n == COUNT for one in found.differences)
    legs = read(tmp_path / "out" / "debates.jsonl", JudgedDebate)
    asked = {
        name: {leg.transcript.question.id for leg in legs if leg.transcript.protocol.name == name} for name in EVERY
    }
    assert len({frozenset(ids) for ids in asked.values()}) == 1
    printed = str(found)
    assert printed.count("\n") > len(EVERY) and "debate minus it: accuracy" in printed and "blind verdict" in printed


def test_several_rounds_leave_every_protocol_its_shape(tree, tmp_path):
    tree["protocol"]["turns"] = 2
    played(tree, tmp_path / "out", questions=2)
    spoken = {}
    for leg in read(tmp_path / "out" / "debates.jsonl", JudgedDebate):
        game = leg.transcript
        assert leg.verdict is not None and game.complete
        counts = [sum(s.side == side for s in game.speeches) for side in game.present if game.protocol.turns]
        spoken.setdefault(game.protocol.name, set()).add(tuple(counts))
    two = {"debate", "sequential", "open_debate", "double", "ensembled"}
    assert all(spoken[name] == {(2, 2)} for name in two), spoken
    assert spoken["single"] == spoken["open_single"] == {(2,)} and spoken["blind"] == spoken["open_book"] == {()}
    assert all(sum(counts) <= 4 for counts in spoken["market_making"])


def test_honesty_and_both_orders_are_in_the_table(tree, tmp_path):
    found, _ = played(tree, tmp_path / "out", protocols=["debate", "single", "blind"])
    assert [row.protocol for row in found.consistency] == ["debate", "single", "blind"]
    assert [row.protocol for row in found.honesty] == ["debate", "single"], "nobody speaks to a blind judge"
    assert "agent score difference" in str(found) and "right in both orders" in str(found)


def test_what_the_judge_knows_beforehand_splits_the_table(tree, tmp_path):
    def knows(choice):
        text = " ".join(message.content for message in choice.messages)
        return [2.0 * (answer == "shed") if "quote>" not in text else 0.0 for answer in choice.candidates]

    found, _ = played(tree, tmp_path / "out", knows, protocols=["debate", "blind"])
    wrong = sum(leg.transcript.question.correct for leg in read(tmp_path / "out" / "debates.jsonl", JudgedDebate)) // 2
    assert found.known.questions == {"right": COUNT - wrong, "unsure": 0, "wrong": wrong} and wrong > 0
    assert {(row.known, row.protocol, row.accuracy.n) for row in found.known.rows} == {
        ("right", "debate", COUNT - wrong), ("wrong", "debate", wrong),
    }  # fmt: skip
    assert played(tree, tmp_path / "two", protocols=["debate", "single"])[0].known is None


def test_a_second_judge_sees_every_finished_game_and_nothing_is_said_twice(tree, tmp_path):
    alone, engine = played(tree, tmp_path / "one", protocols=["debate", "single", "blind"])
    both, again = played(
        {**tree, "name": "two"}, tmp_path / "two", protocols=["debate", "single", "blind"], second="other"
    )
    assert len(again.requests) == len(engine.requests) and both.rows == alone.rows
    second = both.second
    assert (second.judge, second.first) == ("other", "base judge") and second.same.n == 3 * COUNT
    by_name = {row.protocol: row for row in second.rows}
    assert by_name["debate"].first == next(row for row in both.rows if row.protocol == "debate").scores.accuracy
    assert by_name["blind"].same.value == 0.5 and by_name["blind"].correlation is None  # it always says one half
    assert by_name["debate"].difference.value == pytest.approx(
        by_name["debate"].scores.accuracy.value - by_name["debate"].first.value
    )
    legs, seen = (read(tmp_path / "two" / name, JudgedDebate) for name in ("debates.jsonl", "second.jsonl"))
    assert [leg.transcript for leg in legs] == [leg.transcript for leg in seen]
    assert {leg.verdict.judge for leg in seen} == {"other"} and "same answer" in str(both)


def test_failures_are_counted_for_either_judge(tree, tmp_path):
    def fails(choice):
        if choice.model == "other" and "day 1" in str(choice.messages):
            raise ValueError("too long")
        return judge(choice)

    found, _ = played(tree, tmp_path / "out", fails, protocols=["debate", "open_book"], second="other")
    failed = {row.protocol: row.failed for row in found.second.rows}
    assert failed["debate"] == 0 < failed["open_book"] < COUNT and found.failed == 0
    assert found.second.same.n == 2 * COUNT - failed["open_book"]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"protocols": ["debate", "debate"]}, "protocols has 'debate' twice"),
        ({"reference": "single", "protocols": ["debate"]}, "reference 'single' is not among protocols"),
        ({"players": []}, "players"),
        ({"second": {"kind": "stated", "votes": 0}}, "second"),
    ],
)
def test_a_stage_that_can_not_be_is_refused(tree, stage, message):
    with pytest.raises(UserError, match=message):
        parse_config({**tree, "stages": {"oversight": {"players": ["base"], **stage}}})


def test_the_second_judge_is_another_one(tree, tmp_path):
    for own in ("base", {"kind": "model"}, "owner/small"):
        with pytest.raises(UserError, match="is the run's own judge; name another model"):
            played(tree, tmp_path / "out", protocols=["debate"], second=own)
    stated = OversightStage.model_validate({"players": ["base"], "second": {"kind": "stated"}})
    run = Run(parse_config(tree), ScriptedEngine(), say=lambda line: None)
    assert oversight.second_judge(stated, run).name == "stated base judge"


def test_a_second_judge_that_is_not_there_is_said_before_anything_is_played(tree, tmp_path, monkeypatch):
    def revision(engine, model, adapter):
        if model == "tpyo":
            raise UserError("no model 'tpyo'")
        return model

    monkeypatch.setattr(ScriptedEngine, "revision", revision)
    panel = {"kind": "panel", "members": [{"model": "owner/small"}, {"model": "tpyo"}]}
    for number, second in enumerate(("tpyo", panel)):
        with pytest.raises(UserError, match="no model 'tpyo'"):
            played(tree, tmp_path / f"out{number}", protocols=["debate"], second=second)
        assert not (tmp_path / f"out{number}").exists()


def test_a_protocol_without_any_verdict_is_named_and_the_others_stay(tree, tmp_path):
    def score(choice):
        return [float("nan"), 0.0] if "for shed :" in choice.messages[-1].content else judge(choice)

    found, _ = played(tree, tmp_path / "out", score, protocols=["debate", "blind"], second="other")
    assert [row.protocol for row in found.rows] == ["blind"] and found.rows[0].scores.n == COUNT
    assert found.failed == COUNT and found.left_out == {"debate by base": COUNT} and found.differences == ()
    tree["name"] = "two"
    with pytest.raises(UserError, match="no verdict of base judge under any protocol"):
        played(tree, tmp_path / "two", lambda choice: [float("nan"), 0.0], protocols=["blind"])


def test_another_reference_and_one_story_only(tree, tmp_path):
    found, _ = played(tree, tmp_path / "out", protocols=["double", "single"], questions=1)
    assert found.reference == "double" and found.differences[0].first == "double"
    assert found.rows[0].scores.accuracy.low is None and found.differences[0].accuracy.p is None
    assert "no interval" in str(found)


def test_a_question_that_is_there_twice_is_refused_before_anything_is_played(tree, tmp_path, question):
    same = [question.model_copy(update={"id": f"q{i}", "group": f"g{i}"}) for i in range(60)]
    (tmp_path / "q.jsonl").write_text("\n".join(one.model_dump_json() for one in same))
    with pytest.raises(UserError, match="stands in two stories"):
        played(tree, tmp_path / "out", protocols=["debate"])
    assert not (tmp_path / "out").exists()


def test_verdicts_of_two_judges_are_not_mixed(tree, tmp_path):
    played(tree, tmp_path / "out", protocols=["debate"])
    legs = read(tmp_path / "out" / "debates.jsonl", JudgedDebate)
    other = legs[0].verdict.model_copy(update={"revision": "another"})
    (tmp_path / "out" / "debates.jsonl").unlink()
    append(tmp_path / "out" / "debates.jsonl", [legs[0].model_copy(update={"verdict": other})])
    with pytest.raises(UserError, match="verdicts of two judges are mixed"):
        played(tree, tmp_path / "out", protocols=["debate"])


@pytest.fixture
def scripted(monkeypatch):
    """The command line with a scripted engine in place of models."""
    engine = ScriptedEngine(speak, judge)
    monkeypatch.setattr(Run, "open_engine", lambda self: engine)
    return engine


@pytest.fixture
def config_file(tree, tmp_path):
    """A config whose tournament rates the players of its oversight stage."""
    tree["stages"] = {
        "tournament": {"players": ["base", "base@2"], "resamples": 20, "evidence_probes": 0},
        "oversight": {"players": ["base", "base@2"], "protocols": ["debate", "single", "blind"]},
    }
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(tree))
    return path


def test_the_command_runs_what_it_needs_and_prints_the_tables(config_file, tmp_path, call, scripted):
    code, out, err = call("oversight", config_file)
    assert code == 0, err
    assert "accuracy for 100 Elo points" in out and "by the judge's blind verdict" in out
    found = Oversight.model_validate(read_json(tmp_path / "runs" / "r" / "oversight" / "metrics.json"))
    assert [one.protocol for one in found.slopes] == ["debate", "single"] and str(found) in out
    assert found.slopes[0].players == ("base", "base@2")
    crossed = read_json(tmp_path / "runs" / "r" / "tournament" / "metrics.json")["cross_play"]
    assert crossed["scores"]["n"] == 2 * COUNT and len(crossed["pairs"]) == 1
    calls = scripted.calls
    assert call("oversight", config_file)[0] == 0 and scripted.calls == calls
    assert "no stage of kind 'oversight'" in mistake(call("oversight", config_file, "stages={report: {}}"))


def test_a_dry_run_plans_and_runs_nothing(config_file, tmp_path, call, scripted):
    code, out, _ = call("oversight", config_file, "--dry-run")
    assert code == 0 and "oversight" in out and scripted.calls == 0 and not (tmp_path / "runs").exists()


def test_the_tournament_is_needed_where_it_rates_two_of_the_players(tree):
    tree["stages"] = {"tournament": {"players": ["base", "base@2"]}, "oversight": {"players": ["base"]}}
    assert needed(parse_config(tree), "oversight") == {"oversight"}
    tree["stages"]["oversight"]["players"] = ["base", "base@2"]
    assert needed(parse_config(tree), "oversight") == {"tournament", "oversight"}
    (row,) = plan(Run(parse_config(tree)), {"oversight"})
    assert row.debates == COUNT * (8 * 2 + 2)


def test_saved_stages_are_judged_again_and_single_consultancies_become_double(tree, tmp_path, call, scripted):
    tree["seeds"] = [0, 1]
    tree["stages"]["oversight"] |= {"protocols": ["debate", "single", "double"]}
    config = parse_config(tree)
    for one in seed_configs(config):
        run_stages(Run(one, scripted, say=lambda line: None))
    spoken = len(scripted.requests)
    stages = [tmp_path / "runs" / "r" / f"seed{seed}" / "oversight" for seed in (0, 1)]
    out = tmp_path / "again.jsonl"
    code, printed, err = call("rejudge", "games", stages[0], "--judge", "other", "--out", out, "--json")
    assert code == 0, err
    found = json.loads(printed)
    assert found["beside"]["same"]["n"] == 3 * COUNT and found["table"]["judge"] == "other"
    assert [leg.transcript for leg in saved_legs([out])] == [leg.transcript for leg in saved_legs(stages[:1])]
    words = ("--judge", "base", "--protocol", "single", "--protocol-view", "double", "--json")
    code, printed, err = call("rejudge", "games", *stages, *words)
    assert code == 0, err
    found = json.loads(printed)
    assert found["pairs"] * 2 + found["unpaired"] == 2 * COUNT and 0 < found["pairs"] < COUNT
    assert found["table"]["rows"][0]["protocol"] == "double" and found["beside"] is None
    assert len(scripted.requests) == spoken
    assert "none of 8 single consultancies" in mistake(call("rejudge", "games", stages[0], *words))
    assert "8 of" not in call("rejudge", "games", stages[0], stages[0], "--judge", "other")[1]
    assert "did you mean 'single'" in mistake(
        call("rejudge", "games", stages[0], "--judge", "other", "--protocol", "singel")
    )
    assert "give the folder of a stage that has it: r/seed0/oversight" in mistake(
        call("rejudge", "games", tmp_path / "runs", "--judge", "x")
    )
