import pytest

from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.errors import UserError
from debate_rl.judges.judge import Judge, StatedJudge
from debate_rl.judges.settings import JudgeSettings
from debate_rl.runs.reopen import judge_by_name, kept_run
from debate_rl.runs.run import Run
from tests.stages.test_attacks import run  # noqa: F401  a fixture: the folder of a run with a judge stage


def test_a_kept_run_is_opened_where_it_lies_now(run):  # noqa: F811
    moved = run.rename(run.parent / "moved")
    assert kept_run(moved).folder == moved
    with pytest.raises(UserError, match="is a folder in a run; .*moved --stage judge"):
        kept_run(moved / "judge")
    with pytest.raises(UserError, match="is a file; give the folder of a run: .*moved$"):
        kept_run(moved / "sft" / "debates.jsonl")
    with pytest.raises(UserError, match="config of the run not found"):
        kept_run(moved.parent)


def test_a_study_is_no_run(run):  # noqa: F811
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("seeds: []", "seeds: [3, 4]"))
    with pytest.raises(UserError, match="is a study of 2 seeds; give one seed's folder, such as .*/seed3"):
        kept_run(run)


def test_the_settings_of_the_judge_count(run):  # noqa: F811
    def found(stage, **judge):
        changed = kept_run(run).config.model_copy(update={"judge": JudgeSettings(**judge)})
        return Run(changed).judge_named(stage)

    one = found("judge", min_answer_mass=0.3, both_orders=False, name="mine", model="other")
    assert (one.name, one.min_answer_mass, one.both_orders, one.adapter) == ("judge", 0.3, False, "judge/adapter")
    assert one.calibrator is not None and one.model != "other"
    assert isinstance(found("base", kind="stated", votes=3), StatedJudge)
    members = (JudgeSettings(model="m"), JudgeSettings(model="n"))
    assert isinstance(found("base", kind="panel", members=members), Judge)
    assert found("org/model", min_answer_mass=0.3).min_answer_mass == 0


def test_judges_of_the_run_and_others(run, monkeypatch):  # noqa: F811
    engine = object()
    monkeypatch.setattr(Run, "open_engine", lambda self: engine)
    found, opened = judge_by_name(run / "sft", "judge")
    assert opened is engine and found.calibrator is not None
    assert judge_by_name(run / "sft" / "debates.jsonl", "base")[0].name == "base judge"
    other, _ = judge_by_name(run / "sft", "org/model", run / "judge" / "adapter")
    assert other.adapter == str(run / "judge" / "adapter")
    with pytest.raises(UserError, match="'judge' has an adapter of its own"):
        judge_by_name(run / "sft", "judge", run / "judge" / "adapter")
    with pytest.raises(UserError, match="adapter not found"):
        judge_by_name(run / "sft", "org/model", run / "nowhere")


def test_outside_of_a_run_a_judge_is_a_model(tmp_path):
    (tmp_path / "debates.jsonl").touch()
    found, engine = judge_by_name(tmp_path / "debates.jsonl", "lab-small")
    assert (found.name, found.adapter) == ("lab-small", None) and isinstance(engine, TransformersEngine)
    with pytest.raises(UserError, match="stage not found"):
        judge_by_name(tmp_path / "nowhere", "lab-small")
