"""Games in which the judge asks: one call for all questions, Best-of-N, trees, failures, logs that are resumed."""

import pytest

import debate_rl as dr
from debate_rl.arena.consultancy import to_double
from debate_rl.arena.game_tree import Tree, grow, pools_of, widths
from debate_rl.arena.rollout import LogOptions, play, play_to_file
from debate_rl.arena.schedule import round_robin, self_play
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import shown_question
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import FunctionJudge, Judge, Panel, StatedJudge
from debate_rl.judges.questions import QUESTION_TOKENS
from debate_rl.players.debater import Debater
from debate_rl.records import digest, read_log, write

JUDGE = Judge(name="umpire", model="m", adapter="trained")
RULES = load_protocol("debate_questions")
PLAYERS = {name: Debater(name=name, model=name) for name in ("x", "y")}


def write_text(request):
    """Questions of the judge's model, and speeches that say whether their prompt held one."""
    prompt = "\n".join(message.content for message in request.messages)
    if request.model == "m":
        return f"why {digest(prompt)[:6]}"
    return f"speech of {request.model} {digest(request)[:6]}, {'asked' if 'why ' in prompt else 'unasked'}"


def questions(question, count):
    return [
        question.model_copy(update={"id": f"q{i}", "group": f"g{i}", "text": f"{question.text} {i}"})
        for i in range(count)
    ]


def test_all_questions_of_a_turn_are_one_call_and_everybody_reads_them(question):
    engine = ScriptedEngine(write_text)
    legs = play(round_robin(["x", "y"], questions(question, 3), RULES), PLAYERS, engine, JUDGE)
    assert engine.calls == 4  # a turn, the questions, a turn, the verdicts
    for leg in legs:
        (asked,) = leg.transcript.asked
        assert asked.turn == 0 and leg.verdict is not None and leg.transcript.complete
        assert [speech.text.endswith(" asked") for speech in leg.transcript.speeches] == [False, False, True, True]
        origin = asked.origin
        assert (origin.player, origin.model, origin.adapter) == ("umpire", "m", None)
        assert origin.seed is not None and origin.revision and origin.new_tokens == 2
    requests = [request for request in engine.requests if request.model == "m"]
    assert {request.sampling.max_new_tokens for request in requests} == {QUESTION_TOKENS}
    texts = {leg.transcript.asked[0].text for leg in legs}
    for choice in engine.choices:
        assert any(text in choice.messages[-1].content for text in texts)


def test_candidates_and_simulated_opponents_see_the_question(question):
    engine = ScriptedEngine(write_text)
    players = {"x@2": Debater(name="x@2", model="x", best_of=2, opponents=2), "y": PLAYERS["y"]}
    pools = []
    play(round_robin(["x@2", "y"], [question], RULES), players, engine, JUDGE, pools=pools)
    later = [pool for pool in pools if pool.turn == 1]
    assert later and all(len(pool.transcript.asked) == 1 for pool in later)
    for pool in later:
        assert all(speech.text.endswith(" asked") for speech in (*pool.candidates, *pool.opponents))


def test_players_do_not_share_a_speech_where_the_judge_asked_them_different_things(question):
    games = self_play(["x"], [question], RULES)
    other = games[0].model_copy(update={"seed": 0, "players": {"A": "x", "B": "y"}})

    def write_own(request):
        return write_text(request) if request.model != "m" else f"why {'y' if 'of y' in str(request.messages) else 'x'}"

    legs = play([games[0], other], PLAYERS, ScriptedEngine(write_own), JUDGE)
    assert [leg.transcript.asked[0].text for leg in legs] == ["why x", "why y"]
    assert legs[0].transcript.turn(1)[0].text != legs[1].transcript.turn(1)[0].text


def test_every_path_of_a_tree_has_its_own_question_and_its_pools_keep_those_before(question):
    rules = load_protocol("debate_questions", turns=3)
    game = self_play(["x"], [question], rules)[0]
    tree = Tree(game=game, target="A", widths=widths(game, "A", "full"))
    (grown,) = grow([tree], PLAYERS, ScriptedEngine(write_text), JUDGE)
    assert len(grown.leaves) == 8 and all(len(leaf.asked) == 2 for leaf in grown.leaves)
    assert len({leaf.asked[0].text for leaf in grown.leaves}) == 2
    assert [len(pool.transcript.asked) for pool in pools_of(grown)] == [0, 1, 1, 2, 2, 2, 2]
    assert all(grown.leg(leaf).transcript.asked == leaf.asked for leaf in grown.leaves)
    assert Tree.model_validate_json(grown.model_dump_json()) == grown
    plain = Tree(game=self_play(["x"], [question], load_protocol("debate"))[0])
    assert "asked" not in grow([plain], PLAYERS, ScriptedEngine(), JUDGE)[0].model_dump_json()


def test_a_question_that_fails_is_the_failure_of_its_game_alone(question):
    def write_some(request):
        if request.model == "m" and "end of the day ? 1" in request.messages[-1].content:
            raise RuntimeError("lost")
        return write_text(request)

    legs = play(self_play(["x"], questions(question, 3), RULES), PLAYERS, ScriptedEngine(write_some), JUDGE)
    assert [leg.failure is None for leg in legs] == [True, False, True]
    failure = legs[1].failure
    assert (failure.seat, failure.turn, failure.message) == ("judge", 0, "question: lost")
    assert len(legs[1].transcript.speeches) == 2


def test_a_judge_without_a_model_can_not_ask_and_nobody_asks_without_a_judge(question):
    games = self_play(["x"], [question], RULES)
    function = FunctionJudge(name="mine", decide=lambda games: [0.5] * len(games))
    with pytest.raises(UserError, match="'mine' is no model and writes no questions"):
        play(games, PLAYERS, ScriptedEngine(), function)
    panel = Panel(members=(function, StatedJudge(model="m")))
    (leg,) = play(games, PLAYERS, ScriptedEngine(write_text), None, asker=panel)
    assert leg.transcript.asked[0].origin.model == "m" and leg.verdict is None
    (alone,) = play(games, PLAYERS, ScriptedEngine(), None)
    assert alone.transcript.complete and alone.transcript.asked == ()


def test_a_stopped_log_with_questions_ends_as_a_whole_one(question, tmp_path):
    games = round_robin(["x", "y"], questions(question, 4), RULES)
    whole = play_to_file(games, PLAYERS, ScriptedEngine(write_text), JUDGE, tmp_path / "whole.jsonl")

    class Dying(ScriptedEngine):
        def generate(self, requests):
            if self.calls > 5:
                raise KeyboardInterrupt
            return super().generate(requests)

    path = tmp_path / "stopped.jsonl"
    options = LogOptions(chunk=3)
    with pytest.raises(KeyboardInterrupt):
        play_to_file(games, PLAYERS, Dying(write_text), JUDGE, path, options=options)
    assert 0 < len(read_log(path, JudgedDebate)) < len(games)
    again = play_to_file(games, PLAYERS, ScriptedEngine(write_text), JUDGE, path, options=options)
    assert list(again) == list(whole)
    write(tmp_path / "other.jsonl", again)
    assert (tmp_path / "other.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_consultancies_with_questions_are_not_put_together(question):
    rules = load_protocol("single", turns=2, judge_questions=True)
    legs = play(self_play(["x"], [question], rules), PLAYERS, ScriptedEngine(write_text), JUDGE)
    assert len(legs[0].transcript.asked) == 1
    with pytest.raises(UserError, match="judge's questions to one side"):
        to_double([leg.transcript for leg in legs])


def test_models_of_the_lab_play_a_debate_with_questions():
    base = dr.Debater(name="base", model="lab-base")
    rules = dr.load_protocol("debate_questions", prompts="lab", max_new_tokens=32)
    debates = dr.play(base, base, dr.load_questions("lab", split="test", limit=2), dr.Judge(model="lab-base"), rules)
    for leg in debates:
        (asked,) = leg.transcript.asked
        # The lab's judge says the answer that it leans to.
        assert shown_question(asked) in leg.transcript.question.answers
        assert asked.origin.model == "lab-base" and asked.origin.new_tokens > 0
    assert list(debates.to_frame()["judge_questions"].map(len)) == [1, 1]
