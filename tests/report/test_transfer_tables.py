import json

import pytest

from debate_rl.errors import UserError
from debate_rl.records import read_json, write_json, write_text
from debate_rl.report.page import render
from debate_rl.report.run_folder import load_run
from debate_rl.report.study_page import write_study_page
from debate_rl.report.transfer_tables import load_tables, write_tables
from debate_rl.weak_to_strong.results.results import results
from debate_rl.weak_to_strong.results.split_report import Account
from debate_rl.weak_to_strong.results.tables import Table, markdown
from debate_rl.weak_to_strong.tasks.items import PartReport
from tests.weak_to_strong.drawn import GOOD, study

STAGES = {
    "main-sciq": {"kind": "weak_to_strong", "table": "main"},
    "main-boolq": {"kind": "weak_to_strong", "table": "main", "weak": "lab-base"},
    "members": {
        "kind": "weak_to_strong", "curve": "members",
        "methods": {"none": {"members": 1}, "debate": {"context": "debate", "members": 4}},
    },
}  # fmt: skip


def run(folder, seed=0, stages=STAGES):
    """A run whose stages have two methods; each rests on a supervisor of its own and one that all share."""
    tree = {"name": folder.name, "models": {"weak": "lab-small", "strong": "lab-base"}, "stages": stages}
    write_text(folder / "config.yaml", json.dumps(tree))
    for at, name in enumerate(stages):
        hits = study(GOOD, items=60, seed=10 * seed + at)
        stage = folder / name
        write_json(stage / "stage.json", {"name": name, "kind": "weak_to_strong", "fingerprint": "0"})
        write_json(stage / "metrics.json", results(hits).model_dump(mode="json"))
        write_json(stage / "timing.json", {"seconds": 10.0, "cpu_seconds": 8.0, "tokens": 1000})
        write_text(stage / "trainings" / "hits.json", hits.model_dump_json())
        write_text(stage / "debates.jsonl", "{}\n" * 5)
        write_json(stage / "trainings" / "index.json", {"seed0/weak": "shared", "seed0/x": f"own{at}"})
        for training in ("shared", f"own{at}"):
            write_json(folder / "transfer" / training / "result.json", {"seconds": 2.0})
    return folder


def test_stages_of_a_table_are_its_columns(tmp_path):
    main, members = load_tables([load_run(run(tmp_path / "one"))])
    assert [column.label for column in main.columns] == ["sciq", "boolq"] and main.over is None
    assert [(column.weak, column.strong) for column in main.columns] == [
        ("lab-small", "lab-base"), ("lab-base", "lab-base")
    ]  # fmt: skip
    assert (members.name, members.columns[0].label, members.over) == ("members", "members", "members")
    assert {name: point.x for name, point in members.columns[0].points.items()} == {"none": 1, "debate": 4}
    stored = read_json(tmp_path / "one" / "main-sciq" / "metrics.json")
    assert main.columns[0].results.model_dump(mode="json") == stored


def test_costs_are_of_the_stages_and_trainings_count_once(tmp_path):
    main, members = load_tables([load_run(run(tmp_path / "one"))])
    assert (main.cost.seconds, main.cost.cpu_seconds, main.cost.tokens, main.cost.games) == (20, 16, 2000, 10)
    assert (main.cost.trainings, main.cost.shared, main.cost.training_seconds) == (3, 0, 6)
    assert (members.cost.trainings, members.cost.shared, members.cost.training_seconds) == (2, 1, 4)


def test_the_seeds_of_a_study_are_stacked(tmp_path):
    runs = [load_run(run(tmp_path / f"seed{seed}", seed)) for seed in (0, 1)]
    main, _ = load_tables(runs)
    assert main.columns[0].results.seeds == 6 and main.cost.trainings == 6 and main.cost.seconds == 40
    alone = load_tables(runs[:1])[0].columns[0].results
    assert main.columns[0].results.weak.value != alone.weak.value and alone.seeds == 3


def test_a_stage_that_one_run_lacks_and_one_that_none_has(tmp_path):
    first, second = run(tmp_path / "seed0"), run(tmp_path / "seed1", 1)
    (second / "members" / "stage.json").unlink()
    (first / "main-boolq" / "stage.json").unlink()
    (second / "main-boolq" / "stage.json").unlink()
    main, members = load_tables([load_run(first), load_run(second)])
    assert [column.label for column in main.columns] == ["sciq"] and members.columns[0].results.seeds == 3
    assert load_tables([]) == []


def test_results_of_another_version_say_what_to_do(tmp_path):
    folder = run(tmp_path / "one")
    write_json(folder / "members" / "metrics.json", {"weak": 3})
    with pytest.raises(UserError, match="members/metrics.json: .* run the stage again"):
        load_tables([load_run(folder)])
    runs = [load_run(run(tmp_path / f"seed{seed}", seed)) for seed in (0, 1)]
    write_json(tmp_path / "seed1" / "members" / "trainings" / "hits.json", {"test": {}})
    with pytest.raises(UserError, match="hits.json: .* run it again"):
        load_tables(runs)


def test_the_account_of_the_data_is_shown(tmp_path):
    folder = run(tmp_path / "one")
    part = PartReport(items=60, groups=30, labels=(29, 31), tokens=(31, 88, 140), too_long=2)
    found = Account(source={"read": 97}, joined=3, unused=1, parts={"strong": {"test": part}}, notes=("x is cut",))
    write_json(folder / "members" / "splits.json", found.model_dump(mode="json"))
    main, members = tables = load_tables([load_run(folder)])
    assert main.columns[0].account is None and members.columns[0].account == found
    assert "- members: x is cut" in markdown(members)
    for path in folder.glob("*/debates.jsonl"):
        path.unlink()  # no real ones
    html = render(load_run(folder), tables=tables)
    row = "".join(f'<td class="num">{number}</td>' for number in (60, 30, 29, 31, 31, 88, 140, 2))
    assert f'<th scope="row">test</th><td>strong</td>{row}' in html and "read 97, groups joined" in html
    assert "<strong>x is cut.</strong>" in html
    write_json(folder / "members" / "splits.json", {"joined": 3})
    with pytest.raises(UserError, match="splits.json: .* run it again"):
        load_tables([load_run(folder)])


def test_files_and_the_page_of_a_study(tmp_path):
    runs = [run(tmp_path / "study" / f"seed{seed}", seed) for seed in (0, 1)]
    write_text(tmp_path / "study" / "config.yaml", json.dumps({"name": "study", "seeds": [0, 1], "stages": {}}))
    html = write_study_page(tmp_path / "study", tmp_path / "out", []).read_text()
    assert 'id="transfer-table-main"' in html and "6 seeds" in html and "tables/members.csv" in html
    folder = tmp_path / "out" / "tables"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.{kind}" for name in ("main", "members") for kind in ("csv", "json", "md")
    ]
    tables = load_tables([load_run(one) for one in runs])
    assert Table.model_validate(read_json(folder / "main.json")) == tables[0]
    write_tables(tables[:1], tmp_path / "again")
    assert (tmp_path / "again" / "main.md").read_text() == (folder / "main.md").read_text()
