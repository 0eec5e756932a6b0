"""What a judge can tell before games are bought with it."""

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.protocol import load_protocol
from debate_rl.judges.judge import Judge
from debate_rl.judges.signal import SIGNAL_FILE, Signal, measure_signal
from debate_rl.records import read_json
from debate_rl.report.page import render
from debate_rl.report.run_folder import load_run
from debate_rl.runs.execute import run_stages
from debate_rl.runs.judge_check import wants_check
from debate_rl.runs.run import Run
from tests.judges.games import asked, logs
from tests.tiny import tiny_model

QUESTIONS = [asked(number, correct=number % 2) for number in range(20)]
BLIND, OPEN_BOOK = (load_protocol(name, prompts="default") for name in ("blind", "open_book"))


def signal(score, questions=QUESTIONS, **judge):
    engine = ScriptedEngine(score=score)
    return measure_signal(questions, Judge(name="j", model="m", **judge), BLIND, OPEN_BOOK, engine), engine


def always_a(choice):
    return [-0.5 if one == "A" else -2.5 for one in choice.candidates]


def reader(choice):
    """Finds the answer where it is shown the passage (question i has answer i % 2)."""
    content = choice.messages[-1].content
    number = int(content.split("where is w")[1].split(" ")[0])
    first = ("w1", "w2")[number % 2] == content.split("(A) ")[1].split(" (B)")[0]
    p = 0.9 if "<text>" in content else 0.5
    return logs(*[p if (one == "A") == first else 1 - p for one in choice.candidates])


def test_a_judge_that_takes_whatever_is_listed_first_is_warned_of():
    found, _ = signal(always_a)
    assert [(row.protocol, row.n, row.right) for row in found.rows] == [("blind", 16, 8), ("open book", 16, 8)]
    assert found.first == pytest.approx(0.88, abs=0.01) and found.mass == pytest.approx(0.69, abs=0.01)
    said = " ".join(found.warnings)
    assert "8 of 16 right at best" in said and "same probability" in said and "listed first" in said
    assert "say something else" not in said
    assert signal(always_a, debias="prior")[0].first == pytest.approx(0.5)


def test_a_judge_that_reads_is_not():
    found, _ = signal(reader)
    assert [(row.protocol, row.right) for row in found.rows] == [("blind", 8), ("open book", 16)]
    assert found.warnings == () and found.first == pytest.approx(0.5)
    assert "blind 8 of 16 right (spread 0.00); open book 16 of 16 right (spread 0.40)" in found.line


def test_a_judge_that_says_neither_and_questions_that_can_not_be_asked():
    found, _ = signal(lambda choice: [-4.0, -4.0], [asked(1, passage="w " * 4000), asked(2, correct=None)])
    assert [(row.protocol, row.n) for row in found.rows] == [("blind", 1)]
    assert any("say something else" in warning for warning in found.warnings)
    assert signal(reader, [asked(2, correct=None)])[0] is None
    assert signal(lambda choice: 1 / 0)[0] is None
    assert [row.protocol for row in signal(lambda choice: [-1.0, -2.0], readout="answers_pmi")[0].rows] == ["open book"]


def test_a_run_says_it_once_a_judge_and_the_report_shows_it(tmp_path):
    stage = {"kind": "oversight", "players": ["base"], "protocols": ["blind"]}
    tree = {
        "name": "k",
        "runs": str(tmp_path),
        "questions": {"train": 4, "test": 2},
        "tracking": {"mode": "disabled"},
        "judge": {"check": True},
        "stages": {"one": stage, "two": stage},
    }
    said = []
    run_stages(Run(parse_config(tree), engine=ScriptedEngine(score=always_a), say=said.append))
    kept = [Signal.model_validate(read_json(tmp_path / "k" / name / SIGNAL_FILE)) for name in ("one", "two")]
    assert kept[0] == kept[1] and said.count(f"  {kept[0].line}") == 1
    assert sum("warning: judge 'base judge': it can not tell" in line for line in said) == 1
    page = render(load_run(tmp_path / "k"))
    assert "Before one, two: judge" in page and "Warning: it favours the answer listed first" in page


def test_a_judge_is_checked_unless_it_is_a_lab_model_trained_by_the_run_or_told_not_to(tmp_path):
    def wanted(name="base judge", adapter=None, **judge):
        run = Run(parse_config({"judge": judge, "models": {"judge": "lab-small"}}))
        if adapter is not None:
            run.model_judge = lambda at=None: Judge(name=name, model="lab-small", adapter=adapter)
        return wants_check(run)

    real = tiny_model(tmp_path / "real")
    assert not wanted() and wanted(check=True)
    assert wanted(model=real) and not wanted(model=real, check=False) and not wanted(model="lab-base")
    assert not wanted(adapter="judge/adapter") and wanted(adapter="judge/adapter", check=True)
    assert not wanted(kind="reasoning", model=real)
