import json

import pytest

from debate_rl import UserError
from debate_rl.analysis.judging.benchmark import decide, pair_protocol
from debate_rl.analysis.judging.decisions import score_decisions
from debate_rl.analysis.judging.reply_pairs import read_pairs
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.judges.judge import Judge, Panel

JUDGE = Judge(name="j", model="m")


def by_length(choice):
    """A judge that takes the longer reply, and of equal ones the first."""
    text = choice.messages[-1].content
    shown = [text.split(f'<reply name="{name}">')[1].split("</reply>")[0] for name in "AB"]
    best = "A" if len(shown[0]) >= len(shown[1]) else "B"
    return [0.0 if candidate == best else -3.0 for candidate in choice.candidates]


def judgebench(folder, count=20):
    lines = []
    for at in range(count):
        replies = ["long " * (at + 2), "long"]
        if at % 2:
            replies.reverse()
        label = "B>A" if at % 2 else "A>B"
        row = {"pair_id": f"p{at}", "question": f"q{at}", "label": label, "source": "s", "extra": 1}
        lines.append(json.dumps(row | {"response_A": replies[0], "response_B": replies[1]}))
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder / "pairs.jsonl"


def test_a_judge_is_asked_in_both_orders_and_what_it_says_is_read_as_shown(tmp_path):
    engine = ScriptedEngine(score=by_length)
    decisions = decide(read_pairs(judgebench(tmp_path)), JUDGE, engine)
    assert [decision.decisions for decision in decisions[:2]] == [("A>B", "B>A"), ("B>A", "A>B")]
    (row,) = score_decisions(decisions)
    assert (row.n, row.accuracy, row.consistent, row.both) == (20, 100, 1, 1)
    assert len(engine.choices) == 40


def test_a_judge_that_takes_what_is_listed_first_is_never_right_by_the_rule(tmp_path):
    first = ScriptedEngine(score=lambda choice: [0.0 if name == "A" else -2.0 for name in choice.candidates])
    (row,) = score_decisions(decide(read_pairs(judgebench(tmp_path)), JUDGE, first))
    assert (row.accuracy, row.half, row.consistent, row.one) == (0, 50, 0, 1)
    once = JUDGE.model_copy(update={"both_orders": False})
    (row,) = score_decisions(decide(read_pairs(judgebench(tmp_path)), once, first))
    assert row.consistent is None and row.accuracy == 50


def test_a_panel_is_asked_as_its_members_are(tmp_path):
    panel = Panel(name="both", members=(JUDGE, Judge(name="k", model="n")))
    (row,) = score_decisions(decide(read_pairs(judgebench(tmp_path)), panel, ScriptedEngine(score=by_length)))
    assert (row.judge, row.accuracy, row.consistent) == ("both", 100, 1)


def test_a_benchmark_that_was_stopped_goes_on_where_it_was(tmp_path):
    pairs, log = read_pairs(judgebench(tmp_path)), tmp_path / "decisions.jsonl"

    class Dying(ScriptedEngine):
        def choose(self, choices):
            if self.calls >= 2:
                raise KeyboardInterrupt
            return super().choose(choices)

    with pytest.raises(KeyboardInterrupt):
        decide(pairs, JUDGE, Dying(score=by_length), log=log)
    again = ScriptedEngine(score=by_length)
    assert decide(pairs, JUDGE, again, log=log) == decide(pairs, JUDGE, ScriptedEngine(score=by_length))
    assert len(again.choices) == 2 * (20 - 16), "two chunks of 8 pairs were kept"
    other = ScriptedEngine(score=by_length)
    decide(pairs, Judge(name="j", model="other"), other, log=log)
    assert len(other.choices) == 40, "a judge of other weights decides itself"


def test_verdicts_that_fail_are_no_decisions_and_a_judge_that_decides_nothing_is_one_line(tmp_path):
    pairs = read_pairs(judgebench(tmp_path))

    def score(choice):
        return [float("nan")] * 2 if "q3\n" in choice.messages[-1].content else by_length(choice)

    (row,) = score_decisions(decide(pairs, JUDGE, ScriptedEngine(score=score)))
    assert row.failed == 1 and row.accuracy == 95
    broken = ScriptedEngine(score=lambda choice: [float("nan")] * 2)
    with pytest.raises(UserError, match="j decided none of 20 pairs, the first because"):
        decide(pairs, JUDGE, broken)


def test_every_chosen_reply_meets_every_rejected_one(tmp_path):
    row = {"id": 7, "prompt": "?", "chosen": ["a long right one"], "rejected": ["b", "c", "a very long wrong one"]}
    (tmp_path / "rb.jsonl").write_text(json.dumps(row | {"subset": "Math", "num_correct": 1}))
    pairs = read_pairs(tmp_path / "rb.jsonl")
    assert {pair.id for pair in pairs} == {"7-0-0", "7-0-1", "7-0-2"} and {pair.group for pair in pairs} == {"7"}
    assert all(pair.replies[pair.better] == "a long right one" for pair in pairs)
    (scored,) = score_decisions(decide(pairs, JUDGE, ScriptedEngine(score=by_length)))
    assert round(scored.accuracy, 1) == 66.7 and scored.groups_right == 0
    plain = {"prompt": "?", "chosen": "yes", "rejected": "no"}
    (tmp_path / "rb.jsonl").write_text(json.dumps(plain))
    assert len(read_pairs(tmp_path / "rb.jsonl")) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"question": "?", "response_A": "a", "label": "A>B"}, "response_B"),
        ({"question": "?", "response_A": "a", "response_B": "b", "label": "A=B"}, "label is 'A=B'"),
        ({"prompt": "?", "chosen": [], "rejected": ["b"]}, "chosen"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, line, said):
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    with pytest.raises(UserError, match=rf"p.jsonl:1: .*{said}"):
        read_pairs(tmp_path / "p.jsonl")


def test_a_prompt_set_without_a_wording_for_pairs_uses_its_judge_s(tmp_path):
    engine = ScriptedEngine()
    decide(read_pairs(judgebench(tmp_path, 1)), JUDGE, engine, pair_protocol("lab"))
    assert engine.choices[0].messages[-1].content.startswith("question : q0")
