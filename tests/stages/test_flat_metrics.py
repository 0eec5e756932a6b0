"""Metrics as flat numbers."""

from hypothesis import given
from hypothesis import strategies as st

from debate_rl.intervals import Estimate
from debate_rl.stages.flat_metrics import flat_numbers, with_interval

ESTIMATE = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 20, "clusters": 10, "level": 0.95}
LEAVES = st.floats(allow_nan=False) | st.integers(-5, 5) | st.booleans() | st.none() | st.text(max_size=4)
NAMES = st.text(st.characters(codec="ascii", exclude_characters="/."), min_size=1, max_size=6)
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)


def test_every_estimate_has_its_interval_under_a_name_and_not_a_position():
    rows = [
        {"protocol": "debate", "player": "dpo", "scores": {"accuracy": ESTIMATE, "ece": 0.1}, "failed": 0},
        {"protocol": "single", "player": "dpo", "scores": {"accuracy": {**ESTIMATE, "low": None}}, "failed": 1},
    ]
    numbers = flat_numbers({"rows": rows, "judge": "judge"}, "oversight/")
    assert numbers == flat_numbers({"rows": rows[::-1]}, "oversight/")
    assert numbers["oversight/rows/debate/dpo/scores/accuracy"] == 0.8
    assert numbers["oversight/rows/debate/dpo/scores/accuracy.low"] == 0.7
    assert numbers["oversight/rows/debate/dpo/scores/accuracy.high"] == 0.9
    assert numbers["oversight/rows/single/dpo/failed"] == 1
    assert "oversight/rows/single/dpo/scores/accuracy.low" not in numbers
    assert with_interval("elo", Estimate(value=1.0, low=0.5, high=2.0, n=3, clusters=3)) == {
        "elo": 1.0, "elo.low": 0.5, "elo.high": 2.0,
    }  # fmt: skip
    assert with_interval("elo", None) == {}


def test_records_without_a_name_and_words_of_the_players_make_no_keys():
    assert flat_numbers({"reliability": [{"low": 0.5, "high": 0.6, "n": 3, "confidence": 0.55}]}) == {}
    assert flat_numbers({"separations": [{"first": "a", "second": "b", "features": [{"name": "the", "n": 2}]}]}) == {}


@given(st.dictionaries(NAMES, TREES, max_size=5))
def test_no_number_of_a_tree_is_lost_or_joined_with_another(tree):
    def count(value):
        if isinstance(value, dict) and "value" not in value and "features" not in value:
            return sum(map(count, value.values()))
        return int(isinstance(value, int | float) and not isinstance(value, bool))

    def plain(value):
        return not isinstance(value, dict) or (
            "value" not in value and "features" not in value and all(map(plain, value.values()))
        )

    if plain(tree):
        assert len(flat_numbers(tree)) == count(tree)
