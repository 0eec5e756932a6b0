import pytest

from debate_rl.errors import UserError
from debate_rl.judges.judge import StatedJudge
from debate_rl.judges.settings import JudgeSettings
from debate_rl.runs.any_judge import any_judge
from tests.stages.test_attacks import run  # noqa: F401  a fixture: the folder of a run with a judge stage


def test_a_run_gives_its_newest_judge_and_a_stage_its_own(run):  # noqa: F811
    newest, stage = any_judge(str(run)), any_judge(f"{run / 'judge'}/")
    assert newest.judge.adapter == stage.judge.adapter == "judge/adapter"
    assert newest.judge.name == f"{run}: judge" and stage.judge.name == str(run / "judge")
    assert newest.judge.calibrator is not None and newest.prompts == stage.prompts
    with pytest.raises(UserError, match="leave out the options about the judge"):
        any_judge(str(run), JudgeSettings(readout="answers"))


def test_a_model_is_asked_as_the_settings_say_and_named_by_what_differs():
    plain = any_judge("lab-base")
    assert (plain.judge.name, plain.prompts) == ("lab-base", "lab")
    stated = any_judge("owner/model", JudgeSettings(kind="stated", votes=3))
    assert isinstance(stated.judge, StatedJudge) and stated.judge.model == "owner/model"
    assert (stated.judge.name, stated.prompts) == ("owner/model (stated, 3 votes)", "default")
    answers = any_judge("owner/model", JudgeSettings(readout="answers"))
    assert answers.judge.name == "owner/model (answers)" and answers.judge.readout == "answers"
