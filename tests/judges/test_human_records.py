import math

import pytest

from debate_rl.data.sources import nyu
from debate_rl.data.sources.nyu import Judgement, Said, Session
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.game.verdict import Failure
from debate_rl.judges import human_records
from debate_rl.judges.human import reward
from tests import SHARED

DATA = SHARED / "data" / "nyu_2023"

real = pytest.mark.skipif(not DATA.exists(), reason="needs the shared data: nyu_2023")

PASSAGE = "The lamp was moved to the tower."


def judged(p, turns, mode="live", final=False, judge="Dot"):
    return Judgement(judge=judge, mode=mode, turns=turns, probabilities=(p, 1 - p), final=final)


def game(number, *judgements, correct=0, condition="human debate", in_paper=True, story=None):
    question = Question(id=f"q{number}", text="Where?", answers=("tower", "cellar"), correct=correct, passage=PASSAGE,
                        group=story or f"s{number}")  # fmt: skip
    said = (Said(side="A", turn=0, speaker="Ada", text="<quote>moved to the tower</quote>"),
            Said(side="B", turn=0, speaker="Ben", text="No."))  # fmt: skip
    return Session(room=f"r{number}", condition=condition, question=question, order=(("A", "B"),), said=said,
                   judgements=judgements, finished=True, in_paper=in_paper)  # fmt: skip


@pytest.fixture
def tabled(monkeypatch):
    """The table of given games."""

    def make(games, **options):
        monkeypatch.setattr(human_records, "sessions", lambda path: games)
        return human_records.table("debates.jsonl", **options)

    return make


def test_the_scores_of_a_condition(tabled):
    games = [
        game(1, judged(0.5, 0), judged(0.6, 1), judged(0.8, 1, final=True)),  # right, asked for two more rounds
        game(2, judged(0.5, 0), judged(0.5, 1, final=True)),  # undecided: half right
        game(3, judged(0.25, 1, final=True)),
        game(4, judged(0.25, 1, final=True), correct=1),
    ]
    (row,) = tabled(games)
    assert (row.condition, row.n, row.stories) == ("human debate", 4, 4)
    assert row.accuracy == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    bits = [math.log2(0.8) - 0.1, math.log2(0.5) - 0.05, math.log2(0.25), math.log2(0.75)]
    assert row.mean_reward == pytest.approx(sum(bits) / 4)
    assert row.brier == pytest.approx((0.04 + 0.25 + 0.5625 + 0.0625) / 4)
    assert row.accuracy_interval[0] <= row.accuracy <= row.accuracy_interval[1]


def test_only_final_judgements_of_live_judges_count(tabled):
    offline = judged(0.1, 1, mode="timed", final=True, judge="Flo")
    (row,) = tabled([game(1, judged(0.9, 1, final=True), offline), game(2, judged(0.9, 1)), game(3, offline)])
    assert (row.n, row.accuracy) == (1, 1)
    assert row.accuracy_interval is None  # one story


def test_conditions_stand_in_the_papers_order_and_games_outside_it_are_left_out(tabled):
    done = judged(0.9, 1, final=True)
    games = [game(i, done, condition=c) for i, c in enumerate(reversed(nyu.CONDITIONS))]
    games.append(game(9, done, in_paper=False))
    assert [row.condition for row in tabled(games)] == list(nyu.CONDITIONS)
    assert [row.n for row in tabled(games, paper_only=False)] == [2, 1, 1, 1]


def test_intervals_cluster_by_story(tabled):
    right, wrong = judged(0.9, 1, final=True), judged(0.1, 1, final=True)
    alike = [game(10 * s + i, right if s % 2 else wrong, story=f"s{s}") for s in range(10) for i in range(10)]
    apart = [game(n, right if n % 2 else wrong) for n in range(100)]
    (wide,), (narrow,) = tabled(alike), tabled(apart)
    assert (wide.stories, narrow.stories) == (10, 100)
    assert wide.accuracy_interval[1] - wide.accuracy_interval[0] > 2 * (
        narrow.accuracy_interval[1] - narrow.accuracy_interval[0]
    )


def test_nothing_judged_and_an_unknown_selection_are_said(tabled):
    with pytest.raises(UserError, match=r"debates.jsonl: no game with a final judgement"):
        tabled([game(1, judged(0.5, 0))])
    with pytest.raises(UserError, match=r"debates-metadata.jsonl"):
        tabled([game(1, judged(0.9, 1, final=True), in_paper=None)])
    assert len(tabled([game(1, judged(0.9, 1, final=True), in_paper=None)], paper_only=False)) == 1


def test_a_leg_keeps_every_judgement():
    offline = [judged(0.4, 0, "stepped", judge="Eli"), judged(0.3, 1, "stepped", True, "Eli")]
    session = game(1, judged(0.5, 0), judged(0.9, 1, final=True), *offline)
    (leg,) = human_records.legs([session])
    assert leg.verdict.judge == "human/Dot"
    assert leg.p_correct == 0.9
    assert [ask.after_turn for ask in leg.verdict.asks] == [0, None]
    assert [math.exp(x) for x in leg.verdict.asks[0].logprobs] == pytest.approx([0.5, 0.5])
    assert leg.transcript.speeches[0].quotes[0].verdict == "exact"
    both = human_records.legs([session], offline=True)
    assert [(leg.verdict.judge, leg.p_correct) for leg in both] == [("human/Dot", 0.9), ("human/Eli", 0.3)]
    assert human_records.legs([game(2, judged(0.5, 0))], offline=True) == []


@real
def test_the_published_table():
    rows = {row.condition: row for row in human_records.table(DATA / "debates.jsonl")}
    assert list(rows) == list(nyu.CONDITIONS)
    found = {c: (r.n, *(round(x, 3) for x in (r.accuracy, r.mean_reward, r.brier))) for c, r in rows.items()}
    assert found["human debate"] == (154, 0.844, -0.891, 0.136)
    assert found["human consultancy"] == (96, 0.745, -1.235, 0.207)
    assert (found["GPT-4 debate"][:2], found["GPT-4 consultancy"][:2]) == ((87, 0.782), (76, 0.803))
    assert "human debate        154" in human_records.formatted(rows.values())


@real
def test_the_reward_of_each_real_game_is_the_recorded_one():
    from debate_rl.records import lines

    stored = {value["roomName"]: value["judgeReward"] for _, value in lines(DATA / "debates.jsonl")}
    for session in nyu.sessions(DATA):
        if session.verdict:
            p = session.verdict.probabilities[session.question.correct]
            assert math.log2(p) - 0.05 * session.continues == pytest.approx(stored[session.room])


def test_legs_whose_verdict_failed_are_counted():
    (leg,) = human_records.legs([game(1, judged(0.5, 0), judged(0.9, 1, final=True))])
    (lost,) = human_records.legs([game(2, judged(0.9, 1, final=True))])
    lost = lost.model_copy(update={"verdict": None, "failure": Failure(seat="judge", kind="unparsed", message="no")})
    rules = lost.transcript.protocol.model_copy(update={"name": "other"})
    other = lost.model_copy(update={"transcript": lost.transcript.model_copy(update={"protocol": rules})})
    scored, unscored = human_records.leg_table([leg, lost, other, other])
    assert (scored.n, scored.failed, unscored.n, unscored.failed, unscored.accuracy) == (1, 1, 0, 2, None)
    first, second = human_records.formatted([scored, unscored]).splitlines()[1:]
    assert first.endswith("(1 failed)") and second.startswith("none, other") and second.endswith("(2 failed)")
    assert "failed" not in human_records.formatted(human_records.leg_table([leg]))
    with pytest.raises(UserError, match=r"no leg with a verdict .*\(1 failed\)"):
        human_records.leg_table([lost])


@real
def test_real_games_as_legs_have_the_recorded_rewards():
    from debate_rl.records import lines

    stored = {value["roomName"]: value["judgeReward"] for _, value in lines(DATA / "debates.jsonl")}
    games = [one for one in nyu.sessions(DATA) if one.verdict][::5]
    made = human_records.legs(games)
    assert len(made) == len(games) > 100
    assert [reward(leg) for leg in made] == pytest.approx([stored[one.room] for one in games])
    rows = human_records.leg_table(made)
    mean = sum(row.n * row.mean_reward for row in rows) / len(made)
    assert mean == pytest.approx(sum(stored[one.room] for one in games) / len(games))
