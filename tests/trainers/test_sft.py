"""SFT: the loss is that of the speech, and no row is lost."""

import logging

import pytest
import torch

from debate_rl.errors import UserError
from debate_rl.records import read_json, write
from debate_rl.trainers.job import run_job
from debate_rl.trainers.rows import SftRow
from debate_rl.trainers.sft import encode_speeches

from .tiny import ask, make_tokenizer, sft_examples


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
    assert "1 of 7 rows are longer than max_length: left out" in caplog.text


def test_nothing_left_and_rows_over_the_context_are_the_users_to_mend(make_job, tmp_path):
    with pytest.raises(UserError, match="every row is longer than max_length 5"):
        run_job(make_job("sft", train={"max_length": 5}))
    write(tmp_path / "huge.jsonl", [SftRow(prompt=ask("the pipe was moved . " * 60), completion="the shed")])
    with pytest.raises(UserError, match="1 of 1 rows are longer than the model's 256 tokens; set"):
        run_job(make_job("sft", rows=str(tmp_path / "huge.jsonl"), out="b"))


def test_packing_gives_the_loss_of_rows_apart(make_job):
    apart = run_job(make_job("sft", 8, out="a", train={"max_steps": 1, "per_device_train_batch_size": 8}), quiet=True)
    packing = {"max_steps": 1, "packing": True, "max_length": 250, "per_device_train_batch_size": 8}
    packed = run_job(make_job("sft", 8, out="b", train=packing), quiet=True)
    assert packed.loss == pytest.approx(apart.loss, rel=1e-5)
