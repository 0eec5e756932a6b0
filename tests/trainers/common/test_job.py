"""Jobs: what a user gets wrong, what a killed job leaves, what a finished one gives."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import TrainerCallback

from debate_rl.engines.weights import fingerprint
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.judges.function import FunctionJudge
from debate_rl.judges.panel import Panel
from debate_rl.records import locked, read_json, write, write_json
from debate_rl.trainers.common.job import launch, main, run_job
from debate_rl.trainers.common.settings import Job, Lora
from debate_rl.trainers.grpo.settings import Online
from tests import forked
from tests.trainers.tiny import EXAMPLES, make_model, sft_examples

DROPOUT = Lora(r=4, alpha=8, dropout=0.1)
SAVING = {"max_steps": 9, "save_steps": 3, "logging_steps": 2, "lr_scheduler_type": "cosine", "warmup_steps": 2}


class Stop(TrainerCallback):
    """Ends a training as a crash would, at a given step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def weights(result):
    return next(Path(result.path).glob("*.safetensors")).read_bytes()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_broken_job_ends_as_one_that_was_not(make_job, kind):
    whole = run_job(make_job(kind, 10, out="whole", lora=DROPOUT, train=SAVING), quiet=True)
    job = make_job(kind, 10, out="broken", lora=DROPOUT, train=SAVING)
    with pytest.raises(KeyboardInterrupt):
        run_job(job, [Stop(5)], quiet=True)
    assert not Path(job.out, "adapter").exists()
    (Path(job.out) / "checkpoints/checkpoint-6").mkdir()  # a kill while the next one was being saved
    seen = []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append(state.global_step)

    resumed = run_job(job, [Watch()], quiet=True)
    assert seen == list(range(3, 9))
    assert weights(resumed) == weights(whole)
    assert read_json(f"{job.out}/history.json") == read_json(f"{Path(whole.path).parent}/history.json")
    assert resumed.loss == whole.loss
    assert sorted(p.name for p in Path(job.out).iterdir()) == [
        "adapter", "history.json", "job.json", "result.json", "tokens.json",
    ]  # fmt: skip


def test_a_job_broken_between_training_and_saving_loses_nothing(make_job, monkeypatch):
    from debate_rl.trainers.common import job as module

    whole = run_job(make_job("sft", 10, out="whole", train=SAVING), quiet=True)
    job = make_job("sft", 10, out="broken", train=SAVING)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_tidy", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_job(job, quiet=True)
    assert not Path(job.out, "adapter").exists()
    resumed = run_job(job, quiet=True)
    assert weights(resumed) == weights(whole)
    assert read_json(f"{job.out}/history.json") == read_json(f"{Path(whole.path).parent}/history.json")


def test_a_process_killed_midway_goes_on_bitwise(make_job):
    """A real SIGKILL, a start adapter whose copy is the reference, and the last checkpoint torn as well."""
    sft = run_job(make_job("sft", out="sft", train={"learning_rate": 1e-2}), quiet=True)
    train = {**SAVING, "max_steps": 60, "save_steps": 4}
    whole = run_job(make_job("dpo", 24, out="whole", adapter=sft.path, train=train), quiet=True)
    job = make_job("dpo", 24, out="killed", adapter=sft.path, train=train)
    order = Path(job.out).with_suffix(".json")
    write_json(order, job.model_dump(mode="json"))
    process = forked.start("debate_rl.trainers.common.job", order)
    folder = Path(job.out) / "checkpoints"
    deadline = time.monotonic() + 500  # it comes in seconds where the processor is free
    while not (folder / "checkpoint-12").exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the process ended before it could be killed"
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in newest.glob("optimizer.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    assert not Path(job.out, "adapter").exists()
    resumed = run_job(job, quiet=True)
    assert weights(resumed) == weights(whole)
    assert read_json(f"{job.out}/history.json") == read_json(f"{Path(whole.path).parent}/history.json")


@pytest.mark.parametrize(
    ("step", "torn"),
    [
        ("save_model", "adapter_model.safetensors"),
        ("_save_optimizer_and_scheduler", "optimizer.pt"),
        ("_save_optimizer_and_scheduler", "scheduler.pt"),
        ("_save_rng_state", "rng_state.pth"),
        ("_save_checkpoint", "trainer_state.json"),
    ],
)
def test_a_job_killed_while_it_saves_ends_as_one_that_was_not(make_job, monkeypatch, step, torn):
    """Weights, optimizer, scheduler and the rows of each step, after a break with half a file of checkpoint 6."""
    from transformers import Trainer

    from debate_rl.trainers.dpo import DebateDPOTrainer

    rows, ends = [], []
    read = DebateDPOTrainer.compute_loss

    def note(self, model, inputs, *args, **kwargs):
        rows.append(inputs["input_ids"].tolist())
        return read(self, model, inputs, *args, **kwargs)

    class End(TrainerCallback):
        def on_train_end(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
            ends.append((optimizer.state_dict(), lr_scheduler.state_dict()))

    monkeypatch.setattr(DebateDPOTrainer, "compute_loss", note)
    whole = run_job(make_job("dpo", 20, out="whole", lora=DROPOUT, train=SAVING), [End()], quiet=True)
    expected = rows[-9:]
    job = make_job("dpo", 20, out="broken", lora=DROPOUT, train=SAVING)
    save = getattr(Trainer, step)

    def tear(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if self.state.global_step == 6:
            path = Path(job.out, "checkpoints/checkpoint-6", torn)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, step, tear)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, [End()], quiet=True)
    rows.clear()
    resumed = run_job(job, [End()], quiet=True)
    assert rows[-6:] == expected[3:]
    assert weights(resumed) == weights(whole)
    first, second = ends
    assert first[1] == second[1]
    assert first[0]["param_groups"] == second[0]["param_groups"]
    for key, state in first[0]["state"].items():
        assert all(torch.equal(value, second[0]["state"][key][name]) for name, value in state.items())


def test_a_tokenizer_without_padding_pads_with_its_end_and_still_learns_it(make_job, tmp_path, base):
    """The end of a speech stays in the loss where it is padding too: the numbers are those with a padding token."""
    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(bare)
    for kind in ("sft", "dpo"):
        train = {"learning_rate": 1e-2}
        first = run_job(make_job(kind, out=f"{kind}-a", train=train), quiet=True)
        second = run_job(make_job(kind, out=f"{kind}-b", model=str(bare), train=train), quiet=True)
        assert second.loss == pytest.approx(first.loss, abs=1e-6)
    tokenizer.eos_token = tokenizer.unk_token = None
    tokenizer.save_pretrained(bare)
    with pytest.raises(UserError, match="has no padding, end or unknown token; set its pad_token"):
        run_job(make_job("sft", out="c", model=str(bare)), quiet=True)


def test_a_probability_that_is_not_a_number_is_named_with_its_line(make_job, tmp_path):
    rows = EXAMPLES["dpo"](3)
    path = tmp_path / "nan.jsonl"
    write(path, rows)
    path.write_text(path.read_text().replace('"p_chosen":0.65', '"p_chosen":NaN').replace(
        '"p_chosen": 0.65', '"p_chosen": NaN'))  # fmt: skip
    with pytest.raises(UserError, match=r"nan.jsonl:2: .*p_chosen") as error:
        run_job(make_job("dpo", rows=str(path)), quiet=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"bf16": True, "use_cpu": False}, "train: .*bf16"),
        ({"fp16": True, "use_cpu": False}, "train.fp16 needs a GPU, and there is none here"),
    ],
)
def test_settings_for_a_gpu_are_one_line_where_there_is_none(make_job, train, message):
    with pytest.raises(UserError, match=message) as error:
        run_job(make_job("sft", train=train), quiet=True)
    assert "\n" not in str(error.value)


def test_a_mixture_of_experts_is_in_four_bits_all_of_it(make_job, tmp_path):
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    from debate_rl.trainers.common.load import load_model

    tokenizer = AutoTokenizer.from_pretrained(make_job("sft").model)
    config = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=256, sliding_window=None,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    model = load_model(str(tmp_path / "m"), quantize="nf4")
    large = {name for name, p in model.named_parameters() if p.dtype == torch.float32 and p.numel() > 4096}
    assert large == set()
    assert sum(p.dtype == torch.uint8 for p in model.parameters()) == 2 * (4 + 2)
    lora = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    job = make_job("sft", model=str(tmp_path / "m"), quantize="nf4", lora=lora, train={"learning_rate": 1e-2})
    assert run_job(job, quiet=True).steps == 3


def test_a_finished_job_is_not_trained_again_and_another_is_refused(make_job, tmp_path):
    job = make_job("sft")
    first = run_job(job, quiet=True)
    assert run_job(job, [Stop(1)]) == first  # the callback would have stopped a training
    assert launch(job, "no-such-file.yaml") == first
    Path(job.out).rename(tmp_path / "moved")
    moved = run_job(job.model_copy(update={"out": str(tmp_path / "moved")}))
    assert Path(moved.path) == tmp_path / "moved/adapter"
    Path(tmp_path / "moved").rename(job.out)
    with pytest.raises(UserError, match="holds another training job"):
        run_job(make_job("sft", train={"learning_rate": 5e-3}))
    write(tmp_path / "sft-8.jsonl", sft_examples(7))
    with pytest.raises(UserError, match="holds another training job"):
        run_job(job)


def test_where_a_job_lies_does_not_matter(make_job, tmp_path, base):
    first = run_job(make_job("sft", out="a"), quiet=True)
    shutil.copytree(base, tmp_path / "copy")
    second = run_job(make_job("sft", out="b", model=str(tmp_path / "copy")), quiet=True)
    assert weights(first) == weights(second)
    assert first.base == second.base == fingerprint(base)
    assert read_json(f"{first.path}/base.json") == {"model": base, "fingerprint": first.base}


@pytest.mark.parametrize(
    ("kind", "train", "message"),
    [
        ("sft", {"learning_rte": 1}, "unknown key 'train.learning_rte'; did you mean 'learning_rate'?"),
        ("judge", {"beta": 1}, "unknown key 'train.beta'"),
        ("sft", {"learning_rate": "fast"}, "train.learning_rate: .*found 'fast'"),
        ("sft", {"max_steps": 2.5}, "train.max_steps: .*found 2.5"),
        ("sft", {"output_dir": "x"}, "train.output_dir: set 'out' of the job instead"),
        ("sft", {"trust_remote_code": True}, "train.trust_remote_code: is always off"),
        (
            "sft",
            {"completion_only_loss": False},
            "train.completion_only_loss has no effect here: the loss is on the speech",
        ),
        ("dpo", {"loss_type": ["ipo"]}, "train.loss_type has no effect here: the loss is the job's 'objective'"),
        ("dpo", {"lr_scheduler_type": "sudden"}, "train: sudden is not a valid SchedulerType"),
        ("sft", {"model_init_kwargs": {"nonsense": 1}}, "cannot load .*nonsense"),
    ],
)
def test_wrong_settings_are_one_line_that_says_the_fix(make_job, kind, train, message):
    with pytest.raises(UserError, match=message) as error:
        run_job(make_job(kind, train=train), quiet=True)
    assert "\n" not in str(error.value)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    from debate_rl.trainers.common.arguments import training_arguments

    config = training_arguments("dpo", {"learning_rate": "2e-4", "max_steps": "7", "max_length": 9}, tmp_path, seed=3)
    assert (config.learning_rate, config.max_steps, config.beta, config.seed) == (2e-4, 7, 0.5, 3)
    assert config.max_length is None  # rows are checked before; TRL would drop them in silence


def test_wrong_files_are_one_line_that_says_the_fix(make_job, tmp_path, base, other_base):
    def message(**fields):
        with pytest.raises(UserError) as error:
            run_job(make_job("sft", **fields))
        return str(error.value)

    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text('{"prompt": []\n')
    assert message(rows=str(tmp_path / "empty.jsonl")).endswith("empty.jsonl holds no rows")
    assert "bad.jsonl:1: not valid JSON" in message(rows=str(tmp_path / "bad.jsonl"))
    assert "rows file not found" in message(rows=str(tmp_path / "none.jsonl"))
    assert "model not found" in message(model=str(tmp_path / "none"))
    assert "is not a model folder" in message(model=str(tmp_path))
    sft = run_job(make_job("sft", out="sft"), quiet=True)
    assert "was trained on" in message(model=other_base, adapter=sft.path)
    assert "is not an adapter folder" in message(adapter=base)


def test_records_refuse_what_does_not_go_together():
    job = {"kind": "sft", "model": "m", "rows": "r", "out": "o"}
    with pytest.raises(ValidationError, match="'probe' is for kind 'classifier'"):
        Job(**job, probe=True, lora=None)
    with pytest.raises(ValidationError, match="'quantize' needs 'lora'"):
        Job(**job, quantize="nf4", lora=None)
    with pytest.raises(ValidationError, match="extra"):
        Job(**job, loras={})


def test_a_loss_that_is_not_a_number_ends_the_job(make_job):
    job = make_job("sft", lora=None, train={"learning_rate": 1e30, "max_grad_norm": 0, "max_steps": 6})
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d; lower train.learning_rate"):
        run_job(job, quiet=True)
    assert not Path(job.out, "model").exists()


def test_training_inside_a_program_leaves_no_trace(make_job, monkeypatch):
    monkeypatch.setenv("SOME_NAME", "kept")
    torch.set_default_dtype(torch.float64)
    try:
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        threads = torch.get_num_threads()
        environment = dict(os.environ)
        run_job(make_job("sft"), quiet=True)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert np.random.get_state()[1].tolist() == states[2]
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_num_threads() == threads
        assert dict(os.environ) == environment
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_full_disk_is_said_in_one_line_and_the_job_goes_on(make_job, monkeypatch):
    job = make_job("sft", train=SAVING)

    class Full(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise OSError(28, "No space left on device")

    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
        with pytest.raises(UserError, match=r"no space left in .*goes on from the last whole checkpoint"):
            run_job(job, [Full()], quiet=True)
    assert run_job(job, quiet=True).steps == 9


def test_four_bit_bases_train(make_job):
    plain = run_job(make_job("sft", out="a", train={"max_steps": 1}), quiet=True)
    small = run_job(make_job("sft", out="b", quantize="nf4", train={"max_steps": 4, "learning_rate": 1e-2}), quiet=True)
    history = read_json(f"{Path(small.path).parent}/history.json")
    assert history[0]["loss"] == pytest.approx(plain.loss, rel=0.1)
    assert small.loss < history[0]["loss"]


def test_the_program_says_mistakes_in_one_line(make_job, tmp_path, capsys):
    job = make_job("sft", train={"lerning_rate": 1})
    write_json(tmp_path / "job.json", job.model_dump(mode="json"))
    assert main([str(tmp_path / "job.json")]) == 2
    write_json(tmp_path / "bad.json", {**job.model_dump(mode="json"), "kind": "sfft"})
    assert main([str(tmp_path / "bad.json")]) == 2
    assert main([]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.startswith("error: ") for line in lines] == [True] * 3
    assert "did you mean 'learning_rate'?" in lines[0]
    assert "kind" in lines[1]


def test_seeds_matter(make_job, tmp_path):
    base = make_model(tmp_path / "m", seed=5)
    first, same, other = (
        weights(run_job(make_job("sft", out=f"s{i}", model=base, seed=seed), quiet=True))
        for i, seed in enumerate([0, 0, 1])
    )
    assert first == same != other


def test_rows_to_evaluate_on_are_counted_as_those_to_train_on(make_job, tmp_path, caplog):
    short, long = sft_examples(2), sft_examples(1)[0].model_copy(update={"completion": "shed " * 150})
    write(tmp_path / "eval.jsonl", [*short, long, short[0].model_copy(update={"completion": " "})])
    job = make_job("sft", eval_rows=str(tmp_path / "eval.jsonl"), train={"max_length": 100, "max_steps": 1})
    run_job(job, quiet=True)
    left_out = {"no speech": 1, "longer than max_length": 1}
    found = read_json(f"{job.out}/tokens.json")
    assert found["eval"] == {"read": 4, "evaluated": 2, "left_out": left_out, "over_long": 1}
    assert "eval.jsonl: 1 of 4 rows are longer than max_length 100" in caplog.text
    for rows, said in (([long], "every row is longer than max_length 100"), ([], "holds no rows")):
        write(tmp_path / "eval.jsonl", rows)
        with pytest.raises(UserError, match=f"eval.jsonl:? {said}"):
            run_job(job.model_copy(update={"out": str(tmp_path / "no")}), quiet=True)


def test_pairs_with_a_blank_speech_are_left_out(make_job, tmp_path):
    rows = EXAMPLES["dpo"](6)
    rows[1:3] = [rows[1].model_copy(update={"chosen": ""}), rows[2].model_copy(update={"rejected": " \n"})]
    write(tmp_path / "pairs.jsonl", rows)
    job = make_job("dpo", rows=str(tmp_path / "pairs.jsonl"), train={"max_steps": 1})
    run_job(job, quiet=True)
    counts = read_json(f"{job.out}/tokens.json")
    assert (counts["read"], counts["trained"], counts["left_out"]) == (6, 4, {"no speech": 2})


@pytest.mark.parametrize(
    ("kind", "train", "said"),
    [
        ("sft", {"per_device_train_batch_size": 0}, "train.per_device_train_batch_size is 0; give at least 1"),
        ("sft", {"gradient_accumulation_steps": 0}, "train.gradient_accumulation_steps is 0; give at least 1"),
        ("sft", {"max_steps": -1, "num_train_epochs": 0}, "train.num_train_epochs is 0.*above 0"),
        ("dpo", {"beta": -1}, "train.beta is -1.*above 0"),
        ("judge", {"max_length": "abc"}, "train.max_length: Input should be a valid integer"),
        ("classifier", {"max_length": -5}, "train.max_length is -5; give at least 1"),
        ("sft", {"model_init_kwargs": "abc"}, "train.model_init_kwargs is a mapping"),
        ("sft", {"model_init_kwargs": {"dtype": "bfloat"}}, "dtype is 'bfloat'; did you mean 'bfloat16'"),
        ("sft", {"model_init_kwargs": {"num_labels": 3}}, "train.model_init_kwargs.num_labels: a classifier has two"),
        ("sft", {"eval_strategy": "steps"}, "train: You have set `args.eval_strategy`"),
        ("dpo", {"sync_ref_model": True}, "train: You passed `sync_ref_model=True`"),
    ],
)
def test_settings_that_can_not_train_are_refused_in_one_line(make_job, kind, train, said):
    with pytest.raises(UserError, match=said):
        run_job(make_job(kind, train=train), quiet=True)


def test_modules_that_the_model_has_not_are_refused_in_one_line(make_job):
    with pytest.raises(UserError, match=r"train: Target modules .*'foo'.* not found"):
        run_job(make_job("sft", lora=Lora(r=4, target_modules=["foo"])), quiet=True)


def test_the_type_of_the_weights_may_stand_with_the_model(make_job):
    job = make_job("sft", lora=None, train={"max_steps": 1, "model_init_kwargs": {"dtype": "bfloat16"}})
    path = run_job(job, quiet=True).path
    assert read_json(f"{path}/config.json")["dtype"] == "bfloat16"
    with pytest.raises(UserError, match="dtype is bfloat16 and the job's 'dtype' float32; set one"):
        run_job(job.model_copy(update={"dtype": "float32", "out": f"{job.out}-2"}), quiet=True)


def test_two_trainings_never_share_a_folder(make_job, monkeypatch):
    monkeypatch.setattr("debate_rl.trainers.common.job.PATIENCE", 0.0)
    job = make_job("sft", train={"max_steps": 1})
    with (
        locked(Path(job.out) / ".training.lock", "busy"),
        pytest.raises(UserError, match="another training is at work"),
    ):
        run_job(job, quiet=True)
    assert not (Path(job.out) / "checkpoints").exists()
    assert run_job(job, quiet=True).steps == 1
    assert not (Path(job.out) / ".training.lock").exists()


def test_a_function_of_this_process_is_refused_where_others_are_launched(make_job):
    def longer(games):
        return [0.5 for _ in games]

    judge = Panel(members=(FunctionJudge(name="longer", decide=longer), FunctionJudge(decide="rules:decide")))
    online = Online(protocol=load_protocol("debate"), judge=judge)
    job = make_job("sft").model_copy(update={"kind": "grpo", "online": online})
    with pytest.raises(UserError, match=r"longer is a function of this process.*module:function") as error:
        launch(job, "configs/accelerate/single.yaml")
    assert "\n" not in str(error.value) and "rules:decide" not in str(error.value)
