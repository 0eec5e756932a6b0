"""Rollouts: who sits where, what is judged once, what a speech earns, what is left alone."""

import pytest

from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.judge import judge_transcripts
from debate_rl.players.debater import Debater
from debate_rl.trainers.grpo.groups import POLICY, GroupKey, block_of, learning_sides, places, read_group_key
from debate_rl.trainers.grpo.selfplay import LATE, Participants, rollout
from debate_rl.trainers.grpo.settings import Online, Opponents, Rewards
from tests.trainers.games import TokenEngine, drawn_verdict, numbered, online, question, questions, rules

POLICY_PLAYER = Debater(name=POLICY, model="policy")
RIVAL = Debater(name="rival", model="rival")


class Court:
    """A judge whose verdicts are kept, and may be replaced."""

    def __init__(self, engine, settings, change=lambda at, verdict: verdict):
        self.engine, self.settings, self.change, self.seen = engine, settings, change, []

    def __call__(self, games):
        self.seen += games
        found = judge_transcripts(games, self.settings.judge, self.engine)
        return [self.change(at, verdict) for at, verdict in enumerate(found)]


def letters(request):
    """Token ids of a prompt's last message: one for each letter."""
    return tuple(map(ord, request.messages[-1].content))


def roll(settings, count=1, copies=3, opponent=None, change=lambda at, verdict: verdict, write=numbered, asked=None):
    engine = TokenEngine(write, drawn_verdict)
    court = Court(engine, settings, change)
    pool = asked or questions(count)
    groups = [group for index, one in enumerate(pool) for group in places(index, one, settings)]
    participants = Participants(POLICY_PLAYER, lambda _: opponent, engine, court, letters)
    played = rollout(groups, copies, pool, settings, participants, [0, 7])
    return played, court, engine


def test_keys_of_groups_are_read_again():
    group = GroupKey(3, "B", 1)
    assert read_group_key(group.key) == group


@pytest.mark.parametrize(
    ("protocol", "roles", "block"),
    [("debate", "both", 2), ("debate", "A", 1), ("debate", "wrong", 1), ("single", "both", 2), ("double", "both", 2),
     ("sequential", "both", 2), ("claim", "both", 3), ("claim", "A", 2)],
)  # fmt: skip
def test_groups_of_a_question(protocol, roles, block):
    assert block_of(online(protocol, roles=roles)) == block


def test_two_turns_are_two_groups_a_side():
    assert block_of(online("debate", protocol=rules("debate", turns=2))) == 4


def test_roles_by_answer_need_sides_that_speak_equally_often():
    with pytest.raises(UserError, match="do not speak equally often"):
        block_of(online("claim", roles="correct"))


def test_sides_that_learn():
    right = question(0, correct=1)
    assert learning_sides(right, online(roles="correct")) == ("B",)
    assert learning_sides(right, online(roles="wrong")) == ("A",)
    assert learning_sides(question(0, correct=None), online(roles="wrong")) == ()


@pytest.mark.parametrize("name", ["blind", "open_single", "market_making"])
def test_protocols_that_can_not_be_played_online_say_so(name):
    with pytest.raises(ValueError, match="another protocol"):
        Online(protocol=load_protocol(name), judge=online().judge)


def test_a_speech_earns_its_mean_over_the_other_sides_speeches():
    settings = online()
    played, court, engine = roll(settings, copies=3)
    a, b = played.sequences[:3], played.sequences[3:]
    texts = [["".join(map(chr, one.completion)) for one in side] for side in (a, b)]
    p = {}
    for game in court.seen:
        verdict = judge_transcripts([game], settings.judge, engine)[0]
        p[tuple(speech.text for speech in sorted(game.speeches, key=lambda s: s.side))] = verdict.p[0]
    assert len(p) == 9
    for one, text in zip(a, texts[0], strict=True):
        assert one.earned.win == pytest.approx(sum(p[text, other] for other in texts[1]) / 3, abs=1e-6)
    for one, text in zip(b, texts[1], strict=True):
        assert one.earned.win == pytest.approx(1 - sum(p[other, text] for other in texts[0]) / 3, abs=1e-6)
    # The group's mean is the baseline of its side: what one side gains there the other lacks.
    means = [sum(one.earned.win for one in side) / 3 for side in (a, b)]
    assert sum(means) == pytest.approx(1)


def test_all_turns_of_all_games_are_one_call_and_the_judge_is_one():
    _, _, engine = roll(online(), count=4, copies=3)
    assert engine.calls == 2
    assert len(engine.requests) == 4 * 2 * 3


def test_equal_speeches_are_judged_once():
    played, court, _ = roll(online(), copies=3, write=lambda request: f"w{request.seed % 2}")
    assert played.counts["asked"] == 9
    assert len(court.seen) == played.counts["judged"] <= 4


def test_sequences_are_what_was_asked_and_drawn():
    played, _, engine = roll(online(), copies=2)
    prompts = {tuple(map(ord, request.messages[-1].content)) for request in engine.requests}
    assert {one.prompt for one in played.sequences} == prompts
    answers = {tuple(map(ord, answer.text)) for answer in engine.generate(engine.requests)}
    assert {one.completion for one in played.sequences} == answers


def test_another_step_draws_other_speeches():
    _, _, first = roll(online())
    engine = TokenEngine(numbered, drawn_verdict)
    settings = online()
    participants = Participants(POLICY_PLAYER, lambda _: None, engine, Court(engine, settings), lambda request: (1,))
    rollout([GroupKey(0, "A", 0), GroupKey(0, "B", 0)], 3, questions(1), settings, participants, [0, 8])
    assert {r.seed for r in first.requests}.isdisjoint({r.seed for r in engine.requests})


def test_later_turns_answer_the_same_game_and_earn_what_it_does():
    settings = online("debate", protocol=rules("debate", turns=2))
    played, court, engine = roll(settings, copies=3)
    assert len(court.seen) == 3  # A_j with B_j, not every A with every B
    groups = [played.sequences[at : at + 3] for at in range(0, 12, 3)]
    assert [group[0].group for group in groups] == [GroupKey(0, s, t) for s in "AB" for t in (0, 1)]
    for first, second in (groups[0:2], groups[2:4]):
        assert [one.earned.win for one in first] == [one.earned.win for one in second]
    for j in range(3):
        assert groups[0][j].earned.win + groups[2][j].earned.win == pytest.approx(1)
        heard = "".join(map(chr, groups[1][j].prompt))
        assert "".join(map(chr, groups[2][j].completion)) in heard  # what B said in turn 1 is prompt of A's turn 2
    assert engine.calls == 3


def test_against_an_opponent_each_side_learns_from_games_of_its_own():
    played, court, engine = roll(online(opponents=Opponents(kind="players", players=(RIVAL,))), opponent=RIVAL)
    assert {request.model for request in engine.requests} == {"policy", "rival"}
    assert len(court.seen) == 18
    assert {tuple(sorted(game.players.items())) for game in court.seen} == {
        (("A", "policy"), ("B", "rival")), (("A", "rival"), ("B", "policy")),
    }  # fmt: skip
    assert all(speech.origin.player for speech in court.seen[0].speeches)
    assert len(played.sequences) == 6 and all(one.completion for one in played.sequences)


def test_a_lone_consultant_earns_the_probability_of_its_side():
    settings = online("single")
    played, court, engine = roll(settings, copies=3)
    assert all(len(game.players) == 1 for game in court.seen) and len(court.seen) == 6
    for one, game in zip(played.sequences, court.seen, strict=True):
        verdict = judge_transcripts([game], settings.judge, engine)[0]
        assert one.earned.win == pytest.approx(verdict.p_side(one.group.side), abs=1e-6)


@pytest.mark.parametrize("name", ["double", "ensembled"])
def test_two_consultants_are_judged_crosswise(name):
    assert len(roll(online(name), copies=3)[1].seen) == 9


def test_a_judge_that_fails_gives_no_reward():
    def change(at, verdict):
        return Failure(seat="judge", kind="scripted", message="no") if at < 3 else verdict

    played, _, _ = roll(online(), copies=3, change=change)
    assert played.counts["judge_failures"] == 3
    assert played.sequences[0].earned is None and not played.sequences[0].learnt
    assert all(one.earned is not None for one in played.sequences[1:])
    assert played.counts["no_reward"] == 1


def test_undefined_verdicts_give_no_reward():
    def change(at, verdict):
        assert isinstance(verdict, Verdict)
        return verdict.model_copy(update={"p": (float("nan"), float("nan"))})

    played, _, _ = roll(online(), copies=2, change=change)
    assert all(one.earned is None and not one.learnt for one in played.sequences)


def test_a_judge_that_is_late_is_counted_apart():
    played, _, _ = roll(online(), copies=2, change=lambda at, v: Failure(seat="judge", kind=LATE, message="late"))
    assert (played.counts["judge_late"], played.counts["judge_failures"]) == (4, 0)
    assert not any(one.learnt for one in played.sequences)


def test_groups_without_differences_are_skipped_and_counted():
    played, _, _ = roll(online(), copies=3, write=lambda request: "w1")
    assert played.counts["skipped_groups"] == played.counts["groups"] == 2
    assert all(one.earned is not None and not one.learnt for one in played.sequences)


def test_a_game_that_fails_leaves_the_others_alone():
    def write(request):
        if "argue for shed" in request.messages[-1].content and request.seed == bad:
            raise ValueError("no answer")
        return numbered(request)

    bad = roll(online(), copies=4)[2].requests[0].seed
    played, _, _ = roll(online(), copies=4, write=write)
    assert played.counts["failed_games"] == 1 and played.counts["asked"] == 9
    assert [one.earned is None for one in played.sequences] == [True, False, False, False] * 2
    assert not played.sequences[0].completion
    assert sum(one.learnt for one in played.sequences) == 6


@pytest.mark.parametrize(("truncated", "learnt"), [("mask", 0), ("keep", 6)])
def test_speeches_that_were_cut_off_are_counted(truncated, learnt, monkeypatch):
    class Cut(TokenEngine):
        def generate(self, requests):
            return [answer.model_copy(update={"finish": "length"}) for answer in super().generate(requests)]

    monkeypatch.setattr("tests.trainers.grpo.test_selfplay.TokenEngine", Cut)
    played, _, _ = roll(online(rewards=Rewards(truncated=truncated)), copies=3)
    assert played.counts["truncated"] == 6
    assert sum(one.learnt for one in played.sequences) == learnt
