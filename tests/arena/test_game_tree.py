"""Trees: their sizes, whose draws they take, what a node's score is, and what a failure takes with it."""

import re
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.arena.game_tree import Tree, grow, grow_to_file, pools_of, widths
from debate_rl.arena.rollout import play
from debate_rl.arena.schedule import branching, self_play
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.records import read_log

JUDGE = Judge(model="judge", both_orders=False)
PLAYERS = {name: Debater(name=name, model=name) for name in ("x", "y", "z")}
TWO_TURNS = load_protocol("debate", turns=2)


def question(number=0):
    return Question(
        id=f"q{number}", text=f"where {number} ?", answers=("shed", "barn"), correct=0, passage="it is here",
        group=f"g{number}",
    )  # fmt: skip


def believes(choice):
    """A judge whose verdict depends on every word of the transcript."""
    read = choice.messages[-1].content
    numbers = [int(found) for found in re.findall(r"said (\d+)", read)]
    return [sum((at + 1) * number for at, number in enumerate(numbers)) % 97 / 50, 0.0]


def numbered(request):
    return f"said {request.seed % 89}"


def grown(trees, players=PLAYERS, write=numbered, score=believes):
    engine = ScriptedEngine(write, score)
    return grow(trees, players, engine, JUDGE), engine


def test_two_simultaneous_turns_are_nine_speeches_four_verdicts_three_pairs_and_twice_that_flipped():
    (one,), engine = grown(branching("x", [question()], TWO_TURNS, flip=False))
    assert one.size == (9, 4, 3)
    assert len(engine.requests) == 9 and len(engine.choices) == 4 and engine.calls == 3  # a call a turn, and the judge
    pools = pools_of(one)
    assert [(pool.turn, len(pool.candidates), len(pool.opponents)) for pool in pools] == [
        (0, 2, 1),
        (1, 2, 1),
        (1, 2, 1),
    ]
    both, engine = grown(branching("x", [question(0), question(1)], TWO_TURNS))
    assert [tree.target for tree in both] == ["A", "B", "A", "B"] and engine.calls == 3
    assert sum(len(pools_of(tree)) for tree in both) == 2 * 6


@pytest.mark.parametrize(
    ("protocol", "turns", "kind", "side", "size"),
    [
        ("debate", 1, "full", "A", (3, 2, 1)),
        ("debate", 3, "full", "B", (21, 8, 7)),
        ("debate", 2, "single", "A", (7, 2, 1)),
        ("sequential", 2, "full", "A", (4, 2, 1)),  # A twice, B to each
        ("sequential", 2, "full", "B", (3, 2, 1)),
        ("claim", 3, "full", "A", (8, 4, 3)),
        ("claim", 3, "single", "A", (6, 2, 1)),
        ("claim", 3, "full", "B", (5, 2, 1)),
        ("single", 2, "full", None, (6, 4, 3)),
        ("double", 2, "full", "A", (6, 4, 3)),
        ("ensembled", 2, "full", "B", (6, 4, 3)),
    ],
)
def test_every_protocol_branches_where_its_target_speaks(protocol, turns, kind, side, size):
    trees = branching("x", [question()], load_protocol(protocol, turns=turns), kind)
    if side is not None:
        trees = [tree for tree in trees if tree.target == side]
    (tree,), engine = grown(trees)
    assert tree.size == size
    assert (len(engine.requests), sum(map(len, [tree.leaves]))) == size[:2]
    assert sum(comb(len(pool.candidates), 2) for pool in pools_of(tree)) == size[2]
    consultancy = tree.game.protocol.speakers_see == "own"
    assert tree.game.present == ((tree.target,) if consultancy else ("A", "B"))


def test_half_branches_in_one_turn_drawn_by_seed():
    seen = set()
    for seed in range(20):
        for tree in branching("x", [question(seed)], TWO_TURNS, "half", seed=seed):
            assert tree == branching("x", [question(seed)], TWO_TURNS, "half", seed=seed)["AB".index(tree.target)]
            assert sorted(tree.widths) == [1, 2]
            seen.add(tree.widths)
    assert seen == {(1, 2), (2, 1)}


@settings(max_examples=25)
@given(
    protocol=st.sampled_from(["debate", "sequential", "claim", "single", "double", "ensembled"]),
    turns=st.integers(1, 3), kind=st.sampled_from(["full", "half", "single"]), branches=st.integers(2, 3),
    aggregate=st.sampled_from(["mean", "min"]), seed=st.integers(0, 5),
)  # fmt: skip
def test_a_nodes_score_is_the_mean_of_its_leaves(protocol, turns, kind, branches, aggregate, seed):
    rules = load_protocol(protocol, turns=turns)
    trees, engine = grown(branching("x", [question()], rules, kind, branches, seed=seed))
    assert len(engine.requests) == len(set(engine.requests)) <= sum(tree.size[0] for tree in trees)
    assert sum(len(tree.leaves) for tree in trees) == sum(tree.size[1] for tree in trees)
    for tree in trees:
        pools = pools_of(tree, aggregate)
        assert sum(comb(len(pool.candidates), 2) for pool in pools) == tree.size[2]
        for pool in pools:
            before = pool.transcript.speeches
            for speech, row, score in zip(pool.candidates, pool.p, pool.scores, strict=True):
                through = [
                    leaf for leaf in tree.leaves if speech in leaf.speeches and leaf.speeches[: len(before)] == before
                ]
                verdicts = [leaf.verdict.p_side(tree.target) for leaf in through]
                assert sorted(row) == sorted(verdicts)
                assert score == pytest.approx(min(verdicts) if aggregate == "min" else sum(verdicts) / len(verdicts))


def test_the_first_path_is_the_plain_game_and_more_branches_hold_fewer(tmp_path):
    engine = StoredEngine(ScriptedEngine(numbered, believes), tmp_path)
    plain = play(self_play(["x"], [question()], TWO_TURNS), PLAYERS, engine, JUDGE)[0]
    two, three = (grow(branching("x", [question()], TWO_TURNS, branches=n), PLAYERS, engine, JUDGE) for n in (2, 3))
    for tree in (*two, *three):
        assert tree.leg(tree.leaves[0]) == plain
    held = {leaf.path: leaf for leaf in three[0].leaves}
    assert all(held[leaf.path] == leaf for leaf in two[0].leaves)


def test_the_root_of_a_tree_draws_what_best_of_two_draws():
    pools = []
    rules = load_protocol("debate")
    player = Debater(name="x", model="x", best_of=2, opponents=1)
    play(self_play(["x"], [question()], rules), {"x": player}, ScriptedEngine(numbered, believes), JUDGE, pools=pools)
    trees, _ = grown(branching("x", [question()], rules))
    for pool, tree in zip(pools, trees, strict=True):
        (root,) = pools_of(tree)
        assert [speech.text for speech in root.candidates] == [speech.text for speech in pool.candidates]


def test_a_best_of_n_player_branches_into_candidates_of_its_own():
    player = Debater(name="x", model="x", best_of=3, opponents=1)
    trees = branching("x", [question()], load_protocol("debate"), flip=False, opponents=["y"])
    (tree,), engine = grown(trees, {"x": player, "y": PLAYERS["y"]})
    own = [request for request in engine.requests if request.model == "x"]
    assert len({request.seed for request in own if request.messages == own[0].messages}) == 6  # three a branch
    assert len(pools_of(tree)[0].candidates) == 2


def test_opponents_are_drawn_from_a_pool_and_play_themselves():
    trees = branching("x", [question(n) for n in range(20)], load_protocol("debate"), opponents=["y", "z"])
    seats = {name for tree in trees for side, name in tree.game.players.items() if side != tree.target}
    assert seats == {"y", "z"} and all(tree.game.players[tree.target] == "x" for tree in trees)
    (tree, *_), _ = grown(trees[:1])
    assert tree.leaves[0].speeches[1].origin.model == tree.game.players["B"]


def test_a_failed_speech_kills_only_the_paths_through_it():
    def write(request):
        if "said" in request.messages[-1].content and len(broken) < 1 and request.model == "x":
            broken.append(request)
            raise RuntimeError("lost")
        return numbered(request)

    broken = []
    trees = branching("x", [question()], TWO_TURNS, opponents=["y"], flip=False)
    (tree,), engine = grown(trees, write=write)
    dead = [leaf for leaf in tree.leaves if leaf.failure is not None]
    assert (
        [leaf.path for leaf in dead] == [(0, 0)] and dead[0].failure.turn == 1 and dead[0].failure.seat == tree.target
    )
    assert len(engine.choices) == 3
    assert [len(pool.candidates) for pool in pools_of(tree)] == [2, 1, 2]
    assert [len(row) for row in pools_of(tree)[0].p] == [1, 2]  # the mean of what was finished


def test_the_other_sides_failure_kills_the_node_and_a_failed_verdict_one_leaf():
    def write(request):
        if request.model == "y":
            raise RuntimeError("lost")
        return numbered(request)

    trees = branching("x", [question()], TWO_TURNS, opponents=["y"], flip=False)
    (tree,), engine = grown(trees, write=write)
    assert [leaf.path for leaf in tree.leaves] == [(0,), (1,)] and not engine.choices and pools_of(tree) == []

    def score(choice):
        scored.append(choice)
        return [float("nan"), 0.0] if len(scored) == 1 else believes(choice)

    scored = []
    (tree,), _ = grown(trees, score=score)
    assert [leaf.failure.seat for leaf in tree.leaves if leaf.failure] == ["judge"]
    assert [len(pool.candidates) for pool in pools_of(tree)] == [2, 1, 2]


def test_a_stopped_growth_goes_on_at_the_unit_of_one_tree(tmp_path):
    trees = branching("x", [question(n) for n in range(4)], TWO_TURNS)
    whole = grow_to_file(trees, PLAYERS, ScriptedEngine(numbered, believes), JUDGE, tmp_path / "whole.jsonl", chunk=3)

    class Dying(ScriptedEngine):
        def choose(self, choices):
            if self.calls > 4:
                raise KeyboardInterrupt
            return super().choose(choices)

    path = tmp_path / "stopped.jsonl"
    with pytest.raises(KeyboardInterrupt):
        grow_to_file(trees, PLAYERS, Dying(numbered, believes), JUDGE, path, chunk=3)
    assert len(read_log(path, Tree)) == 3
    with path.open("ab") as file:
        file.write(b'{"game": {"ques')  # a line torn by the crash
    engine = ScriptedEngine(numbered, believes)
    told = []
    again = grow_to_file(trees, PLAYERS, engine, JUDGE, path, chunk=3, progress=lambda *now: told.append(now))
    assert again == whole and told[-1] == (8, 0, 8)
    asked = {re.search(r"where (\d)", request.messages[-1].content)[1] for request in engine.requests}
    assert asked == {"1", "2", "3"}  # both trees of question 0 and one of 1 were finished


def test_a_protocol_without_speeches_can_not_branch():
    with pytest.raises(UserError, match="'blind' has no speeches to branch"):
        branching("x", [question()], load_protocol("blind"))


def test_widths_of_a_side_that_never_speaks():
    game = open_transcript(question(), load_protocol("sequential", turns=1), {"A": "x", "B": "y"})
    assert widths(game, "B", "half") == (1,) and widths(game, "B", "full") == (1,)
