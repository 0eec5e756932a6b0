import pytest

from debate_rl.errors import UserError
from debate_rl.game.protocol import drawn_side, load_protocol, shipped_protocols


def test_every_shipped_protocol_loads():
    assert {"debate", "sequential", "claim", "single", "double", "ensembled", "blind", "open_book"} <= set(
        shipped_protocols()
    )
    for name in shipped_protocols():
        assert load_protocol(name).name == name


def test_only_open_book_shows_the_judge_the_passage():
    assert [name for name in shipped_protocols() if load_protocol(name).judge_reads_passage] == ["open_book"]


def test_order_repeats_until_the_turns_are_played():
    claim = load_protocol("claim")
    assert [claim.speakers(turn, ("A", "B")) for turn in range(3)] == [("A",), ("B",), ("A",)]
    assert load_protocol("debate", turns=2).speakers(1, ("A", "B")) == ("A", "B")
    assert load_protocol("single").speakers(0, ("B",)) == ("B",)


def test_a_protocol_is_a_few_lines_of_yaml(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text("order: [[B], [A]]\nturns: 4\nspeakers_see: own\n")
    found = load_protocol(str(path), max_words=50)
    assert (found.name, found.turns, found.max_words, found.speakers(0, ("A", "B"))) == ("long", 4, 50, ("B",))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("debat", {}, "did you mean 'debate'"),
        ("debate", {"turn": 2}, "did you mean 'turns'"),
        ("debate", {"turns": -1}, "turns"),
        ("debate", {"order": []}, "order"),
        ("missing.yaml", {}, "protocol file not found"),
    ],
)
def test_mistakes_say_what_to_do(name, changes, said):
    with pytest.raises(UserError, match=said):
        load_protocol(name, **changes)


def test_the_drawn_side_is_fair_and_depends_on_question_and_seed():
    sides = [drawn_side(f"q{i}", 0) for i in range(2000)]
    assert 900 < sides.count("A") < 1100
    assert sides == [drawn_side(f"q{i}", 0) for i in range(2000)]
    assert sides != [drawn_side(f"q{i}", 1) for i in range(2000)]
