import pytest

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.intervals import Estimate
from debate_rl.report import load_run
from debate_rl.report.findings import MOST, asked, basis, findings


def row(group, name, value, low, high, unit="points"):
    estimate = Estimate(value=value, low=low, high=high, n=60, clusters=30)
    return EffectRow(group=group, name=name, estimate=estimate, seeds=(value,), unit=unit)


@pytest.mark.parametrize(
    ("numbers", "sentence", "said"),
    [
        ((45, 31.7, 58.3), "The judge is right more often with debate than with a single consultant (debater dpo)",
         "+45.0 points [+31.7, +58.3]"),
        ((-5, -9, -1), "The judge is right less often with debate than with a single consultant (debater dpo)",
         "\u22125.0 points [\u22129.0, \u22121.0]"),
        ((2, -1, 5), "Not shown: The judge is right more often with debate than with a single consultant (debater dpo)",
         "+2.0 points [\u22121.0, +5.0]"),
        ((2, None, None),
         "Not shown: The judge is right more often with debate than with a single consultant (debater dpo)",
         "+2.0 points, no interval"),
    ],
)  # fmt: skip
def test_a_sentence_says_what_its_interval_shows(numbers, sentence, said):
    (found,) = findings([row("protocols", "debate - single, dpo", *numbers)])
    assert (found.sentence, found.numbers) == (sentence, said)


def test_an_interval_that_touches_no_effect_is_not_shown():
    (found,) = findings([row("skill", "dpo over sft, Elo", 8, 0, 20, "Elo")])
    assert found.status == "not shown" and found.section == "ratings"


def test_which_rows_are_findings_does_not_depend_on_their_values():
    rows = [
        row("protocols", "debate - single, dpo", 1, -9, 9), row("protocols", "debate - double, dpo", 50, 40, 60),
        row("skill", "sft over base, Elo", 300, 200, 400, "Elo"), row("skill", "dpo over sft, Elo", 1, -9, 9, "Elo"),
        row("judge", "accuracy, mean of both orders: after - before", 1, -9, 9),
        row("weak-to-strong", "debate student - none student", 1, -9, 9),
        row("quotes", "sft - base, speeches with valid quotes only", 1, -9, 9),
        row("oversight", "judge accuracy over debater rating, debate", 1, -9, 9, "points per 100 Elo"),
    ]  # fmt: skip
    found = findings(rows)
    assert len(found) == MOST and {one.status for one in found} == {"not shown"}
    assert [one.section for one in found] == ["oversight", "oversight", "transfer", "judge", "ratings"]


def test_nothing_measured_is_no_finding():
    assert findings([]) == []
    assert findings([], {"debate": "undefined: the gap includes 0"})[0].section == "transfer"


def test_the_page_says_what_a_run_asks_and_on_what_it_rests(run_folder, made, tmp_path):
    run = load_run(run_folder)
    assert asked(run).startswith("This run asks which debaters persuade the judge, under which protocols")
    assert basis(run, 5400, 3) == "5\u202f400 debates, 3 of them failed"
    assert asked(load_run(made.open_run(tmp_path))).startswith("No stage")
