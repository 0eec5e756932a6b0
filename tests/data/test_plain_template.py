"""Base models without a chat template, and the plain one that a config may give them."""

import json
import logging
from pathlib import Path

import pytest

from debate_rl.data.models.plain_template import with_plain_template
from debate_rl.engines.chat import closing_ids, frame, render
from debate_rl.engines.load import load_tokenizer
from debate_rl.engines.request import Message
from debate_rl.engines.weights import check_weights, fingerprint
from debate_rl.errors import UserError
from tests.command import mistake
from tests.tiny import tiny_model

GAME = [Message(role="system", content="w1"), Message(role="user", content="w2\nUser: w3")]


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A model without a chat template."""
    monkeypatch.setenv("DEBATE_RL_MODELS", str(tmp_path / "cache"))
    folder = tiny_model(tmp_path / "bare", positions=2048)
    (Path(folder) / "chat_template.jinja").unlink()
    return folder


def test_a_base_model_gets_a_plain_template_beside_its_own_files(bare, caplog):
    with caplog.at_level(logging.WARNING):
        path = with_plain_template(bare)
    assert "models.template: plain gives it" in caplog.text
    tokenizer = load_tokenizer(path)
    # A label in a message can not pass for one of the template.
    assert render(tokenizer, GAME) == "w1\n\nUser:\nw2\nUser : w3\n\nAssistant:\n"
    assert frame(tokenizer).before == "" and closing_ids(tokenizer)[-1] == tokenizer.eos_token_id
    assert with_plain_template(bare) == with_plain_template(path) == path
    assert str(check_weights(path)) == path and fingerprint(path) != fingerprint(bare)
    assert not (Path(bare) / "chat_template.jinja").exists()
    (Path(bare) / "more.txt").write_text("new")
    assert (Path(with_plain_template(bare)) / "more.txt").read_text() == "new"


def test_a_tokenizer_that_begins_with_a_token_keeps_it(bare):
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(bare)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    tokenizer.bos_token = "<pad>"
    tokenizer.save_pretrained(bare)
    assert render(load_tokenizer(with_plain_template(bare)), GAME).startswith("<pad>w1")


def test_models_with_a_template_and_adapters_stay(bare, tmp_path):
    other = tiny_model(tmp_path / "other")
    (tmp_path / "adapter").mkdir()
    for name in (other, str(tmp_path / "adapter"), "lab-base"):
        assert with_plain_template(name) == name
    with pytest.raises(UserError, match="hf download owner/name"):
        with_plain_template("owner/name")


def test_a_debate_says_which_key_a_base_model_needs(call, bare, tmp_path):
    config = {
        "name": "r",
        "runs": str(tmp_path),
        "questions": {"train": 1, "test": 1},
        "models": {"debater": bare, "judge": bare},
        "protocol": {"max_new_tokens": 4, "prompts": "lab"},
        "stages": {},
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    assert "set models.template: plain" in mistake(call("debate", tmp_path / "c.yaml"))
    code, out, err = call("debate", tmp_path / "c.yaml", "models.template=plain")
    assert code == 0 and "base judge:" in out, err
