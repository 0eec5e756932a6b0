"""Effects from folders whose effects are known: the value, the interval, the sign, and what does not count."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.analysis.effects.row import EffectRow, Scored, mean_rows, paired, scaled, shown
from debate_rl.analysis.effects.table import effects, read_effects, write_effects
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Ask, Failure, JudgedDebate, Verdict
from debate_rl.intervals import Estimate
from debate_rl.records import write, write_json
from debate_rl.weak_to_strong.results.predictions import Hits

ELO = 400 / math.log(10)
STORIES = 40
GOOD = "<quote>the pipe was moved to the shed</quote> is why"
GOOD_WORDS = 9
SKILL = {"base": 0.0, "sft": 0.6, "dpo": 1.0, "dpo@4": 1.4, "dpo@16": 1.6}


def question(number):
    """Two questions share a story; the correct side alternates."""
    return Question(
        id=f"q{number}", text="where is the pipe ?", answers=("shed", "barn"), correct=number // 2 % 2,
        passage="the pipe was moved to the shed. the cup is in the barn.", group=f"story{number // 2}",
    )  # fmt: skip


QUESTIONS = [question(number) for number in range(2 * STORIES)]


def leg(about, players, p_first, protocol="debate", seed=0, said="", judge="judge", lean=0.0):
    """A game in which the judge gives answer A p_first, more by `lean` log-odds where it is shown first."""
    game = open_transcript(about, load_protocol(protocol), dict(zip("AB", players, strict=False)), seed)
    for side in game.present if said else ():
        game = game.add([read_speech(said, game, side, 0, Origin(player=game.players[side]))])
    logit = math.log(p_first / (1 - p_first))
    asks, chances = [], []
    for order, extra in (((0, 1), lean), ((1, 0), -lean)):
        p = 1 / (1 + math.exp(-logit - extra))
        asks.append(Ask(sides=(), order=order, logprobs=(math.log(p), math.log(1 - p))))
        chances.append(p)
    p = sum(chances) / 2
    return JudgedDebate(transcript=game, verdict=Verdict(judge=judge, p=(p, 1 - p), asks=tuple(asks)))


def right(about, correct):
    """P(answer A) of a judge that is right or wrong."""
    return 0.8 if (about.correct == 0) == correct else 0.2


def stage(run, name, kind=None, metrics=None, **files):
    """Write a finished stage with files of judged debates."""
    write_json(run / name / "stage.json", {"name": name, "kind": kind or name, "fingerprint": "0"})
    write_json(run / name / "metrics.json", metrics or {})
    for file, legs in files.items():
        write(run / name / f"{file.replace('legs', 'debates')}.jsonl", legs)
    return run


def cross(skill, seed=0, noise=0.5):
    """A round robin whose judge follows the players' skill, with noise by question that is 0 on average."""
    random = np.random.default_rng(seed)
    names, found = list(skill), []
    tilts = random.normal(0, noise, (len(QUESTIONS), len(names)))
    for about, drawn in zip(QUESTIONS, tilts - tilts.mean(axis=0), strict=True):
        tilt = dict(zip(names, drawn, strict=True))
        for i, one in enumerate(names):
            for two in names[i + 1 :]:
                for first, second in ((one, two), (two, one)):
                    z = skill[first] + tilt[first] - skill[second] - tilt[second]
                    found.append(leg(about, (first, second), 1 / (1 + math.exp(-z)), seed=seed))
    return found


def row(rows, name):
    found = [one for one in rows if one.name == name]
    assert len(found) == 1, (name, [one.name for one in rows])
    return found[0]


def test_skill_is_the_difference_of_consecutive_players_over_all_seeds(tmp_path):
    runs = [stage(tmp_path / f"seed{s}", "tournament", legs=cross(SKILL, s)) for s in (0, 1, 2)]
    rows = effects(runs, resamples=300)
    assert [one.name for one in rows if one.group == "skill"] == ["sft over base, Elo", "dpo over sft, Elo"]
    assert [one.name for one in rows if one.group == "best-of-n"] == ["dpo@4 over dpo, Elo", "dpo@16 over dpo@4, Elo"]
    for name, true in (("sft over base, Elo", 0.6), ("dpo over sft, Elo", 0.4), ("dpo@4 over dpo, Elo", 0.4)):
        found = row(rows, name)
        assert found.estimate.low < ELO * true < found.estimate.high and found.shown == "yes"
        assert found.estimate.value == pytest.approx(ELO * true, rel=0.15)  # the noise draws probabilities towards 1/2
        width = 2 * 1.96 * ELO * 0.5 * math.sqrt(2 / len(runs) / len(QUESTIONS))
        assert found.estimate.high - found.estimate.low == pytest.approx(width, rel=0.3)
        assert found.estimate.clusters == STORIES
        assert np.mean(found.seeds) == pytest.approx(found.estimate.value, abs=2) and len(set(found.seeds)) == 3
    one, three = (row(of, "sft over base, Elo").estimate for of in (effects(runs[:1], resamples=300), rows))
    assert one.high - one.low > three.high - three.low


def test_a_claim_that_goes_the_other_way_is_not_shown(tmp_path):
    run = stage(tmp_path, "tournament", legs=cross({"base": 0.6, "sft": 0.0}))
    found = row(effects([run], resamples=100), "sft over base, Elo")
    assert found.estimate.high < 0 and found.shown == "no"


def test_failed_legs_count_for_no_one(tmp_path):
    legs = cross({"base": 0, "sft": 0.5})
    failure = Failure(seat="B", kind="context", message="too long")
    failed = [one.model_copy(update={"verdict": None, "failure": failure}) for one in legs[::2]]
    alone = [leg(about, ("sft", "sft"), 0.5, said="no quote") for about in QUESTIONS]
    broken = [one.model_copy(update={"verdict": None, "failure": failure}) for one in alone[:10]]
    kept = stage(tmp_path / "a", "tournament", legs=legs[1::2] + alone[10:])
    both = stage(tmp_path / "b", "tournament", legs=legs[1::2] + failed + alone[10:] + broken)
    assert effects([kept], resamples=50) == effects([both], resamples=50)


def test_players_are_compared_as_listed_whatever_failed(tmp_path):
    skill = {"base": 0, "sft": 0.5, "dpo": 1}

    def lost(one):
        return one.transcript.question.id == "q0" and "sft" in one.transcript.players.values()

    legs = [one for one in cross(skill) if not lost(one)]
    run = stage(tmp_path, "tournament", metrics={"judge_accuracy": dict.fromkeys([*skill, "gone"])}, legs=legs)
    assert [one.name for one in effects([run], resamples=20)] == ["sft over base, Elo", "dpo over sft, Elo"]


def test_seeds_that_agree_are_pooled_to_what_each_says(tmp_path):
    run = whole(tmp_path)
    one, two = effects([run], resamples=200), effects([run, run], resamples=200)
    assert [found.name for found in one] == [found.name for found in two]
    for single, pooled in zip(one, two, strict=True):
        assert pooled.seeds == single.seeds * 2 and pooled.shown == single.shown
        if single.estimate is None or single.group == "weak-to-strong":
            continue  # there a second seed is a second draw of training noise
        ends = [(e.value, e.low, e.high) for e in (single.estimate, pooled.estimate)]
        assert all(a == b or a == pytest.approx(b, abs=1) for a, b in zip(*ends, strict=True)), single.name


def test_stages_that_are_not_there_make_no_rows(tmp_path):
    stage(tmp_path / "a", "sft")
    assert effects([tmp_path / "a"]) == []
    stage(tmp_path / "b", "oversight", legs=[leg(q, ("sft", "sft"), right(q, True)) for q in QUESTIONS])
    rows = effects([tmp_path / "a", tmp_path / "b"])
    assert {one.group for one in rows} == {"protocols", "quotes"} or {one.group for one in rows} == {"protocols"}
    assert row(rows, "debate, sft").seeds == (None, 100.0)
    with pytest.raises(UserError, match="run not found"):
        effects([tmp_path / "none"])


def test_protocols_are_compared_question_by_question_for_the_last_player(tmp_path):
    legs = []
    for name, player, share in (
        ("debate", "sft", 0),
        ("debate", "dpo", 1),
        ("single", "sft", 1),
        ("single", "dpo", 0.5),
    ):
        many = round(share * len(QUESTIONS))
        legs += [leg(q, (player, player), right(q, at < many), name) for at, q in enumerate(QUESTIONS)]
    legs += [leg(q, (), right(q, at % 4 == 0), "blind") for at, q in enumerate(QUESTIONS)]
    listing = {"rows": [{"player": name} for name in ("sft", "dpo", "sft", "dpo", "-")]}
    rows = effects([stage(tmp_path, "oversight", metrics=listing, legs=legs)])
    assert [(one.name, one.estimate.value) for one in rows if one.group == "protocols"] == [
        ("debate, dpo", 100), ("single, dpo", 50), ("blind, dpo", 25), ("debate - single, dpo", 50),
    ]  # fmt: skip
    found = row(rows, "debate - single, dpo")
    assert 25 < found.estimate.low < 50 < found.estimate.high < 75 and found.shown == "yes"
    assert row(rows, "debate, dpo").shown == "-"
    names = [one.name for one in rows]
    assert len(set(names)) == len(names)


def test_the_mean_of_both_orders_hides_what_one_order_shows(tmp_path):
    """Before: swayed by the order on every game. After: always right."""
    old = [leg(q, ("sft", "sft"), 0.55 if q.correct == 0 else 0.45, lean=2.0) for q in QUESTIONS]
    new = [leg(q, ("sft", "sft"), right(q, True)) for q in QUESTIONS]
    rows = effects([stage(tmp_path, "judge", base_legs=old, test_legs=new)])
    assert row(rows, "accuracy, mean of both orders: before finetuning").estimate.value == 100
    single = row(rows, "accuracy, one order: before finetuning").estimate
    assert 30 < single.value < 70
    gain = row(rows, "accuracy, one order: after - before")
    assert gain.estimate.value == pytest.approx(100 - single.value) and gain.shown == "yes"
    assert [row(rows, f"order effect: {when} finetuning").estimate.value for when in ("before", "after")] == [100, 0]
    assert row(rows, "Brier: after finetuning").estimate.value == pytest.approx(0.04)
    brier = row(rows, "Brier: after - before")
    assert brier.estimate.high < 0 and brier.shown == "yes"
    ece = row(rows, "ECE: after finetuning")
    assert ece.estimate.value == pytest.approx(0.2) and ece.estimate.low is None and "by chance" in ece.note


def test_readers_are_told_apart(tmp_path):
    legs = [
        leg(q, (), right(q, at % 10 < tenths), protocol, judge=model)
        for model, protocol, tenths in (("big", "open_book", 9), ("big", "blind", 5), ("small", "open_book", 6))
        for at, q in enumerate(QUESTIONS)
    ]
    rows = effects([stage(tmp_path, "reading", legs=legs)])
    assert [(one.name, one.estimate.value) for one in rows] == [
        ("big, open-book accuracy", 90), ("small, open-book accuracy", 60), ("big, blind accuracy", 50),
    ]  # fmt: skip


def test_quotes_of_players_with_themselves(tmp_path):
    true, false = "<quote>moved to the shed</quote> so", "<quote>the dog ate it whole</quote> and more words"
    legs = cross({"base": 0, "sft": 1})
    for at, q in enumerate(QUESTIONS):
        legs.append(leg(q, ("base", "base"), 0.5, said=true if at % 4 == 0 else false))
        legs.append(leg(q, ("sft", "sft"), 0.5, said=true if at % 4 else "nothing quoted"))
    rows = effects([stage(tmp_path, "tournament", legs=legs)], resamples=20)
    what = "speeches with valid quotes only"
    assert [row(rows, f"{name}, {what}").estimate.value for name in ("base", "sft")] == [25, 75]
    found = row(rows, f"sft - base, {what}")
    assert found.estimate.value == 50 and found.estimate.low > 0 and found.shown == "yes"
    assert row(rows, "base, words a speech").estimate.value == (5 + 3 * 8) / 4
    assert row(rows, "sft - base, words a speech").shown == "-"


def oversight(protocols):
    """Self-play of three players; the judge is right on a share of the questions of every story alike."""
    return [
        leg(q, (name, name), right(q, (7 * at) % 10 < tenths), protocol)
        for protocol, shares in protocols.items()
        for name, tenths in shares.items()
        for at, q in enumerate(QUESTIONS)
    ]


def test_accuracy_over_rating_is_a_slope_with_the_noise_of_both(tmp_path):
    skill = {"base": 0.0, "sft": 100 / ELO, "dpo": 200 / ELO}
    protocols = {"debate": {"base": 5, "sft": 7, "dpo": 9}, "single": dict.fromkeys(skill, 6)}
    run = stage(tmp_path, "tournament", legs=cross(skill, noise=0.3))
    rows = effects([stage(run, "oversight", legs=oversight(protocols))], resamples=300)
    debate, single, gap = [one for one in rows if one.group == "oversight"]
    assert debate.estimate.value == pytest.approx(20, rel=0.15) and debate.shown == "yes"
    assert debate.estimate.low < 20 < debate.estimate.high and debate.seeds[0] == pytest.approx(debate.estimate.value)
    assert single.estimate.value == pytest.approx(0, abs=1e-9) and single.shown == "-"
    assert gap.estimate.value == pytest.approx(debate.estimate.value) and gap.shown == "yes"


def test_two_players_have_no_slope(tmp_path):
    run = stage(tmp_path, "tournament", legs=cross({"base": 0, "sft": 1}))
    stage(run, "oversight", legs=oversight({"debate": {"base": 5, "sft": 7}}))
    assert not [one for one in effects([run], resamples=20) if one.group == "oversight"]


def transfer(run, accuracy, seeds=2, items=100, name="i", seed=0):
    """A weak-to-strong stage whose models have these accuracies, alike in every seed but for a few items."""
    random = np.random.default_rng(seed)
    table = {
        model: tuple(
            tuple((random.permutation(items) < share * items) * 0.8 + 0.1)
            for _ in range(1 if model == "untrained" else seeds)
        )
        for model, share in accuracy.items()
    }
    names = tuple(f"{name}{at}" for at in range(items))
    methods = [model.partition("/")[0] for model in accuracy if model.endswith("/student")]
    hits = Hits(
        test_items=names, test_clusters=names, test_truth=(1,) * items, label_items=names, label_clusters=names,
        label_truth=(1,) * items, test=table,
        labels=dict.fromkeys(methods, table["weak"]),
    )  # fmt: skip
    stage(run, "weak_to_strong")
    write_json(run / "weak_to_strong" / "trainings" / "hits.json", hits.model_dump(mode="json"))
    return run


GAP = {"weak": 0.5, "none/student": 0.6, "debate/student": 0.8, "ceiling": 0.9, "untrained": 0.4}


def test_transfer_stacks_the_seeds_of_all_runs(tmp_path):
    runs = [transfer(tmp_path / f"seed{s}", GAP, seed=s) for s in range(3)]
    rows = effects(runs)
    known = {
        "none student - weak": 10, "debate student - none student": 20, "ceiling - debate student": 10,
        "PGR, none": 0.25, "PGR, debate": 0.75, "PGR, debate - none": 0.5,
    }  # fmt: skip
    for name, value in known.items():
        found = row(rows, name)
        assert found.estimate.value == pytest.approx(value) and found.seeds == pytest.approx((value,) * 3)
        assert found.estimate.low < value < found.estimate.high
    assert row(rows, "PGR, debate - none").shown == "yes" and row(rows, "student, debate").shown == "-"
    one = row(effects(runs[:1]), "PGR, debate - none").estimate
    many = row(rows, "PGR, debate - none").estimate
    assert many.high - many.low < one.high - one.low


def test_pgr_without_a_gap_is_said_to_be_undefined(tmp_path):
    rows = effects([transfer(tmp_path, {**GAP, "ceiling": 0.5})])
    found = row(rows, "PGR, debate - none")
    assert found.estimate is None and found.text == "undefined" and "not above 0" in found.note
    assert found.seeds == (None,) and found.shown == "no" and row(rows, "ceiling - debate student").shown == "no"


def test_runs_with_other_items_are_not_stacked(tmp_path):
    runs = [transfer(tmp_path / name, GAP, name=name) for name in ("a", "b")]
    with pytest.raises(UserError, match=r"questions\.seed"):
        effects(runs)


def whole(folder):
    """A run with every stage that has effects."""
    skill = {"base": 0.0, "sft": 0.5, "dpo": 0.8, "dpo@4": 1.1}
    alone = [leg(q, (n, n), 0.5, said="<quote>the shed</quote> it is") for n in skill for q in QUESTIONS[:20]]
    stage(folder, "tournament", legs=cross(skill) + alone)
    stage(folder, "reading", legs=[leg(q, (), right(q, True), "open_book") for q in QUESTIONS])
    shares = {"base": 5, "sft": 7, "dpo": 9}
    stage(folder, "oversight", legs=oversight({"debate": shares, "single": dict.fromkeys(shares, 6)}))
    old, new = (
        [leg(q, ("sft", "sft"), p if q.correct == 0 else 1 - p, lean=0.4) for q in QUESTIONS] for p in (0.55, 0.7)
    )
    stage(folder, "judge", base_legs=old, test_legs=new)
    return transfer(folder, GAP)


def test_every_group_is_there_in_its_order_and_survives_its_file(tmp_path):
    rows = effects([whole(tmp_path)], resamples=50)
    groups = ["reading", "quotes", "skill", "best-of-n", "judge", "protocols", "oversight", "weak-to-strong"]
    assert list(dict.fromkeys(one.group for one in rows)) == groups
    write_effects(tmp_path / "effects.json", [0], rows)
    assert read_effects(tmp_path / "effects.json") == rows
    (tmp_path / "effects.json").write_text("[]")
    with pytest.raises(UserError, match="not a table of effects"):
        read_effects(tmp_path / "effects.json")


def test_stages_of_one_kind_are_told_apart(tmp_path):
    legs = [leg(q, (), right(q, True), "blind", judge="m") for q in QUESTIONS]
    stage(tmp_path, "first", "reading", legs=legs)
    rows = effects([stage(tmp_path, "second", "reading", legs=legs)])
    assert [one.name for one in rows] == ["m, blind accuracy (first)", "m, blind accuracy (second)"]


def test_numbers_are_rounded_for_their_unit_without_minus_zero():
    estimate = Estimate(value=-0.04, low=-12.35, high=3.0, n=4, clusters=2)
    found = EffectRow(group="skill", name="x", estimate=estimate, seeds=(None, -0.01), unit="points")
    assert (found.text, found.by_seed) == ("0.0 [-12.3, 3.0]", ("-", "0.0"))
    without = estimate.model_copy(update={"low": None, "high": None})
    assert found.model_copy(update={"estimate": without}).text == "0.0 [no interval]"
    assert shown(without, 1) == "no" and shown(without, 0) == "-"


@given(st.floats(-10, 10), st.floats(0.01, 5), st.floats(0.01, 5))
def test_turning_a_difference_round_turns_what_is_shown(value, below, above):
    estimate = Estimate(value=value, low=value - below, high=value + above, n=9, clusters=9)
    turned = scaled(estimate, -1)
    assert turned.low <= turned.value <= turned.high
    assert shown(estimate, 1) == shown(turned, -1) == ("yes" if value > below else "no")
    assert "yes" not in (shown(estimate, 1), shown(estimate, -1)) or shown(estimate, 1) != shown(estimate, -1)


def test_targets_are_set_against_the_binary_one_and_not_against_one_another(tmp_path):
    skill = {"sft": 0.0, "dpo_binary": 0.3, "dpo_prob": 0.8, "dpo_logit": 0.1, "dpo_other": 2.0}
    runs = []
    for seed in (0, 1):
        run = stage(tmp_path / f"seed{seed}", "tournament", legs=cross(skill, seed),
                    metrics={"judge_accuracy": dict.fromkeys(skill)})  # fmt: skip
        for name in list(skill)[1:]:
            about = {"start": "sft", "preferences": "preferences", "loss": "dpo", "target": name[4:]}
            if name == "dpo_other":  # from rows of its own, so no fair comparison
                about |= {"preferences": "other", "target": "prob"}
            stage(run, name, "dpo", metrics={"objective": about})
        runs.append(run)
    rows = effects(runs, resamples=200)
    found = {one.name: one for one in rows if one.group == "targets"}
    assert set(found) == {"dpo_logit over dpo_binary, Elo", "dpo_prob over dpo_binary, Elo"}
    prob, logit = found["dpo_prob over dpo_binary, Elo"], found["dpo_logit over dpo_binary, Elo"]
    assert prob.shown == "yes" and prob.estimate.low < ELO * 0.5 < prob.estimate.high and prob.note == "target prob"
    assert logit.shown == "no" and logit.estimate.value < 0 and len(logit.seeds) == 2
    assert [one.name for one in rows if one.group == "skill"] == [
        "dpo_binary over sft, Elo", "dpo_prob over sft, Elo", "dpo_logit over sft, Elo", "dpo_other over sft, Elo",
    ]  # fmt: skip


def test_each_iteration_is_set_against_the_one_before(tmp_path):
    skill = {"base": -0.5, "sft": 0.0, "it.1": 0.6, "it.2": 0.5}
    quoted = {"sft": GOOD, "it.1": GOOD, "it.2": "no quote at all"}
    runs = []
    for seed in (0, 1):
        alone = [
            leg(about, (name, name), right(about, name != "it.2" or number % 2), seed=seed, said=quoted[name])
            for number, about in enumerate(QUESTIONS)
            for name in quoted
        ]
        metrics = {"points": [{"player": name} for name in quoted]}
        runs.append(stage(tmp_path / f"seed{seed}", "it", "iterations", metrics, legs=cross(skill, seed) + alone))
    rows = [one for one in effects(runs, resamples=200) if one.group == "iterations"]
    first, second = row(rows, "it.1 over sft, Elo"), row(rows, "it.2 over it.1, Elo")
    assert first.shown == "yes" and first.estimate.low < ELO * 0.6 < first.estimate.high
    assert second.shown == "no" and second.estimate.value < 0
    assert row(rows, "it.2 over sft, Elo").estimate.value == pytest.approx(first.estimate.value + second.estimate.value)
    assert row(rows, "it.2 - it.1, judge accuracy").estimate.value == pytest.approx(-50)
    assert row(rows, "it.1 - sft, speeches with valid quotes only").estimate.value == 0
    assert row(rows, "it.2 - it.1, speeches with valid quotes only").estimate.value == -100
    assert row(rows, "it.2 - it.1, words a speech").estimate.value == 4 - GOOD_WORDS


def test_consultants_are_compared_by_how_far_the_judge_follows(tmp_path):
    p = {"sft": 0.6, "it.1": 0.75}
    legs = []
    for about in QUESTIONS:
        for name, chance in p.items():
            game = open_transcript(about, load_protocol("single"), {"A": name, "B": name}, 0)
            side = game.present[0]
            made = leg(about, (name, name), chance if side == "A" else 1 - chance, "single")
            legs.append(made)
    run = stage(tmp_path, "it", "iterations", {"points": [{"player": name} for name in p], "ratings": None}, legs=legs)
    rows = [one for one in effects([run], resamples=50) if one.group == "iterations"]
    found = row(rows, "it.1 - sft, judge's probability for the consultant")
    assert found.estimate.value == pytest.approx(15) and found.shown == "yes"
    assert not any("Elo" in one.name for one in rows)


def test_equal_speeches_that_are_scored_in_two_ways_show_nothing():
    first = {n: Scored(0.1 + 0.2, f"s{n}") for n in range(40)}
    second = {n: Scored(0.3, f"s{n}") for n in range(40)}
    assert first[0].value > second[0].value
    (found,) = mean_rows("judge", "x - y", "points", [paired(first, second)], claim=1)
    assert (found.shown, found.estimate.low, found.estimate.high) == ("no", 0, 0)


def test_players_of_a_large_tournament_are_compared_whoever_stands_between_them(tmp_path):
    names = [f"p{number}" for number in range(62)]
    skill = {name: (number % 2) * 2.0 + number / 62 for number, name in enumerate(names)}
    games = [
        leg(about, (one, two), 1 / (1 + math.exp(skill[two] - skill[one])))
        for about in QUESTIONS[:4]
        for place, one in enumerate(names)
        for two in (names[place - 1], names[place - 2])
    ]
    rows = effects([stage(tmp_path, "tournament", legs=games)], resamples=20)
    assert row(rows, "p5 over p4, Elo").estimate.value == pytest.approx(ELO * (2 + 1 / 62), rel=0.2)
