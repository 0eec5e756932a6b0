import json
import time
from itertools import pairwise, permutations

import evalica
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from debate_rl.arena.bradley_terry import Outcomes, _newton, refits, sum_matches
from debate_rl.arena.ratings import ELO, MOST_PAIRED, VOTES_RIDGE, Ratings, rate, read_votes
from debate_rl.errors import UserError
from debate_rl.intervals import Replicates, resample

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
HOME = """43 42 43 61 42 60 / 33 42 43 60 61 43 / 25 43 24 43 42 60 / 33 51 25 43 42 61 / 51 25 33 42 52 60
/ 25 33 34 43 42 24 / 25 15 16 24 16 34"""
"""Home wins and away wins of each team against the others in order: American League East 1987, Agresti 2002, 10.6."""


def league():
    games = []
    for home, row in zip(TEAMS, HOME.split("/"), strict=True):
        for away, (wins, losses) in zip([team for team in TEAMS if team != home], row.split(), strict=True):
            games += [(home, away, 1, int(wins)), (home, away, 0, int(losses))]
    left, right, score, weights = zip(*games, strict=True)
    return Outcomes(left, right, score, weights=weights, sides={"home": np.ones(len(games))})


def elos(outcomes, ridge=0.0, **options):
    return rate(outcomes, ridge=ridge, resamples=20, **options).to_json()["ratings"]


def tournament(questions, seed, strengths=(-1.0, 0.0, 1.0), hard=False):
    """A round robin with both orders; players differ in how well they know a question."""
    random = np.random.default_rng([seed, 1])
    rows = []
    for question in range(questions):
        known = np.array(strengths) + random.normal(0, 0.7, len(strengths))
        for i, j in permutations(range(len(strengths)), 2):
            p = 1 / (1 + np.exp(known[j] - known[i]))
            rows.append((f"p{i}", f"p{j}", float(random.random() < p) if hard else p, question))
    return Outcomes(*zip(*rows, strict=True))


@pytest.mark.parametrize("name", ["simple", "food"])
def test_published_votes_by_the_defaults_of_the_command(shared_data, name):
    expected = json.loads((shared_data / "ratings/expected_derived.json").read_text())[name]
    found = elos(read_votes(shared_data / f"ratings/{name}.csv"), ridge=VOTES_RIDGE)
    assert found == pytest.approx(expected, abs=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    golden = pd.read_csv(shared_data / f"ratings/{name}-golden.csv", dtype={"item": str})
    golden = golden[golden.algorithm == "bradley_terry"].set_index("item").score
    strength = {player: np.exp(elo / ELO) for player, elo in found.items()}
    total = sum(strength.values())
    assert {player: value / total for player, value in strength.items()} == pytest.approx(golden.to_dict(), abs=2e-5)


def test_published_worked_examples(shared_data):
    expected = json.loads((shared_data / "ratings/expected_derived.json").read_text())
    wiki = expected["wikipedia"]
    left, right, weights = zip(*wiki["games"], strict=True)
    found = elos(Outcomes(left, right, np.ones(len(left)), weights=weights))
    assert found == pytest.approx(wiki["elo_mean1000"], abs=1e-4)
    for case in expected["two_player"]:
        score = [1] * case["w"] + [0] * case["l"] + [0.5] * case["t"]
        found = elos(Outcomes(["a"] * len(score), ["b"] * len(score), score))
        assert found["a"] - found["b"] == pytest.approx(case["elo_diff"], abs=1e-6)
    for path in sorted((shared_data / "ratings").glob("testcase-pairwise-*.json")):
        case = json.loads(path.read_text())
        left, right = np.array(case["data"]).astype(str).T.tolist()
        found = elos(Outcomes(left, right, np.ones(len(left))))
        theta = [(found[str(i)] - 1000) / ELO for i in range(case["n_items"])]
        assert theta == pytest.approx(case["ml_est"], abs=1e-8)


def test_home_advantage_of_a_published_league(shared_data):
    expected = json.loads((shared_data / "ratings/expected_derived.json").read_text())["baseball"]
    without = elos(league()._replace(sides=None))
    theta = {team: (without[team] - without["Baltimore"]) / ELO for team in TEAMS}
    assert theta == pytest.approx(expected["m1_vs_Baltimore"], abs=1e-5)
    result = rate(league(), ridge=0, resamples=200)
    assert result.sides["home"].value / ELO == pytest.approx(expected["m2_home"], abs=1e-5)
    power = {row.player: np.exp(row.rating.value / ELO) for row in result.standings}
    total = sum(power.values())
    assert {team: value / total for team, value in power.items()} == pytest.approx(expected["m2_power_sum1"], abs=1e-5)
    assert sum(row.rating.n for row in result.standings) == 2 * result.matches


def test_real_votes_agree_with_evalica(shared_data):
    path = shared_data / "ratings/llmfao.csv"
    found = elos(read_votes(path, "prompt"))
    votes = pd.read_csv(path)
    winners = votes.winner.map({"left": evalica.Winner.X, "right": evalica.Winner.Y, "tie": evalica.Winner.Draw})
    theirs = evalica.bradley_terry(votes.left, votes.right, winners, tolerance=1e-12, limit=10_000).scores
    strength = np.log(theirs)
    expected = (1000 + ELO * (strength - strength.mean())).to_dict()
    assert len(found) == 59
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("ridge", [0.0, 0.1, 2.0])
def test_the_fit_is_the_minimum_that_scipy_finds_row_by_row(ridge):
    data = tournament(6, seed=2)
    random = np.random.default_rng(0)
    side, weights = random.choice([-1, 0, 1], len(data.left)), random.random(len(data.left))
    i, j = (np.array([int(name[1]) for name in names]) for names in (data.left, data.right))

    def loss(x):
        z = x[i] - x[j] + x[3] * side
        return weights @ (np.logaddexp(0, z) - np.array(data.score) * z) + ridge / 2 * x @ x

    x = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    result = rate(data._replace(sides={"first": side}, weights=weights), ridge=ridge, resamples=20)
    found = result.to_json()["ratings"]
    assert [found[f"p{k}"] for k in range(3)] == pytest.approx(1000 + ELO * (x[:3] - x[:3].mean()), abs=1e-2)
    assert result.sides["first"].value == pytest.approx(ELO * x[3], abs=1e-2)


def test_intervals_are_refits_on_resampled_clusters():
    data = tournament(8, seed=4)
    result = rate(data, resamples=30, seed=5, level=0.8)
    label, best = np.array(data.labels), []
    for drawn in np.concatenate(list(resample(8, 30, seed=5))):
        weights = drawn[label]
        best.append(rate(data._replace(weights=weights), resamples=1).to_json()["ratings"]["p2"])
    row = next(row for row in result.standings if row.player == "p2")
    naive = Replicates(row.rating.value, np.array(best), row.rating.n, 8).estimate(0.8)
    assert row.rating.model_dump() == pytest.approx(naive.model_dump(), abs=1e-6)


def test_resamples_that_fall_apart_are_left_out():
    data = Outcomes(["a", "b", "a", "b"], ["b", "c", "b", "c"], [0.7, 0.6, 0.8, 0.4], ["q", "r", "s", "s"])
    lost = []
    for theta, played, _ in refits(sum_matches(data), 0.1, 200, seed=0):
        apart = (played == 0).any(axis=1)
        assert (np.isnan(theta).any(axis=1) == apart).all()
        lost += apart.tolist()
    assert np.mean(lost) == pytest.approx(2 / 27, abs=0.06)
    assert rate(data).standings[0].rating.low is not None


def test_the_fit_converges_from_a_start_on_the_wrong_side():
    cells = sum_matches(Outcomes(["a", "b"] * 2, ["b", "c"] * 2, [0.9999, 0.999, 0.9999, 0.99]))
    played, won = cells.sums
    theta = _newton(cells, played[None], won[None], 0.0, np.array([-9.0, 0, 9]))[0]
    assert theta[0] - theta[1] == pytest.approx(np.log(9999))
    assert theta[1] - theta[2] == pytest.approx(np.log(0.9945 / 0.0055))


@pytest.mark.parametrize("hard", [False, True])
def test_intervals_of_ratings_cover(hard):
    truth = elos(tournament(4000, seed=999, hard=hard))
    hits, beaten = [], []
    for seed in range(100):
        result = rate(tournament(15, 1000 + seed, hard=hard), resamples=300, seed=seed)
        hits += [row.rating.low <= truth[row.player] <= row.rating.high for row in result.standings]
        for pair in result.pairs:
            low, high = pair.difference.low, pair.difference.high
            beaten.append(low <= truth[pair.first] - truth[pair.second] <= high)
    assert 0.89 < np.mean(hits) < 0.99
    assert 0.89 < np.mean(beaten) < 0.99


matches = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.floats(0, 1), st.integers(-1, 1)),
    min_size=8,
    max_size=30,
)


@settings(max_examples=30)
@given(matches, st.randoms())
def test_row_order_names_and_sides_of_the_table_do_not_matter(rows, random):
    rows += [(a, b, 0.4, side) for a, b in permutations("abcd", 2) for side in (1, -1)]
    old = rate(
        Outcomes(*zip(*[row[:3] for row in rows], strict=True), sides={"first": [r[3] for r in rows]}), resamples=5
    )
    turned = [(b, a, 1 - y, -side) for a, b, y, side in random.sample(rows, len(rows))]
    renamed = [(a.translate(str.maketrans("abcd", "wzyx")), b.translate(str.maketrans("abcd", "wzyx")), y, side)
               for a, b, y, side in turned]  # fmt: skip
    new = rate(
        Outcomes(*zip(*[row[:3] for row in renamed], strict=True), sides={"first": [r[3] for r in renamed]}),
        resamples=5,
    )
    before, after = old.to_json(), new.to_json()
    expected = {player.translate(str.maketrans("abcd", "wzyx")): elo for player, elo in before["ratings"].items()}
    assert after["ratings"] == pytest.approx(expected, abs=1e-6)
    assert after["sides"]["first"]["value"] == pytest.approx(before["sides"]["first"]["value"], abs=1e-6)
    assert np.mean(list(after["ratings"].values())) == pytest.approx(1000)
    assert after["matches"] + after["self_play"] == len(rows)


def test_win_rates_by_side():
    data = Outcomes(["a", "b", "a", "b"], ["b", "a", "b", "a"], [0.9, 0.8, 0.7, 0.2], labels=["q", "q", "r", "r"],
                    sides={"correct": [1, 1, -1, -1]})  # fmt: skip
    row, other = sorted(rate(data).standings, key=lambda row: row.player)
    assert other.with_side["correct"].value == pytest.approx((0.8 + 0.3) / 2)
    assert other.against_side["correct"].value == pytest.approx((0.1 + 0.2) / 2)
    assert row.win_rate.value == pytest.approx((0.9 + 0.2 + 0.7 + 0.8) / 4)
    assert row.with_side["correct"].value == pytest.approx((0.9 + 0.8) / 2)
    assert row.against_side["correct"].value == pytest.approx((0.2 + 0.7) / 2)
    assert (row.win_rate.n, row.with_side["correct"].n, row.win_rate.clusters) == (4, 2, 2)
    assert rate(data).sides["correct"].value > 0


def test_an_undefeated_player_is_refused_by_maximum_likelihood_and_finite_with_a_ridge():
    data = Outcomes(["a", "b", "a", "c"], ["b", "c", "c", "b"], [1, 1, 1, 1])
    with pytest.raises(UserError, match=r"\{a\} never lost a point.*--ridge 0.1"):
        rate(data, ridge=0)
    small, large = rate(data), rate(data, ridge=1)
    assert small.standings[0].player == large.standings[0].player == "a"
    assert 1000 < large.standings[0].rating.value < small.standings[0].rating.value < 3000
    winless = Outcomes(["a", "b", "a", "b"], ["b", "a", "c", "c"], [1, 1, 1, 1])
    with pytest.raises(UserError, match=r"\{a, b\} never lost a point"):
        rate(winless, ridge=0)


def test_groups_that_never_met_are_refused_by_name():
    data = Outcomes(["a", "c", "e", "f"], ["b", "d", "c", "f"], [0.5] * 4)
    with pytest.raises(UserError, match=r"3 groups never met: \{a, b\} \| \{c, d, e\} \| \{f\}"):
        rate(data)
    pairs = [f"l{n}" for n in range(400)], [f"r{n}" for n in range(400)]
    with pytest.raises(UserError, match="400 groups never met.*and 395 more") as found:
        rate(Outcomes(*pairs, [0.5] * 400))
    assert len(str(found.value)) < 300
    with pytest.raises(UserError, match="never met"):
        rate(Outcomes(["a", "c", "a"], ["b", "d", "c"], [0.5] * 3, weights=[1, 1, 0]))


def test_sides_that_can_not_be_estimated_are_refused():
    never_swapped = Outcomes(["a", "a"], ["b", "b"], [1, 0], sides={"first": [1, 1]})
    with pytest.raises(UserError, match=r"\{first\} can not be told from"):
        rate(never_swapped)
    always_wins = Outcomes(["a", "b", "a", "b"], ["b", "a", "b", "a"], [1, 1, 1, 1], sides={"first": [1, 1, 1, 1]})
    with pytest.raises(UserError, match="no finite maximum-likelihood effect"):
        rate(always_wins, ridge=0)
    assert rate(always_wins).sides["first"].value > 400
    sometimes = Outcomes(["a", "b"] * 3, ["b", "a"] * 3, [1, 1, 0, 0, 1, 1], sides={"first": np.ones(6)})
    assert rate(sometimes, ridge=0).sides["first"].value == pytest.approx(ELO * np.log(2))


def test_self_play_is_counted_and_left_out():
    data = tournament(3, seed=0)
    more = Outcomes([*data.left, "p0"], [*data.right, "p0"], [*data.score, 0.9], [*data.labels, "alone"])
    assert rate(more).model_dump(exclude={"self_play"}) == rate(data).model_dump(exclude={"self_play"})
    assert rate(more).self_play == 1
    assert "1 of self-play left out" in str(rate(more))
    with pytest.raises(UserError, match="no match between two different players"):
        rate(Outcomes(["a"], ["a"], [1]))


def test_the_table_and_its_json():
    result = rate(tournament(10, seed=1)._replace(sides={"first": np.ones(60)}))
    assert Ratings.model_validate_json(result.model_dump_json()) == result
    plain = json.loads(json.dumps(result.to_json()))
    assert list(plain["ratings"]) == ["p2", "p1", "p0"]
    assert all(low < plain["ratings"][player] < high for player, (low, high) in plain["intervals"].items())
    assert [(d["first"], d["second"]) for d in plain["differences"]] == [("p2", "p1"), ("p2", "p0"), ("p1", "p0")]
    assert plain["differences"][1]["value"] == pytest.approx(plain["ratings"]["p2"] - plain["ratings"]["p0"])
    assert (plain["matches"], plain["clusters"]) == (60, 10)
    text = str(result)
    assert text.splitlines()[1].startswith("p2 ")
    assert "60 matches in 10 clusters, ridge 0.1" in text
    one_story = rate(tournament(1, seed=1))
    assert one_story.to_json()["intervals"]["p0"] is None
    assert "[no interval]" in str(one_story)


def test_votes_are_read_with_extra_columns_and_a_cluster_column(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text(
        '\ufeffwhen,left,right,winner,cluster\n1,"A, the first",B,left,x\n2,B,"A, the first",tie,y\n', "utf-8"
    )
    assert read_votes(path) == Outcomes(["A, the first", "B"], ["B", "A, the first"], [1.0, 0.5], ["x", "y"])
    assert read_votes(path, cluster="when").labels == ["1", "2"]
    path.write_text("left,right,winner\na,b,right\n")
    assert read_votes(path).labels == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("left,right,winner\na,b,left\na,b,Left\n", r"votes.csv:3: winner is 'Left'; it must be left, right or tie"),
        ("left,right,winer\na,b,left\n", r"votes.csv:1: no column 'winner'; did you mean 'winer'\?"),
        ("left,right,winner,stories\na,b,left,x\n", r"no column 'story'; did you mean 'stories'"),
        ("left,right,winner,story\na,b,left,x\na,b,left,\n", r"votes.csv:3: nothing in column 'story'"),
        ("left,right,winner\na,b,left,x\n", r"votes.csv:2: more fields than the header"),
        ("left,right,winner\na,b\n", r"votes.csv:2: winner is ''"),
        ("left,right,winner\n,b,tie\n", r"votes.csv:2: nothing in column 'left'"),
        ("left,right,winner\n", r"no votes below the header"),
        ("", r"empty file"),
        (b"left,right,winner\n\xff\xfe,b,left\n", r"not text in UTF-8"),
    ],
)
def test_bad_votes_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "votes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_votes(path, cluster="story" if "stor" in str(text) else None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": [1.2, 0]}, "outside"),
        ({"score": [float("nan"), 0]}, "undefined"),
        ({"score": [1]}, "differ in length"),
        ({"weights": [1, -1]}, "negative weight"),
        ({"sides": {"first": [1]}}, "differ in length"),
        ({"left": [], "right": [], "score": []}, "no rows"),
    ],
)
def test_bad_outcomes_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        rate(Outcomes(["a", "b"], ["b", "a"], [1, 0])._replace(**change))
    with pytest.raises(UserError, match="ridge is a number"):
        rate(Outcomes(["a", "b"], ["b", "a"], [1, 0]), ridge=-1)
    with pytest.raises(UserError, match="not found"):
        read_votes("nowhere.csv")


def votes(players, count, seed=0):
    """Votes of players who meet at random."""
    random = np.random.default_rng(seed)
    strength = random.normal(0, 1, players)
    left = random.integers(players, size=count)
    right = (left + 1 + random.integers(players - 1, size=count)) % players
    score = (random.random(count) < 1 / (1 + np.exp(strength[right] - strength[left]))).astype(float)
    return Outcomes([f"p{i}" for i in left], [f"p{j}" for j in right], score)


@pytest.mark.parametrize(
    ("players", "resamples", "seconds"),
    [(50, 200, 10), (600, 20, 60), pytest.param(2000, 40, 600, marks=pytest.mark.slow)],
)
def test_many_players_are_rated_in_time_that_grows_with_the_votes(players, resamples, seconds):
    data = votes(players, 50 * players)
    start = time.process_time()
    result = rate(data, resamples=resamples)
    took = time.process_time() - start
    print(f"{players} players, {50 * players:,} votes, {resamples} resamples: {took:.2f} s")
    assert took < seconds
    assert len(result.standings) == players
    assert all(row.rating.low < row.rating.value < row.rating.high for row in result.standings)
    if players > MOST_PAIRED:
        table = [row.player for row in result.standings]
        assert [(pair.first, pair.second) for pair in result.pairs] == list(pairwise(table)), (
            "neighbours, not 2 million"
        )


def test_sides_of_many_players_are_told_from_strength():
    data = votes(300, 6_000)
    side = np.random.default_rng(1).choice([-1, 1], 6_000)
    result = rate(data._replace(sides={"first": side}), resamples=10)
    assert abs(result.sides["first"].value) < 60
    weaker = np.array([int(one[1:]) - int(two[1:]) for one, two in zip(data.left, data.right, strict=True)])
    with pytest.raises(UserError, match=r"\{number\} can not be told from"):
        rate(data._replace(sides={"number": weaker}), resamples=10)


def test_players_that_always_tie_are_not_apart():
    """The fit stops near its minimum, not on it: what is left is no difference."""
    data = Outcomes(["a", "b", "c"] * 20, ["b", "c", "a"] * 20, [0.5] * 60, labels=[n // 3 for n in range(60)])
    ratings = rate(data)
    for pair in ratings.pairs:
        assert (pair.difference.low, pair.difference.high, pair.difference.p) == (0, 0, 1)
    assert str(ratings).splitlines()[-1].startswith("an interval without width")
    assert "without width" not in str(rate(Outcomes(["a", "a"] * 9, ["b", "b"] * 9, [1, 0.5] * 9)))


def test_players_with_mirrored_records_are_not_apart():
    """Equal in exact arithmetic, by other sums: Newton's method leaves them apart by less than it measures."""
    rows = [
        ("a", "c", 1),
        ("b", "c", 1),
        ("a", "c", 0),
        ("b", "c", 0),
        ("a", "d", 1),
        ("b", "d", 1),
        ("c", "d", 1),
    ] * 30
    left, right, score = zip(*rows, strict=True)
    ratings = rate(Outcomes(left, right, score, labels=[n // 7 for n in range(len(rows))]), ridge=0.1)
    (pair,) = [pair for pair in ratings.pairs if {pair.first, pair.second} == {"a", "b"}]
    assert (pair.difference.low, pair.difference.high, pair.difference.p) == (0, 0, 1)
