import shutil

import pytest

from debate_rl.errors import UserError
from debate_rl.records import write_text
from debate_rl.report.compare_page import write_comparison

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def runs(made, tmp_path):
    """Two runs of one tournament, the second under a hostile name and with another config."""
    first = made.open_run(tmp_path / "runs" / "a", name="a", stages=("tournament", "sft"))
    made.tournament_stage(first, [made.question(number) for number in range(4)])
    second = tmp_path / "runs" / "b"
    shutil.copytree(first, second)
    write_text(second / "config.yaml", f"name: '{HOSTILE}'\nstages:\n  tournament: {{rounds: 3}}\n")
    write_text(second / "report" / "index.html", "<p>")
    return first, second


def test_runs_stand_side_by_side_with_effects_figures_and_what_differs(runs):
    page = write_comparison(runs)
    html = page.read_text()
    assert page == runs[0].parent / "compare" / "a-b" / "index.html"
    assert html.count("dpo over sft, Elo") == 1 and html.count("Elo with intervals</title>") == 2
    assert "<code>stages.tournament.rounds</code>" in html and "not finished: sft" in html
    # Only the second run has a page to whose debates its points can lead.
    assert 'href="../../b/report/index.html#debates?stage=tournament&amp;player=dpo"' in html
    assert html.count("no page of its own yet") == 1 and 'href="#debates?' not in html


def test_names_are_text(runs):
    html = write_comparison(runs).read_text()
    assert "<script" not in html and "&lt;script&gt;" in html and "script-src" not in html


def test_what_can_not_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="named twice"):
        write_comparison([runs[0], runs[0]])
    with pytest.raises(UserError, match="is no run"):
        write_comparison([runs[0], tmp_path / "none"])
