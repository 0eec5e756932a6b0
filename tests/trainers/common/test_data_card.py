from debate_rl.data.sources.provenance import Source
from debate_rl.trainers.common.data_card import DataFacts, Gathered, data_card, write_data_card
from debate_rl.trainers.common.rows import JudgeRow, PreferenceRow, SftRow

COUNTS = {
    "read": 3, "trained": 2, "left_out": {"longer than max_length": 1},
    "over_long": {"rows": 1, "shortest": 8413, "longest": 8413},
    "tokens": {"prompt": {"min": 10, "median": 20, "max": 7000, "sum": 7020}},
}  # fmt: skip


def sft(side, turn, source):
    return SftRow(
        prompt=[], completion="x", question="q", group="s", side=side, turn=turn, source=source, split="train"
    )


def test_an_sft_card_counts_everything(tmp_path):
    source = Source(name="nyu|human", licence="CC BY 4.0", by="Michael et al.", url="https://x.org")
    gathered = Gathered(source=source, games=4, built=7, used=3, left_out={"nobody spoke": 2}, notes={"unfinished": 1})
    facts = DataFacts(gathered=(gathered,), quotes={"exact": 3, "invalid": 1}, checks={"no leak": "0 found"})
    write_data_card(
        tmp_path, "sft of x", [sft("A", 0, "human"), sft("B", 0, "human"), sft("A", 1, "GPT-4")], COUNTS, facts
    )
    card = (tmp_path / "data_card.md").read_text().splitlines()
    for line in (
        "# Data of sft of x",
        "| rows | 3 |",
        "| rows ready to train on | 2 |",
        "| share longer | 33.3% |",
        "| their tokens | 8,413 to 8,413 |",
        "| stories | 1 |",
        "| nyu\\|human | CC BY 4.0 | 4 | 7 | 3 | 100% | Michael et al. https://x.org |",
        "| nyu\\|human | left out: nobody spoke | 2 |",
        "| nyu\\|human | kept: unfinished | 1 |",
        "| rows | left out: longer than max_length | 1 |",
        "| human | 2 | 66.7% |",
        "| A | 2 | 66.7% |",
        "| 2 | 1 | 33.3% |",
        "| prompt | 10 | 20 | 7,000 | 7,020 |",
        "| exact | 3 | 75.0% |",
        "| no leak | 0 found |",
    ):
        assert line in card


def test_a_card_of_preferences_shows_the_judges_gaps():
    rows = [
        PreferenceRow(
            prompt=[], chosen="a", rejected="b", p_chosen=p, p_rejected=0.25, question=str(p), side="B", turn=0
        )
        for p in (0.5, 0.75, 1.0)
    ]
    card = data_card("dpo", rows, COUNTS, DataFacts())
    assert "rows seen" not in card
    assert "| rows seen, at most | 1,600 |" in data_card("dpo", rows, COUNTS | {"seen": 1600}, DataFacts())
    assert "| gap | 0.500 | 0.250 | 0.275 | 0.500 | 0.725 | 0.750 |" in card
    assert "| B | 3 | 100.0% |" in card and "Speakers" not in card and "Labels" not in card


def test_a_card_of_a_judge_shows_the_balance_of_its_labels():
    rows = [
        JudgeRow(prompt=[], candidates=c, target=t)
        for c, t in ((("A", "B"), 1.0), (("B", "A"), 1.0), (("A", "B"), 0.4))
    ]
    card = data_card("judge", rows, COUNTS, DataFacts())
    assert "| answer 0 is right (mean) | 0.800 |" in card
    assert "| the candidate that is first in the alphabet is right (mean) | 0.467 |" in card
    assert "| labels between 0 and 1 | 33.3% |" in card and "Sides" not in card
