"""Several processes give the losses and the adapter of one, by every config that ships."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from debate_rl.errors import UserError
from debate_rl.judges.judge import Judge
from debate_rl.records import locked, read_json, read_log, write, write_json
from debate_rl.trainers.common.checkpoints import is_complete, remove_partial_checkpoints
from debate_rl.trainers.common.job import launch, run_job
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.common.settings import Job, Lora
from debate_rl.trainers.grpo.eval_metrics import Point
from debate_rl.trainers.grpo.settings import Online, Rewards, Watch
from tests import ROOT, forked
from tests.real_model import model_folder
from tests.trainers.games import questions, rules

CONFIGS = ROOT / "configs/accelerate"
TRAIN = {"max_steps": 4, "logging_steps": 1, "save_steps": 2, "learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def by_hand(job, processes):
    """Train in so many processes that were started as torchrun or srun would."""
    order = Path(job.out).with_suffix(".json")
    write_json(order, job.model_dump(mode="json"))
    outputs = [order.with_suffix(f".{rank}.txt") for rank in range(processes)]
    codes = forked.run_ranks(outputs, "debate_rl.trainers.common.job", order)
    assert codes == [0] * processes, outputs[0].read_text()
    return run_job(job, quiet=True)  # finished: it is read


def in_one_and_in_two(make_job, kind, config=None, launched=(), **fields):
    """The same global batch of 4, in one process and in two of 2, with settings of these alone: losses, adapters.

    Two processes are launched with an accelerate config, or started by hand where there is none.
    """
    train = {**TRAIN, **fields.pop("train", {})}
    one = run_job(
        make_job(kind, 16, out="one", train={**train, "per_device_train_batch_size": 4}, **fields), quiet=True
    )
    train = {**train, **dict(launched), "per_device_train_batch_size": 2}
    job = make_job(kind, 16, out="two", train=train, **fields)
    two = by_hand(job, 2) if config is None else launch(job, config, processes=2)
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
    assert_same(*in_one_and_in_two(make_job, "dpo"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "dpo", "judge", "classifier"])
def test_two_processes_for_every_kind(make_job, kind):
    assert_same(*in_one_and_in_two(make_job, kind, str(CONFIGS / "multi_gpu.yaml")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "kind"), [("zero2", "sft"), ("zero2", "dpo"), ("zero3", "dpo"), ("zero3", "classifier")]
)
def test_deepspeed_gives_the_losses_of_one(make_job, config, kind):
    shared = {"share_prompt": True} if kind == "dpo" else {}
    assert_same(*in_one_and_in_two(make_job, kind, str(CONFIGS / f"{config}.yaml"), **shared))


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


OVER_GLOO = """
import atexit, pathlib
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
PartialState._prepare_backend = lambda self, *a, **k: ("gloo", DistributedType.MULTI_GPU)
def note():
    if AcceleratorState._shared_state:
        pathlib.Path(__file__).with_name("seen").write_text(str(AcceleratorState._shared_state["distributed_type"]))
atexit.register(note)
"""
KILLED_WHILE_SAVING = """
import os, signal
from transformers.trainer_callback import TrainerState
save = TrainerState.save_to_json
def kill(self, path):
    if "checkpoint-4" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, path)
TrainerState.save_to_json = kill
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Sets a module that every Python process of a launch reads as it starts."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    return tmp_path / "sitecustomize.py"


def fsdp(monkeypatch):
    """accelerate shards on GPUs only; with a site module of OVER_GLOO it does so here as well."""
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    return {"use_cpu": False, "ddp_backend": "gloo"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "lora"), [("dpo", True), ("sft", False)])
def test_fsdp2_gives_the_losses_of_one(make_job, site, monkeypatch, kind, lora):
    site.write_text(OVER_GLOO)
    fields = {} if lora else {"lora": None}
    losses, (expected, found) = in_one_and_in_two(
        make_job, kind, str(CONFIGS / "fsdp2.yaml"), fsdp(monkeypatch), **fields
    )
    assert site.with_name("seen").read_text() == "DistributedType.FSDP"
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert max((found[name] - expected[name]).abs().max() for name in expected) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("config", ["multi_gpu", "zero2", "zero3"])
def test_four_bit_bases_give_the_losses_of_one(make_job, config):
    """TRL keeps the adapter of a quantized model in bfloat16, hence the looser bar."""
    losses, adapters = in_one_and_in_two(
        make_job, "dpo", str(CONFIGS / f"{config}.yaml"), quantize="nf4", train={"learning_rate": 1e-3}
    )
    assert losses[1] == pytest.approx(losses[0], abs=5e-4)
    assert len(set(losses[0])) == 4
    assert set(adapters[0]) == set(adapters[1])


@pytest.mark.slow
@pytest.mark.parametrize("config", ["zero2", "zero3", "fsdp2"])
def test_processes_killed_while_saving_a_checkpoint_go_on(make_job, site, monkeypatch, config):
    """Weights, optimizer and shards of checkpoint 4 are on disk, its last file is not: training goes on from 2."""
    one = make_job("dpo", 24, out="one", train={**TRAIN, "max_steps": 6, "per_device_train_batch_size": 4})
    expected = load_file(Path(run_job(one, quiet=True).path) / "adapter_model.safetensors")
    shim = OVER_GLOO if config == "fsdp2" else ""
    site.write_text(shim + KILLED_WHILE_SAVING)
    more = fsdp(monkeypatch) if config == "fsdp2" else {}
    train = {**TRAIN, "max_steps": 6, "per_device_train_batch_size": 2, **more}
    job = make_job("dpo", 24, out="two", train=train)
    with pytest.raises(RuntimeError, match="training ended with exit code"):
        launch(job, str(CONFIGS / f"{config}.yaml"), processes=2)
    folder = Path(job.out) / "checkpoints"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert remove_partial_checkpoints(folder) == folder / "checkpoint-2"
    monkeypatch.delenv("WORLD_SIZE")
    site.write_text(shim)
    result = launch(job, str(CONFIGS / f"{config}.yaml"), processes=2)
    histories = [read_json(f"{j.out}/history.json") for j in (one, job)]
    losses = [[(e["step"], e["loss"]) for e in entries if "loss" in e] for entries in histories]
    assert [step for step, _ in losses[1]] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in losses[1]] == pytest.approx([loss for _, loss in losses[0]], abs=1e-5)
    found = load_file(Path(result.path) / "adapter_model.safetensors")
    assert max((found[name] - expected[name]).abs().max() for name in expected) < 1e-4


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


@pytest.mark.parametrize("kind", ["'NO'", "NO"])
def test_a_config_for_one_process_does_not_start_several(make_job, tmp_path, kind):
    (tmp_path / "one.yaml").write_text(f"distributed_type: {kind}\nnum_processes: 1\n")
    with pytest.raises(UserError, match=r"one.yaml trains in one process, and 2 are asked for; .*multi_gpu.yaml"):
        launch(make_job("sft"), str(tmp_path / "one.yaml"), processes=2)


ONLINE = {"num_generations": 2, "max_steps": 3, "logging_steps": 1, "save_steps": 3, "learning_rate": 1e-4, "beta": 0.1}


def online_in_one_and_in_two(make_job, tmp_path, base, other_base, config):
    """Two questions a step, in one process and in two of one each; the policy starts from an adapter."""
    start = run_job(make_job("sft", out="sft", model=base), quiet=True).path
    write(tmp_path / "questions.jsonl", questions(8))
    settings = Online(
        protocol=rules(max_new_tokens=8),
        judge=Judge(model=other_base),
        rewards=Rewards(truncated="keep"),
        watch=Watch(every=2),
        watch_questions=str(tmp_path / "questions.jsonl"),
    )

    def job(out, **train):
        return Job(
            kind="grpo",
            model=base,
            adapter=start,
            rows=str(tmp_path / "questions.jsonl"),
            out=str(tmp_path / out),
            lora=Lora(r=4, alpha=8),
            online=settings,
            train={**ONLINE, "gradient_accumulation_steps": 1, **train},
        )

    one = run_job(job("one", per_device_train_batch_size=8), quiet=True)
    two = launch(job("two", per_device_train_batch_size=4), config, processes=2)
    history = [read_json(Path(result.path).parent / "history.json") for result in (one, two)]
    return [[entry for entry in found if "loss" in entry] for found in history], one, two


@pytest.mark.slow
@pytest.mark.parametrize("config", ["multi_gpu", "zero2", "zero3"])
def test_online_training_in_two_processes_gives_the_losses_of_one(make_job, tmp_path, base, other_base, config):
    (one, two), first, second = online_in_one_and_in_two(
        make_job, tmp_path, base, other_base, str(CONFIGS / f"{config}.yaml")
    )
    assert len(one) == 3 and any(abs(entry["loss"]) > 1e-3 for entry in one)
    for name in ("loss", "kl", "entropy", "rewards/win/mean", "reward_std"):
        assert [entry[name] for entry in two] == pytest.approx([entry[name] for entry in one], abs=1e-5), name
    adapters = [load_file(next(Path(result.path).glob("*.safetensors"))) for result in (first, second)]
    assert max((adapters[0][name] - adapters[1][name]).abs().max().item() for name in adapters[0]) < 1e-4
    curves = [read_log(Path(result.path).parent / "curve.jsonl", Point) for result in (first, second)]
    assert [point.step for point in curves[0]] == [point.step for point in curves[1]] == [0, 2, 3]
    assert [p.accuracy.value for p in curves[0]] == pytest.approx([p.accuracy.value for p in curves[1]])


# Long ones: a launch loads 135 million weights into each of two processes.
@pytest.mark.slow
@pytest.mark.parametrize("config", ["multi_gpu", "zero2", "zero3", "fsdp2"])
@pytest.mark.parametrize("kind", ["sft", "dpo", "judge"])
def test_a_real_model_gives_the_losses_of_one_process(make_job, site, monkeypatch, config, kind):
    launched = {}
    if config == "fsdp2":
        site.write_text(OVER_GLOO)
        launched = fsdp(monkeypatch)
    train = {"learning_rate": 1e-4, "save_steps": 4, "bf16": False}
    losses, adapters = in_one_and_in_two(
        make_job, kind, str(CONFIGS / f"{config}.yaml"), launched, model=str(model_folder()), train=train
    )
    print(f"{config} {kind}: one process {losses[0]}, two {losses[1]}")
    assert len(losses[0]) == 4 and losses[0][3] != losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert set(adapters[0]) == set(adapters[1])


@pytest.mark.slow
@pytest.mark.parametrize("config", ["multi_gpu", "zero2", "zero3"])
def test_a_real_model_learns_online_in_two_processes_as_in_one(make_job, tmp_path, config):
    real = str(model_folder())
    (one, two), _, _ = online_in_one_and_in_two(make_job, tmp_path, real, real, str(CONFIGS / f"{config}.yaml"))
    print(f"{config} grpo: one process {[entry['loss'] for entry in one]}, two {[entry['loss'] for entry in two]}")
    assert len(one) == 3
    for name in ("loss", "rewards/win/mean"):
        assert [entry[name] for entry in two] == pytest.approx([entry[name] for entry in one], abs=1e-3), name


LAUNCHER = """
import sys
from debate_rl.records import read_json
from debate_rl.trainers.common.job import launch
from debate_rl.trainers.common.settings import Job
launch(Job.model_validate(read_json(sys.argv[1])), sys.argv[2])
"""


def holders(folder):
    """Processes that have a file of a folder open or on their command line."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace")
            state = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in words and state != "Z" and int(path.name) != os.getpid():
            pids.append(int(path.name))
    return pids


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="processes are found in /proc")
def test_a_killed_run_takes_the_training_that_it_launched_along(make_job, tmp_path):
    train = {**TRAIN, "max_steps": 100_000, "save_steps": 5, "save_total_limit": 2}
    job = make_job("sft", 16, train=train)
    order = tmp_path / "order" / "job.json"
    write_json(order, job.model_dump(mode="json"))
    command = [sys.executable, "-c", LAUNCHER, str(order), str(CONFIGS / "single.yaml")]
    said = tmp_path / "said"
    with said.open("wb") as output:
        run = subprocess.Popen(command, stdout=output, stderr=output)
    checkpoints = Path(job.out) / "checkpoints"
    try:
        # A whole one: a folder of that name is there as soon as the first of its files is written.
        while run.poll() is None and not any(map(is_complete, checkpoints.glob("checkpoint-*"))):
            time.sleep(0.05)
        assert run.poll() is None and holders(Path(job.out) / "launch.json"), said.read_text()[-2000:]
        killed = time.monotonic()
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    while holders(Path(job.out) / "launch.json"):
        assert time.monotonic() - killed < 60, "the training goes on without its run"
        time.sleep(0.05)
    print(f"the training was gone {time.monotonic() - killed:.1f} s after its run")
    assert remove_partial_checkpoints(checkpoints) is not None  # from which the next one goes on
    with locked(Path(job.out) / ".training.lock", "the folder is still held"):
        pass
