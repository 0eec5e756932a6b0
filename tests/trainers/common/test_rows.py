"""Rows from games: each speaker's prompt, each judge's question, pairs of a pool."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.judges.presentation import EQUAL_WITHIN
from debate_rl.records import read, write
from debate_rl.trainers.common.rows import PoolTurn, SftRow, judge_rows, preference_rows, sft_rows

QUESTION = Question(
    id="q1", text="where is the pipe ?", answers=("shed", "barn"), correct=0, group="lab-7",
    passage="the pipe was moved to the shed at dusk",
)  # fmt: skip


def play(protocol, question=QUESTION, **changes):
    """A finished game whose speeches say who speaks and when."""
    game = open_transcript(question, load_protocol(protocol, **changes), {"A": "sft", "B": "dpo"}, seed=3)
    for turn in range(game.protocol.turns):
        spoken = [
            read_speech(f"words {side} {turn}", game, side, turn, Origin(player=game.players[side]))
            for side in game.speakers(turn)
        ]
        game = game.add(spoken)
    return game


def text(prompt):
    return "\n".join(message["content"] for message in prompt)


@pytest.mark.parametrize(
    ("protocol", "seen"),
    [
        ("debate", lambda row, other: other.turn < row.turn),
        ("sequential", lambda row, other: other.turn < row.turn),
        ("double", lambda row, other: other.turn < row.turn and other.side == row.side),
        ("single", lambda row, other: other.turn < row.turn),
        ("claim", lambda row, other: other.turn < row.turn),
    ],
)
def test_every_speech_is_a_row_with_what_its_speaker_saw(protocol, seen):
    game = play(protocol, turns=3)
    rows = sft_rows([game])
    assert [(row.side, row.turn, row.completion) for row in rows] == [(s.side, s.turn, s.text) for s in game.speeches]
    for row in rows:
        assert (row.question, row.group, row.source) == ("q1", "lab-7", game.players[row.side])
        visible = {other.completion for other in rows if other.completion in text(row.prompt)}
        assert visible == {other.completion for other in rows if seen(row, other)}


def test_empty_speeches_teach_nothing(tmp_path):
    game = play("debate")
    empty = game.speeches[0].model_copy(update={"text": " \n"})
    rows = sft_rows([game.model_copy(update={"speeches": (empty, *game.speeches[1:])})])
    assert [row.side for row in rows] == ["B"]
    write(tmp_path / "rows.jsonl", rows)
    assert read(tmp_path / "rows.jsonl", SftRow) == rows


@pytest.mark.parametrize(("protocol", "count"), [("debate", 2), ("ensembled", 4), ("single", 2), ("blind", 2)])
def test_judge_rows_show_what_the_judge_is_asked(protocol, count):
    game = play(protocol)
    rows = judge_rows([game])
    assert len(rows) == count
    assert {row.target for row in rows} == {1.0}
    assert {row.candidates for row in rows} == {("A", "B"), ("B", "A")}
    for row in rows:
        first = text(row.prompt).index("(A) shed") if "(A) shed" in text(row.prompt) else -1
        assert (row.candidates == ("A", "B")) == (first >= 0)  # candidate 0 is the label of answer 0 in this order
        assert QUESTION.passage not in text(row.prompt)


def test_judge_rows_of_both_orders_swap_the_speeches_too():
    shown = [text(row.prompt) for row in judge_rows([play("debate")])]
    first = [prompt.index("words A 0") < prompt.index("words B 0") for prompt in shown]
    assert sorted(first) == [False, True]


def test_one_order_is_drawn_fairly_and_stays():
    games = [play("debate", QUESTION.model_copy(update={"id": f"q{i}"})) for i in range(60)]
    rows = judge_rows(games, both_orders=False)
    assert len(rows) == 60
    assert 15 < sum(row.candidates == ("A", "B") for row in rows) < 45
    assert judge_rows(games, both_orders=False) == rows


def test_labels_may_be_soft_and_must_be_there():
    assert {row.target for row in judge_rows([play("debate")], labels=[0.3])} == {0.3}
    wrong = play("debate", QUESTION.model_copy(update={"correct": 1}))
    assert {row.target for row in judge_rows([wrong])} == {0.0}
    unknown = play("debate", QUESTION.model_copy(update={"correct": None}))
    with pytest.raises(UserError, match="question 'q1' has no correct answer; give labels"):
        judge_rows([unknown])


def test_candidates_are_the_answers_where_the_prompts_say_so():
    rows = judge_rows([play("debate", prompts="lab")])
    assert {row.candidates for row in rows} == {("shed", "barn")}


pool = st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1)), max_size=7)


@given(pool=pool, pairs=st.integers(1, 5), gap=st.floats(0, 0.5))
def test_pairs_are_the_widest_ones_and_never_ties(pool, pairs, gap):
    rows = preference_rows([], pool, pairs, gap, PoolTurn(question="q", side="A", turn=0))
    gaps = [row.p_chosen - row.p_rejected for row in rows]
    possible = sorted(
        (
            p - q
            for i, (a, p) in enumerate(pool)
            for j, (b, q) in enumerate(pool)
            if i != j and a != b and p - q > EQUAL_WITHIN
        ),
        reverse=True,
    )
    assert gaps == [g for g in possible if g >= gap][:pairs]
    for row in rows:
        assert (row.chosen, row.p_chosen) in pool
        assert (row.rejected, row.p_rejected) in pool
        assert row.chosen != row.rejected


def test_probabilities_that_differ_by_rounding_alone_make_no_pair():
    dropped = Counter()
    pool = [("a", 0.1 + 0.2), ("b", 0.3), ("c", 0.3 - 1e-6)]
    rows = preference_rows([], pool, 3, dropped=dropped)
    assert [(row.chosen, row.rejected) for row in rows] == [("a", "c"), ("b", "c")]
    assert dropped["equal_scores"] == 1


def test_rows_are_worded_as_the_judge_is_read():
    rows = judge_rows([play("debate", prompts="default")], readout="answers")
    assert {row.candidates for row in rows} == {("shed", "barn")} and all(row.per_token for row in rows)
    assert all("the answer alone" in text(row.prompt) for row in rows)
