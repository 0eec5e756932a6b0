"""SFT: the loss is that of the speech, and no row is lost."""

import logging

import pytest
import torch

from debate_rl.errors import UserError
from debate_rl.records import read_json, write
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.sft import encode_speeches
from tests.trainers.tiny import ask, make_tokenizer, sft_examples


def test_first_loss_is_the_mean_over_speech_tokens_by_hand(make_job, base):
    from transformers import AutoModelForCausalLM

    job = make_job("sft", 4, train={"max_steps": 1})
    run_job(job, quiet=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total, count = 0.0, 0
    for row in encode_speeches(make_tokenizer("chatml"), sft_examples(4)):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        logp = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
        for place in (labels[1:] != -100).nonzero()[:, 0]:
            total -= logp[place, labels[place + 1]].item()
            count += 1
    assert read_json(f"{job.out}/history.json")[0]["loss"] == pytest.approx(total / count, rel=1e-5)


def test_every_row_is_trained_on_however_long(make_job, tmp_path):
    rows = [*sft_examples(7), SftRow(prompt=ask("story : " + "the pipe was moved . " * 40), completion="the shed")]
    write(tmp_path / "long.jsonl", rows)
    options = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 1}
    result = run_job(make_job("sft", rows=str(tmp_path / "long.jsonl"), train=options), quiet=True)
    assert (result.rows, result.too_long, result.steps) == (8, 0, 8)


def test_rows_over_a_limit_are_counted_and_reported(make_job, tmp_path, caplog):
    rows = [*sft_examples(6), SftRow(prompt=ask("the pipe was moved . " * 30), completion="the shed")]
    write(tmp_path / "long.jsonl", rows)
    options = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 1, "max_length": 60}
    with caplog.at_level(logging.WARNING):
        result = run_job(make_job("sft", rows=str(tmp_path / "long.jsonl"), train=options), quiet=True)
    assert (result.rows, result.too_long, result.steps) == (7, 1, 6)
    assert read_json(tmp_path / "out" / "tokens.json")["left_out"] == {"longer than max_length": 1}
    assert "1 of 7 rows are longer than max_length 60 (158 to 158 tokens): left out" in caplog.text


def test_nothing_left_and_rows_over_the_context_are_the_users_to_mend(make_job, tmp_path):
    with pytest.raises(UserError, match="every row is longer than max_length 5"):
        run_job(make_job("sft", train={"max_length": 5}))
    write(tmp_path / "huge.jsonl", [SftRow(prompt=ask("the pipe was moved . " * 60), completion="the shed")])
    with pytest.raises(UserError, match=r"1 of 1 rows are longer than the model's 256 tokens \(up to 308\); set"):
        run_job(make_job("sft", rows=str(tmp_path / "huge.jsonl"), out="b"))


def test_rows_without_a_speech_are_counted_and_never_teach_silence(make_job, tmp_path, caplog):
    rows = [*sft_examples(4), SftRow(prompt=ask("argue"), completion=" \n"), SftRow(prompt=ask("argue"), completion="")]
    write(tmp_path / "rows.jsonl", rows)
    options = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 1}
    with caplog.at_level(logging.WARNING):
        result = run_job(make_job("sft", rows=str(tmp_path / "rows.jsonl"), train=options), quiet=True)
    assert (result.rows, result.too_long, result.steps) == (6, 0, 4)
    counts = read_json(tmp_path / "out" / "tokens.json")
    assert (counts["read"], counts["trained"], counts["left_out"]) == (6, 4, {"no speech": 2})
    assert "2 of 6 rows have no speech to learn: left out" in caplog.text
    write(tmp_path / "rows.jsonl", rows[4:])
    with pytest.raises(UserError, match="no row has a speech to learn"):
        run_job(make_job("sft", rows=str(tmp_path / "rows.jsonl"), out="b"))


def test_tokens_are_counted_apart_for_prompts_and_speeches(make_job, base, tmp_path):
    rows = sft_examples(3)
    run_job(make_job("sft", 3, train={"max_steps": 1}), quiet=True)
    encoded = encode_speeches(make_tokenizer("chatml"), rows)
    speech = sorted(sum(label != -100 for label in row["labels"]) for row in encoded)
    found = read_json(tmp_path / "out" / "tokens.json")["tokens"]
    assert (found["speech"]["min"], found["speech"]["max"]) == (speech[0], speech[-1])
    assert found["speech"]["median"] == speech[1] and found["speech"]["sum"] == sum(speech)
    assert found["prompt"]["sum"] == sum(len(row["input_ids"]) for row in encoded) - sum(speech)


@pytest.mark.parametrize("kind", ["sft", "dpo", "judge", "classifier"])
def test_a_trainer_that_takes_other_rows_than_were_prepared_is_refused(make_job, kind, monkeypatch):
    from debate_rl.trainers.common import build_trainer
    from debate_rl.trainers.common.arguments import training_arguments
    from debate_rl.trainers.common.load import load_tokenizer

    job = make_job(kind, 8)
    tokenizer = load_tokenizer(job.model)
    config = training_arguments(kind, job.train, tmp := build_trainer.Path(job.out) / "c", 0)
    prepared = build_trainer.prepare(job, tokenizer)
    assert (prepared.read, len(prepared.rows), prepared.left_out, tmp.name) == (8, 8, {}, "c")
    whole = build_trainer._make_trainer

    def loses_one(*args):
        trainer = whole(*args)
        rows = trainer.train_dataset
        trainer.train_dataset = rows[:-1] if isinstance(rows, list) else rows.select(range(7))
        return trainer

    assert build_trainer.row_count(build_trainer.build_trainer(job, tokenizer, prepared, config, []).train_dataset) == 8
    monkeypatch.setattr(build_trainer, "_make_trainer", loses_one)
    with pytest.raises(UserError, match="8 rows were prepared and the trainer took 7"):
        build_trainer.build_trainer(job, tokenizer, prepared, config, [])


def test_packed_rows_are_all_there_and_long_ones_are_reported(make_job, tmp_path, caplog):
    rows = [*sft_examples(9), SftRow(prompt=ask("the pipe was moved . " * 30), completion="the shed")]
    write(tmp_path / "rows.jsonl", rows)
    options = {"max_steps": -1, "num_train_epochs": 1, "packing": True, "max_length": 100}
    job = make_job("sft", rows=str(tmp_path / "rows.jsonl"), train=options)
    with caplog.at_level(logging.WARNING):
        result = run_job(job, quiet=True)
    assert (result.rows, result.too_long, result.steps) == (10, 1, 1)
    assert "1 of 10 rows are longer than max_length 100 (158 to 158 tokens): left out" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"packing": True}, "train.packing needs train.max_length"),
        ({"packing": True, "max_length": 99, "packing_strategy": "wrapped"}, "'wrapped' cuts rows"),
    ],
)
def test_packing_that_would_cut_rows_is_refused(make_job, options, said):
    with pytest.raises(UserError, match=said):
        run_job(make_job("sft", train=options), quiet=True)


def test_a_model_whose_packed_rows_see_each_other_is_refused_in_one_line(make_job, tmp_path):
    """Attention keeps rows apart by their positions; a recurrent model such as Mamba reads straight on."""
    from transformers import MambaConfig, MambaForCausalLM

    tokenizer = make_tokenizer("chatml")
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, initializer_range=0.5,
                         pad_token_id=0, eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    folder = tmp_path / "mamba"
    MambaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    options = {"packing": True, "max_length": 250}
    with pytest.raises(UserError, match="train.packing: in this model .mamba") as caught:
        run_job(make_job("sft", model=str(folder), lora=None, train=options), quiet=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packing_is_right_for_every_attention_of_this_machine(make_job, attention):
    init = {"model_init_kwargs": {"attn_implementation": attention}}
    apart = run_job(make_job("sft", 8, out="a", train={"max_steps": 1, "per_device_train_batch_size": 8}), quiet=True)
    packing = {"max_steps": 1, "packing": True, "max_length": 250, "per_device_train_batch_size": 8, **init}
    packed = run_job(make_job("sft", 8, out=attention, train=packing), quiet=True)
    assert packed.loss == pytest.approx(apart.loss, rel=1e-5)
