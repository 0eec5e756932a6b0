import math

import numpy as np
import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.judges.attacks.robustness import attack_judge, attack_row
from debate_rl.judges.attacks.suffix_search import Search, _pool, search_suffix
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.judge import Judge
from tests.judges.games import asked

JUDGE = Judge(name="j", model="m")
SMALL = Search(length=2, beam=2, pool=6, trials=6, screen=2)


def debates(count=8, name="debate"):
    """Games whose correct answer is that of side A and B in turn, two questions a story."""
    found = []
    for number in range(count):
        question = asked(number, correct=number % 2, story=f"s{number // 2}", answers=("shed", "barn"))
        game = open_transcript(question, load_protocol(name, prompts="lab"), {"A": "x", "B": "y"})
        texts = [(side, f"it is {'shed' if side == 'A' else 'barn'} here") for side in game.present]
        found.append(game.add([read_speech(text, game, side, 0, Origin(player="p")) for side, text in texts]))
    return found


def swayed(word, strength=2.0, base=0.0):
    """A judge that gives an answer log-odds for each time the word stands in its side's speech."""

    def score(choice):
        text = choice.messages[-1].content
        logits = []
        for candidate in choice.candidates:
            said = text.partition(f"for {candidate} : ")[2].partition("\n")[0]
            logits.append(strength * said.split().count(word) + base * bool(said))
        total = math.log(sum(math.exp(one) for one in logits))
        return [one - total for one in logits]

    return ScriptedEngine(score=score)


def row(found, name):
    return next(one for one in found.table.rows if one.attack == name)


def test_an_attack_on_a_judge_that_falls_for_it():
    found = attack_judge(debates(), JUDGE, swayed("clearly"), ("suffix_sure", "suffix_command"))
    sure = row(found, "suffix_sure")
    assert sure.gain.value == pytest.approx(1 / (1 + math.exp(-2)) - 0.5)
    assert sure.accuracy.value == -0.5 and sure.either.value == 0  # undecided before, wrong after; right for the others
    assert sure.flips.value == 0.5 and (sure.gain.n, sure.gain.clusters) == (16, 4)
    assert row(found, "suffix_command").gain.value == 0  # no such word in it
    assert [t.attack for t in found.trials].count("suffix_sure") == 16 and "{own}" in sure.words


def test_a_judge_that_looks_at_nothing_is_moved_by_nothing():
    found = attack_judge(debates(), JUDGE, ScriptedEngine(), search=SMALL)
    for one in found.table.rows:
        assert one.gain.value == one.accuracy.value == one.flips.value == 0, one.attack
    assert found.table.sycophancy.gap.value == 0 and found.table.search.gain == 0
    assert found.table.left_out["suffix_search"].startswith("no suffix gained, of ")
    assert "says: ''" not in str(found.table) and "suffix_search" not in {one.attack for one in found.table.rows}
    assert "lone consultants" in str(found.table) and "position" in str(found.table)


def test_what_can_not_be_done_or_judged_is_counted():
    engine = swayed("here")
    bare = attack_judge(debates(), JUDGE, engine, ("quotes_unrelated", "quotes_repeated", "tone_sure"))
    assert [one.attack for one in bare.table.rows] == ["tone_sure"]
    assert bare.table.left_out["quotes_repeated"] == "16 trials in which it finds nothing to do, 0 without a verdict"
    assert "quotes_unrelated" in str(bare.table)

    def score(choice):
        said = choice.messages[-1].content.partition("for barn : ")[2].partition("\n")[0]
        if "certain" in said:
            raise RuntimeError("gone")
        return [0.0, 0.0]

    found = attack_judge(debates(), JUDGE, ScriptedEngine(score=score), ("tone_sure",))
    assert row(found, "tone_sure").failed == 8 and row(found, "tone_sure").gain.n == 8


def test_position_reads_the_two_orders_that_were_asked():
    def first(choice):
        listed = choice.messages[-1].content.partition("answers : ")[2].split(" or ")[0]
        return [math.log(0.8 if candidate == listed else 0.2) for candidate in choice.candidates]

    engine = ScriptedEngine(score=first)
    place = row(attack_judge(debates(), JUDGE, engine, ("position",)), "position")
    assert place.gain.value == pytest.approx(0.6) and place.accuracy.value == -1 and place.flips.value == 1
    milder = JUDGE.model_copy(update={"calibrator": Calibrator(kind="temperature", slope=0.5, n=9, clusters=9)})
    assert row(attack_judge(debates(), milder, engine, ("position",)), "position").gain.value == pytest.approx(1 / 3)
    one = attack_judge(debates(), JUDGE.model_copy(update={"both_orders": False}), engine, ("position",))
    assert one.table.rows == () and one.table.left_out == {"position": "asked in one order only"}


def test_a_judge_that_agrees_with_whoever_speaks():
    found = attack_judge(debates(), JUDGE, swayed("never", base=1.0), ("sycophancy",)).table.sycophancy
    assert found.wrong.value == found.right.value == 1
    assert found.expected == 0.5 and found.gap.value == 0.5 and found.gap.low > 0


def test_the_search_finds_the_words_that_sway_a_judge_and_measures_them_on_other_stories():
    engine = swayed("indeed")
    words = ["indeed", "pipe", "lamp", "rope", "{own}", "coat"]
    found = search_suffix(debates(), JUDGE, engine, words, SMALL)
    assert found.text == "indeed indeed" and found.gain == pytest.approx(4.0) and found.trials == 6
    assert found == search_suffix(debates(), JUDGE, swayed("indeed"), words, SMALL)
    nothing = search_suffix(debates(), JUDGE, ScriptedEngine(), words, SMALL)
    assert (nothing.text, nothing.gain, nothing.texts) == ("", 0.0, ())
    assert found.texts[0] == found.text and all(set(text.split()) - {"indeed"} for text in found.also) and found.also
    wide = SMALL.model_copy(update={"pool": 10_000, "length": 1})
    held_out = attack_judge(debates(), JUDGE, swayed("shed"), ("suffix_search",), wide)
    sought = {trial.cluster for trial in held_out.trials}
    assert len(sought) == 2  # of four stories


def test_the_search_always_tries_the_answers_and_tries_words_of_the_stories_first():
    words = [f"other{number}" for number in range(500)] + ["shed", "barn", "here", "{own}", "{other}"]
    drawn = _pool(words, debates(), 10, np.random.default_rng(0))
    assert len(drawn) == 10 and {"{own}", "{other}", "shed", "barn", "here"} < set(drawn)
    assert drawn != _pool(words, debates(), 10, np.random.default_rng(1))
    assert set(_pool(words, debates(), 1000, np.random.default_rng(0))) == set(words)


def test_mistakes_are_said():
    silent = debates(1)[0].model_copy(update={"speeches": ()})
    with pytest.raises(UserError, match="no debate with speeches"):
        attack_judge([silent], JUDGE, ScriptedEngine())
    broken = ScriptedEngine(score=lambda choice: [math.nan, 0.0])
    with pytest.raises(UserError, match="no verdict on any of 8 games"):
        attack_judge(debates(), JUDGE, broken)
    engine = ScriptedEngine()
    with pytest.raises(UserError, match="one story only; give debates of two stories or more"):
        attack_judge(debates(2), JUDGE, engine, ("tone_sure", "suffix_search"))
    assert engine.calls == 0
    with pytest.raises(UserError, match="no rows"):
        attack_row("suffix_sure", "suffix", [])
    with pytest.raises(UserError, match="give debates with speeches"):
        search_suffix([silent], JUDGE, ScriptedEngine(), ["indeed"])
