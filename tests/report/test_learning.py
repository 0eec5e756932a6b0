"""Stages that learn by reinforcement, in the page, its figures, the effects of a study and its findings."""

import re
from html import unescape

import pytest

from debate_rl.analysis.effects.table import effects
from debate_rl.report import load_run
from debate_rl.report.findings import findings
from debate_rl.report.page import render_pages
from debate_rl.report.plot import plot
from debate_rl.report.stage_charts import stage_charts
from tests.report.learning_run import learning_run


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    return learning_run(made, tmp_path_factory.mktemp("learning") / "run")


@pytest.fixture(scope="module")
def rows(folder):
    return {row.name: row for row in effects([folder, folder], resamples=20)}


@pytest.fixture(scope="module")
def html(folder):
    return render_pages(load_run(folder), table=effects([folder], resamples=20)).main


@pytest.fixture(scope="module")
def text(html):
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def test_every_stage_has_its_section_with_a_figure_and_a_table(html):
    for anchor in ("online", "judge_online", "judges", "cotraining"):
        section = html.split(f'<section id="{anchor}">')[1].split("</section>")[0]
        assert "<svg" in section and "<table>" in section and f'href="#{anchor}"' in html


def test_the_page_says_where_win_rate_and_truth_part(html, text):
    assert "Win rate and truth part between steps 0 and 10" in text and "The judges part between steps 0 and 10" in text
    assert "proxy win rate" in html and "truth parts" in html
    assert "watch/accuracy" not in text  # its intervals are in the figures of online training
    section = html.split('<section id="online">')[1].split("</section>")[0]
    assert re.search(r"Accuracy of judge, which trains.*step 20: 25\.0 \[[\d.]+, [\d.]+\]", section, re.DOTALL)


def test_the_debates_of_every_judge_and_turn_can_be_opened(html):
    for name in ("rl, before training", "rl, after training", "judges, base", "turns, turn 1"):
        assert name in html


def test_judges_are_compared_under_attacks_too(text):
    assert "suffix_sure base +22.5" in text and "suffix_sure rl +3.7" in text
    assert "rl − base, paired: accuracy +50.0" in text


@pytest.mark.parametrize("name", ["judge_hacking", "online_curves", "judges", "attacks", "cotraining", "calibration"])
def test_figures_are_files(folder, tmp_path, name):
    assert all(path.is_file() for path in plot(folder, name, "svg", tmp_path))


def test_figures_go_to_a_tracker(folder):
    assert "judge_hacking" in stage_charts(folder, "grpo") and set(stage_charts(folder, "turns")) == {"turns"}
    assert set(stage_charts(folder, "rl")) == {"calibration", "curve", "brier"}
    assert set(stage_charts(folder, "judges")) == {"accuracy", "calibration", "attacks"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("win rate by the training judge: last step - step 0", 30.0),
        ("win rate by the held-out judge: last step - step 0", 0.0),
        ("accuracy of the training judge: last step - step 0", -50.0),
        ("accuracy, mean of both orders: after - before", 50.0),
        ("rl - base, accuracy", 50.0),
        ("suffix_sure on base, change of accuracy", -75.0),
        ("all attacks, rl - base, change of accuracy", 75.0),
        ("turns.1 against sft, win rate by the judge that pays (turns)", 70.0),
        ("frozen.1 - sft, accuracy of the held-out judge (frozen)", -50.0),
        ("turns.1 - frozen.1, accuracy of the judge in training (turns)", 50.0),
    ],
)
def test_the_effects_of_a_study_pool_the_games_of_its_seeds(rows, name, value):
    row = rows[name]
    assert row.estimate.value == pytest.approx(value) and row.seeds == pytest.approx((value, value))
    assert row.estimate.low is not None and row.estimate.clusters == 8


def test_the_step_of_parting_stands_beside_the_effect(rows):
    assert "between steps 0 and 10" in rows["win rate by the training judge: last step - step 0"].note


def test_findings_are_sentences_about_these_stages(rows):
    said = [finding.sentence for finding in findings(list(rows.values()))]
    assert "The judge that learns is right more often about turns.1 than about frozen.1" in said
    assert "Judge rl is right more often than judge base" in said
    assert "Attacks fool judge rl less than judge base" in said
