import pytest

from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure
from debate_rl.records import write
from debate_rl.report.debates import failures_by_kind, read_legs, sample


@pytest.fixture(scope="module")
def played(made):
    """Legs of two protocols and three pairings."""
    pairs = [("dpo", "sft"), ("sft", "dpo"), ("dpo", "base"), ("base", "base")]
    debates = [made.leg(made.question(n), pair) for n in range(8) for pair in pairs]
    singles = [made.leg(made.question(n), ("dpo", "dpo"), "single") for n in range(8)]
    blind = [made.leg(made.question(n), ("dpo", "dpo"), "blind") for n in range(3)]
    return debates + singles + blind


def put(path, legs):
    write(path / "debates.jsonl", legs)
    return path / "debates.jsonl"


def shown(legs, tmp_path, count):
    found = read_legs("stage", put(tmp_path, legs), keep=count)
    return [leg.transcript.id for _, leg in sample([found], count)]


def test_choice_does_not_depend_on_order_or_outcome(played, tmp_path):
    first = shown(played, tmp_path, 7)
    turned = [
        leg.model_copy(update={"verdict": leg.verdict.model_copy(update={"p": leg.verdict.p[::-1]})}) for leg in played
    ]
    assert shown(turned[::-1], tmp_path, 7) == first


def test_choice_takes_turns_over_protocols_and_pairings(played, tmp_path):
    found = read_legs("stage", put(tmp_path, played), keep=6)
    chosen = [leg.transcript for _, leg in sample([found], 6)]
    assert [game.protocol.name for game in chosen] == ["debate"] * 3 + ["single"] * 3
    assert len({tuple(sorted(set(game.players.values()))) for game in chosen[:3]}) == 3


def test_smaller_choice_is_part_of_a_larger_one(played, tmp_path):
    assert set(shown(played, tmp_path, 4)) < set(shown(played, tmp_path, 9))


def test_same_game_in_two_stages_is_shown_once(played, tmp_path):
    found = read_legs("tournament", put(tmp_path, played), keep=50)
    again = found._replace(stage="oversight")
    names = [leg.transcript.id for _, leg in sample([found, again], 100)]
    assert len(names) == len(set(names)) == 8 * 5


def test_games_without_speeches_are_not_candidates(played, tmp_path):
    found = read_legs("stage", put(tmp_path, played), keep=50)
    assert {protocol for protocol, _ in found.candidates} == {"debate", "single"}
    assert found.played == len(played)


def test_only_so_many_candidates_are_held(played, tmp_path):
    found = read_legs("stage", put(tmp_path, played), keep=2)
    assert all(len(held) == 2 for held in found.candidates.values())
    assert read_legs("stage", put(tmp_path, played), keep=0).candidates == {}


def test_failed_legs_are_kept_apart(played, tmp_path):
    failure = Failure(seat="judge", kind="context", message="too long")
    broken = played[0].model_copy(update={"verdict": None, "failure": failure})
    found = read_legs("stage", put(tmp_path, [broken, *played[1:]]), keep=50)
    assert [(leg.question, leg.failure) for leg in found.failed] == [("q-0", failure)]
    assert broken.transcript.id not in {name for held in found.candidates.values() for name, _ in held}
    assert failures_by_kind(found.failed) == {"context": 1}


def test_games_are_counted_for_both_players(made, tmp_path):
    legs = [
        made.leg(made.question(n), pair) for n in range(3) for pair in (("dpo", "sft"), ("sft", "dpo"), ("dpo", "dpo"))
    ]
    found = read_legs("stage", put(tmp_path, legs), keep=1)
    forth, back = found.win_rates(["dpo", "sft"])
    assert (forth.player, forth.opponent, forth.games) == ("dpo", "sft", 6)
    expected = [leg.verdict.p[0 if leg.transcript.players["A"] == "dpo" else 1] for leg in legs]
    assert forth.p == pytest.approx(
        sum(p for p, leg in zip(expected, legs, strict=True) if len(set(leg.transcript.players.values())) == 2) / 6
    )
    assert forth.p + back.p == pytest.approx(1)


def test_unit_is_what_clusters_are(made, played, tmp_path):
    assert read_legs("stage", put(tmp_path, played), keep=1).unit == "stories"
    alone = made.leg(made.question(1).model_copy(update={"group": ""}), ("dpo", "sft"))
    assert read_legs("stage", put(tmp_path, [alone]), keep=1).unit == "questions"
    assert read_legs("stage", put(tmp_path, [alone, *played]), keep=1).unit == "stories or single questions"


def test_malformed_leg_names_file_and_line(played, tmp_path):
    path = put(tmp_path, played[:1])
    path.write_text(path.read_text(encoding="utf-8") + '{"transcript": 3}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"debates.jsonl:2: transcript"):
        read_legs("stage", path, keep=1)
