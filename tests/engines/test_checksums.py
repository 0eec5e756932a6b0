"""Checksums: every byte counts, what did not change is not read again, and a damaged folder is one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.engines import checksums
from debate_rl.engines.checksums import CHECKSUMS_FILE, check_checksums, write_checksums
from debate_rl.engines.weights import check_adapter, check_weights, fingerprint
from debate_rl.errors import UserError

from .test_weights import adapter, model

LARGE = 70 << 20


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and files that count as settled at once."""
    monkeypatch.setenv("DEBATE_RL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "_remembered", {})
    monkeypatch.setattr(checksums, "_SETTLED", -1e9)
    return tmp_path / "cache"


def large_model(folder: Path, shards: int = 1) -> Path:
    """A model with weights above the size from which they are remembered; mostly holes on disk."""
    model(folder)
    (folder / "model.safetensors").unlink()
    for shard in range(shards):
        head = json.dumps({f"w{shard}": {"dtype": "U8", "shape": [LARGE], "data_offsets": [0, LARGE]}}).encode()
        with open(folder / f"model-{shard}.safetensors", "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            file.truncate(8 + len(head) + LARGE)
    return folder


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Flip one bit of a file, and put its modification time back, as some copying does."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def bytes_read() -> int:
    """Bytes that this process has read so far."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("counting what is read needs /proc")
    return int(counters.read_text().split()[1])


def test_one_byte_anywhere_in_large_weights_changes_their_name(tmp_path):
    folder = large_model(tmp_path / "model")
    path, names = folder / "model-0.safetensors", {fingerprint(folder)}
    for place in (100_003, 1_100_007, 33_000_001, checksums.BLOCK - 1, checksums.BLOCK, LARGE - 1):
        flip(path, place)
        names.add(fingerprint(folder))
    assert len(names) == 7


@given(st.binary(min_size=1, max_size=400), st.data())
def test_every_byte_counts_whatever_the_size_of_a_block(content, data):
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "BLOCK", data.draw(st.sampled_from([1, 16, 100, 1000])))
        patch.setattr(checksums, "_READ", data.draw(st.sampled_from([1, 7, 64])))
        path = Path(folder, "a")
        path.write_bytes(content)
        before = checksums.checksums([path], remembered=False)[path]
        assert checksums.checksums([path], remembered=False)[path] == before
        flip(path, data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7)))
        assert checksums.checksums([path], remembered=False)[path] != before


def test_weights_that_nobody_touched_are_not_read_again(tmp_path, monkeypatch):
    folder = large_model(tmp_path / "model", shards=2)
    start = bytes_read()
    name = fingerprint(folder)
    assert bytes_read() - start > 2 * LARGE
    monkeypatch.setattr(checksums, "_remembered", {})  # as another process would find it
    start = bytes_read()
    assert fingerprint(folder) == name
    assert bytes_read() - start < 1 << 20
    flip(folder / "model-1.safetensors", LARGE // 2)
    start = bytes_read()
    assert fingerprint(folder) != name
    assert LARGE < bytes_read() - start < 2 * LARGE, "of two shards the changed one is read"


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "_SETTLED", 1e9)
    folder = large_model(tmp_path / "model")
    fingerprint(folder)
    start = bytes_read()
    fingerprint(folder)
    assert bytes_read() - start > LARGE


@pytest.mark.parametrize("damage", ["sum", "cut", "other", "binary"])
def test_a_damaged_memory_gives_the_same_name(tmp_path, cache, monkeypatch, damage):
    folder = large_model(tmp_path / "model")
    name = fingerprint(folder)
    monkeypatch.setattr(checksums, "_remembered", {})
    (entry,) = cache.rglob("*.json")
    if damage == "sum":
        fields = json.loads(entry.read_text())
        fields["sum"] = "0" * 64
        entry.write_text(json.dumps(fields))
    else:
        entry.write_bytes({"cut": entry.read_bytes()[:50], "other": b"[1, 2]", "binary": b"\xff\x00"}[damage])
    assert fingerprint(folder) == name


def test_without_a_cache_folder_it_is_remembered_in_the_process(tmp_path, cache):
    cache.write_text("no folder")
    folder = large_model(tmp_path / "model")
    name = fingerprint(folder)
    start = bytes_read()
    assert fingerprint(folder) == name
    assert bytes_read() - start < 1 << 20


def test_processes_that_name_the_same_weights_at_once_agree(tmp_path, cache):
    folder = large_model(tmp_path / "model")
    code = f"from debate_rl.engines.weights import fingerprint; print(fingerprint({str(folder)!r}))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = {process.communicate()[0].strip() for process in started}
    assert names == {fingerprint(folder)}
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_a_flipped_bit_of_an_adapter_is_one_line(tmp_path):
    base, lora = model(tmp_path / "base"), adapter(tmp_path / "lora")
    write_checksums(lora)
    check_adapter(base, lora)
    path = lora / "adapter_model.safetensors"
    for place in (path.stat().st_size - 1, path.stat().st_size - 30):
        flip(path, place, 6)
        with pytest.raises(UserError, match=r"^.*adapter_model.safetensors is damaged: it is not what was saved; copy"):
            check_adapter(base, lora)
        flip(path, place, 6)
    check_adapter(base, lora)


@given(st.data())
def test_any_flipped_bit_of_a_sealed_folder_is_an_error_or_changes_nothing(data):
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "adapter")
        adapter(folder)
        write_checksums(folder)
        path = data.draw(st.sampled_from(sorted(folder.iterdir())))
        flip(path, data.draw(st.integers(0, path.stat().st_size - 1)), data.draw(st.integers(0, 7)))
        with pytest.raises(UserError) as error:
            check_checksums(folder)
        assert "\n" not in str(error.value)


def test_damaged_models_and_missing_files_are_one_line(tmp_path):
    folder = model(tmp_path / "model")
    write_checksums(folder)
    assert check_weights(folder) == folder
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert check_weights(moved) == moved
    (moved / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer.json is missing, which checksums.json names"):
        check_weights(moved)
    (folder / CHECKSUMS_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"checksums.json is damaged; copy the folder again"):
        check_weights(folder)
