import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.analysis.judging.judge_errors import judge_errors, preference_errors, rating_errors, transfer_errors
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.errors import inject
from debate_rl.players.speak import make_pool
from debate_rl.records import write, write_json, write_text
from debate_rl.trainers.common.settings import Objective
from debate_rl.weak_to_strong.results.predictions import Hits
from tests.command import mistake

SKILL = {"base": 0.0, "sft": 0.5, "dpo": 1.0, "best": 1.5}
NAMES = [f"v{i}" for i in range(4000)]


def question(number):
    return Question(
        id=f"q{number}", text="where ?", answers=("shed", "barn"), correct=number % 2, passage="it moved .",
        group=f"s{number // 2}",
    )  # fmt: skip


def cross_play(count=24):
    """Verdicts that follow the players' skill exactly."""
    rules = load_protocol("debate", prompts="lab")
    found = []
    for number in range(count):
        for a in SKILL:
            for b in SKILL:
                game = open_transcript(question(number), rules, {"A": a, "B": b})
                p = 1 / (1 + np.exp(SKILL[b] - SKILL[a]))
                found.append(JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(p, 1 - p))))
    return found


def pools(count=60):
    """Four candidates and two opponents, scores apart by .1."""
    rules = load_protocol("debate", prompts="lab")
    found = []
    for number in range(count):
        game = open_transcript(question(number), rules, {"A": "x", "B": "y"})
        speeches = [read_speech(f"text {i}", game, "A", 0, Origin(player="x")) for i in range(4)]
        p = [[0.8 - 0.1 * i] * 2 for i in range(4)]
        found.append(make_pool(game, "A", 0, "x@4", speeches, speeches[:2], p, "mean"))
    return found


def hits():
    random = np.random.default_rng(0)
    items = tuple(f"t{i}" for i in range(200))

    def table(p):
        return tuple(tuple(0.1 + 0.8 * (random.random(200) < p)) for _ in range(2))

    return Hits(
        test_items=items, test_clusters=items, test_truth=(1,) * 200, label_items=items, label_clusters=items,
        label_truth=(1,) * 200,
        test={"weak": table(0.6), "none/supervisor": table(0.9), "ceiling": table(0.99)},
        labels={"none": table(0.9)},
    )  # fmt: skip


def test_errors_come_at_their_rate_and_rates_hold_one_another():
    p = np.full(len(NAMES), 0.9)
    wrong = {rate: inject(p, NAMES, rate) < 0.5 for rate in (0.0, 0.05, 0.1, 0.3, 1.0)}
    assert wrong[0.0].sum() == 0 and wrong[1.0].all()
    for rate in (0.05, 0.1, 0.3):
        assert wrong[rate].mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / len(NAMES)) ** 0.5)
    assert (wrong[0.05] <= wrong[0.1]).all() and (wrong[0.1] <= wrong[0.3]).all()
    assert (inject(p, NAMES, 0.3) == inject(p, NAMES, 0.3)).all()
    assert (inject(p, NAMES, 0.3) != inject(p, NAMES, 0.3, seed=1)).any()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1), st.sampled_from(["flip", "mix"]))
def test_errors_stay_probabilities_and_treat_both_answers_alike(p, rate, kind):
    names = NAMES[: len(p)]
    one = inject(p, names, rate, kind)
    other = inject(1 - np.array(p), names, rate, kind)
    assert ((one >= 0) & (one <= 1)).all() and one + other == pytest.approx(1)


def test_a_mix_is_the_mean_of_many_flips():
    flips = np.mean([inject([0.9, 0.2], ["a", "b"], 0.2, seed=seed) for seed in range(4000)], axis=0)
    assert inject([0.9, 0.2], ["a", "b"], 0.2, "mix") == pytest.approx(flips, abs=0.02)


def test_bad_rates_are_refused():
    with pytest.raises(UserError, match="share between 0 and 1"):
        inject([0.5], ["a"], 1.5)
    with pytest.raises(UserError, match="2 names for 1 verdicts"):
        inject([0.5], ["a", "b"], 0.1)
    with pytest.raises(UserError, match=r"1\.2 is not between"):
        inject([1.2], ["a"], 0.1)


def test_errors_draw_ratings_together_and_leave_the_order_at_first():
    clean, some, half = rating_errors(cross_play(), (0.0, 0.2, 0.5), "mix", draws=10)
    assert clean.spread.value == clean.rank.value == 1 and clean.spread.low == clean.spread.high == 1
    assert 0.4 < some.spread.value < 0.65 and some.rank.value == 1  # about 1 - 2 rate
    assert sorted(clean.elo, key=clean.elo.get) == ["base", "sft", "dpo", "best"]
    assert np.mean(list(some.elo.values())) == pytest.approx(1000)
    assert half.spread.value == pytest.approx(0, abs=1e-6)
    (flipped,) = rating_errors(cross_play(), (0.2,), draws=20)
    assert flipped.spread.low < some.spread.value < flipped.spread.high  # a mix is the mean of flips


def test_pairs_flip_as_verdicts_do():
    clean, all_wrong = preference_errors(pools(), (0.0, 1.0))
    assert clean.flipped.value == clean.target_change.value == clean.wrong.value == 0
    assert clean.pairs == 60 and clean.gap.value == pytest.approx(0.3)
    assert all_wrong.flipped.value == all_wrong.wrong.value == 1 and all_wrong.gap.value == pytest.approx(-0.3)
    assert all_wrong.target.value == pytest.approx(1 - clean.target.value)
    (some,) = preference_errors(pools(400), (0.2,))
    # Of a pair's four verdicts, two are of each speech: the order flips if two or more of them do.
    assert 0.1 < some.flipped.value < some.wrong.value  # pairs made anew are chosen for wide gaps, which errors make
    (mixed,) = preference_errors(pools(), (0.2,), "mix")
    assert mixed.flipped.value == 0 and mixed.target.value < clean.target.value


def test_a_hard_target_knows_no_half_errors():
    (row,) = preference_errors(pools(), (0.2,), objective=Objective(target="binary"))
    assert row.target.value == pytest.approx(1 - row.flipped.value)
    assert row.target_change.value == pytest.approx(row.flipped.value)


def test_pools_without_pairs_are_said():
    equal = [pool.model_copy(update={"scores": (0.5,) * 4}) for pool in pools(2)]
    with pytest.raises(UserError, match="no pool gives a pair"):
        preference_errors(equal)


def test_labels_with_errors_recover_less_of_the_gap():
    found = transfer_errors(hits(), (0.0, 0.1, 0.3), "mix")
    labels = [row.labels.value for row in found]
    assert labels[1] == pytest.approx(0.9 * labels[0] + 0.1 * (1 - labels[0]))
    recovered = [row.pgr.value for row in found]
    assert recovered[0] > recovered[1] > recovered[2]
    even = found[0].breaks_even
    (at_even,) = transfer_errors(hits(), (even,), "mix")
    assert at_even.pgr.value == pytest.approx(0, abs=1e-9)


@pytest.fixture
def run(tmp_path):
    """A run's folder with the records that are scored again."""
    write_text(tmp_path / "config.yaml", "stages: {dpo: {objective: {target: prob, gamma: 7}}, preferences: {}}")
    for name in ("tournament", "preferences", "weak_to_strong"):
        write_json(tmp_path / name / "stage.json", {"name": name, "kind": name})
        write_json(tmp_path / name / "metrics.json", {"ratings": {"ridge": 0.1}})
    write(tmp_path / "tournament" / "debates.jsonl", cross_play(6))
    write(tmp_path / "preferences" / "pools.jsonl", pools(6))
    write_json(tmp_path / "weak_to_strong" / "trainings" / "hits.json", hits().model_dump(mode="json"))
    return tmp_path


def test_a_run_is_scored_again(run, call):
    found = judge_errors(run, (0.0, 0.2), draws=5)
    assert Counter(map(len, (found.ratings["tournament"], found.preferences["preferences"]))) == {2: 2}
    assert found.transfer["weak_to_strong"][1].rate == 0.2
    assert found.preferences["preferences"][0].target.value == pytest.approx(1 / (1 + np.exp(-7 * 0.3)))
    code, out, _ = call("judge", "errors", run, "--rates", "0,0.2", "--json")
    assert code == 0 and json.loads(out)["ratings"]["tournament"][1]["rate"] == 0.2
    code, out, _ = call("judge", "errors", run, "--rates", "0.1", "--mix")
    assert "ratings of tournament" in out and "breaks even at" in out and "(mix)" in out


def test_mistakes_of_the_command(run, tmp_path, call):
    assert "give shares" in mistake(call("judge", "errors", run, "--rates", "ten"))
    assert "not found" in mistake(call("judge", "errors", tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    write_text(tmp_path / "empty" / "config.yaml", "stages: {}")
    assert "no finished tournament" in mistake(call("judge", "errors", tmp_path / "empty"))
