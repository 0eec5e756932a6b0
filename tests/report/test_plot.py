import shutil

import pytest

from debate_rl.cli.report import FigureName
from debate_rl.errors import UserError
from debate_rl.records import write_text
from debate_rl.report.plot import FIGURES, plot

BEGINS = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<svg"}


def test_the_command_names_every_figure():
    assert [name.value for name in FigureName] == list(FIGURES)


@pytest.mark.parametrize("file_format", list(BEGINS))
def test_a_figure_is_a_file_in_plain_colours(run_folder, tmp_path, file_format):
    (path,) = plot(run_folder, "accuracy_over_skill", file_format, tmp_path)
    content = path.read_bytes()
    assert path == tmp_path / f"accuracy_over_skill.{file_format}" and content.startswith(BEGINS[file_format])
    assert b"var(--" not in content


LEARNING = {"online_curves", "judge_hacking", "judges", "attacks", "cotraining"}
"""Figures of runs in which judges learn by reinforcement; see test_learning.py."""


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in LEARNING])
def test_every_figure_of_a_whole_run_is_written(run_folder, tmp_path, name):
    paths = plot(run_folder, name, "svg", tmp_path)
    assert len(paths) == (6 if name == "training_curves" else 1) and all(path.is_file() for path in paths)


def test_what_can_not_be_plotted_is_refused_with_what_can(run_folder, made, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, ignore=shutil.ignore_patterns("weak_to_strong", "judge"))
    with pytest.raises(UserError, match="no figure 'pgr'; it has: accuracy_over_skill, accuracy_by_protocol, ratings"):
        plot(run, "pgr", "pdf")
    with pytest.raises(UserError, match="no stage with figures is finished"):
        plot(made.open_run(tmp_path / "empty"), "pgr", "pdf")
    with pytest.raises(UserError, match="is no run"):
        plot(tmp_path / "none", "pgr", "pdf")
    write_text(run / "config.yaml", "seeds: [3]\n")
    with pytest.raises(UserError, match="plot a seed of it, such as .*seed3"):
        plot(run, "pgr", "pdf")
