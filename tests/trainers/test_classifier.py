"""The binary classifier: padding never matters, soft labels are learnt, P(correct) comes back in order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.records import read_json, write
from debate_rl.trainers.classifier import (
    ClassifierCollator,
    class_logits,
    cut_texts,
    encode_texts,
    free_pad_id,
    predict,
)
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.load import load_model
from debate_rl.trainers.common.rows import ClassifierRow
from tests.trainers.tiny import make_tokenizer, text_examples


@pytest.fixture(scope="module")
def network(base):
    torch.manual_seed(0)
    return load_model(base, "classifier").eval()


@settings(max_examples=15)
@given(order=st.permutations(range(10)), budget=st.sampled_from([None, 1, 30, 80, 4000]))
def test_chunks_give_each_row_the_logits_it_has_alone(network, order, budget):
    tokenizer = make_tokenizer("chatml")
    encoded = encode_texts(tokenizer, [text_examples(10)[i] for i in order])
    network.config.pad_token_id = pad = free_pad_id(tokenizer, encoded)
    batch = ClassifierCollator(pad, budget)(encoded)
    with torch.no_grad():
        together = class_logits(network, batch)
        alone = torch.cat([network(torch.tensor([row["input_ids"]])).logits for row in encoded])
    assert torch.allclose(together, alone, atol=1e-5)
    for chunk in batch["chunks"]:
        assert budget is None or chunk["input_ids"].shape[0] == 1 or chunk["input_ids"].numel() <= budget


def test_padding_never_uses_a_token_of_the_texts(network):
    """A text may end with the tokenizer's padding token; padding with it would read an earlier position."""
    tokenizer = make_tokenizer("chatml")
    texts = ["the pipe was moved <pad>", "the pipe <unk> to the shed at"]
    rows = [ClassifierRow(id=text, text=text) for text in texts]
    encoded = encode_texts(tokenizer, rows)
    pad = free_pad_id(tokenizer, encoded)
    assert pad not in {token for row in encoded for token in row["input_ids"]}
    network.config.pad_token_id = pad
    with torch.no_grad():
        together = class_logits(network, ClassifierCollator(pad)(encoded))
        network.config.pad_token_id = None
        alone = torch.cat([network(torch.tensor([row["input_ids"]])).logits for row in encoded])
    assert torch.allclose(together, alone, atol=1e-5)


def test_long_texts_keep_their_end_and_an_opening_token():
    tokenizer = make_tokenizer("chatml")
    encoded = encode_texts(tokenizer, [ClassifierRow(id="0", text="the pipe was moved to the shed")])
    opening = tokenizer.convert_tokens_to_ids("<s>")  # as a tokenizer writes that opens every text
    encoded = [{**row, "input_ids": [opening, *row["input_ids"]]} for row in encoded]
    (cut,) = cut_texts(tokenizer, encoded, 3)
    assert tokenizer.convert_ids_to_tokens(cut["input_ids"]) == ["<s>", "the", "shed"]
    assert cut_texts(tokenizer, encoded, None) == encoded
    with pytest.raises(UserError, match="row 'e': the text has no tokens"):
        encode_texts(tokenizer, [ClassifierRow(id="e", text="  ")])


def test_soft_labels_are_learnt_and_predicted_in_order(make_job, base, tmp_path):
    rows = text_examples(40)
    train = {"max_steps": 60, "per_device_train_batch_size": 16, "learning_rate": 1e-2, "max_length": 12}
    result = run_job(make_job("classifier", 40, train=train), quiet=True)
    assert result.too_long == sum(len(row.text.split()) > 12 for row in rows)
    p = predict(rows, base, result.path, max_length=12)
    assert p.shape == (40,)
    assert np.abs(p - [row.target for row in rows]).max() < 0.15
    shuffled = predict(rows[::-1], base, result.path, max_length=12, batch_tokens=40)
    assert np.allclose(shuffled[::-1], p, atol=1e-5)
    assert predict([], base).shape == (0,)


def test_a_probe_trains_the_head_only(make_job, base):
    from safetensors.torch import load_file

    result = run_job(make_job("classifier", lora=None, probe=True), quiet=True)
    before, after = load_file(f"{base}/model.safetensors"), load_file(f"{result.path}/model.safetensors")
    assert "score.weight" in after
    assert all(torch.equal(before[name], weight) for name, weight in after.items() if name != "score.weight")
    assert read_json(f"{result.path}/config.json")["architectures"] == ["LlamaForSequenceClassification"]
    assert predict(text_examples(3), result.path).shape == (3,)


def test_every_weight_can_be_trained(make_job, base):
    from safetensors.torch import load_file

    result = run_job(make_job("classifier", lora=None), quiet=True)
    before, after = load_file(f"{base}/model.safetensors"), load_file(f"{result.path}/model.safetensors")
    moved = [name for name, weight in after.items() if name in before and not torch.equal(before[name], weight)]
    assert len(moved) > 10


def test_a_loss_of_ones_own_sees_the_progress(base, tmp_path):
    """Weak-to-strong losses need to know how much of the training is done."""
    from debate_rl.trainers.classifier import classifier_trainer
    from debate_rl.trainers.common.arguments import training_arguments

    seen = []

    def loss(logits, target, progress):
        seen.append((tuple(logits.shape), progress))
        return (torch.softmax(logits, -1)[:, 0] - target) ** 2

    tokenizer = make_tokenizer("chatml")
    config = training_arguments("classifier", {"max_steps": 4, "per_device_train_batch_size": 4}, tmp_path, seed=0)
    rows = encode_texts(tokenizer, text_examples(8))
    classifier_trainer(load_model(base, "classifier"), tokenizer, rows, config, loss=loss).train()
    assert seen == [((4, 2), step / 4) for step in range(4)]


def test_malformed_rows_name_their_line(make_job, tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, text_examples(2))
    path.write_text(path.read_text() + '{"id": "x", "text": "the shed", "target": 1.5}\n')
    with pytest.raises(UserError, match=r"rows.jsonl:3: target"):
        run_job(make_job("classifier", rows=str(path)))
