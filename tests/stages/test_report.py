import pytest

from debate_rl.analysis.judging.judge_errors import JudgeErrors
from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.records import read_json
from debate_rl.runs.run import Run
from debate_rl.stages import report
from debate_rl.stages.base import StageResult


@pytest.mark.parametrize("wanted", [False, True])
def test_errors_of_the_judge_are_kept_and_shown_where_they_are_wanted(tmp_path, monkeypatch, wanted):
    found, shown = JudgeErrors(run="r", kind="flip"), []
    monkeypatch.setattr(report, "effects", lambda folders: [])
    monkeypatch.setattr(report, "judge_errors", lambda folder: found)
    page = "debate_rl.report.page.write_report"
    monkeypatch.setattr(page, lambda *given: shown.append(given[-1]) or tmp_path / "index.html")
    run = Run(parse_config({"name": "r", "runs": str(tmp_path)}), ScriptedEngine(), say=lambda line: None)
    assert report.ReportStage(judge_errors=wanted).execute(run, tmp_path / "out") == StageResult()
    kept = tmp_path / "out" / "judge_errors.json"
    assert shown == [found if wanted else None] and kept.is_file() == wanted
    assert not wanted or read_json(kept)["run"] == "r"
