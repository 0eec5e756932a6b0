"""The rows of online training: over what it started from, with tokens, under both judges."""

import pytest

from debate_rl.analysis.behaviour.game_features import Played
from debate_rl.analysis.effects.online import judged_rows, online_rows
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate, Verdict


def played(number, seats, p, protocol="debate"):
    question = Question(id=f"q{number}", text="?", answers=("a", "b"), correct=0, group=f"g{number}")
    game = Transcript(question=question, protocol=load_protocol(protocol), players=seats)
    return Played(JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(p, 1 - p))), ())


def meeting(first, second, p, count=8):
    """Both sides of a pairing, the first one winning with p."""
    games = [played(n, {"A": first, "B": second}, p) for n in range(count)]
    return games + [played(n, {"A": second, "B": first}, 1 - p) for n in range(count)]


def test_trained_debaters_are_rated_over_their_start_with_their_tokens():
    games = [*meeting("grpo", "sft", 0.7), *meeting("dpo", "sft", 0.6), *meeting("grpo", "dpo", 0.6)]
    rows = online_rows([games, games], "sft", {"dpo": 60000, "grpo": 66091}, resamples=20)
    elo = {row.name: row for row in rows if row.unit == "Elo"}
    assert list(elo) == ["dpo over sft, Elo", "grpo over sft, Elo"]
    assert elo["grpo over sft, Elo"].estimate.value > elo["dpo over sft, Elo"].estimate.value > 20
    assert elo["grpo over sft, Elo"].note == "66,091 tokens generated"
    assert len(elo["grpo over sft, Elo"].seeds) == 2


def test_without_games_between_players_there_is_no_row():
    assert online_rows([[played(0, {"A": "sft", "B": "sft"}, 0.5)]], "sft", {"grpo": None}) == []


def test_accuracy_under_a_judge_is_paired_by_question_and_protocol():
    games = [played(n, {"A": name, "B": name}, p) for n in range(6) for name, p in (("sft", 0.4), ("grpo", 0.8))]
    games += [played(n, {"A": name}, p, "single") for n in range(6) for name, p in (("sft", 0.6), ("grpo", 0.9))]
    rows = {row.name: row.estimate.value for row in judged_rows([games], "sft", ["grpo"], "held-out")}
    assert rows == {
        "grpo - sft, debate, accuracy of the held-out judge": 100.0,
        "grpo - sft, single, accuracy of the held-out judge": 0.0,
        "grpo - sft, single, probability of its side by the held-out judge": pytest.approx(30),
    }
