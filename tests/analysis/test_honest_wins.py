import numpy as np
import pytest

from debate_rl.analysis.honest_wins import honest_wins
from debate_rl.analysis.slopes import Rated
from debate_rl.arena.ratings import ELO
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import JudgedDebate, Verdict

SKILL = {"p0": 0.0, "p1": 0.7, "p2": 1.4, "p3": 2.1}


def legs(curve, stories=20, skills=SKILL, noise=0.3):
    """A round robin whose honest side wins with log-odds that a curve of the gap in skill gives."""
    random = np.random.default_rng(0)
    played = []
    for story in range(stories):
        for a in skills:
            for b in skills:
                if a == b:
                    continue
                correct = story % 2
                asked = Question(
                    id=f"q{story}", text="?", answers=("x", "y"), correct=correct, passage="x .", group=f"g{story}"
                )
                gap = (skills[a] - skills[b]) * (1 if correct == 0 else -1)
                p = 1 / (1 + np.exp(-curve(gap) - random.normal(0, noise)))
                game = open_transcript(asked, load_protocol("debate"), {"A": a, "B": b})
                p_first = float(p if correct == 0 else 1 - p)
                played.append(JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(p_first, 1 - p_first))))
    return played


def test_a_game_without_plateaus_gives_the_bradley_terry_probabilities():
    found = honest_wins(Rated(legs(lambda gap: gap), resamples=40))
    for row in found.gaps:
        expected = 1 / (1 + np.exp(row.gap / ELO))
        assert row.win.value == pytest.approx(expected, abs=0.06) or row.extrapolated
        assert row.win.low <= row.win.value <= row.win.high
    assert found.gaps[-1].extrapolated and not found.gaps[0].extrapolated
    assert "400 Elo" in str(found) and "beyond what was played" in str(found)


def test_a_judge_that_sees_the_truth_up_to_a_point_shows_its_plateaus():
    found = honest_wins(Rated(legs(lambda gap: 0.8 + np.clip(gap, -0.8, 0.8)), resamples=40))
    wins = [row.win.value for row in found.gaps]
    assert wins == sorted(wins, reverse=True)
    assert found.low == pytest.approx(0.5, abs=0.08) and found.high == pytest.approx(0.83, abs=0.08)
    assert found.start < 0 < found.end


def test_a_truth_that_wins_whatever_the_gap_is_flat():
    found = honest_wins(Rated(legs(lambda gap: 1.0), resamples=40))
    if found is not None:  # players who differ in nothing have no gaps but noise
        assert all(row.win.value == pytest.approx(0.73, abs=0.06) for row in found.gaps)


def test_two_players_have_no_curve():
    assert honest_wins(Rated(legs(lambda gap: gap, skills={"x": 0.0, "y": 1.0}), resamples=10)) is None
    assert honest_wins(Rated([], resamples=10)) is None
