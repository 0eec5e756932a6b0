"""Tables that users name: CSV and TSV files with a header, in every form that `text_file` reads."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from debate_rl.errors import UserError, nearest
from debate_rl.records import clean_text
from debate_rl.text_file import open_text

LONGEST = 1 << 26
"""Characters of a cell at most: whole stories and transcripts stand in one; csv's own limit is 131,072."""


def csv_rows(
    path: str | Path,
    delimiter: str = ",",
    columns: Sequence[str] = (),
    member: Callable[[], BinaryIO] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (number of the line it ends in, cells by column) for each row below the header; its texts are clean.

    Args:
        path: the file.
        delimiter: what stands between cells.
        columns: that have to be there.
        member: as of `text_file.open_text`.

    Raises:
        UserError: the file is missing or can not be read, a column is missing or there twice, or a row is malformed;
            names file and line.
    """
    csv.field_size_limit(LONGEST)
    with open_text(path, "", member) as file:
        # Strict: else a quote that nothing closes takes in the rest of the file as one cell.
        reader = csv.reader((clean_text(line) for line in file), delimiter=delimiter, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                if not header:
                    header = [name.strip() for name in cells]
                    _check_header(header, columns, f"{path}:{reader.line_num}")
                elif cells:
                    _check_count(cells, header, delimiter, f"{path}:{reader.line_num}")
                    yield reader.line_num, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise UserError(
                f"{path}:{reader.line_num}: not a row of a CSV file ({error}); a cell with quotes in it is written in "
                'quotes, and its own are doubled: "she said ""yes"""'
            ) from error


def _check_header(header: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Check that the columns are there, and no two share a name: one would hide the other."""
    for name in columns if header else ():
        if name not in header:
            raise UserError(f"{where}: no column {name!r}; {nearest(name, header)}")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise UserError(f"{where}: two columns are called {twice[0]!r}; rename one")


def _check_count(cells: Sequence[str], header: Sequence[str], delimiter: str, where: str) -> None:
    if len(cells) != len(header):
        raise UserError(
            f"{where}: a row with another number of cells than the header ({len(cells)}, not {len(header)}); "
            f"put cells that hold {delimiter!r} or a line break into quotes"
        )
