"""Models on disk: damaged, renamed, swapped; and adapters that belong to another base."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from debate_rl.engines import file_hashes
from debate_rl.engines.weights import (
    check_adapter,
    check_sums,
    check_weights,
    fingerprint,
    header,
    local_folder,
    write_sums,
)
from debate_rl.errors import UserError


def model(folder: Path, fill: float = 0.0, width: int = 4, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": width}))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"layer.q_proj.weight": torch.full((width, 6), fill)}, folder / name)
    return folder


def adapter(folder: Path, width: int = 4, module: str = "layer.q_proj") -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "base_model_name_or_path": str(folder)}))
    tensors = {"lora_A.weight": torch.zeros(2, 6), "lora_B.weight": torch.zeros(width, 2)}
    save_file(
        {f"base_model.model.{module}.{part}": tensor for part, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


def test_a_fingerprint_is_of_the_content_not_the_place(tmp_path):
    first = model(tmp_path / "a")
    name = fingerprint(first)
    assert len(name) == 16
    assert int(name, 16) >= 0
    shutil.copytree(first, tmp_path / "b")
    config = json.loads((first / "config.json").read_text())
    moved = {"transformers_version": "9", "_name_or_path": "elsewhere", **config}
    (tmp_path / "b" / "config.json").write_text(json.dumps(moved, indent=2))
    assert fingerprint(tmp_path / "b") == name


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("special_tokens_map.json", True),
        ("additional_chat_templates/tool_use.jinja", True),
        ("vocab.txt", False),  # there is a tokenizer.json
    ],
)
def test_files_that_change_how_a_text_is_read_change_the_fingerprint(tmp_path, name, counts):
    folder = model(tmp_path / "a")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text('{"eos_token": "a"}')
    before = fingerprint(folder)
    (folder / name).write_text('{"eos_token": "b"}')
    assert (fingerprint(folder) != before) is counts


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.txt", "vocab.json", "merges.txt", "tekken.json"])
def test_tokenizers_of_other_kinds_are_part_of_the_fingerprint(tmp_path, name):
    folder = model(tmp_path / "a")
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(b'{"a": 1}')
    before = fingerprint(folder)
    (folder / name).write_bytes(b'{"b": 1}')
    assert fingerprint(folder) != before


@pytest.mark.parametrize("change", ["weight", "config", "tokenizer", "template"])
def test_a_fingerprint_follows_everything_that_changes_an_answer(tmp_path, change):
    folder = model(tmp_path / "a")
    before = fingerprint(folder)
    if change == "weight":
        tensors = load_file(folder / "model.safetensors")
        tensors["layer.q_proj.weight"][3, 5] = 1e-6
        save_file(tensors, folder / "model.safetensors")
    elif change == "config":
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 4, "rope_theta": 2}))
    else:
        (folder / ("tokenizer.json" if change == "tokenizer" else "chat_template.jinja")).write_text("other")
    assert fingerprint(folder) != before


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A model whose files count as large, with a cache of hashes of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "SMALL", 1000)
    return model(tmp_path / "a", 0.0, 512)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.999])
def test_any_byte_of_a_large_file_changes_its_name(large, place):
    before = fingerprint(large)
    path = large / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    assert fingerprint(large) != before


def test_a_large_file_is_read_once_until_it_is_touched(large, monkeypatch):
    before = fingerprint(large)
    monkeypatch.setattr(file_hashes, "_read_from", None)  # as another process would begin
    with monkeypatch.context() as patch:
        patch.setattr(file_hashes, "_computed", lambda path: pytest.fail("read again"))
        assert fingerprint(large) == before
    os.utime(large / "model.safetensors", ns=(1, 1))
    assert fingerprint(large) == before


def test_a_cache_that_is_torn_or_can_not_be_written_costs_time_only(large, tmp_path, monkeypatch):
    before = fingerprint(large)
    cache = file_hashes.cache_file()
    cache.write_bytes(cache.read_bytes()[:-20] + b"\xff\xfe")
    monkeypatch.setattr(file_hashes, "_read_from", None)
    assert fingerprint(large) == before
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fingerprint(large) == before


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_flipped_bit_of_a_saved_adapter_is_an_error(tmp_path, name):
    folder = adapter(tmp_path / "a")
    write_sums(folder)
    check_sums(folder)
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        check_sums(folder)


def test_damaged_weights_are_one_line_that_says_the_fix(tmp_path):
    folder = model(tmp_path / "a")
    assert check_weights(folder) == folder
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for cut in (4, 30, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"model.safetensors: (not a whole|cut off)"):
            check_weights(folder)
    path.write_bytes(whole)
    assert header(path)["layer.q_proj.weight"]["shape"] == [4, 6]
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"lacks model-2.safetensors"):
        check_weights(folder)


def test_folders_that_are_no_model_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"model not found: .*; give a folder"):
        check_weights(tmp_path / "none")
    with pytest.raises(UserError, match=r"no config.json"):
        check_weights(tmp_path)
    with pytest.raises(UserError, match="an adapter, give it as the adapter"):
        check_weights(adapter(tmp_path / "adapter"))
    folder = model(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"has no \*.safetensors weights"):
        check_weights(folder)


def test_hub_names_come_from_the_cache_or_say_that_the_hub_is_away(tmp_path, monkeypatch):
    import huggingface_hub

    folder = model(tmp_path / "snapshot")

    def download(name, allow_patterns, local_files_only=False):
        if name == "someone/cached":
            return str(folder)
        raise FileNotFoundError("offline\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fingerprint("someone/cached") == fingerprint(folder)
    with pytest.raises(UserError, match=r"someone/absent is no folder, and the hub did not give it \(offline\)$"):
        local_folder("someone/absent")


def test_an_adapter_with_a_note_belongs_to_that_base_only(tmp_path):
    mine, other = model(tmp_path / "mine"), model(tmp_path / "other", 1.0)
    lora = adapter(tmp_path / "lora")
    (lora / "base.json").write_text(json.dumps({"model": "mine", "fingerprint": fingerprint(mine)}))
    check_adapter(mine, lora)
    with pytest.raises(UserError, match=r"was trained on mine, not on .*other; use its own base"):
        check_adapter(other, lora)


def test_an_adapter_without_a_note_is_known_by_its_shapes(tmp_path):
    base = model(tmp_path / "base")
    check_adapter(base, adapter(tmp_path / "fits"))
    with pytest.raises(UserError, match=r"layer.q_proj is 4 x 6, the adapter expects 8"):
        check_adapter(base, adapter(tmp_path / "wide", width=8))
    with pytest.raises(UserError, match="none of its modules is in the model"):
        check_adapter(base, adapter(tmp_path / "strange", module="layer.x_proj"))
    with pytest.raises(UserError, match="is not an adapter folder"):
        check_adapter(base, base)


def test_the_order_in_which_peft_lists_modules_does_not_count(tmp_path):
    from tests.tiny import tiny_adapter, tiny_model

    adapter = Path(tiny_adapter(tiny_model(tmp_path / "model"), tmp_path / "adapter"))
    before = fingerprint(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"], reverse=True)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert fingerprint(adapter) == before
    config["target_modules"] = config["target_modules"][:-1]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert fingerprint(adapter) != before
