"""The lab's tokenizer: one token a word or punctuation mark, lower case, and a plain chat template."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from debate_rl.data.lab.words import vocabulary

PAD, BOS, END, UNKNOWN = "<|pad|>", "<|begin|>", "<|end|>", "<|unknown|>"
ROLES = ("system", "user", "assistant")
SPECIAL = (PAD, BOS, END, UNKNOWN, *(f"<|{role}|>" for role in ROLES))
TAGS = (
    "<quote>",
    "</quote>",
    "<v_quote>",
    "</v_quote>",
    "<n_quote>",
    "</n_quote>",
    "<u_quote>",
    "</u_quote>",
    "<scratchpad>",
    "</scratchpad>",
)
"""Marks of quotes and scratchpads: ordinary tokens, which stay when a text is decoded."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def lab_tokenizer() -> Any:
    """Build the tokenizer; ids go to special tokens first (padding is 0), then tags, then the vocabulary."""
    tokens = [*SPECIAL, *TAGS, *vocabulary()]
    inner = Tokenizer(WordLevel({token: place for place, token in enumerate(tokens)}, unk_token=UNKNOWN))
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[f"<|{role}|>" for role in ROLES],
        padding_side="left",
        model_max_length=512,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
