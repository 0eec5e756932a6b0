"""Chat templates: turn messages into token ids, so that no speech can act as a token of the template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from debate_rl.engines.marks import marks_of, neutral
from debate_rl.engines.request import Message
from debate_rl.errors import UserError

_PROBE = "debate-rl-probe"
"""A text that no template writes by itself; where it shows up in a prompt, a message was written."""


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The prompt text, up to where the assistant's message begins.

    If a template refuses the system role (Mistral, Gemma) or omits its text, the text goes to the head of the first
    user message.

    Raises:
        UserError: the tokenizer has no chat template, or its template fails (see `applied`).
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; set models.template: plain, "
            "or save one with the model"
        )
    marks = marks_of(tokenizer)
    turns = [{"role": message.role, "content": neutral(message.content, marks)} for message in messages]
    if turns and turns[0]["role"] == "system" and not _shows_system(tokenizer, repr(tokenizer.chat_template)):
        turns = _merge_system(turns)
    return applied(tokenizer, turns, add_generation_prompt=True)


def applied(tokenizer: Any, turns: Sequence[Mapping[str, str]], add_generation_prompt: bool = False) -> str:
    """Apply a tokenizer's chat template to messages.

    Raises:
        UserError: the template has a mistake, or refuses these messages.
    """
    try:
        text = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception as error:  # an expression of a template may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template fails ({reason}); save another with the model"
        ) from error
    return str(text)


@lru_cache(maxsize=32)
def _shows_system(tokenizer: Any, template: str) -> bool:
    """Whether a template writes the text of a system message; some drop it silently.

    Args:
        tokenizer: the tokenizer with the template.
        template: the template's text, part of the cache key because a tokenizer may get another template.
    """
    turns = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}]
    try:
        return _PROBE in applied(tokenizer, turns, add_generation_prompt=True).lower()
    except UserError:
        return False  # a template with another mistake fails without a system message as well, and is reported there


def _merge_system(turns: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Move the system's text to the head of the user message behind it, or into a user message of its own."""
    system, *rest = turns
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system["content"]}, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


class Frame(NamedTuple):
    """The texts that a chat template writes around an assistant's message.

    Example (ChatML):
        Frame(before="", after="<|im_end|>")
    """

    before: str
    """Text between the end of the prompt and the message."""
    after: str
    """Text after the message, including its end-of-turn token."""


def frame(tokenizer: Any) -> Frame:
    """The texts around an assistant's message: training teaches this end, and engines stop at it.

    Raises:
        UserError: the tokenizer has neither an end-of-turn token in its template nor an end-of-sequence token, or its
            template changes or omits an assistant's message.
    """
    return _frame(tokenizer, repr(tokenizer.chat_template))


@lru_cache(maxsize=32)
def _frame(tokenizer: Any, template: str) -> Frame:
    """See `frame`; the template's text is part of the cache key because a tokenizer may get another template."""
    prompt = render(tokenizer, [Message(role="user", content="x")])
    dialogue = applied(tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}])
    # The last occurrence, since the turn ends behind it.
    start = dialogue.rfind(_PROBE)
    if start < 0:
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template does not show an assistant's message; "
            "save another with the model"
        )
    before = ""
    # Reasoning templates show a past answer differently from the one being written: then nothing goes before.
    if dialogue.startswith(prompt) and len(prompt) <= start:
        before = dialogue[len(prompt) : start]
    after = dialogue[start + len(_PROBE) :]
    atomic = _atomic_tokens(tokenizer)
    ends = [after.index(token) + len(token) for token in atomic if token in after]
    if ends:
        return Frame(before, after[: min(ends)])
    if tokenizer.eos_token is None:
        raise UserError(f"{tokenizer.name_or_path}: no token ends the assistant's turn; set an eos_token")
    return Frame(before, tokenizer.eos_token)


def _atomic_tokens(tokenizer: Any) -> set[str]:
    """Texts that are one token of the tokenizer wherever they stand."""
    # Added tokens count as well as special ones: the token that ends a turn need not be marked as special.
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    return {token for token in [*added, *tokenizer.all_special_tokens] if len(token) > 1}


def turn_marks(tokenizer: Any) -> tuple[str, ...]:
    """Lines of plain text by which a chat template opens a turn; empty where tokens of their own do, or no line does.

    A base model seldom writes the token that ends a turn: it goes on with the next one, of whichever role.

    Example (the plain template):
        ("User:", "Assistant:")
    """
    return _turn_marks(tokenizer, repr(tokenizer.chat_template)) if tokenizer.chat_template else ()


@lru_cache(maxsize=32)
def _turn_marks(tokenizer: Any, template: str) -> tuple[str, ...]:
    """See `turn_marks`; the template's text is part of the cache key because a tokenizer may get another template."""
    turns = [{"role": role, "content": _PROBE} for role in ("user", "assistant", "user")]
    with suppress(UserError):  # a broken template is reported when it renders a prompt
        # What stands before the first message is no turn that comes after another.
        frames = applied(tokenizer, turns, add_generation_prompt=True).split(_PROBE)[1:]
        atomic = _atomic_tokens(tokenizer)
        marks: dict[str, None] = {}
        for written in frames:
            # The end of a turn may share its line with nothing else: only what begins a line can be told from a text.
            for line in written.split("\n")[1:]:
                if any(map(str.isalpha, line)) and not any(token in line for token in atomic):
                    marks[line.strip()] = None
        return tuple(sorted(marks, reverse=True))
    return ()


def text_before_stop(text: str, stops: Sequence[str], marks: Sequence[str] = ()) -> str | None:
    """The text before its first stop text or its next turn; None if it holds neither.

    Args:
        text: what a model wrote.
        stops: texts that end it anywhere.
        marks: texts that end it at the beginning of a line (see `turn_marks`).
    """
    starts = [text.find(stop) for stop in stops if stop in text]
    if marks:
        # A mark that ends in a letter is a whole line: `assistants` is a word.
        lines = [re.escape(mark) + ("\n" if mark[-1].isalnum() else "") for mark in marks]
        next_turn = re.search(rf"^[ \t]*(?:{'|'.join(lines)})", text, re.M)
        starts += [] if next_turn is None else [next_turn.start()]
    return text[: min(starts)] if starts else None


def closing_ids(tokenizer: Any) -> tuple[int, ...]:
    """Token ids behind an assistant's message; the last one ends its turn."""
    return tuple(tokenizer(frame(tokenizer).after, add_special_tokens=False)["input_ids"])


def end_tokens(tokenizer: Any, generation_config: Any = None) -> frozenset[int]:
    """Token ids that end an answer: the end of turn that training teaches, and the model's own ends of sequence."""
    ends = [tokenizer.eos_token_id]
    if generation_config is not None:
        configured = generation_config.eos_token_id
        ends += configured if isinstance(configured, list) else [configured]
    # The template's own end is often not among the others: a base model with an added chat template keeps
    # `<|endoftext|>` in its config, and its speeches end with `<|im_end|>`.
    if tokenizer.chat_template:
        with suppress(UserError):  # a broken template is reported when it renders a prompt
            ends += closing_ids(tokenizer)[-1:]
    return frozenset(int(token) for token in ends if token is not None)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of a prompt, the same for training and inference."""
    return tuple(tokenizer(render(tokenizer, messages), add_special_tokens=False)["input_ids"])


def candidate_ids(tokenizer: Any, candidate: str) -> tuple[int, ...]:
    """Token ids of a continuation that is scored after a prompt.

    Raises:
        UserError: the candidate has no tokens.
    """
    ids = tuple(tokenizer(neutral(candidate, marks_of(tokenizer)), add_special_tokens=False)["input_ids"])
    if not ids:
        raise UserError(f"candidate {candidate!r} has no tokens in {tokenizer.name_or_path}")
    return ids
