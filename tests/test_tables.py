"""Tables with a header: cells of any size, and rows that are none."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.tables import csv_rows

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=9)


@given(st.lists(st.tuples(CELL, CELL), max_size=5), st.sampled_from([",", "\t"]))
def test_what_csv_writes_is_read_back(tmp_path_factory, rows, delimiter):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows([("a", "b"), *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.getvalue().encode())
    assert [tuple(row.values()) for _, row in csv_rows(path, delimiter)] == rows


def test_a_cell_of_200_kb_is_read(tmp_path):
    (tmp_path / "x.csv").write_text(f"a,b\n1,{'x' * 200_000}\n2,y\n")
    assert [len(row["b"]) for _, row in csv_rows(tmp_path / "x.csv")] == [200_000, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n', r"x.csv:5: not a row of a CSV file \(unexpected end of data\); .*doubled"),
        ('a,b\n1,"2"3\n', r"x.csv:2: not a row of a CSV file"),
        ("a,b\n1,2\n\n3\n", r"x.csv:4: a row with another number of cells than the header \(1, not 2\)"),
        ("a,b,a\n1,2,3\n", r"x.csv:1: two columns are called 'a'"),
        ("b,c\n1,2\n", r"x.csv:1: no column 'a'; choose one of: b, c"),
    ],
)
def test_a_row_that_is_none_is_named_by_file_and_line(tmp_path, text, said):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        list(csv_rows(tmp_path / "x.csv", columns=("a",)))


def test_text_in_a_table_is_clean_and_names_of_columns_have_no_space_around(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a , b\n\x00,\xed\xa0\xbd!\n")
    assert [row for _, row in csv_rows(tmp_path / "x.csv")] == [{"a": "\ufffd", "b": "\ufffd!"}]
