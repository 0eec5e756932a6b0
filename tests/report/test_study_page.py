import pytest

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.errors import UserError
from debate_rl.intervals import Estimate
from debate_rl.records import write_text
from debate_rl.report.study_page import seed_runs, study_seeds, write_study_page

HOSTILE = "<script>alert(1)</script>\x1b"


@pytest.fixture
def study(tmp_path, made):
    """A study of two seeds, of which the second has no page and an unfinished stage."""
    folder = made.open_run(tmp_path / "s p")
    write_text(folder / "config.yaml", "name: study\nseeds: [0, 12]\nstages: {}\n")
    first = made.open_run(folder / "seed0", stages=("sft",))
    made.put(first, "sft", {"rows": 1})
    write_text(first / "report" / "index.html", "<p>")
    made.put(made.open_run(folder / "seed12", stages=("sft", "dpo")), "sft", {"rows": 1})
    return folder


def table(name="x over y"):
    estimate = Estimate(value=-12.34, low=-20.0, high=-4.0, n=80, clusters=40)
    return [EffectRow(group="skill", name=name, estimate=estimate, seeds=(-12.0, None), unit="points", shown="no")]


def test_the_table_and_the_costs_of_every_seed(study, tmp_path):
    html = write_study_page(study, study / "report", table()).read_text()
    assert html.count('href="../seed0/report/index.html"') == 3 and "seed12/" not in html and "seed 12" in html
    assert "\u221212.3" in html and "[\u221220.0, \u22124.0]" in html and ">no<" in html
    assert "2 min 30 s" in html and "<td>dpo</td>" in html  # 75 s for each seed; what is not finished
    elsewhere = write_study_page(study, tmp_path / "out", table()).read_text()
    assert 'href="../s%20p/seed0/report/index.html"' in elsewhere


def test_names_are_text(study):
    html = write_study_page(study, study / "report", table(HOSTILE)).read_text()
    assert "<script" not in html and "&lt;script&gt;" in html and "\x1b" not in html


def test_folders_that_are_no_study(study, tmp_path):
    assert study_seeds(study) == [0, 12] and study_seeds(study / "seed0") == [] == study_seeds(tmp_path / "none")
    write_text(study / "config.yaml", "seeds: [0, 12, 13]")
    with pytest.raises(UserError, match="seed13 is not there yet"):
        seed_runs(study)
    write_text(study / "config.yaml", "a: [")
    with pytest.raises(UserError, match="is no study"):
        write_study_page(study, study / "report", [])
