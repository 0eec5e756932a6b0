"""Prompts with an opening: token ids up to where an answer goes on from text that it begins with."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from debate_rl.engines.chat import frame, prompt_ids, render
from debate_rl.engines.marks import marks_of, neutral
from debate_rl.engines.request import Request
from debate_rl.errors import UserError


def request_ids(tokenizer: Any, request: Request) -> tuple[int, ...]:
    """Token ids in front of a request's answer: the prompt, and the opening where it has one.

    Raises:
        UserError: the tokenizer has no chat template, or its template fails.
    """
    ids = prompt_ids(tokenizer, request.messages)
    if not request.opening:
        return ids
    before = ""
    with suppress(UserError):  # a template without an end of turn writes nothing in front of a message either
        before = frame(tokenizer).before
    opening = before + neutral(request.opening, marks_of(tokenizer))
    # Together with the prompt, and alone where tokens would merge across the border: as trainings encode a speech.
    whole = tuple(tokenizer(render(tokenizer, request.messages) + opening, add_special_tokens=False)["input_ids"])
    if whole[: len(ids)] == ids:
        return whole
    return (*ids, *tokenizer(opening, add_special_tokens=False)["input_ids"])
