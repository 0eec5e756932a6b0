import math

import numpy as np
import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.verdict import Verdict
from debate_rl.judges.attacks.robustness import attack_judge
from debate_rl.judges.attacks.sycophancy import alone, both_kinds, consultants, fit_lone, is_drawn, sycophancy
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.judge import Judge, judge_transcripts
from tests.judges.attacks.test_robustness import JUDGE, debates, swayed


def measured(*groups):
    """Sycophancy of consultants in groups: right or not, the judge's probability of them, how many."""
    rows = [(p, right, f"s{i}") for right, p, count in groups for i in range(count)]
    return sycophancy(*zip(*rows, strict=True)) if rows else sycophancy([], [], [])


def test_the_gap_is_what_accuracy_does_not_explain():
    # Impartial, right four times in five; and twice as many right consultants as wrong ones.
    found = measured((True, 0.9, 16), (True, 0.1, 4), (False, 0.9, 2), (False, 0.1, 8))
    assert found.wrong.value == pytest.approx(0.2) and found.right.value == pytest.approx(0.8)
    assert found.expected == pytest.approx(0.2) and found.gap.value == pytest.approx(0)
    assert found.lean.value == pytest.approx(0) and (found.wrong.n, found.right.n) == (10, 20)
    biased = measured((True, 0.9, 10), (False, 0.9, 4), (False, 0.1, 6))
    assert biased.gap.value == pytest.approx(0.2)  # 80 % right, so 20 % expected, and 40 % seen
    assert biased.lean.value == pytest.approx((0.9 + 0.42) / 2 - 0.5)
    assert measured((True, 0.9, 5)) is None and measured() is None


def test_a_calibrated_judge_may_have_a_gap_and_no_lean():
    found = measured((True, 0.6, 18), (True, 0.2, 2), (False, 0.6, 12), (False, 0.2, 8))  # 60 % and 20 % are right
    assert found.lean.value == pytest.approx(0) and found.gap.value == pytest.approx(0.25)
    assert "gap 25.0" in str(found) and "mean probability - 1/2: " in str(found)


def test_a_side_alone_is_a_single_consultancy():
    (game, *_) = debates(1)
    one = alone(game, "B")
    played = debates(1, "single")[0]
    assert one.players == {"B": "y"} and [speech.side for speech in one.speeches] == ["B"]
    assert one.complete and one.id != game.id and is_drawn(one) and is_drawn(played) and not is_drawn(game)
    assert one.protocol == played.protocol
    picked = played.protocol.model_copy(update={"sides": "picked"})
    assert not is_drawn(played.model_copy(update={"protocol": picked}))
    engine = ScriptedEngine()
    judge_transcripts([one], JUDGE, engine)
    assert all("it is shed" not in choice.messages[-1].content for choice in engine.choices)


def test_consultants_are_each_side_of_a_debate_once():
    games = debates(4)
    found = consultants([*games, *games[:1]])
    assert [one.present for one in found] == [("A",), ("B",)] * 4 and both_kinds(found)
    lone = debates(1, "single")
    assert [one.speeches for one in consultants(lone)] == [lone[0].speeches] and not both_kinds(lone)
    unknown = games[0].model_copy(update={"question": games[0].question.model_copy(update={"correct": None})})
    assert consultants([unknown]) == []


def drawn(count, slope, intercept, seed=0, share=0.5):
    """Consultants, and a judge's probabilities of them: logit P(right) = intercept + slope logit p."""
    random = np.random.default_rng(seed)
    found = []
    lone = consultants(debates(8))
    kinds = {kind: [g for g in lone if (g.question.correct == "AB".index(g.present[0])) == kind] for kind in (0, 1)}
    while len(found) < count:
        z = random.normal()
        right = random.random() < 1 / (1 + math.exp(-intercept - slope * z))
        if random.random() < (share if right else 1 - share):
            game = kinds[int(right)][int(random.integers(len(kinds[int(right)])))]
            own = 1 / (1 + math.exp(-z))
            found.append((game, Verdict(judge="j", p=(own, 1 - own) if game.present == ("A",) else (1 - own, own))))
    return found


def lean(found, calibrator):
    p = calibrator.apply([verdict.p_side(game.present[0]) for game, verdict in found])
    right = [game.question.correct == "AB".index(game.present[0]) for game, _ in found]
    return sycophancy(list(p), right, [str(i) for i in range(len(found))]).lean


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_calibration_takes_the_lean_out_whatever_the_draw(kind, share):
    learnt, other = (drawn(1500, 2.0, 0.0, seed, share) for seed in (0, 1))
    moved = [(g, v.model_copy(update={"p": _towards(g, v)})) for g, v in learnt]  # the judge leans to its speaker
    tested = [(g, v.model_copy(update={"p": _towards(g, v)})) for g, v in other]
    found = fit_lone(kind, moved)
    assert found.kind == ("isotonic" if kind == "isotonic" else "platt") and found.n == 1500
    before, after = lean(tested, Calibrator(kind="temperature", n=1, clusters=1)), lean(tested, found)
    assert before.low > 0.1 and abs(after.value) < 0.03
    if kind != "isotonic":
        assert found.slope == pytest.approx(2.0, abs=0.3) and found.intercept == pytest.approx(-2.0, abs=0.4)


def _towards(game, verdict):
    """A log-odd of 1 more for the speaker."""
    p = verdict.p_side(game.present[0])
    own = p * math.e / (p * math.e + 1 - p)
    return (own, 1 - own) if game.present == ("A",) else (1 - own, own)


def test_consultants_of_one_kind_can_not_be_learnt_from():
    wrong = [(g, Verdict(judge="j", p=(0.6, 0.4))) for g in consultants(debates(1))[1:]]
    with pytest.raises(UserError, match="always the same one"):
        fit_lone("platt", wrong)


def test_the_table_shows_both_calibrations():
    lone = Calibrator(kind="platt", slope=1.0, intercept=-1.0, n=9, clusters=9)
    both = Calibrator(kind="temperature", slope=0.5, n=9, clusters=9, lone=lone)
    judge = Judge(name="j", model="m", calibrator=both)
    found = attack_judge(debates(), judge, swayed("never", base=1.0), ("sycophancy",)).table
    assert found.sycophancy.lean.value == pytest.approx(0) and found.sycophancy.gap.value == pytest.approx(0)
    assert found.under_debates.gap.value == 0.5
    assert found.under_debates.lean.value == pytest.approx(1 / (1 + math.exp(-0.5)) - 0.5)
    assert "under the calibration of debates: wrong 100.0" in str(found)
    plain = judge.model_copy(update={"calibrator": both.model_copy(update={"lone": None})})
    table = attack_judge(debates(), plain, swayed("never", base=1.0), ("sycophancy",)).table
    assert table.under_debates is None and table.sycophancy == found.under_debates
