import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.report.dot_names import _box, place_names

ROOM = (400.0, 200.0)
DOTS = st.lists(st.tuples(st.floats(60, 380), st.floats(30, 190)), min_size=1, max_size=12)


def boxes(dots, widths):
    return [_box(name, width) for name, width in zip(place_names(dots, widths, ROOM), widths, strict=True)]


@given(DOTS, st.integers(7, 100))
def test_a_name_stands_inside_or_at_its_first_place(dots, width):
    for (x, y), box in zip(dots, boxes(dots, [width] * len(dots)), strict=True):
        inside = box.left >= 0 and box.right <= ROOM[0] and box.top >= 0 and box.bottom <= ROOM[1]
        assert inside or box.bottom == pytest.approx(y - 4)
        assert abs((box.left if box.left > x else box.right) - x) == pytest.approx(8)


def test_names_of_dots_that_stand_together_do_not_overlap():
    dots = [(300.0, 40.0), (304.0, 36.0), (296.0, 44.0), (310.0, 41.0), (290.0, 38.0)]
    found = boxes(dots, [42.0] * len(dots))
    assert not any(a.meets(b) for n, a in enumerate(found) for b in found[:n])


def test_a_dot_by_itself_has_its_name_at_the_right_and_at_the_edge_at_the_left():
    (alone,) = place_names([(100.0, 100.0)], [50.0], ROOM)
    (edge,) = place_names([(380.0, 100.0)], [50.0], ROOM)
    assert (alone.x, alone.y, alone.left, alone.far) == (108.0, 93.0, False, False)
    assert edge.left and edge.x == 372.0


def test_a_name_that_was_moved_away_has_a_line_to_it():
    places = place_names([(200.0, 100.0)] * 6, [60.0] * 6, ROOM)
    assert not places[0].far and places[-1].far and len(set(places)) == 6
