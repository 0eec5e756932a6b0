import json

import pytest

from debate_rl.analysis.oversight import Oversight
from debate_rl.errors import UserError
from debate_rl.records import write_json
from debate_rl.report import load_run
from debate_rl.stages.tournament import TournamentResult


def test_stages_come_in_the_order_of_the_config(run_folder):
    run = load_run(run_folder)
    assert [stage.name for stage in run.stages] == [
        "sft", "preferences", "dpo", "judge", "tournament", "oversight", "weak_to_strong"
    ]  # fmt: skip
    assert run.unfinished == ()
    assert run.name == "made"
    assert run.versions == {"debate-rl": "0.1.0"}


def test_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is no run \(no config.yaml\); give a folder such as runs/NAME"):
        load_run(tmp_path)


def test_config_that_is_not_yaml_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(UserError, match="config.yaml: not valid YAML"):
        load_run(tmp_path)


def test_stages_at_work_and_missing_ones_are_unfinished_and_the_report_is_not(made, tmp_path):
    run = made.open_run(tmp_path, stages=("sft", "dpo"))
    made.put(run, "sft", {"rows": 3})
    made.put(run, ".dpo", {"rows": 3}, kind="dpo")  # killed after its files, before its folder took its name
    found = load_run(run)
    assert [stage.name for stage in found.stages] == ["sft"]
    assert found.unfinished == ("dpo",)


def test_report_stage_is_no_result(made, tmp_path):
    run = made.open_run(tmp_path, stages=())
    made.put(run, "page", {}, kind="report")
    assert load_run(run).stages == ()


def test_stage_with_a_name_of_its_own_is_found_by_kind(made, tmp_path):
    run = made.open_run(tmp_path, stages=("second", "first"))
    for name in ("first", "second"):
        made.put(run, name, {"rows": 1}, kind="sft")
    assert [stage.name for stage in load_run(run).of("sft")] == ["second", "first"]


def test_malformed_metrics_name_file_and_field(made, tmp_path):
    run = made.open_run(tmp_path)
    made.put(run, "tournament", {"ratings": {"standings": []}, "legs": 3})
    with pytest.raises(UserError, match=r"tournament/metrics.json: ratings.pairs: Field required; remove"):
        load_run(run).of("tournament")[0].read(TournamentResult)


def test_oversight_without_rows_is_refused(made, tmp_path):
    run = made.open_run(tmp_path)
    made.put(run, "oversight", {"rows": []})
    with pytest.raises(UserError, match="rows"):
        load_run(run).of("oversight")[0].read(Oversight)


def test_broken_json_names_file_and_line(made, tmp_path):
    run = made.open_run(tmp_path)
    folder = made.put(run, "sft", {"rows": 1})
    (folder / "metrics.json").write_text('{\n"rows": }', encoding="utf-8")
    with pytest.raises(UserError, match=r"metrics.json:2: not valid JSON"):
        load_run(run)


def test_numbers_leave_out_words_flags_and_what_is_not_finite(made, tmp_path):
    run = made.open_run(tmp_path)
    made.put(run, "sft", {"rows": 3, "train_loss": float("nan"), "base": "lab", "lora": True, "nested": {"a": 1}})
    assert load_run(run).stages[0].numbers == {"rows": 3}


def test_history_keeps_rows_with_a_step(made, tmp_path):
    run = made.open_run(tmp_path)
    folder = made.put(run, "sft", {"rows": 3})
    assert load_run(run).stages[0].history == []
    write_json(folder / "history.json", [{"step": 1, "loss": 2.0}, {"loss": 1.0}, "what", {"step": None}])
    assert load_run(run).stages[0].history == [{"step": 1, "loss": 2.0}]
    for number, step in ((1, 4), (2, 5), (10, 6)):  # adversarial rounds of a judge, in their order
        (folder / f"round{number}").mkdir()
        write_json(folder / f"round{number}" / "history.json", [{"step": step, "loss": float(number)}])
    assert [(row["step"], row["loss"]) for row in load_run(run).stages[0].history] == [
        (1, 2),
        (5, 1),
        (10, 2),
        (16, 10),
    ]


def test_date_is_the_runs_own_where_it_has_one(made, tmp_path):
    run = made.open_run(tmp_path)
    assert load_run(run).date.endswith(" UTC")
    code = json.loads((run / "code.json").read_text(encoding="utf-8"))
    write_json(run / "code.json", {**code, "date": "2026-03-01"})
    assert load_run(run).date == "2026-03-01"


def test_run_without_code_state_is_still_a_run(made, tmp_path):
    run = made.open_run(tmp_path)
    (run / "code.json").unlink()
    assert load_run(run).commit is None


def test_a_run_of_an_earlier_version_is_refused_in_a_line(tmp_path):
    (tmp_path / "tournament").mkdir()
    (tmp_path / "config.yaml").write_text("name: old\n")
    (tmp_path / "tournament" / "legs.jsonl").write_text("")
    with pytest.raises(UserError, match="was made by an earlier version"):
        load_run(tmp_path)
