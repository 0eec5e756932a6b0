"""Records and their files: frozen typed values whose form in memory is their line in a file."""

from debate_rl.records.files import (
    LARGEST_CELL,
    LARGEST_YAML,
    SUMS,
    append_bytes,
    csv_rows,
    dumped,
    lines,
    not_text,
    open_text,
    read,
    read_json,
    read_kept,
    read_yaml,
    write,
    write_json,
    write_pieces,
    write_text,
)
from debate_rl.records.lock import locked
from debate_rl.records.log import Span, append, parse_line, read_log, scan_log
from debate_rl.records.record import R, Record, digest, explain
from debate_rl.records.text import clean_text, clean_value, folded, spaced_after

__all__ = [
    "LARGEST_CELL",
    "LARGEST_YAML",
    "R",
    "Record",
    "SUMS",
    "Span",
    "append",
    "append_bytes",
    "clean_text",
    "clean_value",
    "csv_rows",
    "digest",
    "dumped",
    "explain",
    "folded",
    "lines",
    "locked",
    "not_text",
    "open_text",
    "parse_line",
    "read",
    "read_json",
    "read_kept",
    "read_log",
    "read_yaml",
    "scan_log",
    "spaced_after",
    "write",
    "write_json",
    "write_pieces",
    "write_text",
]
