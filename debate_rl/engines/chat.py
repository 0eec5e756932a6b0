"""From messages to token ids, so that what a speaker wrote can never act as a token of the chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from debate_rl.engines.marks import marks_of, neutral
from debate_rl.engines.request import Message
from debate_rl.errors import UserError

_PROBE = "debate-rl-probe"


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The prompt text, up to where the assistant begins.

    Templates that refuse a system role (Mistral, Gemma) or leave its text out get it at the head of the first user
    message.

    Raises:
        UserError: the tokenizer has no chat template, or one that can not be used (see `applied`).
    """
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; save one with the model")
    marks = marks_of(tokenizer)
    turns = [{"role": m.role, "content": neutral(m.content, marks)} for m in messages]
    if turns and turns[0]["role"] == "system" and not _shows_system(tokenizer, repr(tokenizer.chat_template)):
        turns = _merged(turns)
    return applied(tokenizer, turns, add_generation_prompt=True)


def applied(tokenizer: Any, turns: Sequence[Mapping[str, str]], add_generation_prompt: bool = False) -> str:
    """The text that a tokenizer's chat template makes of messages.

    Raises:
        UserError: the template has a mistake, or refuses such messages.
    """
    try:
        text = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception as error:  # an expression of a template may raise anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template fails ({said}); save another with the model"
        ) from error
    return str(text)


@lru_cache(maxsize=32)
def _shows_system(tokenizer: Any, template: str) -> bool:
    """Whether a template writes the text of a system message; some pass over it without a word.

    Args:
        tokenizer: whose template it is.
        template: its text, so that a tokenizer that is given another template is asked again.
    """
    turns = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}]
    try:
        return _PROBE in applied(tokenizer, turns, add_generation_prompt=True).lower()
    except UserError:
        return False  # where the template has another fault, it fails without a system message as well


def _merged(turns: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The messages with the system's text at the head of the first user message, alone where none follows it."""
    system, *rest = turns
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system["content"]}, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


class Frame(NamedTuple):
    """What a chat template writes round an assistant's message.

    Example (ChatML):
        Frame(before="", after="<|im_end|>")
    """

    before: str
    """Between the end of the prompt and the message."""
    after: str
    """After the message, up to its end-of-turn token."""


def frame(tokenizer: Any) -> Frame:
    """What stands round an assistant's message: training teaches this end, and engines stop at it.

    Raises:
        UserError: the tokenizer has neither an end-of-turn token in its template nor an end-of-sequence token, or its
            template changes an assistant's message or leaves it out.
    """
    return _frame(tokenizer, repr(tokenizer.chat_template))


@lru_cache(maxsize=32)
def _frame(tokenizer: Any, template: str) -> Frame:
    """See `frame`; the template's text is given so that a tokenizer with another template is asked again."""
    start = render(tokenizer, [Message(role="user", content="x")])
    whole = applied(tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}])
    at = whole.rfind(_PROBE)
    if at < 0:
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template does not show an assistant's message; "
            "save another with the model"
        )
    # Reasoning templates show an answer in the past otherwise than the one being written: then nothing goes before.
    before = whole[len(start) : at] if whole.startswith(start) and len(start) <= at else ""
    after = whole[at + len(_PROBE) :]
    ends = [after.index(token) + len(token) for token in _whole_tokens(tokenizer) if token in after]
    if ends:
        return Frame(before, after[: min(ends)])
    if tokenizer.eos_token is None:
        raise UserError(f"{tokenizer.name_or_path}: no token ends the assistant's turn; set an eos_token")
    return Frame(before, tokenizer.eos_token)


def _whole_tokens(tokenizer: Any) -> set[str]:
    """Every token of more than one character that is whole in any text; one that ends a turn need not be special."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    return {token for token in [*added, *tokenizer.all_special_tokens] if len(token) > 1}


def closing_ids(tokenizer: Any) -> tuple[int, ...]:
    """Token ids that close an assistant's message; the last one ends its turn."""
    return tuple(tokenizer(frame(tokenizer).after, add_special_tokens=False)["input_ids"])


def end_tokens(tokenizer: Any, generation_config: Any = None) -> frozenset[int]:
    """Tokens at which an answer ends: the end of turn that training teaches, and the model's own ends of sequence.

    The first often is not among the others: a base model that is given a chat template keeps `<|endoftext|>` in its
    config, and its speeches end with `<|im_end|>`.
    """
    ends = None if generation_config is None else generation_config.eos_token_id
    found = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
    if tokenizer.chat_template:
        with suppress(UserError):  # the template is complained of where a prompt is made by it
            found += closing_ids(tokenizer)[-1:]
    return frozenset(int(token) for token in found if token is not None)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of the prompt, as training and inference both use them."""
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
