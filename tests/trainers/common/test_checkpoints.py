"""A checkpoint counts only if it was saved to its end."""

import json

import pytest
import torch

from debate_rl.engines.weights import write_sums
from debate_rl.errors import UserError
from debate_rl.trainers.common.checkpoints import is_complete, remove_partial_checkpoints

FILES = ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.safetensors"]


def save(folder, step):
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.zeros(300)}, path / name)
    save_file({"w": torch.zeros(300)}, path / "adapter_model.safetensors")
    return path


@pytest.mark.parametrize("damage", ["absent", "cut", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_partial_checkpoints_are_removed_and_the_last_whole_one_is_found(tmp_path, name, damage):
    whole, partial = save(tmp_path, 8), save(tmp_path, 12)
    if damage == "absent":
        (partial / name).unlink()
    else:
        data = (partial / name).read_bytes()
        (partial / name).write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    assert remove_partial_checkpoints(tmp_path) == whole
    assert not partial.exists()
    assert whole.exists()


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_with_a_flipped_bit_is_not_gone_on_from(tmp_path, name):
    whole, damaged = save(tmp_path, 8), save(tmp_path, 12)
    write_sums(damaged)
    data = bytearray((damaged / name).read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / name).write_bytes(data)
    assert remove_partial_checkpoints(tmp_path) == whole


def test_steps_are_compared_as_numbers_and_other_folders_are_left(tmp_path):
    for step in (8, 12, 100):
        save(tmp_path, step)
    (tmp_path / "checkpoint-notes").mkdir()
    assert remove_partial_checkpoints(tmp_path).name == "checkpoint-100"
    assert (tmp_path / "checkpoint-notes").exists()


def test_there_may_be_none(tmp_path):
    assert remove_partial_checkpoints(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-4").mkdir()
    assert remove_partial_checkpoints(tmp_path) is None


def test_a_missing_shard_is_noticed(tmp_path):
    path = save(tmp_path, 4)
    index = {"weight_map": {"w": "adapter_model.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert is_complete(path)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "a", "v": "b"}}))
    assert not is_complete(path)


@pytest.mark.parametrize("torn", [None, "optimizer.bin", "pytorch_model_fsdp.bin"])
def test_what_fsdp_gathers_counts_when_it_is_whole(tmp_path, torn):
    path = save(tmp_path, 4)
    (path / "adapter_model.safetensors").unlink()
    (path / "optimizer.pt").rename(path / "optimizer.bin")
    torch.save({"w": torch.zeros(300)}, path / "pytorch_model_fsdp.bin")
    if torn:
        (path / torn).write_bytes((path / torn).read_bytes()[:500])
    assert is_complete(path) == (torn is None)


def test_the_name_and_the_state_agree(tmp_path):
    path = save(tmp_path, 4)
    path.rename(tmp_path / "checkpoint-5")
    assert not is_complete(tmp_path / "checkpoint-5")


def test_every_process_has_its_random_numbers(tmp_path, monkeypatch):
    whole, partial = save(tmp_path, 4), save(tmp_path, 8)
    for path in (whole, partial):
        (path / "rng_state.pth").rename(path / "rng_state_0.pth")
    torch.save({}, whole / "rng_state_1.pth")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert remove_partial_checkpoints(tmp_path) == whole
    assert not partial.exists()


@pytest.mark.parametrize(("saved", "now"), [(2, 1), (1, 2)])
def test_a_checkpoint_of_other_processes_is_kept(tmp_path, monkeypatch, saved, now):
    path = save(tmp_path, 4)
    if saved == 2:
        (path / "rng_state.pth").rename(path / "rng_state_0.pth")
        torch.save({}, path / "rng_state_1.pth")
    monkeypatch.setenv("WORLD_SIZE", str(now))
    with pytest.raises(UserError, match=f"is of {saved} processes, and {now} train"):
        remove_partial_checkpoints(tmp_path)
    assert path.exists()
