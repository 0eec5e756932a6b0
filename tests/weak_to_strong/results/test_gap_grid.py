"""A grid over sizes: its axis in compute, and what sounds an alarm."""

import pytest

from debate_rl.intervals import Estimate
from debate_rl.weak_to_strong.results.gap_grid import Compute, alarms, by_gap
from debate_rl.weak_to_strong.results.results import Agreement, results
from debate_rl.weak_to_strong.results.tables import Column, Table, markdown
from tests.weak_to_strong.drawn import GOOD, study


def share(value, width=0.05):
    return Estimate(value=value, low=value - width, high=value + width, n=100, clusters=50)


def column(label, strong, ratio, copied=0.3, seed=0, **skills):
    """A study of one method, whose student copies so many of its supervisor's errors."""
    found = results(study({**GOOD, **skills}, methods=("none",), items=400, seed=seed))
    agreement = Agreement(right=share(0.9), wrong=share(copied))
    methods = tuple(method.model_copy(update={"agreement": agreement}) for method in found.methods)
    found = found.model_copy(update={"methods": methods})
    compute = Compute(weak=1e12, strong=ratio * 1e12)
    return Column(label=label, weak="lab-small", strong=strong, results=found, compute=compute)


def grid(*columns):
    return Table(name="gap", columns=columns)


def test_columns_are_ordered_by_the_gap_in_compute():
    table = grid(column("far", "c", 100), column("near", "b", 10))
    assert [one.label for one in by_gap(table)] == ["near", "far"]
    assert by_gap(table)[1].compute.gap == pytest.approx(2)
    assert "- far: 6ND 1e+12 and 1e+14, a gap of 2.00 orders of magnitude" in markdown(table)
    unknown = table.columns[0].model_copy(update={"compute": None})
    assert by_gap(grid(unknown, table.columns[1])) == [table.columns[1]] and "compute" not in unknown.model_dump()


def test_a_student_that_copies_most_errors_is_heard_only_beyond_the_interval():
    (found,) = alarms(grid(column("one", "b", 10, copied=0.6), column("two", "c", 20, copied=0.52)))
    assert found.startswith("one: over-imitation: the student of none copies 0.60 [0.55, 0.65]")


def test_pgr_that_falls_with_the_gap_is_heard_and_one_that_rises_is_not():
    near, far = column("near", "b", 10, none=0.92), column("far", "c", 1000, copied=0.4, none=0.65)
    (found,) = alarms(grid(far, near))
    assert found.startswith("PGR falls with the gap: none recovers") and found.index("near") < found.index("far")
    assert f"alarm: {found}" in markdown(grid(far, near))
    rising = (column("near", "b", 10, none=0.65), column("far", "c", 1000, copied=0.4, none=0.92))
    assert alarms(grid(*rising)) == []


def test_agreement_that_is_the_same_in_three_columns_is_heard():
    same = [column(name, name, 10 * number) for number, name in enumerate("abc", 1)]
    (found,) = alarms(grid(*same))
    assert found.startswith("agreement never changes: students of none agree") and "in all 3 columns" in found
    assert alarms(grid(*same[:2])) == []
    assert alarms(grid(*same[:2], column("c", "c", 30, copied=0.4))) == []


def test_a_table_over_tasks_sounds_none_of_them():
    columns = (column("sciq", "b", 10, copied=0.9), column("boolq", "b", 10, copied=0.9))
    assert alarms(grid(*columns)) == [] and "alarm" not in markdown(grid(*columns))
