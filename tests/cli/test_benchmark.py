import json

import pytest


def mistake(result):
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("debate-rl:")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err
    return lines[0]


@pytest.fixture
def pairs(tmp_path):
    row = {"question": "where was the pipe ?", "response_A": "shed", "response_B": "barn", "label": "A>B"}
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row | {"pair_id": f"p{at}"}) for at in range(3)))
    return path


def test_recorded_decisions_as_json_rows(call, shared_data):
    file = shared_data / "judgebench/decisions.jsonl"
    code, out, _ = call("judge", "benchmark", "--decisions", file, "--json")
    rows = json.loads(out)
    assert code == 0 and [round(row["accuracy"], 2) for row in rows] == [32.22, 65.71, 62.29]
    assert all({"judge", "n", "accuracy", "interval", "consistent"} <= set(row) for row in rows)
    code, out, _ = call("judge", "benchmark", "--decisions", file, "--judge", "o1-mini-2024-09-12", "--json")
    assert [row["n"] for row in json.loads(out)] == [350]
    assert "o1-mini-2024-09-12" in mistake(call("judge", "benchmark", "--decisions", file, "--judge", "o1-mini"))


def test_a_lab_model_judges_pairs_and_its_decisions_can_be_scored_again(call, pairs, tmp_path):
    out_file = tmp_path / "decisions.jsonl"
    words = ("judge", "benchmark", "--judge", "lab-small", "--pairs", pairs, "--out", out_file, "--json")
    code, out, err = call(*words)
    (row,) = json.loads(out)
    assert code == 0 and row["judge"] == "lab-small" and row["n"] == 3 and "3 of 3 pairs" in err
    code, out, _ = call("judge", "benchmark", "--decisions", out_file, "--json")
    assert code == 0 and json.loads(out) == [row]


def test_what_does_not_go_together_is_one_line(call, pairs, tmp_path):
    benchmark = ("judge", "benchmark")
    assert "either --pairs FILE" in mistake(call(*benchmark))
    assert "either --pairs FILE" in mistake(call(*benchmark, "--pairs", pairs, "--decisions", pairs))
    assert "--judge lab-base" in mistake(call(*benchmark, "--pairs", pairs))
    assert "--limit and --out" in mistake(call(*benchmark, "--decisions", pairs, "--limit", 3))
    named = (*benchmark, "--judge", "lab-small", "--pairs")
    assert "not found" in mistake(call(*named, tmp_path / "none.jsonl"))
    assert "readout" in mistake(call(*named, pairs, "--kind", "stated", "--readout", "answers"))
    assert "model not found" in mistake(call(*benchmark, "--judge", "nosuch-model", "--pairs", pairs))


def test_a_config_brings_its_own_judge_and_prompts(call, pairs, tmp_path):
    config = tmp_path / "judge.yaml"
    config.write_text("name: j\nmodels: {debater: lab-small, judge: lab-small}\nprotocol: {prompts: lab}\n")
    code, out, _ = call("judge", "benchmark", "--judge", config, "--pairs", pairs, "--json")
    assert code == 0 and json.loads(out)[0]["judge"] == f"{config}: base judge"
    refused = call("judge", "benchmark", "--judge", config, "--pairs", pairs, "--readout", "answers")
    assert "leave out the options" in mistake(refused)


def test_published_tables_are_listed_and_recomputed(call, shared_data):
    code, out, _ = call("reproduce")
    assert code == 0 and all(name in out for name in ("michael2023", "judgebench", "ratings", "sciq_labels"))
    code, out, _ = call("reproduce", "judgebench", "--file", shared_data / "judgebench/decisions.jsonl", "--json")
    assert code == 0 and all(row["same"] for row in json.loads(out)["rows"])
    assert "needs --file" in mistake(call("reproduce", "judgebench"))
    assert "did you mean 'ratings'" in mistake(call("reproduce", "rating", "--file", "x"))
