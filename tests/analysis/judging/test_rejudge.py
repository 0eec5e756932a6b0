import pytest

from debate_rl.analysis.columns import columns
from debate_rl.analysis.judging.rejudge import rejudge, saved_legs
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.judges.judge import Judge
from debate_rl.records import write, write_text
from tests.analysis.test_accuracy import legs

OTHER = Judge(name="other", model="m")


def sure(choice):
    """Always the same answer, so it is right on every other question."""
    return [1.0 if answer == "shed" else 0.0 for answer in choice.candidates]


def lab(found):
    """Legs on questions of their own, whose judge chooses among the answers themselves."""
    return [leg.model_copy(update={"transcript": _lab(leg.transcript)}) for leg in found]


def _lab(game):
    rules = game.protocol.model_copy(update={"prompts": "lab"})
    asked = game.question.model_copy(update={"text": f"{game.question.text} {game.question.id}"})
    return game.model_copy(update={"protocol": rules, "question": asked})


def test_the_new_judge_has_a_table_of_its_own_and_stands_beside_the_old(question):
    saved = lab(legs(question, "debate", "x", [0.9] * 6) + legs(question, "blind", "-", [0.4] * 6))
    found, again = rejudge(saved, OTHER, ScriptedEngine(score=sure))
    assert [(row.protocol, row.player) for row in found.table.rows] == [("debate", "x"), ("blind", "-")]
    assert {row.scores.accuracy.value for row in found.table.rows} == {0.5} and found.table.known is not None
    assert [row.first.value for row in found.beside.rows] == [1.0, 0.0] and found.beside.first == "j"
    assert [leg.transcript for leg in again] == [leg.transcript for leg in saved]
    one, _ = rejudge(saved, OTHER, ScriptedEngine(score=sure), protocol="blind")
    assert one.table.reference == "blind" and len(one.table.rows) == 1 and "debate" not in str(one.table)


def test_games_that_were_not_finished_are_counted_and_not_judged(question):
    saved = lab(legs(question, "debate", "x", [0.9] * 4))
    cut = saved[0].transcript.model_copy(update={"speeches": ()})
    failure = Failure(seat="A", turn=0, kind="context", message="too long")
    found, again = rejudge(
        [JudgedDebate(transcript=cut, failure=failure), *saved[1:]], OTHER, ScriptedEngine(score=sure)
    )
    assert found.unfinished == 1 and len(again) == 3 and "1 games were not finished" in str(found)


def test_a_protocol_whose_every_verdict_fails_is_named_and_counted(question):
    saved = lab(legs(question, "debate", "x", [0.9] * 4) + legs(question, "blind", "-", [0.4] * 4))

    def score(choice):
        return sure(choice) if "quote>" not in choice.messages[-1].content else [float("nan"), 0.0]

    found, _ = rejudge(saved, OTHER, ScriptedEngine(score=score))
    assert [row.protocol for row in found.table.rows] == ["blind"] and found.table.reference == "blind"
    assert found.table.failed == 4 and found.table.left_out == {"debate by x": 4}
    assert "judge other, 4 failed\nleft out: debate by x, no verdict on any of 4 games" in str(found)


def test_saved_verdicts_of_several_judges_have_nothing_beside(question):
    saved = lab(legs(question, "debate", "x", [0.9] * 4))
    other = [
        leg.model_copy(
            update={
                "transcript": leg.transcript.model_copy(update={"seed": 1}),
                "verdict": leg.verdict.model_copy(update={"judge": "k"}),
            }
        )
        for leg in saved
    ]
    found, again = rejudge(saved + other, OTHER, ScriptedEngine(score=sure))
    assert found.beside is None and found.several == ("j", "k") and len(again) == 8
    assert "the saved verdicts are of several judges (j, k), so none stands beside" in str(found)


def test_a_game_is_judged_again_once_and_two_runs_are_not_mixed(question):
    saved = lab(legs(question, "debate", "x", [0.9] * 4))
    found, again = rejudge(saved + saved, OTHER, ScriptedEngine(score=sure))
    assert found.repeated == 4 and len(again) == 4 and found.beside is not None and found.several == ()
    game = saved[0].transcript
    said = tuple(speech.model_copy(update={"text": "another text"}) for speech in game.speeches)
    other = saved[0].model_copy(update={"transcript": game.model_copy(update={"speeches": said})})
    with pytest.raises(UserError, match="is there 2 times with the same rules and seed"):
        rejudge([*saved, other], OTHER, ScriptedEngine(score=sure))


def test_a_judge_that_can_not_and_games_that_are_not_there(question, tmp_path):
    saved = lab(legs(question, "debate", "x", [0.9] * 4))
    with pytest.raises(UserError, match=r"other could not judge any game \(log-prob.*does the model fit"):
        rejudge(saved, OTHER, ScriptedEngine(score=lambda choice: [float("nan"), 0.0]))
    with pytest.raises(UserError, match="no game of protocol 'debat'; did you mean 'debate'"):
        rejudge(saved, OTHER, ScriptedEngine(), protocol="debat")
    with pytest.raises(UserError, match="a game of protocol 'debate' is no consultancy"):
        rejudge(saved, OTHER, ScriptedEngine(), view="double")
    unknown = saved[0].transcript.question.model_copy(update={"correct": None})
    game = saved[0].transcript.model_copy(update={"question": unknown})
    with pytest.raises(UserError, match="has no correct answer"):
        rejudge([JudgedDebate(transcript=game, verdict=saved[0].verdict)], OTHER, ScriptedEngine())
    write_text(tmp_path / "empty.jsonl", "")
    with pytest.raises(UserError, match="no legs in .*empty.jsonl"):
        saved_legs([tmp_path / "empty.jsonl"])
    write(tmp_path / "stage" / "debates.jsonl", saved)
    with pytest.raises(UserError, match="no debates.jsonl in .*; give the folder of a stage that has it: stage$"):
        saved_legs([tmp_path])
    assert saved_legs([tmp_path / "stage", tmp_path / "stage" / "debates.jsonl"]) == saved + saved


def test_columns_are_as_wide_as_their_widest_cell():
    assert columns(["player", "n"], [["base", "80"], ["dpo@16", "7"]]) == "player  n\nbase    80\ndpo@16  7"
