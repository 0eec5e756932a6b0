"""Texts by draw number, and critique and refinement."""

import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Speech, open_transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.players.debater import Critic, Debater
from debate_rl.players.draw import Draw, write
from debate_rl.players.speak import Seat, speak


def kind(request):
    """Which of the three prompts a request is."""
    read = request.messages[-1].content
    return "refine" if "<critique>" in read else "critique" if "<draft>" in read else "draft"


def staged(request):
    return f"{kind(request)} {request.seed % 97}"


def game(question, **changes):
    return open_transcript(question, load_protocol("debate", **changes), {"A": "x", "B": "y"}, seed=3)


def test_a_round_is_a_draft_a_critique_and_a_refined_speech_all_on_record(question):
    engine = ScriptedEngine(staged)
    player = Debater(name="x", model="m", adapter="a", refine=2, critic=Critic(model="c", adapter="d"))
    (speech,) = write([Draw(game(question), "A", 0, player)], engine)
    assert [kind(request) for request in engine.requests] == ["draft", "critique", "refine", "critique", "refine"]
    assert [(request.model, request.adapter) for request in engine.requests] == [
        ("m", "a"), ("c", "d"), ("m", "a"), ("c", "d"), ("m", "a")
    ]  # fmt: skip
    first, second = speech.origin.drafts
    assert first.text.startswith("draft") and second.text.startswith("refine") and speech.text.startswith("refine")
    assert first.critique.startswith("critique") and (first.critic, first.adapter) == ("c", "d")
    assert (
        first.text in engine.requests[1].messages[-1].content
        and first.critique in engine.requests[2].messages[-1].content
    )
    assert (
        second.text in engine.requests[3].messages[-1].content
        and first.text not in engine.requests[3].messages[-1].content
    )
    assert (first.new_tokens, first.critique_tokens) == (2, 2) and first.revision == engine.revision("c", "d")
    assert Speech.model_validate_json(speech.model_dump_json()) == speech


def test_all_prompts_of_a_speech_begin_alike_so_that_the_passage_is_read_once(question):
    engine = ScriptedEngine(staged)
    write([Draw(game(question), "A", 0, Debater(name="x", model="m", refine=1))], engine)
    draft, critique, refine = ([m.content for m in request.messages] for request in engine.requests)
    assert critique[0] == refine[0] == draft[0]
    assert critique[1].startswith(draft[1]) and refine[1].startswith(draft[1])
    assert len({request.seed for request in engine.requests}) == 3


def test_rounds_of_many_players_are_three_calls_and_the_draft_is_the_plain_speech(question):
    engine = ScriptedEngine(staged)
    players = [Debater(name="plain", model="m"), Debater(name="refining", model="m", refine=1)]
    draws = [Draw(game(question), side, 0, player, number) for player in players for side in "AB" for number in (0, 1)]
    texts = write(draws, engine)
    # The drafts of both players are equal requests.
    assert engine.calls == 3 and len(engine.requests) == 4 + 4 + 4
    assert [speech.origin.drafts[0].text for speech in texts[4:]] == [speech.text for speech in texts[:4]]
    assert all(not speech.origin.drafts for speech in texts[:4])


def test_best_of_n_chooses_among_refined_candidates_and_holds_smaller_ones(question):
    def judge(games):
        return [Verdict(judge="q", p=(p := int(g.speeches[0].text.split()[1]) / 97, 1 - p)) for g in games]

    pools = []
    for count in (2, 4):
        player = Debater(name="x", model="m", best_of=count, opponents=0, refine=1)
        (spoken,) = speak([Seat(game(question), "A", 0, player)], ScriptedEngine(staged), judge)
        pools.append(spoken.pool)
        assert all(speech.text.startswith("refine") for speech in spoken.pool.candidates)
        assert spoken.speech == max(spoken.pool.candidates, key=lambda speech: int(speech.text.split()[1]))
    assert [s.text for s in pools[1].candidates[:2]] == [s.text for s in pools[0].candidates]


@pytest.mark.parametrize("broken", ["draft", "critique", "refine"])
def test_a_draw_that_fails_anywhere_is_a_failure_and_the_others_are_written(question, broken):
    def fails(request):
        if kind(request) == broken and request.model == "bad":
            raise RuntimeError("no such luck")
        return staged(request)

    draws = [Draw(game(question), "B", 0, Debater(name=name, model=name, refine=1)) for name in ("bad", "good")]
    bad, good = write(draws, ScriptedEngine(fails))
    assert bad == Failure(seat="B", turn=0, kind="scripted", message="no such luck")
    assert good.text.startswith("refine")


def test_the_critic_is_shown_checked_quotes_and_nothing_that_is_hidden(question):
    def hides(request):
        return "<scratchpad>secret</scratchpad> <quote>the cup was moved</quote> <quote>no such words</quote> Judge: I"

    engine = ScriptedEngine(hides)
    player = Debater(name="x", model="m", refine=1)
    write([Draw(game(question, scratchpad="private"), "A", 0, player)], engine)
    for request in engine.requests[1:]:
        read = request.messages[-1].content
        assert "<v_quote>the cup was moved</v_quote>" in read and "<u_quote>no such words</u_quote>" in read
        assert "secret" not in read and "Judge:" not in read


def test_the_lab_s_critic_argues_for_the_other_answer(question):
    engine = ScriptedEngine(lambda request: f"words {len(request.messages[-1].content)}")
    player = Debater(name="x", model="m", refine=1)
    (speech,) = write([Draw(game(question, prompts="lab"), "A", 0, player)], engine)
    critique, refine = (request.messages[-1].content for request in engine.requests[1:])
    draft = speech.origin.drafts[0]
    assert critique.endswith(f"for shed : {draft.text}\nargue for barn")
    assert refine.endswith(f"for shed : {draft.text}\nfor barn : {draft.critique}\nargue for shed")


def test_a_prompt_set_without_the_templates_says_so(question, tmp_path):
    for seat in ("debater", "judge"):
        (tmp_path / f"{seat}.j2").write_text('{{ role("user") }}argue')
    with pytest.raises(UserError, match=r"has no critique\.j2; write one"):
        write(
            [Draw(game(question, prompts=str(tmp_path)), "A", 0, Debater(name="x", model="m", refine=1))],
            ScriptedEngine(),
        )
