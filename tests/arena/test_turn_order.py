"""Open protocols and market-making: who picks a side, who is called, and when the judge has settled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.arena.rollout import play
from debate_rl.arena.schedule import branching, self_play
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.game.question import Question
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater

QUESTION = Question(id="q", text="where ?", answers=("shed", "barn"), correct=0, passage="it is here", group="g")
PLAYERS = {name: Debater(name=name, model=f"model of {name}") for name in ("x", "y")}
JUDGE = Judge(model="judge", both_orders=False)


def played(protocol, score, write=lambda request: "said", judge=JUDGE):
    engine = ScriptedEngine(write, score)
    (leg,) = play(self_play(["x"], [QUESTION], protocol), PLAYERS, engine, judge)
    return leg, engine


def believing(answer):
    """Everyone holds this answer for true; candidates are answers or the letters they are listed under."""

    def score(choice):
        prompt = choice.messages[-1].content
        letter = "A" if prompt.index("shed") < prompt.index("barn") else "B"
        shed = choice.candidates.index(letter)
        return [0.0 if (at == shed) == (answer == "shed") else -3.0 for at in range(2)]

    return score


@pytest.mark.parametrize(("answer", "side"), [("shed", "A"), ("barn", "B")])
def test_an_open_consultant_argues_what_it_holds_for_true_and_is_judged_alone(answer, side):
    leg, engine = played(load_protocol("open_single"), believing(answer))
    assert leg.transcript.picked == side and leg.transcript.present == (side,)
    assert [speech.side for speech in leg.transcript.speeches] == [side] and leg.transcript.complete
    asked = [choice.model for choice in engine.choices]
    assert asked[0] == "model of x" and asked[-1] == "judge"
    assert "it is here" in engine.choices[0].messages[-1].content  # the player reads, the judge does not
    assert "it is here" not in engine.choices[-1].messages[-1].content


@pytest.mark.parametrize(("answer", "order"), [("shed", "AB"), ("barn", "BA")])
def test_in_an_open_debate_the_picked_side_opens(answer, order):
    leg, _ = played(load_protocol("open_debate"), believing(answer))
    assert "".join(speech.side for speech in leg.transcript.speeches) == order


def test_a_player_that_can_not_say_what_it_believes_fails_and_is_not_scored():
    def score(choice):
        if choice.model != "judge":
            raise RuntimeError("no answer")
        return [0.0, 0.0]

    leg, _ = played(load_protocol("open_debate"), score)
    assert leg.verdict is None and leg.failure.seat == "A" and "no answer" in leg.failure.message


def test_open_protocols_and_market_making_neither_meet_two_players_nor_branch():
    with pytest.raises(UserError, match="use it in self-play"):
        from debate_rl.game.transcript import open_transcript

        open_transcript(QUESTION, load_protocol("open_debate"), {"A": "x", "B": "y"})
    for name in ("open_debate", "open_single", "market_making"):
        with pytest.raises(UserError, match="can not branch"):
            branching("x", [QUESTION], load_protocol(name))


def test_rules_that_contradict_market_making_are_refused():
    with pytest.raises(ValueError, match="calls: rejected"):
        Protocol(name="wrong", calls="rejected", sides="drawn")


def swayed(steps):
    """A judge whose log-odds of answer 0 after k speeches are the k-th of some numbers."""
    return lambda choice: [steps[choice.messages[-1].content.count("said")], 0.0]


def test_the_side_that_the_judge_rejects_is_called_until_the_judge_settles():
    leg, engine = played(load_protocol("market_making"), swayed([1.0, -1.0, 2.0, 2.01, 9.0]))
    assert leg.transcript.called == ("B", "A", "B") and len(leg.transcript.speeches) == 3
    assert leg.verdict.p[0] == pytest.approx(0.8818, abs=1e-3)  # of the last speech: from 2.0 to 2.01 it settled
    assert len(engine.requests) == 3


def test_a_judge_that_fails_on_the_way_leaves_no_verdict():
    def score(choice):
        if "said" in choice.messages[-1].content:
            raise RuntimeError("judge is gone")
        return [0.0, 0.0]

    leg, _ = played(load_protocol("market_making"), score)
    assert leg.failure.seat == "judge" and leg.verdict is None and len(leg.transcript.speeches) == 1


def test_without_a_judge_nobody_can_be_called():
    leg, _ = played(load_protocol("market_making"), swayed([0.0] * 9), judge=None)
    assert leg.failure.kind == "no judge"


@given(
    st.lists(st.integers(-40, 40).map(lambda n: n / 10), min_size=7, max_size=7), st.integers(1, 6), st.floats(0, 0.5)
)
def test_the_called_side_is_always_the_one_believed_less(steps, turns, settled):
    leg, _ = played(load_protocol("market_making", turns=turns, settled=settled), swayed(steps))
    called = leg.transcript.called
    assert 1 <= len(called) <= turns and len(called) == len(leg.transcript.speeches)
    assert all((side == "B") == (steps[turn] >= 0) for turn, side in enumerate(called))
