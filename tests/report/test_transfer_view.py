import itertools

import pytest

from debate_rl.report.chart import ACCENT
from debate_rl.report.transfer_view import recovered, transfer_views
from debate_rl.weak_to_strong.results.gap_grid import Compute
from debate_rl.weak_to_strong.results.results import results
from debate_rl.weak_to_strong.results.tables import Column, Cost, Point, Table
from tests.report.figure_data import described, texts
from tests.weak_to_strong.drawn import GOOD, study


def column(label="one", methods=("none", "debate"), points=None, weak="lab-small", strong="lab-base", **skills):
    found = results(study({**GOOD, **skills}, items=80, methods=methods))
    return Column(label=label, weak=weak, strong=strong, results=found, points=points or {})


def view(*columns, **fields):
    return transfer_views([Table(name="main", columns=columns, **fields)])[0]


def test_students_stand_between_the_ends_and_pgr_beside_them():
    (one,) = view(column()).columns
    shown = described(one.accuracy)
    assert [row["label"] for row in shown] == ["weak", "strong, untrained", "strong on D1", "none", "debate", "ceiling"]
    assert [row["label"] for row in shown if row["colour"] == ACCENT] == ["none", "debate"]
    assert [row["label"] for row in described(one.pgr)] == ["none", "debate"]
    assert one.label == "" and one.lines is None
    method = one.column.results.methods[1]
    assert shown[4]["value"] == 100 * method.student.value and shown[4]["low"] == 100 * method.student.low
    assert described(one.pgr)[1]["value"] == method.pgr.pgr.value


def test_no_gap_no_figure_of_it():
    found = view(column(ceiling=0.6))
    assert found.columns[0].pgr is None
    assert recovered([found])["debate"].startswith("undefined: the gap")
    assert recovered([]) == {}


def test_leading_comparisons_are_those_with_the_first_and_of_the_last():
    methods = ("a", "b", "c", "d")
    (one,) = view(column(methods=methods, **dict(zip(methods, (0.7, 0.75, 0.8, 0.85), strict=True)))).columns
    pairs = {(row.first, row.second) for row in one.first}
    assert pairs == {("b", "a"), ("c", "a"), ("d", "a"), ("d", "b"), ("d", "c")}
    assert [(row.first, row.second) for row in one.others] == [("c", "b")]


def test_lines_run_over_the_numbers_of_their_methods():
    names = [f"{line}-{x}" for line, x in itertools.product(("finetune", "debate"), (1, 2, 4))]
    skills = dict(zip(names, (0.7, 0.72, 0.74, 0.7, 0.8, 0.9), strict=True))
    points = {name: Point(line=name.split("-")[0], x=float(name.split("-")[1])) for name in names}
    (one,) = view(column(methods=names, points=points, **skills), over="members").columns
    shown = described(one.lines)
    assert {(row["series"], row["x"], row["label"]) for row in shown} == {
        (point.line, point.x, name) for name, point in points.items()
    }
    assert all(row["low"] <= row["value"] <= row["high"] for row in shown)
    assert {"weak", "ceiling", "supervisors", "finetune", "debate"} <= set(texts(one.lines))


def test_one_point_is_a_line_as_well():
    (one,) = view(column(points={"debate": Point(line="debate", x=4)}), over="members").columns
    assert [row["x"] for row in described(one.lines)] == [4] and "4" in texts(one.lines)


def test_sizes_make_a_grid():
    found = view(column("a"), column("b", strong="lab-small"), column("c", weak="lab-base"))
    none, debate = found.grids
    assert (none.method, debate.method) == ("none", "debate")
    assert none.weak == ("lab-small", "lab-base") and none.strong == ("lab-base", "lab-small")
    assert set(none.cells) == {("lab-small", "lab-base"), ("lab-small", "lab-small"), ("lab-base", "lab-base")}
    method = found.columns[1].column.results.methods[1]
    assert debate.cells["lab-small", "lab-small"].accuracy == method.student
    assert view(column("a"), column("b")).grids == []


@pytest.mark.parametrize("cost", [None, Cost(seconds=3, trainings=2)])
def test_cost_is_said_where_it_is_known(cost):
    assert view(column(), cost=cost).cost.startswith("cost: 3 s, 0 games; 2 trainings") == (cost is not None)


def test_a_grid_whose_compute_is_known_shows_pgr_over_it():
    def sized(label, strong, ratio):
        return column(label, strong=strong).model_copy(update={"compute": Compute(weak=1e9, strong=ratio * 1e9)})

    found = view(sized("near", "lab-base", 10), sized("far", "lab-large", 100))
    shown = described(found.over_gap)
    assert {row["step"] for row in shown} == {1.0, 2.0} and {row["series"] for row in shown} == {"none", "debate"}
    assert all(row["low"] < row["value"] < row["high"] for row in shown)
    assert view(column("near"), column("far", strong="lab-large")).over_gap is None
