"""Masks under the chat templates of real families, character by character: one token is one byte or one special token.

The templates are written here after the families' formats. A tokenizer of bytes makes every space and line break count.
"""

import pytest
import torch

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.request import Message
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.load import load_tokenizer
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.sft import encode_speeches
from tests.trainers.tiny import make_model, make_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}" + CHATML
)
QWEN3 = CHATML.replace("assistant\n' }}", "assistant\n<think>\n\n</think>\n\n' }}")
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set head = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set head = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (head if loop.first else '') + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)
FAMILIES = {
    "chatml": (CHATML, "<|im_end|>", "", "<|im_end|>"),
    "qwen": (QWEN, "<|im_end|>", "", "<|im_end|>"),
    "qwen3": (QWEN3, "<|im_end|>", "", "<|im_end|>"),
    "llama3": (LLAMA3, "<|eot_id|>", "", "<|eot_id|>"),
    "llama2": (LLAMA2, "</s>", " ", " </s>"),
    "mistral": (MISTRAL, "</s>", "", "</s>"),
}
"""Template, end-of-sequence token, and what stands before and after a speech in the loss."""
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPEECH = "It is the shed: <quote>the pipe,\n\nwas moved</quote> — naïvely so."


def byte_tokenizer(family, pad=None):
    """One token a byte, and one for each special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: at for at, word in enumerate([*SPECIAL, *letters])}
    inner = Tokenizer(models.BPE(words, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token=FAMILIES[family][1], extra_special_tokens=SPECIAL[1:],
        pad_token=pad, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = FAMILIES[family][0]
    return tokenizer


def conversation(*roles):
    said = {"system": "You debate.", "user": "Argue for <b>shed</b>.\n"}
    return [{"role": role, "content": said[role]} for role in roles]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("roles", [("user",), ("system", "user")])
def test_every_token_of_the_speech_and_no_other_is_in_the_loss(family, roles):
    tokenizer = byte_tokenizer(family)
    prompt = conversation(*roles)
    (row,) = encode_speeches(tokenizer, [SftRow(prompt=prompt, completion=f"\n{SPEECH} ")])
    ids, labels = row["input_ids"], row["labels"]
    first = labels.index(next(label for label in labels if label != -100))
    assert labels == [-100] * first + ids[first:]
    _, _, before, after = FAMILIES[family]
    assert tokenizer.decode(ids[first:]) == before + SPEECH + after
    assert ids[-1] == tokenizer.eos_token_id
    assert tuple(ids[:first]) == prompt_ids(tokenizer, [Message(**message) for message in prompt])
    shown = tokenizer.decode(ids[:first])
    assert all(message["content"].strip() in shown for message in prompt), "no message may vanish"
    if family != "qwen3":  # which shows a thought only before the answer that is being written
        merged = prompt
        if family == "mistral" and len(prompt) == 2:
            merged = [{"role": "user", "content": f"{prompt[0]['content']}\n\n{prompt[1]['content']}"}]
        whole = tokenizer.apply_chat_template([*merged, {"role": "assistant", "content": SPEECH}], tokenize=False)
        assert tokenizer.decode(ids) == whole.removesuffix("\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_in_prompt_and_speech_are_only_words(family):
    tokenizer = byte_tokenizer(family)
    forged = "".join(SPECIAL)
    plain = [SftRow(prompt=conversation("user"), completion="x")]
    prompt = [{"role": "user", "content": f"Argue for <b>shed</b>.{forged}"}]
    rows = [SftRow(prompt=prompt, completion=f"x{forged}y")]
    special = set(range(len(SPECIAL)))
    (row,), (bare,) = encode_speeches(tokenizer, rows), encode_speeches(tokenizer, plain)
    controls = [[token for token in one["input_ids"] if token in special] for one in (row, bare)]
    assert controls[0] == controls[1]
    assert [label for label in row["labels"] if label in special] == [tokenizer.eos_token_id]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_learns_each_end_of_turn_and_no_padding_where_both_are_one_token(family, tmp_path):
    """Without a padding token the end-of-sequence token pads; the mask still tells them apart."""
    from safetensors.torch import save_file
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    byte_tokenizer(family).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = [SftRow(prompt=conversation("user"), completion=text) for text in ("x", SPEECH)]
    encoded = encode_speeches(tokenizer, rows)
    batch = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)(encoded)
    for at, row in enumerate(encoded):
        length = len(row["input_ids"])
        assert batch["labels"][at, :length].tolist() == row["labels"]
        assert batch["labels"][at, length - 1] == tokenizer.eos_token_id
        assert set(batch["labels"][at, length:].tolist()) <= {-100}
        assert batch["attention_mask"][at].tolist() == [1] * length + [0] * (batch["labels"].shape[1] - length)


def test_training_without_a_padding_token_is_training_with_one(make_job, base, tmp_path):
    from transformers import AutoModelForCausalLM

    bare = make_model(tmp_path / "bare")
    tokenizer = make_tokenizer("chatml")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(bare)
    models = [AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (base, bare)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    losses = [
        run_job(make_job("sft", model=path, out=out), quiet=True).loss for path, out in ((base, "a"), (bare, "b"))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
