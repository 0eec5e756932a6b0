"""Rollouts of a judge that learns: what an answer earns, what is counted, what is learnt from."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.game.transcript import open_transcript
from debate_rl.judges.callables import function_name, load_function
from debate_rl.trainers.grpo.custom import Payer
from debate_rl.trainers.grpo.judge_metrics import judge_point
from debate_rl.trainers.grpo.judge_rollout import Judgement, judge_of, judge_rollout, least_score, score
from debate_rl.trainers.grpo.judge_settings import RULES, JudgeRewards, Judging
from debate_rl.trainers.grpo.settings import Alarms
from tests.trainers.games import TokenEngine, question, rules

GAMES = [open_transcript(question(number), rules(), {"A": "x", "B": "y"}) for number in range(3)]
RIGHT, WRONG = GAMES[0].question.answers


def judgement(p_correct, right):
    return Judgement(GAMES[0], "", p_correct, right, max(p_correct, 1 - p_correct), 3, 10)


def roll(write, keys=("0/0",) * 4, payer=None, **fields):
    judging = Judging(max_new_tokens=10, **fields)
    judge = judge_of(judging, "policy", temperature=1.0)
    engine = TokenEngine(write)
    encode = lambda request: tuple(map(ord, request.messages[-1].content))  # noqa: E731
    return judge_rollout(keys, GAMES, judging, judge, engine, encode, [0, 1], payer), engine


def by_draw(*texts):
    """A judge that writes these answers in turn."""
    rest = iter(texts)
    return lambda request: next(rest)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [("correctness", 1, 0), ("brier", -0.04, -0.64), ("log", math.log(0.8), math.log(0.2)),
     ("correctness+brier", 0.96, -0.64)],
)  # fmt: skip
def test_rules_at_eighty_percent(rule, right, wrong):
    rewards = JudgeRewards(rule=rule)
    assert score(judgement(0.8, 1.0), rewards) == pytest.approx(right)
    assert score(judgement(0.2, 0.0), rewards) == pytest.approx(wrong)


@given(st.integers(1, 99), st.integers(0, 100), st.sampled_from(["brier", "log", "correctness+brier"]))
def test_no_other_statement_earns_more_than_what_the_judge_believes(belief, other, rule):
    """The rules are proper: at a belief q in the answer, stating q earns the most on average (RLCR, theorem 1)."""
    rewards = JudgeRewards(rule=rule, least=1e-9)

    def expected(stated):
        p, q = stated / 100, belief / 100
        first = float(p > 0.5) if p != 0.5 else 0.5
        return q * score(judgement(p, first), rewards) + (1 - q) * score(judgement(1 - p, 1 - first), rewards)

    assert expected(other) <= expected(belief) + 1e-9


@given(st.floats(0, 1), st.sampled_from(RULES))
def test_nothing_that_can_be_stated_earns_less_than_no_statement(p, rule):
    rewards = JudgeRewards(rule=rule)
    for right in (0.0, float(p >= 0.5)):
        assert score(judgement(p if right else min(p, 0.5), right), rewards) >= least_score(rewards) - 1e-12


def test_an_answer_without_a_statement_earns_the_worst_and_is_counted():
    result, _ = roll(
        by_draw(f"{RIGHT} 80 %", f"{WRONG} 80 %", "i do not know", f"{RIGHT} 100 %"), rewards={"format": 0.5}
    )
    totals = [answer.earned.total for answer in result.sequences]
    assert totals == pytest.approx([0.96, -0.64, -1.5, 1.0])
    assert result.counts["unstated"] == 1 and result.counts["no_reward"] == 0 and result.example == "i do not know"
    assert all(answer.learnt for answer in result.sequences)
    assert result.means["stated"] == 0.75 and result.means["accuracy"] == pytest.approx(2 / 3)


def test_both_orders_are_groups_of_their_own_and_equal_answers_teach_nothing():
    keys = ["0/0"] * 2 + ["0/1"] * 2
    result, engine = roll(by_draw(f"{RIGHT} 80 %", f"{WRONG} 80 %", f"{RIGHT} 80 %", f"{RIGHT} 80 %"), keys)
    assert [answer.learnt for answer in result.sequences] == [True, True, False, False]
    assert result.counts["groups"] == 2 and result.counts["skipped_groups"] == 1
    first, second = result.sequences[0].prompt, result.sequences[2].prompt
    assert first != second and len({request.seed for request in engine.requests}) == 4


def test_the_answer_is_the_tokens_that_were_drawn():
    text = f"{RIGHT} 60 %"
    result, _ = roll(lambda request: text)
    assert all(answer.completion == tuple(map(ord, text)) for answer in result.sequences)


def brief(judged):
    return judged.p_correct - 0.01 * judged.tokens


def test_a_reward_is_any_function():
    result, _ = roll(by_draw(f"{RIGHT} 80 %", f"{RIGHT} 60 %", "no", f"{WRONG} 80 %"), payer=Payer(brief))
    paid = [answer.earned.rule for answer in result.sequences]
    tokens = result.sequences[0].completion
    assert paid[0] - paid[1] == pytest.approx(0.2) and paid[2] == -1.0 and tokens
    assert load_function("math:sqrt") is math.sqrt and function_name(brief).startswith(f"{__name__}:brief#")


def test_calls_that_fail_pay_nothing_and_are_said_in_a_line(capsys):
    paid = iter([1.0, float("nan"), ZeroDivisionError("by zero"), 0.0])

    def unsure(judged):
        value = next(paid)
        if isinstance(value, Exception):
            raise value
        return value

    result, _ = roll(lambda request: f"{RIGHT} 80 %", payer=Payer(unsure))
    assert [answer.earned is None for answer in result.sequences] == [False, True, True, False]
    assert [answer.learnt for answer in result.sequences] == [True, False, False, True]
    assert result.counts["reward_errors"] == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "unsure returned nan; 2 of 4 answers earn nothing" in line


@pytest.mark.parametrize("reward", ["nowhere:at_all", "math:nothing", "brief", "math:pi"])
def test_a_reward_that_is_no_function_is_a_line(reward):
    with pytest.raises(UserError, match="reward"):
        Payer(reward)


def test_a_reward_that_always_fails_ends_the_training():
    def broken(judged):
        raise KeyError("label")

    with pytest.raises(UserError, match=r"broken raised KeyError: 'label', as in all of its 4 calls"):
        roll(lambda request: f"{RIGHT} 80 %", payer=Payer(broken))


def test_a_judge_that_states_less_or_is_wrong_more_often_sounds_an_alarm():
    from debate_rl.game.verdict import Ask, Failure, JudgedDebate, Verdict

    def leg(number, p):
        game = open_transcript(question(number), rules(), {"A": "x", "B": "y"})
        if p is None:
            return JudgedDebate(transcript=game, failure=Failure(seat="judge", kind="unparsed", message="-"))
        logs = (math.log(p), math.log(1 - p))
        asks = tuple(Ask(sides=("A", "B"), order=order, logprobs=logs) for order in ((0, 1), (1, 0)))
        return JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(p, 1 - p), asks=asks))

    before = [leg(number, 0.9) for number in range(20)]
    start = judge_point(0, before, before, Alarms())
    assert start.alarms == () and start.accuracy.value == 1 and start.consistent.value == 1 and start.stated.value == 1
    wrong = judge_point(5, [leg(number, 0.2) for number in range(20)], before, Alarms())
    assert wrong.accuracy_change.value == -1 and any("accuracy falls" in alarm for alarm in wrong.alarms)
    silent = judge_point(5, [leg(number, None) for number in range(20)], before, Alarms())
    assert silent.accuracy is None and silent.unstated == 20 and any("statements" in alarm for alarm in silent.alarms)
    assert silent.numbers["stated"] == 0
