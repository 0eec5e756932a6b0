"""Data files in every encoding and packing that people have them in."""

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.records import clean_text, lines, read_json
from debate_rl.tables import csv_rows
from debate_rl.text_file import open_text, plain_suffix, read_text

PACKINGS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
ROWS = [{"a": "é\u2028 ½", "b": "x"}, {"a": "", "b": "日本"}]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_in_any_unicode_encoding_packed_or_not_is_read(tmp_path, encoding, packing, end):
    said = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    texts = {
        "x.jsonl": end.join(said),
        "x.json": f"[{said[0]},{end}{said[1]}]",
        "x.csv": f"a,b{end}é\u2028 ½,x{end},日本",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}{packing}"
        path.write_bytes(PACKINGS[packing](text.encode(encoding)))
        read = {".jsonl": lambda p: [row for _, row in lines(p)], ".json": read_json,
                ".csv": lambda p: [row for _, row in csv_rows(p)]}[plain_suffix(path)]  # fmt: skip
        assert read(path) == ROWS


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_line_that_is_not_utf_8_is_named_however_far_the_decoder_reads_ahead(tmp_path, suffix):
    good = {".jsonl": b'{"a": "x"}\n', ".csv": b"x,y\n"}[suffix]
    bad = {".jsonl": b'{"a": "caf\xe9"}\n', ".csv": b"caf\xe9,y\n"}[suffix]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(good * 5000 + bad + good * 5000)
    with pytest.raises(UserError) as caught:
        list(lines(path) if suffix == ".jsonl" else csv_rows(path))
    assert str(caught.value).startswith(
        f"{path}:5001: not UTF-8 (byte 0xe9); save the file as UTF-8, for example with: "
    )
    assert f"iconv -f CP1252 -t UTF-8 {path} > NEW" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x28\xb5\x2f\xfd\x04\x00", "zstd -d "),
        (b"PK\x03\x04", "unzip "),
        (gzip.compress(b"x" * 99)[:-20], "the packed file is damaged .*; get it again"),
        (b"\x1f\x8bno gzip at all", "the packed file is damaged|can not be read"),
        (lzma.compress(b"x" * 9999)[:40], "the packed file is damaged .*; get it again"),
        (b"BZh91AY", "the packed file is damaged|can not be read"),
    ],
)
def test_what_can_not_be_unpacked_is_one_line_that_says_what_to_do(tmp_path, data, said):
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said) as caught:
        list(lines(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_zstd_is_read_where_python_can(tmp_path, monkeypatch):
    module = types.ModuleType("compression.zstd")
    module.open = lambda raw: io.BytesIO(b"text")
    monkeypatch.setitem(sys.modules, "compression", types.ModuleType("compression"))
    monkeypatch.setitem(sys.modules, "compression.zstd", module)
    (tmp_path / "x.zst").write_bytes(b"\x28\xb5\x2f\xfd\x04\x00")
    assert read_text(tmp_path / "x.zst") == "text"


def test_what_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((tmp_path, "is a folder"), ("/dev/zero", "is a device or a pipe"), (tmp_path / "pipe", "a pipe"),
                       (tmp_path / "none", "file not found")):  # fmt: skip
        with pytest.raises(UserError, match=said), open_text(path):
            pass


def held(path, rows, escaped):
    """Rows after they were written to a file and read."""
    text = "".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return [row for _, row in lines(path)]


@given(st.lists(st.dictionaries(st.text(st.characters()), st.text(st.characters())), max_size=4), st.booleans())
def test_whatever_a_file_holds_can_be_written_again(tmp_path_factory, rows, escaped):
    found = held(tmp_path_factory.getbasetemp() / "any.jsonl", rows, escaped)
    assert len(found) == len(rows)
    json.dumps(found, ensure_ascii=False).encode()  # strict: no half surrogate pair
    assert not any("\x00" in text for row in found for text in (*row, *row.values()))


@given(st.lists(st.dictionaries(st.text(), st.text()), max_size=4), st.booleans())
def test_clean_texts_stay_as_they_are(tmp_path_factory, rows, escaped):
    path = tmp_path_factory.getbasetemp() / "clean.jsonl"
    rows = [{clean_text(key): clean_text(value) for key, value in row.items()} for row in rows]
    assert held(path, rows, escaped) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": ' + "[" * 100_000, "x.jsonl:1: not valid JSON .*nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "x.jsonl:1: not valid JSON "),
        ('{"a": 1}\n{"a": 1', "x.jsonl:2: not valid JSON "),
    ],
)
def test_json_that_can_not_be_held_is_one_line(tmp_path, text, said):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(UserError, match=said):
        list(lines(tmp_path / "x.jsonl"))
