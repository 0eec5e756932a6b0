"""Several processes give the losses and the adapter of one, by every config that ships."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from debate_rl.errors import UserError
from debate_rl.records import read_json, write
from debate_rl.trainers.job import launch, run_job
from debate_rl.trainers.rows import SftRow

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs/accelerate"
TRAIN = {"max_steps": 4, "logging_steps": 1, "save_steps": 2, "learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def in_one_and_in_two(make_job, kind, config, **fields):
    """The same global batch of 4, in one process and in two of 2; returns losses and adapters."""
    train = {**TRAIN, **fields.pop("train", {})}
    one = run_job(
        make_job(kind, 16, out="one", train={**train, "per_device_train_batch_size": 4}, **fields), quiet=True
    )
    two = launch(
        make_job(kind, 16, out="two", train={**train, "per_device_train_batch_size": 2}, **fields), config, processes=2
    )
    losses = [[e["loss"] for e in read_json(Path(r.path).parent / "history.json") if "loss" in e] for r in (one, two)]
    return losses, [load_file(next(Path(r.path).glob("*.safetensors"))) for r in (one, two)]


def assert_same(losses, adapters, tolerance=1e-5):
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], abs=tolerance)
    assert set(adapters[0]) == set(adapters[1])
    worst = max((adapters[0][name] - adapters[1][name]).abs().max().item() for name in adapters[0])
    assert worst < 10 * tolerance
    assert any(tensor.abs().max() > 0 for name, tensor in adapters[1].items() if "lora_B" in name)


def test_two_processes_give_the_losses_of_one(make_job):
    assert_same(*in_one_and_in_two(make_job, "dpo", str(CONFIGS / "multi_gpu.yaml")))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "judge", "classifier"])
def test_two_processes_for_every_kind(make_job, kind):
    assert_same(*in_one_and_in_two(make_job, kind, str(CONFIGS / "multi_gpu.yaml")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "kind"), [("zero2", "sft"), ("zero2", "dpo"), ("zero3", "dpo"), ("zero3", "classifier")]
)
def test_deepspeed_gives_the_losses_of_one(make_job, config, kind):
    assert_same(*in_one_and_in_two(make_job, kind, str(CONFIGS / f"{config}.yaml")))


@pytest.mark.slow
def test_deepspeed_saves_a_whole_model(make_job):
    from transformers import AutoModelForCausalLM

    losses, models = in_one_and_in_two(make_job, "sft", str(CONFIGS / "zero3.yaml"), lora=None)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert all(models[0][name].shape == tensor.shape for name, tensor in models[1].items())
    assert max((models[0][name] - models[1][name]).abs().max() for name in models[1]) < 1e-3
    assert AutoModelForCausalLM.from_pretrained(make_job("sft", out="two").out + "/model").dtype == torch.float32


@pytest.mark.slow
def test_a_reference_computed_before_is_shared_by_processes(make_job):
    losses, adapters = in_one_and_in_two(
        make_job, "dpo", str(CONFIGS / "multi_gpu.yaml"), train={"precompute_ref_log_probs": True}
    )
    assert_same(losses, adapters)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
def test_fsdp2_gives_the_losses_of_one(make_job, tmp_path, monkeypatch, lora):
    """accelerate shards on GPUs only; a site module makes it do so over gloo."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, pathlib\n"
        "from accelerate import PartialState\nfrom accelerate.state import AcceleratorState\n"
        "from accelerate.utils import DistributedType\n"
        "PartialState._prepare_backend = lambda self, *a, **k: ('gloo', DistributedType.MULTI_GPU)\n"
        f"seen = pathlib.Path({str(tmp_path)!r}) / 'seen'\n"
        "def note():\n"
        "    if AcceleratorState._shared_state:\n"
        "        seen.write_text(str(AcceleratorState._shared_state['distributed_type']))\n"
        "atexit.register(note)\n"
    )
    train = {**TRAIN, "per_device_train_batch_size": 4}
    fields = {} if lora else {"lora": None}
    one = run_job(make_job("sft", 16, out="one", train=train, **fields), quiet=True)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    train |= {"per_device_train_batch_size": 2, "use_cpu": False, "ddp_backend": "gloo"}
    two = launch(make_job("sft", 16, out="two", train=train, **fields), str(CONFIGS / "fsdp2.yaml"), processes=2)
    assert (tmp_path / "seen").read_text() == "DistributedType.FSDP"
    assert two.loss == pytest.approx(one.loss, abs=1e-4)
    found, expected = (load_file(next(Path(r.path).glob("*.safetensors"))) for r in (two, one))
    assert max((found[name] - expected[name]).abs().max() for name in expected) < 1e-3


@pytest.mark.slow
def test_processes_that_would_train_alone_are_refused(make_job):
    job = make_job("sft", train={"use_cpu": False, "ddp_backend": "gloo"})
    with pytest.raises(UserError, match="2 processes were started but each would train alone"):
        launch(job, str(CONFIGS / "multi_gpu.yaml"), processes=2)


@pytest.mark.slow
def test_a_mistake_in_a_launched_job_comes_back_as_one_line(make_job, tmp_path):
    write(tmp_path / "rows.jsonl", [SftRow(prompt=[], completion="x")])
    job = make_job("sft", rows=str(tmp_path / "rows.jsonl"), train={"lerning_rate": 1})
    with pytest.raises(UserError, match=r"unknown key 'train.lerning_rate'; did you mean 'learning_rate'\?"):
        launch(job, str(CONFIGS / "single.yaml"))


def test_configs_name_files_that_are_there(monkeypatch, make_job, tmp_path):
    for path in CONFIGS.glob("*.yaml"):
        settings = yaml.safe_load(path.read_text())
        if "deepspeed_config" in settings:
            json.loads((ROOT / settings["deepspeed_config"]["deepspeed_config_file"]).read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"zero2.json not found; run from the repository's root"):
        launch(make_job("sft"), str(CONFIGS / "zero2.yaml"))
    with pytest.raises(UserError, match=r"accelerate config not found"):
        launch(make_job("sft"), "none.yaml")
