import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from debate_rl import UserError
from debate_rl.analysis.judging.decisions import Decision, formatted, read_decisions, score_decisions
from debate_rl.analysis.judging.kappa import cohen_kappa


def decided(*decisions, judge="j", pair="p", label="A>B", **rest):
    return Decision(judge=judge, pair=pair, label=label, decisions=decisions, **rest)


def test_published_judges_score_as_published_by_judgebench_s_own_rule(shared_data):
    rows = {row.judge: row for row in score_decisions(read_decisions(shared_data / "judgebench/decisions.jsonl"))}
    found = {judge: (row.n, round(row.accuracy, 2)) for judge, row in rows.items()}
    assert found == {
        "claude-3-haiku-20240307": (270, 32.22),
        "o1-mini-2024-09-12": (350, 65.71),
        "Skywork_Skywork-Reward-Llama-3.1-8B": (350, 62.29),
    }
    o1 = rows["o1-mini-2024-09-12"]
    assert round(o1.half, 1) == 77.3, "half a point for a disagreement is another rule"
    assert o1.interval[0] < o1.accuracy < o1.interval[1]
    assert o1.both + o1.one + o1.none == pytest.approx(1)
    assert set(o1.kappa) == {"Skywork_Skywork-Reward-Llama-3.1-8B"}, "the third judge was asked about other pairs"


@pytest.mark.parametrize(
    ("decisions", "right", "same"),
    [
        (("A>B", "B>A"), True, True),  # A is better wherever it is listed
        (("A>B", "A>B"), False, False),  # what is listed first
        (("A>B", "A=B"), True, False),
        (("A>B", None), True, False),
        (("A=B", "A=B"), False, True),
        (("B>A", "A>B"), False, True),
        ((None, None), False, True),
    ],
)
def test_a_pair_is_right_where_more_orders_name_the_better_reply_than_the_other(decisions, right, same):
    (row,) = score_decisions([decided(*decisions)])
    assert (row.accuracy, row.consistent) == (100 * right, float(same))


def test_a_judge_that_is_asked_once_has_no_consistency():
    (row,) = score_decisions([decided("A>B"), decided("B>A", pair="q")])
    assert row.consistent is None and row.both is None and row.accuracy == 50


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.sampled_from(["A>B", "B>A", "A=B", None])] * 2), min_size=1, max_size=30))
def test_naming_both_replies_the_other_way_round_changes_no_score(said):
    turn = {"A>B": "B>A", "B>A": "A>B", "A=B": "A=B", None: None}
    ours = [decided(*two, pair=str(at)) for at, two in enumerate(said)]
    theirs = [decided(*map(turn.get, two), pair=str(at), label="B>A") for at, two in enumerate(said)]
    assert score_decisions(ours) == score_decisions(theirs)
    (row,) = score_decisions(ours)
    assert row.accuracy <= row.half + 50 and 0 <= row.both <= row.consistent <= 1


def test_raw_outputs_of_the_benchmark_are_read_with_the_judge_of_the_file_s_name(tmp_path):
    pair = {"pair_id": "p", "source": "s", "label": "A>B", "question": "?", "response_model": "m"}
    judged = pair | {"judge_name": "arena_hard", "judgments": [{"decision": "A>B", "response": "..."}, None]}
    file = tmp_path / "dataset=judgebench,response_model=m,judge_name=arena_hard,judge_model=some-model.jsonl"
    file.write_text(json.dumps(judged))
    assert read_decisions(tmp_path) == [
        Decision(judge="some-model", response_model="m", pair="p", source="s", label="A>B", decisions=("A>B", None))
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"pair": "p", "label": "A>B"}, "judge"),
        ({"judge": "j", "pair": "p", "label": "A", "decisions": ["A>B"]}, "label"),
        ({"judge": "j", "pair": "p", "label": "A>B", "decisions": ["A>B", "C>A"]}, "decisions"),
        ({"question": "?"}, "decisions"),
        ({"pair_id": "p", "label": "A>B", "judgments": [{"text": "A"}]}, "decision"),
    ],
)
def test_a_line_that_is_no_decision_is_named(tmp_path, line, said):
    (tmp_path / "d.jsonl").write_text(json.dumps(line))
    with pytest.raises(UserError, match=rf"d.jsonl:1: .*{said}"):
        read_decisions(tmp_path / "d.jsonl")


def test_a_pair_that_one_judge_decided_twice_is_refused():
    with pytest.raises(UserError, match="decided pair 'p' twice"):
        score_decisions([decided("A>B"), decided("B>A")])


def test_a_judge_that_goes_by_the_order_is_told_so():
    text = formatted(score_decisions([decided("A>B", "A>B", pair=str(at)) for at in range(5)]))
    assert "follow the order" in text and "0.00 [0.00, 0.00]" in text


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 2), min_size=2, max_size=40))
def test_kappa_equals_scikit_learn_s(said):
    first, second = map(list, zip(*said, strict=True))
    kappa = cohen_kappa(first, second)
    if kappa is None:
        assert len({*first, *second}) == 1
    else:
        assert kappa.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)
