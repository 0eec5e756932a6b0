"""Scoring again: the second judge's probabilities and choices, without a single new text."""

import re

import pytest

from debate_rl.analysis.judging.rescore import rescore
from debate_rl.arena.game_tree import grow_to_file, pools_of
from debate_rl.arena.rollout import LogOptions, play_to_file, read_pools
from debate_rl.arena.schedule import branching, self_play
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Pool
from debate_rl.records import append, digest, read

QUESTIONS = [
    Question(id=f"q{n}", text="where ?", answers=("shed", "barn"), correct=0, passage="it is here", group=f"g{n // 2}")
    for n in range(8)
]
FIRST = Judge(name="first", model="first", both_orders=False)
SECOND = FIRST.model_copy(update={"name": "second", "model": "second"})


def numbered(request):
    return f"said {int(digest(request), 16) % 97}"


def believes(choice):
    """The first judge likes high numbers, the second low ones."""
    found = dict(re.findall(r'<speech for="(\w+)" turn="\d">\nsaid (\d+)', choice.messages[-1].content))
    gap = (int(found.get("shed", 48)) - int(found.get("barn", 48))) / 50
    return [gap if choice.model == "first" else -gap, 0.0]


class Mute(ScriptedEngine):
    """A model that judges and must not speak."""

    def generate(self, requests):
        raise AssertionError("text was generated")


def played(folder, protocol="debate", **player):
    one = Debater(name="x", model="x", **{"best_of": 4, "opponents": 2, **player})
    games = self_play(["x"], QUESTIONS, load_protocol(protocol))
    path, pools = folder / "debates.jsonl", folder / "pools.jsonl"
    options = LogOptions(pool_path=pools)
    play_to_file(games, {"x": one}, ScriptedEngine(numbered, believes), FIRST, path, options=options)
    return read_pools(pools)


@pytest.mark.parametrize("protocol", ["debate", "sequential", "double", "single"])
def test_the_same_judge_chooses_the_same_and_another_one_its_own(tmp_path, protocol):
    kept = played(tmp_path, protocol)
    same, pools = rescore(tmp_path, FIRST, Mute(score=believes))
    assert pools == kept and same.agreement.value == 1 and same.again.value == 0
    assert same.first.value == pytest.approx(same.carried.value) == pytest.approx(same.second.value)
    other, pools = rescore(tmp_path, SECOND, Mute(score=believes))
    assert other.pools == len(kept) and other.agreement.value < 0.2 and other.first.value > 0 > other.carried.value
    assert other.second.value > 0 and other.again.value == pytest.approx(other.second.value - other.carried.value)
    assert other.agreement.clusters == len({pool.transcript.question.cluster for pool in kept})
    for old, new in zip(kept, pools, strict=True):
        assert new.scores == pytest.approx([1 - score for score in old.scores])
        assert new.chosen == max(range(4), key=lambda at: new.scores[at])
    assert "second's choice over one draw" in str(other)


def test_the_first_candidates_are_a_smaller_pool_and_the_worst_case_stays_one(tmp_path):
    for name, count in (("four", 4), ("two", 2)):
        played(tmp_path / name, best_of=count, aggregate="min")
    four, _ = rescore(tmp_path / "four", SECOND, Mute(score=believes), best_of=2)
    two, pools = rescore(tmp_path / "two", SECOND, Mute(score=believes))
    assert four == two and all(pool.scores == tuple(map(min, pool.p)) for pool in pools)
    with pytest.raises(UserError, match="holds pools of 2 candidates; choose from 2 to 2"):
        rescore(tmp_path / "two", SECOND, Mute(score=believes), best_of=3)


def test_trees_are_judged_at_their_leaves(tmp_path):
    trees = branching("x", QUESTIONS, load_protocol("debate", turns=2))
    one = {"x": Debater(name="x", model="x")}
    grown = grow_to_file(trees, one, ScriptedEngine(numbered, believes), FIRST, tmp_path / "trees.jsonl")
    append(tmp_path / "pools.jsonl", [pool for tree in grown for pool in pools_of(tree)])
    engine = Mute(score=believes)
    found, pools = rescore(tmp_path, SECOND, engine)
    # The leaves read alike in many trees, and equal choices are asked once.
    assert len(engine.choices) == len(set(engine.choices)) and found.pools == 16 * 3 and found.candidates == 2
    assert [pool.p for pool in pools] == [
        tuple(tuple(pytest.approx(1 - p) for p in row) for row in pool.p) for tree in grown for pool in pools_of(tree)
    ]


def test_what_the_second_judge_fails_on_is_counted_and_left_out(tmp_path):
    kept = played(tmp_path)

    def fails(choice):
        return [float("nan"), 0.0] if kept[0].candidates[0].text in choice.messages[-1].content else believes(choice)

    found, pools = rescore(tmp_path, SECOND, Mute(score=fails))
    assert found.failed >= 1 and found.pools + found.failed == len(kept) and len(pools) == found.pools
    with pytest.raises(UserError, match="second could not judge any pool"):
        rescore(tmp_path, SECOND, Mute(score=lambda choice: [float("nan"), 0.0]))
    with pytest.raises(UserError, match=r"is a file; give the folder of the stage that it is of"):
        rescore(__file__, SECOND, Mute())
    with pytest.raises(UserError, match="no pools in .*; give the folder of a finished preferences stage"):
        rescore(tmp_path / "nowhere", SECOND, Mute())


def test_the_command_judges_by_a_lab_model(tmp_path, call):
    played(tmp_path, best_of=2, opponents=1)
    out = tmp_path / "again.jsonl"
    code, printed, err = call("rejudge", "candidates", tmp_path, "--judge", "lab-small", "--out", out)
    assert code == 0 and "16 pools of 2 candidates, 0 more that lab-small failed on" in printed, err
    assert len(read(out, Pool)) == 16
    code, _, err = call("rejudge", "candidates", tmp_path, "--judge", "lab-small", "--adapter", tmp_path / "none")
    assert code == 2 and "adapter not found" in err
