"""Verdicts on a grid: told from exact ones, said in the run and on the page."""

from hypothesis import given
from hypothesis import strategies as st

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.judges.grid import GRID_FILE, Grid, grid_of
from debate_rl.records import digest, read_json
from debate_rl.report.page import render
from debate_rl.report.run_folder import load_run
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from tests.judges.games import logs


def number(choice):
    return int(digest([message.content for message in choice.messages]), 16) % 1000 / 1000


def exact(choice):
    p = 0.05 + 0.9 * number(choice)
    return logs(p, 1 - p)


def rounded(choice):
    gap = round(32 * (number(choice) - 0.5)) / 16
    return [-1.0 + gap, -1.0]


def played(folder, score, said):
    tree = {
        "name": "k",
        "runs": str(folder),
        "questions": {"train": 4, "test": 12},
        "tracking": {"mode": "disabled"},
        "stages": {"reading": {"kind": "oversight", "players": ["base"], "protocols": ["blind"]}},
    }
    run_stages(Run(parse_config(tree), engine=ScriptedEngine(score=score), say=said.append))
    return folder / "k"


def test_a_judge_in_16_bits_is_told_from_an_exact_one_and_said_in_run_and_page(tmp_path):
    said = []
    run = played(tmp_path / "rounded", rounded, said)
    grid = Grid.model_validate(read_json(run / "reading" / GRID_FILE))
    assert grid.asked == grid.on_steps == 24 and grid == grid_of(run / "reading")
    assert sum("24 of 24 log-odds of the judge are multiples of 1/16" in line for line in said) == 1
    assert "in reading 24 of 24 log-odds" in render(load_run(run))
    said = []
    run = played(tmp_path / "exact", exact, said)
    assert not (run / "reading" / GRID_FILE).exists() and not any("log-odds" in line for line in said)
    assert grid_of(run / "reading").asked == 24


@given(st.integers(0, 50), st.integers(0, 50))
def test_few_verdicts_or_few_on_steps_are_no_grid(asked, on_steps):
    grid = Grid(asked=asked, on_steps=min(asked, on_steps), ties=0)
    assert grid.matters == (asked >= 20 and 2 * grid.on_steps >= asked)


def test_a_folder_without_verdicts_has_none(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"logprobs": [1, 2]}\n')
    assert grid_of(tmp_path) == Grid(asked=0, on_steps=0, ties=0)
