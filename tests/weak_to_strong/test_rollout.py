import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.contexts import SHIPPED, Context
from debate_rl.weak_to_strong.rollout import Rollout, SupervisorBelief
from debate_rl.weak_to_strong.tasks.items import items_of


@pytest.fixture
def items(question):
    fields = [{"id": f"q{i}", "text": f"{question.text} {i}", "group": f"g{i}"} for i in range(40)]
    return items_of([question.model_copy(update=one) for one in fields])


def rollout(folder, engine=None, claims=False, **changes):
    def rules(context):
        return context.rules(claims, lambda name: load_protocol(name or "debate", prompts="lab", needs_passage=False))

    fields = {
        "player": lambda name: Debater(name=name, model=name.partition("@")[0], best_of=2 if "@" in name else 1),
        "rules": rules,
        "judge": lambda: Judge(model="judge"),
        "folder": folder / "games",
        "debater": "dpo",
        **changes,
    }
    return Rollout(engine=engine or ScriptedEngine(), **fields)


def speakers(leg):
    return [speech.side for speech in leg.transcript.speeches]


def said(sample):
    return "\n".join(message["content"] for message in sample.prompt)


def test_each_member_reads_games_of_its_own_under_every_context(items, tmp_path):
    table = rollout(tmp_path)
    counts = {"debate": 2, "consultancy": 1, "market_making": 1, "explanations": 2, "explanations_weak": 2}
    for name, context in SHIPPED.items():
        told = SupervisorBelief(p=dict.fromkeys([item.id for item in items], 0.5))
        one, two = (table.samples(context, items, draw, False, told) for draw in (0, 1))
        assert list(one) == [item.id for item in items] and {said(s).count("speech") for s in one.values()} == {
            counts[name]
        }
        assert all(said(one[key]) != said(two[key]) for key in one)
        assert all(item.question.passage not in said(one[item.id]) for item in items)
        read = table.samples(context, items, 0, True, told)
        assert all(item.question.passage in said(read[item.id]) for item in items)


def test_a_game_is_played_once_whatever_asks_for_it(items, tmp_path):
    engine = ScriptedEngine()
    first = rollout(tmp_path, engine).samples(Context(), items, 0, False)
    assert len(engine.requests) == 80
    # Another table of the run, a new process: the log of the games is there.
    assert rollout(tmp_path, engine).samples(Context(), items, 0, False) == first and len(engine.requests) == 80
    # Other items in the same run: the store has what was said.
    stored = StoredEngine(engine, tmp_path / "store")
    rollout(tmp_path / "b", stored).samples(Context(), items[:10], 0, False)
    rollout(tmp_path / "b", stored).samples(Context(), items[:20], 0, False)
    assert len(engine.requests) == 80 + 40


def test_help_of_known_lower_quality_is_played_once_and_says_nothing_about_the_item(items, tmp_path):
    engine = ScriptedEngine(lambda request: f"speech about {request.messages[-1].content}")
    table = rollout(tmp_path, engine)
    shares = (0.0, 0.3, 0.6, 1.0)
    read = [table.samples(Context(worsened=share), items, 0, False) for share in shares]
    assert len(engine.requests) == 80  # one game an item, for all shares
    original = read[0]
    kept_at = [{key for key in original if said(samples[key]) == said(original[key])} for samples in read]
    assert len(kept_at[0]) == 40 and not kept_at[3]
    assert kept_at[0] > kept_at[1] > kept_at[2] > kept_at[3]  # exchanged at one share, exchanged at every higher one
    assert 0.25 < len(kept_at[1]) / 40 < 0.75  # both of two speeches stay with probability 0.7 * 0.7
    legs = table.legs(Context(worsened=1.0), items, 0)
    assert said(table.show(legs[0].transcript, False)) == said(original["q0"])  # records keep what was said
    one_story = [item for item in items if item.id == "q0"]
    with pytest.raises(UserError, match="items of more stories"):
        table.samples(Context(worsened=1.0), one_story, 0, False)


def test_market_making_argues_against_what_the_weak_model_picked(items, tmp_path):
    engine = ScriptedEngine()
    p = {item.id: 0.9 if at % 2 else 0.1 for at, item in enumerate(items)}
    legs = rollout(tmp_path, engine).legs(SHIPPED["market_making"], items, 0, SupervisorBelief(p=p))
    assert [speakers(leg) for leg in legs] == [["B"] if at % 2 else ["A"] for at in range(40)]
    assert not engine.choices  # in one turn nobody else is asked
    other = rollout(tmp_path, engine).legs(
        SHIPPED["market_making"], items, 0, SupervisorBelief(p=dict.fromkeys(p, 0.9))
    )
    assert {tuple(speakers(leg)) for leg in other} == {("B",)}
    longer = rollout(tmp_path, engine).legs(Context(kind="market_making", turns=3), items[:4], 0, SupervisorBelief(p=p))
    assert engine.choices and all(len(leg.transcript.called) >= 1 for leg in longer)


@pytest.mark.parametrize("turns", [3, 4, 5, 6])
def test_turns_are_a_setting_and_who_opens_is_drawn(items, tmp_path, turns):
    legs = rollout(tmp_path, claims=True).legs(Context(turns=turns), items, 0)
    assert {len(leg.transcript.speeches) for leg in legs} == {turns}
    opened = [speakers(leg)[0] for leg in legs]
    assert 8 < opened.count("A") < 32
    assert all(speakers(leg)[0] != speakers(leg)[1] == speakers(leg)[1] for leg in legs)


def test_players_of_two_kinds_sit_on_drawn_sides(items, tmp_path):
    context = Context(debater="strong", opponent="weak")
    legs = rollout(tmp_path).legs(context, items, 0)
    seats = [leg.transcript.players["A"] for leg in legs]
    assert 8 < seats.count("strong") < 32 and all(
        set(leg.transcript.players.values()) == {"strong", "weak"} for leg in legs
    )
    sides = {item.id: "B" for item in items}
    given = rollout(tmp_path).legs(context, items, 0, SupervisorBelief(sides=sides), judged=True)
    assert {leg.transcript.players["B"] for leg in given} == {"strong"} and all(leg.verdict for leg in given)


def test_best_of_n_asks_the_judge(items, tmp_path):
    engine = ScriptedEngine()
    legs = rollout(tmp_path, engine, debater="dpo@2").legs(Context(), items[:3], 0)
    assert {speech.origin.best_of for leg in legs for speech in leg.transcript.speeches} == {2} and engine.choices


def test_a_context_has_a_temperature_of_its_own(items, tmp_path):
    engine = ScriptedEngine()
    table = rollout(tmp_path, engine)
    table.samples(Context(), items, 0, False)
    table.samples(Context(temperature=1.0), items, 0, False)
    assert [request.sampling.temperature for request in engine.requests] == [0.5] * 80 + [1.0] * 80


def test_the_student_speaks_with_its_own_weights(items, tmp_path):
    engine = ScriptedEngine()
    table = rollout(tmp_path, engine)
    context = Context(debater="student")
    for number in range(2):
        table.samples(context, items[:3], 0, False, SupervisorBelief(student=Weights(model="m", adapter=f"a{number}")))
    assert {request.adapter for request in engine.requests} == {"a0", "a1"}  # other weights, other games
    with pytest.raises(UserError, match=r"set transfer\.rounds to 2"):
        table.samples(context, items[:3], 0, False)


def test_a_failed_game_is_no_help_and_is_tried_again(items, tmp_path):
    def write(request):
        raise RuntimeError("no memory")

    with pytest.raises(UserError, match="3 of 3 games failed, the first with: no memory"):
        rollout(tmp_path, ScriptedEngine(write=write)).samples(Context(), items[:3], 0, False)
    assert len(rollout(tmp_path).samples(Context(), items[:3], 0, False)) == 3


def test_help_is_played_without_questions_of_a_judge():
    rules = Context(protocol="debate_questions").rules(False, lambda name: load_protocol(name or "debate"))
    assert not rules.judge_questions and rules.turns == 2


def test_contexts_say_what_they_lack(tmp_path):
    wrongs = {"belong together": [{"kind": "recorded"}, {"path": "x"}], "turns": [{"turns": 9}]}
    for wrong, match in ((one, match) for match, every in wrongs.items() for one in every):
        with pytest.raises(ValueError, match=match):
            Context.model_validate(wrong)
    with pytest.raises(UserError, match="has no speeches"):
        Context(protocol="blind").rules(False, load_protocol)
