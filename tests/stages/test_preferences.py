"""The preferences stage: every pair is a row or is counted, and a stopped stage ends like one that was not."""

import re
from collections import Counter
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.arena.game_tree import Tree, pools_of
from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.plan.plan import plan
from debate_rl.players.speak import Pool
from debate_rl.records import digest, read
from debate_rl.runs.run import Run
from debate_rl.stages import preferences
from debate_rl.stages.dpo import preference_facts
from debate_rl.trainers.common.rows import PreferenceRow, preference_rows


def believes(choice):
    """A judge whose verdict depends on every speech it reads."""
    numbers = [int(found) for found in re.findall(r"said (\d+)", choice.messages[-1].content)]
    return [sum((at + 1) * number for at, number in enumerate(numbers)) % 97 / 50, 0.0]


def numbered(request):
    return f"said {int(digest(request), 16) % 7}"


def made(tmp_path, write=numbered, score=believes, turns=2, protocol="debate", **stage):
    """The stage run with a scripted engine: metrics, folder, engine."""
    engine = ScriptedEngine(write, score)
    run = opened(tmp_path, engine, turns, protocol, **stage)
    result = run.config.stages["preferences"].execute(run, tmp_path / "out")
    return result.model_dump(mode="json"), tmp_path / "out", engine


def opened(tmp_path, engine=None, turns=2, protocol="debate", **stage):
    tree = {
        "name": "small",
        "runs": str(tmp_path),
        "questions": {"train": 12, "test": 2},
        "tracking": {"mode": "disabled"},
        "protocol": {"name": protocol, "prompts": "lab", "turns": turns, "max_new_tokens": 24},
        "stages": {"preferences": {"player": "base", "questions": 6, **stage}},
    }
    return Run(parse_config(tree), engine=engine, say=lambda line: None)


def dropped(metrics):
    return sum(metrics[f"dropped_{reason}"] for reason in preferences.REASONS)


@pytest.mark.parametrize("method", ["best_of_n", "full"])
def test_verdicts_with_errors_make_other_pairs_of_the_same_speeches(tmp_path, method):
    options = {"method": method, "best_of": 4, "opponents": 2, "questions": 12}
    clean, clean_out, engine = made(tmp_path / "clean", **options)
    some, out, again = made(tmp_path / "some", errors=0.3, **options)
    assert again.requests == engine.requests
    assert read(out / "pools.jsonl", Pool) == read(clean_out / "pools.jsonl", Pool)  # as the judge said
    assert "wrong" not in clean and 0.05 < some["wrong"] < 0.6
    turned, turned_out, _ = made(tmp_path / "all", errors=1.0, **options)
    assert turned["wrong"] == 1.0
    first, last = (read(folder / "rows.jsonl", PreferenceRow) for folder in (clean_out, turned_out))
    assert [(row.chosen, row.rejected) for row in first] == [(row.rejected, row.chosen) for row in last]


@pytest.mark.parametrize("method", ["best_of_n", "full", "half", "single"])
@pytest.mark.parametrize("protocol", ["debate", "sequential", "single", "double"])
def test_every_pair_is_a_row_or_is_counted(tmp_path, method, protocol):
    options = {"best_of": 4, "opponents": 1, "min_gap": 0.02, "balance_sides": True}
    metrics, out, _ = made(tmp_path, method=method, protocol=protocol, **options)
    rows, pools = read(out / "rows.jsonl", PreferenceRow), read(out / "pools.jsonl", Pool)
    assert metrics["pairs"] == len(rows) > 0 and metrics["pools"] == len(pools) and metrics["failed"] == 0
    assert metrics["possible_pairs"] == len(rows) + dropped(metrics)
    assert metrics["possible_pairs"] == sum(comb(len(pool.candidates), 2) for pool in pools)
    sides = Counter(row.side for row in rows)
    assert sides["A"] == sides["B"] and metrics["side_a"] == 0.5
    scored = {
        (speech.text, score) for pool in pools for speech, score in zip(pool.candidates, pool.scores, strict=True)
    }
    for row in rows:
        assert row.p_chosen - row.p_rejected >= 0.02 and row.chosen != row.rejected
        assert (row.chosen, row.p_chosen) in scored and (row.rejected, row.p_rejected) in scored


def test_trees_are_kept_whole_and_their_pools_follow_from_them(tmp_path):
    metrics, out, engine = made(tmp_path, method="full", balance_sides=False)
    trees = read(out / "trees.jsonl", Tree)
    assert (metrics["trees"], metrics["transcripts"], metrics["possible_pairs"]) == (12, 48, 12 * 3)
    assert [pool for tree in trees for pool in pools_of(tree)] == read(out / "pools.jsonl", Pool)
    assert len(engine.requests) < 12 * 9  # both trees of a question share their plain game
    one_side, _, _ = made(tmp_path / "b", method="full", flip=False)
    assert one_side["trees"] == 6 and one_side["possible_pairs"] == 18


def test_what_could_not_be_written_or_judged_is_counted_in_pairs(tmp_path):
    def write(request):
        if int(digest(request), 16) % 29 == 0:
            raise RuntimeError("lost")
        return numbered(request)

    def score(choice):
        return [float("nan"), 0.0] if "said 3" in choice.messages[-1].content else believes(choice)

    for method in ("best_of_n", "full"):
        metrics, out, _ = made(tmp_path / method, write, score, method=method, best_of=2, opponents=1)
        assert metrics["dropped_judge_failed"] > 0 and metrics["dropped_speech_failed"] > 0 and metrics["failed"] > 0
        assert metrics["possible_pairs"] == metrics["pairs"] + dropped(metrics)
        assert all("said 3" not in row.chosen + row.rejected for row in read(out / "rows.jsonl", PreferenceRow))


@pytest.mark.parametrize("method", ["best_of_n", "full"])
def test_where_everything_fails_the_first_reason_is_given(tmp_path, method):
    def write(request):
        raise RuntimeError("the server is gone")

    with pytest.raises(UserError, match=r"makes a row \(\d+ speech failed\); the first failure: .*the server is gone"):
        made(tmp_path, write, believes, method=method, best_of=2, opponents=1)


def test_a_speech_without_a_token_is_neither_chosen_nor_rejected(tmp_path):
    def write(request):
        return "" if int(digest(request), 16) % 3 == 0 else numbered(request)

    metrics, out, _ = made(tmp_path, write, turns=1, best_of=6, pairs_per_pool=15)
    pools = read(out / "pools.jsonl", Pool)
    empty = [sum(not speech.text for speech in pool.candidates) for pool in pools]
    assert metrics["dropped_empty_speech"] == sum(comb(6, 2) - comb(6 - count, 2) for count in empty) > 0
    assert all(row.chosen and row.rejected for row in read(out / "rows.jsonl", PreferenceRow))


def test_a_stage_in_which_nothing_differs_says_what_became_of_the_pairs(tmp_path):
    with pytest.raises(UserError, match=r"none of 72 pairs makes a row \(72 equal texts\); raise best_of"):
        made(tmp_path, lambda request: "said 1", turns=1, best_of=4)


def test_opponents_come_from_a_pool_and_a_critic_from_another_player(tmp_path):
    with pytest.raises(UserError, match="builds on 'sft', which is not there"):
        opened(tmp_path, opponents_from=["base", "sft"])
    with pytest.raises(UserError, match="a critic needs rounds of refinement"):
        opened(tmp_path, critic="base")
    with pytest.raises(UserError, match="player 'base@2' sets its own candidates, .*; write player: base and best_of"):
        opened(tmp_path, player="base@2")
    with pytest.raises(UserError, match="'base@2': simulated opponents draw one speech each"):
        opened(tmp_path, opponents_from=["base@2"])
    metrics, out, _ = made(tmp_path, method="full", opponents_from=["base"], refine=1, critic="base", turns=1)
    pools = read(out / "pools.jsonl", Pool)
    assert all(speech.origin.drafts for pool in pools for speech in pool.candidates) and metrics["pairs"] > 0
    best, out, _ = made(tmp_path / "b", aggregate="min", opponents_from=["base"], opponents=2, turns=1)
    pools = read(out / "pools.jsonl", Pool)
    assert {speech.origin.player for pool in pools for speech in pool.opponents} == {"base"}
    assert all(pool.scores == tuple(map(min, pool.p)) for pool in pools) and best["pairs"] > 0


@pytest.mark.parametrize("method", ["best_of_n", "half"])
def test_a_stopped_stage_ends_like_one_that_was_not(tmp_path, method):
    whole, folder, engine = made(tmp_path / "a", method=method)

    class Dying(ScriptedEngine):
        def choose(self, choices):
            raise KeyboardInterrupt

    run = opened(tmp_path / "b", Dying(numbered), method=method)
    with pytest.raises(KeyboardInterrupt):
        run.config.stages["preferences"].execute(run, tmp_path / "b" / "out")
    again, out, later = made(tmp_path / "b", method=method)
    assert again == whole and len(later.requests) < len(engine.requests)  # what was written came from the store
    for name in ("pools.jsonl", "rows.jsonl", "trees.jsonl" if method == "half" else "debates.jsonl"):
        assert (out / name).read_text() == (folder / name).read_text()


def test_the_plan_counts_trees_and_what_refinement_adds(tmp_path):
    (planned,) = plan(opened(tmp_path, method="full", refine=1))
    # Of the 18 speeches of a question's two trees 4 are in both.
    assert (planned.debates, planned.speeches, planned.note) == (12 * 4, 6 * (2 * 9 - 4) * 3, "12 trees")
    (planned,) = plan(opened(tmp_path, best_of=4, opponents=2, turns=1, refine=1))
    assert planned.speeches == 6 * 2 * (4 + 2) * 3
    (planned,) = plan(opened(tmp_path, best_of=4, opponents=2, turns=1, refine=1, opponents_from=["base"]))
    assert planned.speeches == 6 * 2 * (4 * 3 + 2)


@pytest.mark.parametrize("method", ["best_of_n", "full"])
def test_what_leaves_no_questions_or_no_speeches_is_one_line(tmp_path, method):
    run = opened(tmp_path, ScriptedEngine(numbered, believes), method=method, skip=5000)
    stage = run.config.stages["preferences"]
    for use in (
        lambda: plan(run),
        lambda: preferences.pair_rows(stage, run),
        lambda: stage.execute(run, tmp_path / "out"),
    ):
        with pytest.raises(UserError, match="skip 5000 leaves no training questions of 12"):
            use()
    for name in ("blind", "open_book"):
        run = opened(tmp_path, protocol=name, method=method)
        with pytest.raises(UserError, match=f"protocol '{name}' has no speeches to make preferences of"):
            preferences.pair_rows(run.config.stages["preferences"], run)
        with pytest.raises(UserError, match=f"under '{name}' nobody speaks"):
            parse_config({"stages": {"preferences": {"player": "base", "protocol": name}}})


def test_where_the_judge_calls_a_side_the_estimate_counts_one_a_turn(tmp_path):
    run = opened(tmp_path, protocol="market_making", best_of=2)
    assert preferences.pair_rows(run.config.stages["preferences"], run).count == 6 * run.protocol().turns


def test_fewer_questions_than_asked_are_counted_and_told(tmp_path):
    told = []
    run = opened(tmp_path, ScriptedEngine(numbered, believes), questions=20, skip=5)
    run.say = told.append
    stage = run.config.stages["preferences"]
    assert stage.execute(run, tmp_path / "out").questions == 7
    assert "  preferences: 7 training questions; 20 were asked for, there are no more" in told
    assert "on 7 training questions" in preference_facts(stage, run, "preferences")["data"]


candidates = st.lists(
    st.tuples(st.sampled_from(["", " ", "a", "b", "c"]), st.sampled_from([0.1, 0.15, 0.5])), max_size=6
)


@given(pool=candidates, pairs=st.integers(1, 4), gap=st.sampled_from([0.0, 0.2]))
def test_rows_and_reasons_add_up_to_all_pairs(pool, pairs, gap):
    why = Counter()
    rows = preference_rows([], pool, pairs, gap, dropped=why)
    assert len(rows) + sum(why.values()) == comb(len(pool), 2)
    assert set(why) <= set(preferences.REASONS) and (why["narrower"] == 0 or len(rows) == pairs)
    assert all(row.chosen.strip() and row.rejected.strip() for row in rows)


@given(sides=st.lists(st.sampled_from("AB"), max_size=12), seed=st.integers(0, 3))
def test_balanced_rows_are_as_many_of_each_side_in_their_order(sides, seed):
    rows = [
        PreferenceRow(prompt=[], chosen=str(at), rejected="r", p_chosen=0.6, p_rejected=0.4, side=side)
        for at, side in enumerate(sides)
    ]
    kept = preferences.balanced(rows, seed)
    fewer = min(sides.count("A"), sides.count("B"))
    assert [row.side for row in kept].count("A") == [row.side for row in kept].count("B") == fewer
    assert [int(row.chosen) for row in kept] == sorted(int(row.chosen) for row in kept)
