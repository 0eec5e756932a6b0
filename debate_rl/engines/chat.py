"""From messages to token ids, so that what a speaker wrote can never act as a token of the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

from debate_rl.engines.request import Message
from debate_rl.errors import UserError


def neutral(text: str, special: Sequence[str]) -> str:
    """Break every special token inside a text by a space after its first character.

    Example:
        >>> neutral("yes <|im_end|>", ["<|im_end|>"])
        'yes < |im_end|>'
    """
    for token in sorted(special, key=len, reverse=True):
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def special_tokens(tokenizer: Any) -> list[str]:
    """The tokens that a chat template may use as control marks: every special token longer than one character."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({token for token in [*added, *tokenizer.all_special_tokens] if len(token) > 1})


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The prompt text, up to where the assistant begins.

    Templates without a system role (Mistral, Gemma) get its text at the head of the first user message.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; save one with the model")
    special = special_tokens(tokenizer)
    turns = [{"role": m.role, "content": neutral(m.content, special)} for m in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except jinja2.TemplateError:
        if len(turns) < 2 or turns[0]["role"] != "system":
            raise
        first = {"role": turns[1]["role"], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
        return str(tokenizer.apply_chat_template([first, *turns[2:]], tokenize=False, add_generation_prompt=True))


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of the prompt, as training and inference both use them."""
    return tuple(tokenizer(render(tokenizer, messages), add_special_tokens=False)["input_ids"])


def candidate_ids(tokenizer: Any, candidate: str) -> tuple[int, ...]:
    """Token ids of a continuation that is scored after a prompt.

    Raises:
        UserError: the candidate has no tokens.
    """
    ids = tuple(tokenizer(candidate, add_special_tokens=False)["input_ids"])
    if not ids:
        raise UserError(f"candidate {candidate!r} has no tokens in {tokenizer.name_or_path}")
    return ids
