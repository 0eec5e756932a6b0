"""Tiny models and rows: random weights, a word-level tokenizer, chat templates of three families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow, PreferenceRow, RewardRow, SftRow

TEXT = """the pipe was moved to shed barn mill field at dusk noon dawn and ines omar saw question answer answers is
where argue for story : ? . , or because it i think not true false yes no a b system you are debater judge"""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s> [INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}"
)
SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set head = messages[0].content %}{% set messages = messages[1:] %}"
    "{% else %}{% set head = 'you are a debater' %}{% endif %}"
    "<s> system : {{ head }} {% for m in messages %}<|im_start|> {{ m.role }} : {{ m.content }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant : {% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama2": LLAMA2, "system": SYSTEM}


def make_tokenizer(template: str) -> Any:
    """A word-level tokenizer with the special tokens of several families."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {
        word: index for index, word in enumerate([*special, "[", "]", "/", "INST", "user", "assistant", *TEXT.split()])
    }
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>" if template == "llama2" else "<|im_end|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>", "</s>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def make_model(folder: Path, seed: int = 0, template: str = "chatml", hidden: int = 32) -> str:
    """Save a random Llama of two layers with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
        bos_token_id=2, eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


PLACES = ("shed", "barn", "mill", "field")


def sft_examples(count: int) -> list[SftRow]:
    return [
        SftRow(
            prompt=ask(f"story : the pipe was moved to the {PLACES[i % 4]} at {['dusk', 'noon'][i % 2]} . argue"),
            completion=f"the answer is {PLACES[i % 4]} {'because it was moved ' * (i % 3)}.",
        )
        for i in range(count)
    ]


def pair_examples(count: int) -> list[PreferenceRow]:
    return [
        PreferenceRow(
            prompt=row.prompt,
            chosen=row.completion,
            rejected="i think not" + " no" * (i % 4),
            p_chosen=0.6 + 0.05 * (i % 5),
            p_rejected=0.3 + 0.02 * (i % 7),
        )
        for i, row in enumerate(sft_examples(count))
    ]


def judge_examples(count: int, long: bool = False) -> list[JudgeRow]:
    tail = " at dusk" if long else ""
    return [
        JudgeRow(
            prompt=ask("question : where is the pipe ? " + "the pipe was moved . " * (i % 3) + "the answer is"),
            candidates=(PLACES[i % 4] + (tail if i % 2 else ""), PLACES[(i + 1) % 4]),
            target=[1.0, 0.0, 0.7][i % 3],
        )
        for i in range(count)
    ]


def text_examples(count: int) -> list[ClassifierRow]:
    return [
        ClassifierRow(
            id=str(i),
            text="the pipe was moved " * (i % 5) + f"to the {PLACES[i % 4]} . " + ("true" if i % 2 else "false"),
            target=[0.05, 0.95][i % 2],
            group=str(i // 4),
        )
        for i in range(count)
    ]


def reward_examples(count: int) -> list[RewardRow]:
    """Pairs in which the better reply says where, with labels of all kinds."""
    return [
        RewardRow(
            id=str(i), prompt=ask("where is the pipe ? " + "the pipe was moved . " * (i % 3)),
            chosen=f"the answer is {PLACES[i % 4]}" if i % 5 else "i think not",
            rejected="i think not" if i % 5 else f"the answer is {PLACES[i % 4]}",
            target=[1.0, 0.9][i % 2] if i % 5 else 0.1,
        )
        for i in range(count)
    ]  # fmt: skip


EXAMPLES: dict[str, Callable[[int], list[Any]]] = {
    "sft": sft_examples,
    "dpo": pair_examples,
    "judge": judge_examples,
    "classifier": text_examples,
    "reward": reward_examples,
}
