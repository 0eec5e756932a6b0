import json

import pytest

from debate_rl.config.tree import dump_config, parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.attacks.robustness import Trial
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.judge import Judge
from debate_rl.records import read, write, write_json, write_text
from debate_rl.report.attack_view import attack_view
from debate_rl.report.chart import SOFT
from debate_rl.report.page import environment
from debate_rl.runs.attack import attack_run
from debate_rl.runs.run import Run
from debate_rl.stages.attacks import attack_numbers, compare_attacks, draw
from tests.command import mistake
from tests.judges.attacks.test_robustness import debates, swayed
from tests.report.figure_data import described

NAMES = ["suffix_sure", "position", "sycophancy"]


def config(tmp_path, **judge):
    stage = {"questions": 8, "protocols": ["debate"], **judge}
    tree = {"name": "r", "runs": str(tmp_path), "protocol": {"prompts": "lab"}, "tracking": {"mode": "disabled"}}
    return parse_config({**tree, "stages": {"sft": {}, "judge": stage}})


@pytest.fixture
def run(tmp_path):
    """The folder of a run with a finished judge stage."""
    found = config(tmp_path)
    folder = tmp_path / "r"
    write_text(folder / "config.yaml", dump_config(found))
    write_json(folder / "judge" / "stage.json", {"name": "judge", "kind": "judge"})
    (folder / "judge" / "adapter").mkdir()
    calibrator = Calibrator(kind="temperature", slope=0.5, n=9, clusters=9)
    write_json(folder / "judge" / "calibrator.json", calibrator.model_dump(mode="json"))
    legs = [JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(0.5, 0.5))) for game in debates()]
    write(folder / "judge" / "test_debates.jsonl", legs)
    write(folder / "sft" / "debates.jsonl", legs[:2])
    return folder


def compared(tmp_path, engine, **judge):
    found = config(tmp_path, **judge)
    stage = found.stages["judge"]
    said = []
    one = Run(found, engine=engine, say=said.append)
    out = tmp_path / "out"
    attacks = compare_attacks(
        debates(), Judge(name="base judge", model="m"), Judge(name="j", model="n"), stage, one, out
    )
    return attacks, out, said


def test_both_judges_are_attacked_on_the_same_debates(tmp_path):
    attacks, out, said = compared(tmp_path, swayed("clearly"), attacks=NAMES, attack_games=6)
    before, after = attacks.before, attacks.after
    assert (before.judge, after.judge) == ("base judge", "j") and before.games == after.games == 6
    assert {row.attack for row in before.rows} == {"suffix_sure", "position"}
    numbers = attack_numbers(attacks)
    assert numbers["attack_suffix_sure_after"].value == -0.5 and numbers["attack_sycophancy_before"].value == 0
    assert numbers["attack_sycophancy_lean_before"].value == 0
    trials = read(out / "attacks.jsonl", Trial)
    assert {trial.judge for trial in trials} == {"base judge", "j"} and len({trial.game for trial in trials}) >= 6
    assert len(said) == 2 and said[1].startswith("debates: 6 of 8 test debates of sft, protocol debate")
    assert not attacks.taught


def test_nothing_is_attacked_unless_asked_for(tmp_path):
    engine = ScriptedEngine()
    attacks, out, _ = compared(tmp_path, engine)
    assert attacks is None and attack_numbers(None) == {} and engine.calls == 0 and not out.exists()


def test_the_page_shows_both_judges(tmp_path):
    attacks, *_ = compared(
        tmp_path, swayed("clearly"), attacks=[*NAMES, "quotes_repeated"], train_attacks=["suffix_sure"]
    )
    found = attacks.model_copy(update={"rounds": (("so <now>", "then"), ())})
    view = attack_view(found)
    assert [name for name, *_ in view.rows] == ["suffix_sure", "position"]
    shown = described(view.figure)
    assert [row["label"].rstrip("\u200b") for row in shown] == ["suffix_sure", "finetuned", "position", "finetuned"]
    assert [row["colour"] == SOFT for row in shown] == [True, False, True, False]
    assert attack_view(None) is None
    page = environment().from_string("{% import 'tables.j2' as t with context %}{% include 'attacks.j2' %}")

    class Shown:
        attacks = view

    html = page.render(view=Shown, found={"attacks": found})
    assert html.count('<tr><th scope="row"') == 6 and "A lone consultant" in html
    assert html.count("finetuned, taught") == 1 and "has learnt from: suffix_sure." in html
    assert "learnt from: &#8220;so &lt;now&gt;&#8221;, &#8220;then&#8221;." in html
    assert "Adversarial round 2: found by search on training stories and learnt from: nothing that gained." in html
    assert "calibrated on debates" not in html  # this judge has no calibration of lone speakers
    assert "quotes_repeated on the base judge: not measured" in html


def test_attacks_in_a_config(tmp_path):
    assert config(tmp_path, attacks=True).stages["judge"].attacks is True
    assert config(tmp_path, attacks=NAMES).stages["judge"].attacks == tuple(NAMES)
    with pytest.raises(UserError, match=r"stages\.judge\.attacks.*did you mean 'suffix_sure'"):
        config(tmp_path, attacks=["suffix_sur"])
    assert config(tmp_path, train_attacks=["concede"]).stages["judge"].train_attacks == ("concede",)
    with pytest.raises(UserError, match=r"stages\.judge\.train_attacks.*is measured and can not be learnt from"):
        config(tmp_path, train_attacks=["position"])


def test_games_are_drawn_by_name():
    games = debates()
    assert draw(games, 3) == draw(games[::-1], 3) and len(draw(games, None)) == len(games)


def test_judges_by_name(run):
    opened = Run(config(run.parent))
    base, trained, other = (opened.judge_named(name) for name in ("base", "judge", "org/model"))
    assert (base.name, base.model, base.adapter) == ("base judge", opened.config.models.judge, None)
    assert trained.adapter == "judge/adapter" and trained.calibrator.slope == 0.5
    assert (other.model, other.adapter) == ("org/model", None)
    with pytest.raises(UserError, match="'sft' trains no judge; choose one of: base, judge"):
        opened.judge_named("sft")
    (run / "judge" / "stage.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        opened.judge_named("judge")


def test_the_command_attacks_kept_debates_and_writes_nothing(run, call, monkeypatch):
    engine = swayed("clearly")
    monkeypatch.setattr(Run, "open_engine", lambda self: engine)
    files = sorted(run.rglob("*"))
    code, out, _ = call("judge", "attack", run, "--judge", "judge", "--attacks", "suffix_sure,sycophancy")
    assert code == 0 and "on 8 debates, right on 50.0" in out and "suffix_sure" in out and "lone consultants" in out
    assert sorted(run.rglob("*")) == files and engine.requests == []
    code, out, _ = call("judge", "attack", run, "--attacks", "position", "--limit", 4, "--json")
    assert json.loads(out)["table"]["games"] == 4
    assert attack_run(run, "base", ("suffix_sure",), stage="sft").table.games == 2
    assert "did you mean 'suffix_sure'" in mistake(call("judge", "attack", run, "--attacks", "sufix_sure"))
    assert "no finished debate in stage 'dpo'" in mistake(call("judge", "attack", run, "--stage", "dpo"))
    assert "give the run and name the stage" in mistake(call("judge", "attack", run / "judge"))


def test_without_a_judge_stage_the_test_debates_of_the_runs_protocol_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "open_engine", lambda self: swayed("clearly"))
    tree = {"name": "r", "runs": str(tmp_path), "protocol": {"prompts": "lab"}}
    found = parse_config({**tree, "stages": {"sft": {}, "preferences": {}, "oversight": {"players": ["base"]}}})
    folder = tmp_path / "r"
    write_text(folder / "config.yaml", dump_config(found))
    games = [JudgedDebate(transcript=game) for game in debates(4)]
    single = [JudgedDebate(transcript=game) for game in debates(6, "double")]
    write(folder / "preferences" / "debates.jsonl", games)
    with pytest.raises(UserError, match="kept no test debates of protocol 'debate'; name a stage .*: preferences$"):
        attack_run(folder, "base", ("suffix_sure",))
    write(folder / "oversight" / "debates.jsonl", [*games[:3], *single])
    table = attack_run(folder, "base", ("suffix_sure",)).table
    assert table.games == 3 and str(table).startswith("debates: test debates of oversight, protocol debate; 6 of other")
    write(folder / "preferences" / "debates.jsonl", single)
    assert attack_run(folder, "base", ("suffix_sure",), stage="preferences").table.source.endswith("protocol double")
