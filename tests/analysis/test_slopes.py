"""One slope of judge accuracy over the debaters' rating, wherever it is shown."""

import numpy as np
import pytest

from debate_rl.analysis.effects.table import effects
from debate_rl.analysis.oversight import oversight as put_together
from debate_rl.analysis.slopes import Rated, measure, slopes
from debate_rl.records import write_json
from tests.analysis.effects.test_table import ELO, QUESTIONS, cross, leg, oversight, right, row, stage
from tests.analysis.test_accuracy import legs

SKILL = {"base": 0.0, "sft": 100 / ELO, "dpo": 200 / ELO}
PROTOCOLS = {"debate": {"base": 5, "sft": 7, "dpo": 9}, "single": dict.fromkeys(SKILL, 6)}


def keyed(games):
    """Self-play by protocol and player."""
    found = {}
    for game in games:
        key = game.transcript.protocol.name, next(iter(game.transcript.players.values()))
        found.setdefault(key, []).append(game)
    return found


def test_the_table_of_effects_and_the_stages_own_metrics_show_one_slope_with_one_interval(tmp_path):
    tournament, alone = cross(SKILL, noise=0.3), oversight(PROTOCOLS)
    run = stage(stage(tmp_path, "tournament", legs=tournament), "oversight", legs=alone)
    rated = Rated(tournament, resamples=300)
    shown = put_together(keyed(alone), "judge", rated=rated, rated_by="tournament").slopes
    rows = effects([run], resamples=300)
    for slope in shown:
        estimate = row(rows, f"judge accuracy over debater rating, {slope.protocol}").estimate
        ends = 100 * slope.accuracy.value, 100 * slope.accuracy.low, 100 * slope.accuracy.high
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(ends)
    assert [slope.protocol for slope in shown] == ["debate", "single"]
    assert shown[0].players == ("base", "sft", "dpo")


def test_every_protocol_with_debaters_has_a_slope_of_its_own(tmp_path):
    consultancies = {"double": {"base": 5, "sft": 6, "dpo": 9}, "ensembled": dict.fromkeys(SKILL, 4)}
    run = stage(tmp_path, "tournament", legs=cross(SKILL, noise=0.3))
    stage(run, "oversight", legs=oversight({**PROTOCOLS, **consultancies}))
    rows = effects([run], resamples=50)
    names = [one.name for one in rows if "over debater rating" in one.name]
    expected = ["debate", "single", "double", "ensembled", "debate - single"]
    assert names == [f"judge accuracy over debater rating, {name}" for name in expected]
    assert [row(rows, name).shown for name in names[1:4]] == ["-"] * 3, "a consultancy claims nothing"
    assert all(row(rows, name).estimate.low is not None for name in names)


def test_a_tournaments_self_play_and_the_oversight_of_the_same_games_have_one_slope():
    tournament, alone = cross(SKILL, noise=0.3), oversight({"debate": PROTOCOLS["debate"]})
    own = measure(Rated([*tournament, *alone]), alone)
    (slope,) = slopes(keyed(alone), Rated(tournament))
    assert own.replicates.effect() == slope.accuracy


def test_effects_take_the_tournament_that_the_stage_took(tmp_path):
    run = stage(tmp_path, "a_first", kind="tournament", legs=cross({"base": 0.0, "sft": 2.0, "dpo": 4.0}))
    stage(run, "tournament", legs=cross(SKILL, noise=0.3))
    stage(run, "oversight", legs=oversight(PROTOCOLS))
    name = "judge accuracy over debater rating, debate"
    first = row(effects([run], resamples=50), name).estimate.value
    write_json(run / "oversight" / "metrics.json", {"rated_by": "tournament"})
    second = row(effects([run], resamples=50), name).estimate.value
    assert second == pytest.approx(20, rel=0.15) and first < second / 3


def test_accuracy_rises_with_rating_and_the_noise_of_both_is_in_the_interval(question):
    tournament = cross({"weak": 0.0, "strong": 200 / ELO}, noise=0.3)
    both = [
        leg(q, (name, name), right(q, at % 10 < tenths))
        for name, tenths in (("weak", 5), ("strong", 9))
        for at, q in enumerate(QUESTIONS)
    ]
    found = measure(Rated(tournament), both)
    effect = found.replicates.effect()
    assert effect.value == pytest.approx(0.2, rel=0.1) and effect.low < 0.2 < effect.high
    assert np.std(found.replicates.values) > 0
    assert measure(Rated(tournament), [one for one in both if one.transcript.players["A"] == "weak"]) is None
    assert measure(Rated([]), both) is None


def test_every_protocol_with_rated_speakers_has_a_slope(question):
    tournament = cross({"weak": 0.0, "strong": 1.0})
    alone = oversight({"debate": {"weak": 4, "strong": 8, "new": 0}, "single": {"weak": 4, "strong": 8}})
    found = slopes({**keyed(alone), ("blind", "-"): legs(question, "blind", "-", [0.9] * 8)}, Rated(tournament))
    assert [(one.protocol, one.players) for one in found] == [
        ("debate", ("weak", "strong")),
        ("single", ("weak", "strong")),
    ]
