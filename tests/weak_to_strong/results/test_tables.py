import csv
import io

import pytest

from debate_rl.config.tree import load_config, parse_config
from debate_rl.errors import UserError
from debate_rl.runs.execute import needed
from debate_rl.trainers.common.settings import StudentLoss
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.labels import Labelling
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.results.results import results
from debate_rl.weak_to_strong.results.tables import Column, Cost, Point, Table, csv_text, markdown, points, rows
from tests import ROOT
from tests.weak_to_strong.drawn import GOOD, study

CONFIGS = ROOT / "configs" / "tables"


def column(label, methods=("none", "debate"), strong="lab-base", **skills):
    found = results(study({**GOOD, **skills}, methods=methods, items=200))
    return Column(label=label, weak="lab-small", strong=strong, results=found)


@pytest.fixture(scope="module")
def table():
    """Three tasks: one has a method more, one has no gap."""
    columns = (column("sciq"), column("boolq", ("none", "debate", "more"), more=0.9), column("flat", ceiling=0.6))
    cost = Cost(seconds=51.4, cpu_seconds=49, tokens=120400, games=144, trainings=31, shared=9, training_seconds=40)
    return Table(name="main", columns=columns, cost=cost)


def test_rows_are_ends_and_methods_of_all_columns(table):
    found = rows(table)
    assert list(found) == ["weak", "strong, untrained", "strong on D1", "none", "debate", "more", "ceiling"]
    assert found["more"][0] is None and found["more"][1].pgr is not None and found["ceiling"][0].pgr_text == ""
    assert found["debate"][2].pgr is None and found["debate"][2].pgr_text.startswith("undefined")
    assert Table.model_validate_json(table.model_dump_json()) == table and not table.grid


def test_a_row_that_no_column_has_is_left_out():
    one = column("a")
    bare = one.model_copy(update={"results": one.results.model_copy(update={"strong": None, "untrained": None})})
    assert list(rows(Table(name="t", columns=(bare,)))) == ["weak", "none", "debate", "ceiling"]


def test_markdown_has_a_cell_for_every_number_and_no_pgr_where_there_is_none(table):
    text = markdown(table)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {8}
    heads = [f"{task}: {what}" for task in ("sciq", "boolq", "flat") for what in ("accuracy, %", "PGR")]
    assert lines[0] == f"| model | {' | '.join(heads)} |"
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    pgr = table.columns[0].results.methods[1].pgr.pgr
    assert cells["debate"][1] == f"{pgr.value:.2f} [{pgr.low:.2f}, {pgr.high:.2f}]"
    assert cells["debate"][5] == cells["none"][5] == "undefined" and cells["more"][:2] == ["-", "-"]
    assert cells["weak"][1] == cells["ceiling"][1] == ""
    assert "- flat: ceiling - weak is" in text and "200 test items in 100 clusters, 3 seeds" in text
    assert "- cost: 51 s, 49 s of CPU, 120,400 tokens read and written, 144 games; 31 trainings (40 s), of which 9" in (
        text
    )
    assert "| model | accuracy, % | PGR |" in markdown(Table(name="t", columns=table.columns[:1]))


def test_csv_holds_every_measure_and_leaves_undefined_ones_empty(table):
    found = list(csv.DictReader(io.StringIO(csv_text(table))))
    keyed = {(row["column"], row["model"], row["measure"]): row for row in found}
    assert len(keyed) == len(found)
    first = table.columns[0].results
    row = keyed["sciq", "debate/student", "auroc"]
    assert float(row["value"]) == first.scores["debate/student"].auroc.value and row["seeds"] == "3"
    assert float(keyed["sciq", "debate/student", "pgr"]["low"]) == first.methods[1].pgr.pgr.low
    assert keyed["flat", "debate/student", "pgr"]["value"] == ""
    share = keyed["sciq", "debate/student", "agreement where the supervisor is wrong"]
    assert float(share["value"]) == first.methods[1].agreement.wrong.value
    assert ("boolq", "more/labels", "accuracy") in keyed and ("sciq", "weak", "brier") in keyed


def test_methods_that_differ_in_one_number_are_one_line():
    members = {
        "finetune-1": Method(context="debate", members=1, same_sample=True),
        "finetune-3": Method(context="debate", members=3, same_sample=True),
        "debate-3": Method(context="debate", members=3),
        "debate-8": Method(context="debate", members=8),
        "product": Method(context="debate", members=3, loss=StudentLoss(kind="product")),
    }
    found = points(members, {}, "members")
    assert found == {
        "finetune-1": Point(line="finetune", x=1),
        "finetune-3": Point(line="finetune", x=3),
        "debate-3": Point(line="debate", x=3),
        "debate-8": Point(line="debate", x=8),
        "product": Point(line="product", x=3),
    }
    errors = {f"errors{rate}": Method(members=1, labels=Labelling(errors=rate)) for rate in (0.0, 0.1, 0.25)}
    assert points(errors, {}, "errors") == {name: Point(line="errors", x=float(name[6:])) for name in errors}


def test_turns_are_those_of_the_context():
    contexts = {f"debate{turns}": Context(turns=turns) for turns in (3, 4)} | {"debate": Context()}
    methods = {f"d{turns}": Method(context=f"debate{turns}", members=2) for turns in (3, 4)}
    methods |= {"none": Method(members=2), "own": Method(context="debate", members=2)}
    assert points(methods, contexts, "turns") == {"d3": Point(line="d", x=3), "d4": Point(line="d", x=4)}


def test_columns_of_different_models_are_a_grid():
    assert Table(name="gap", columns=(column("a"), column("b", strong="lab-small"))).grid


def test_one_table_of_a_config_is_run_with_what_it_needs_and_the_report():
    one = {"kind": "weak_to_strong", "debater": "sft"}
    found = parse_config(
        {
            "stages": {
                "sft": {},
                "main-a": {**one, "table": "main"},
                "main-b": {**one, "table": "main"},
                "turns": {**one, "debater": "base"},
                "report": {},
            }
        }
    )
    assert needed(found, "weak_to_strong", "main") == {"sft", "main-a", "main-b", "report"}
    assert needed(found, "weak_to_strong", "turns") == {"turns", "report"}
    assert needed(found, "weak_to_strong") == {"sft", "main-a", "main-b", "turns"}
    with pytest.raises(UserError, match=r"no table 'mian'; did you mean 'main'|no table 'mian'.*main"):
        needed(found, "weak_to_strong", "mian")


@pytest.mark.parametrize(("name", "columns"), [("lab", 1), ("lang2025", 4)])
def test_shipped_configs_have_every_table(name, columns):
    found = load_config(CONFIGS / f"{name}.yaml")
    stages = [stage for stage in found.stages.values() if stage.kind == "weak_to_strong"]
    tables = ["main", "oversight", "ensembles", "cardinality", "turns", "gap", "errors"]
    tables += ["quality"] if name == "lab" else []
    assert list(dict.fromkeys(stage.table for stage in stages)) == tables
    main = [stage for stage in stages if stage.table == "main"]
    assert len(main) == columns and "debate-ensemble" in main[0].methods
    for table in tables:
        assert needed(found, "weak_to_strong", table) >= {"report"}
    for stage in stages:
        assert stage.curve is None or len(points(stage.methods, stage.helps, stage.curve)) == len(stage.methods)
    grid = {(stage.weak or found.models.weak, stage.strong or found.models.strong) for stage in stages}
    assert len(grid) >= 3
