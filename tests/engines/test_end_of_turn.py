"""A speech ends where training taught it to: at the chat template's end of turn, whatever the model calls its end."""

import json
import shutil
from pathlib import Path

import pytest

from debate_rl.data.models.library import cache_folder
from debate_rl.data.models.plain_template import MARKS, TEMPLATE, with_plain_template
from debate_rl.engines.chat import closing_ids, end_tokens, frame, text_before_stop, turn_marks
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Completion, Message, Request, Sampling
from debate_rl.trainers.common.load import load_tokenizer
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.sft import encode_speeches
from tests.tiny import tiny_model

OTHER = "<|system|>"
"""A token that becomes the end of sequence in config and tokenizer."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model whose end of turn is its end of sequence, and the same weights with another end of sequence."""
    folder = tmp_path_factory.mktemp("models")
    same = tiny_model(folder / "same", spread=0.05)
    other = str(folder / "other")
    shutil.copytree(same, other)
    token = load_tokenizer(same).convert_tokens_to_ids(OTHER)
    changes = {"config.json": token, "generation_config.json": token, "tokenizer_config.json": OTHER}
    for file, end in changes.items():
        path = Path(other, file)
        key = "eos_token" if file == "tokenizer_config.json" else "eos_token_id"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: end}))
    return same, other


def speeches(model, keep_tokens=True):
    engine = TransformersEngine(keep_tokens=keep_tokens)
    message = (Message(role="user", content="w1 w2"),)
    sampling = Sampling(max_new_tokens=120)
    found = engine.generate([Request(messages=message, model=model, sampling=sampling, seed=n) for n in range(40)])
    assert all(isinstance(one, Completion) for one in found)
    return found


def test_the_same_weights_with_another_end_of_sequence_write_the_same_speeches(models):
    token = load_tokenizer(models[0]).convert_tokens_to_ids(OTHER)
    pairs = [(one, two) for one, two in zip(*map(speeches, models), strict=True) if token not in one.tokens]
    assert [one.text for one, _ in pairs] == [two.text for _, two in pairs]
    assert [one.finish for one, _ in pairs] == [two.finish for _, two in pairs]
    assert sum(one.finish == "stop" for one, _ in pairs) >= 5, "else nothing was tried"


def test_engine_trainers_and_template_agree_on_the_end_of_a_turn(models):
    for model in models:
        tokenizer = load_tokenizer(model)
        end = tokenizer.convert_tokens_to_ids("<|end|>")
        assert frame(tokenizer).after.endswith("<|end|>") and closing_ids(tokenizer)[-1] == end
        assert end in end_tokens(tokenizer)
        (row,) = encode_speeches(tokenizer, [SftRow(prompt=[{"role": "user", "content": "w1"}], completion="w2")])
        assert row["labels"][-1] == end


def test_an_end_of_turn_need_not_be_a_special_token(models):
    tokenizer = load_tokenizer(models[0])
    tokenizer.add_tokens("<stop>")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<stop>")
    assert frame(tokenizer).after.strip() == "<stop>"
    assert tokenizer.convert_tokens_to_ids("<stop>") in end_tokens(tokenizer)


CHATML = "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}<|user|>assistant\n"
HEADINGS = "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n\n{% endfor %}### assistant\n"
LLAMA_2 = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"


@pytest.mark.parametrize(
    ("template", "marks"),
    [(TEMPLATE, MARKS), (CHATML, ()), (HEADINGS, ("### user", "### assistant")), (LLAMA_2, ()), (None, ())],
)
def test_lines_that_open_a_turn_are_marks_where_no_token_does(models, template, marks):
    tokenizer = load_tokenizer(models[0])
    tokenizer.chat_template = template
    assert turn_marks(tokenizer) == marks


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("yes\n\nUser:\nno", "yes\n\n"),
        ("yes\n Assistant: no", "yes\n"),
        ("User:\nno", ""),
        ("the User: said", None),
        ("yes\nusers: none", None),
    ],
)
def test_a_text_ends_where_a_line_opens_the_next_turn(text, before):
    assert text_before_stop(text, (), MARKS) == before
    assert text_before_stop("a\nassistants", (), ("assistant",)) is None
    assert text_before_stop("a stop b\nUser: c", ("stop",), MARKS) == "a "


def test_a_base_model_that_goes_on_with_the_next_turn_is_stopped_there(tmp_path):
    """A tiny model with a word that ends a line and opens a turn, once with the template that knows it."""
    words = [*(f"w{number}" for number in range(40)), "\nUser:"]
    whole = tiny_model(tmp_path / "whole", words=words)
    plain = str(tmp_path / "plain")
    shutil.copytree(whole, plain)
    (Path(plain) / "chat_template.jinja").write_text(TEMPLATE)
    assert turn_marks(load_tokenizer(plain)) == MARKS
    engine = TransformersEngine()
    sampling = Sampling(max_new_tokens=60)
    message = (Message(role="user", content="w1 w2"),)
    cut = engine.generate([Request(messages=message, model=plain, sampling=sampling, seed=n) for n in range(20)])
    assert not any("User:" in one.text for one in cut)
    assert sum(one.finish == "stop" and one.new_tokens < 60 for one in cut) >= 5, "else nothing was tried"
    # The other template has tokens for its turns, and the word is a word like others.
    free = engine.generate([Request(messages=message, model=whole, sampling=sampling, seed=n) for n in range(20)])
    assert any("User:" in one.text for one in free)


@pytest.mark.slow
def test_a_real_base_model_writes_one_turn():
    folder = cache_folder() / "gemma3-270m"
    if not (folder / "config.json").is_file():
        pytest.skip("gemma3-270m is not there: debate-rl models get gemma3-270m")
    model = with_plain_template(str(folder))
    message = (Message(role="user", content="What do plants make with the help of light? Answer in one sentence."),)
    sampling = Sampling(max_new_tokens=60, temperature=0.7)
    texts = TransformersEngine().generate(
        [Request(messages=message, model=model, sampling=sampling, seed=seed) for seed in range(4)]
    )
    assert all(text_before_stop(one.text, (), MARKS) is None for one in texts)
