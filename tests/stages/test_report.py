from types import SimpleNamespace

import pytest

from debate_rl.analysis.judging.judge_errors import JudgeErrors
from debate_rl.records import read_json
from debate_rl.report import stage as report
from debate_rl.report.stage import ReportStage


@pytest.mark.parametrize("wanted", [False, True])
def test_errors_of_the_judge_are_kept_and_shown_where_they_are_wanted(tmp_path, monkeypatch, wanted):
    found, shown = JudgeErrors(run="r", kind="flip"), []
    monkeypatch.setattr(report, "effects", lambda folders: [])
    monkeypatch.setattr(report, "judge_errors", lambda folder: found)
    page = "debate_rl.report.page.write_report"
    monkeypatch.setattr(page, lambda *given: shown.append(given[-1]) or tmp_path / "index.html")
    run = SimpleNamespace(folder=tmp_path, config=SimpleNamespace(seed=0), say=lambda line: None)
    assert ReportStage(judge_errors=wanted).execute(run, tmp_path / "out") == {}
    kept = tmp_path / "out" / "judge_errors.json"
    assert shown == [found if wanted else None] and kept.is_file() == wanted
    assert not wanted or read_json(kept)["run"] == "r"
