import pytest

from debate_rl.errors import UserError
from debate_rl.intervals import Effect, Estimate
from debate_rl.judges.scores import judge_scores
from debate_rl.report import write_model_card
from debate_rl.trainers.common.model_card import complete_model_card, model_card

ESTIMATE = Estimate(value=0.844, low=0.781, high=0.902, n=154, clusters=77)
EFFECT = Effect(value=0.041, low=0.008, high=0.075, n=433, clusters=96, p=0.017)


def test_card_tells_facts_and_scores_in_order(tmp_path):
    write_model_card(tmp_path / "adapter", "dpo of quickstart", {"base": "lab-base", "rows": 18800, "lr": 2e-5},
                     {"train_loss": 0.61234, "accuracy": ESTIMATE, "change": EFFECT})  # fmt: skip
    assert (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8").splitlines() == [
        "# dpo of quickstart",
        "",
        "Trained with debate-rl.",
        "",
        "| what | value |",
        "|---|---|",
        "| base | lab-base |",
        "| rows | 18,800 |",
        "| lr | 2e-05 |",
        "",
        "## Scores",
        "",
        "| score | value |",
        "|---|---|",
        "| train_loss | 0.6123 |",
        "| accuracy | 0.844 [0.781, 0.902] (n 154, 77 clusters) |",
        "| change | 0.041 [0.008, 0.075], p 0.017 (n 433, 96 clusters) |",
        "",
        "Intervals are 95 % bootstraps over clusters: stories, or questions where there is no story.",
    ]


def test_dumps_read_as_the_records_they_were():
    records = model_card("t", {}, {"accuracy": ESTIMATE, "change": EFFECT})
    assert model_card("t", {}, {"accuracy": ESTIMATE.model_dump(), "change": EFFECT.model_dump()}) == records


def test_nested_scores_are_walked_through_and_tables_left_out():
    scores = judge_scores([0.9, 0.8, 0.3, 0.7], ["a", "a", "b", "b"])
    card = model_card("judge", {"base": "lab"}, {"after": scores, "flag": True})
    assert card == model_card("judge", {"base": "lab"}, {"after": scores.model_dump(), "flag": True})
    assert "| after accuracy | 0.750 [" in card and "| after floor median |" in card
    assert "| after reliability" not in card  # the table; its one-number part is among the parts
    assert "| after parts reliability |" in card


def test_card_without_scores_has_no_section_for_them():
    assert "Scores" not in model_card("t", {"base": "lab"}, {})


def test_values_can_not_break_the_table():
    card = model_card("a\nb", {"data": "x | y\n# <b>z</b>"}, {})
    assert card.startswith("# a b\n")
    assert "| data | x \\| y # &lt;b&gt;z&lt;/b&gt; |" in card


def test_what_only_looks_like_an_estimate_is_walked_through():
    assert "| odd value | 3 |" in model_card("t", {}, {"odd": {"value": 3, "n": "many", "clusters": 2}})


def test_a_card_is_completed_once_by_each_stage_that_rates(tmp_path):
    write_model_card(tmp_path, "dpo", {"base": "lab-base"}, {"train_loss": 0.6})
    before = (tmp_path / "README.md").read_text(encoding="utf-8")
    complete_model_card(tmp_path, "Rated in tournament", {"dpo": {"Elo": ESTIMATE.model_copy(update={"value": 1.0})}})
    complete_model_card(tmp_path, "Rated in finals | <b>", {"dpo": {"judge accuracy": ESTIMATE}})
    complete_model_card(tmp_path, "Rated in tournament", {"dpo": {"Elo": ESTIMATE}})
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith(before.rstrip()) and card.count("## Rated in tournament") == 1
    assert "| dpo Elo | 0.844" in card and "| dpo Elo | 1.000" not in card and "| dpo judge accuracy | 0.844" in card
    complete_model_card(tmp_path, "Rated in finals | <b>", {"dpo": {"judge accuracy": ESTIMATE}})
    assert (tmp_path / "README.md").read_text(encoding="utf-8").count("## Rated in finals") == 1
    with pytest.raises(UserError, match="model card"):
        complete_model_card(tmp_path / "none", "Rated in tournament", {})
