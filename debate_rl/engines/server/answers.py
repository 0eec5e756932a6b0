"""Reads a server's answers: texts, token ids and counts of tokens, in the form of OpenAI's API.

Servers leave fields out or fill them with anything. What can not be read raises one of `endpoint.MALFORMED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from debate_rl.engines.request import EngineFailure
from debate_rl.engines.server.endpoint import MALFORMED
from debate_rl.engines.server.first_token import logprob

_MOST_TOKENS = 10**9
"""Tokens of one answer; what is above it is no count, and would spend any budget."""


class RawText(NamedTuple):
    """One choice of an answer, its fields not checked yet.

    Example:
        RawText(text="The pipe is in the shed.", finish="stop", ids=(791, 13961, 374, 128009))
    """

    text: Any
    finish: Any
    """Finish reason: stop, length, content_filter, ..."""
    ids: tuple[int, ...] | None
    """Token ids of the text; None where the server sends none."""

    @property
    def length(self) -> int:
        """Tokens of the text where they are known, else its characters."""
        if not isinstance(self.text, str):
            return 0
        # Characters will do: only the lengths of one answer's texts are compared with each other.
        return len(self.ids or self.text)


class Usage(NamedTuple):
    """Tokens of one answer; 0 where the server does not count them.

    Example:
        Usage(prompt=4102, new=188, cached=3968)
    """

    prompt: int
    """Tokens of the prompt, cached ones included."""
    new: int
    """Tokens of all texts of the answer."""
    cached: int


class LostAnswer(Exception):
    """A failed request, raised out of a task that takes several requests."""

    def __init__(self, failure: EngineFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def answer_or_raise(reply: dict[str, Any] | EngineFailure) -> dict[str, Any]:
    """The answer.

    Raises:
        LostAnswer: it is a failure.
    """
    if isinstance(reply, EngineFailure):
        raise LostAnswer(reply)
    return reply


def read_texts(reply: dict[str, Any]) -> list[RawText]:
    """The choices of an answer, in their order."""
    texts = []
    for choice in reply["choices"]:
        ids = token_ids(choice.get("token_ids"))
        texts.append(RawText(choice["message"]["content"], choice["finish_reason"], ids))
    return texts


def read_first_token(reply: dict[str, Any]) -> list[tuple[str, float]] | None:
    """The likeliest first tokens of an answer with their log-probabilities; None where the server sends none."""
    content = (reply["choices"][0].get("logprobs") or {}).get("content")
    if not content:
        return None
    top = [(str(token["token"]), logprob(token["logprob"])) for token in content[0]["top_logprobs"]]
    if not top:
        raise IndexError("no tokens")
    return top


def token_ids(listed: Any) -> tuple[int, ...] | None:
    """Token ids of a list; None where it is empty or not there."""
    if not listed:
        return None
    return tuple(int(token) for token in listed)


def read_usage(reply: dict[str, Any]) -> Usage:
    """Count the tokens of an answer.

    Raises:
        ValueError: they are no counts; or what else `MALFORMED` lists.
    """
    # `or`: servers send null as well as nothing.
    usage = reply.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    counts = Usage(
        prompt=int(usage.get("prompt_tokens") or 0),
        new=int(usage.get("completion_tokens") or 0),
        cached=int(details.get("cached_tokens") or 0),
    )
    if not all(0 <= count <= _MOST_TOKENS for count in counts):
        raise ValueError(f"{counts.prompt}, {counts.new} and {counts.cached} are no counts of tokens")
    return counts


def usage_or_none(reply: dict[str, Any]) -> Usage | None:
    """Count the tokens of an answer; None where the server does not count them, or not readably."""
    try:
        usage = read_usage(reply)
    except MALFORMED:
        return None
    # No prompt has 0 tokens, so such a server does not count.
    return usage if usage.prompt else None


def count_every_text(reply: dict[str, Any]) -> None:
    """Have an answer of llama.cpp count the tokens of all its texts, in place.

    Its `usage` counts the first text alone, and so do its `timings`, which no other server sends. The other texts are
    taken to have as many tokens a character.
    """
    try:
        texts = read_texts(reply)
        first = read_usage(reply).new
        if len(texts) < 2 or reply["timings"]["predicted_n"] != first:
            return
    except MALFORMED:
        return
    lengths = [max(text.length, 1) for text in texts]
    reply["usage"]["completion_tokens"] = round(first * sum(lengths) / lengths[0])


def shares(tokens: int, lengths: Sequence[int]) -> list[int]:
    """Divide the tokens of an answer among its texts, by their lengths: servers count only the sum.

    The shares add up to the tokens exactly: each is the difference of two rounded cumulative shares.
    """
    whole = max(sum(lengths), 1)
    counts = []
    end = 0
    counted = 0
    for length in lengths:
        end += length
        counted_now = round(tokens * end / whole)
        counts.append(counted_now - counted)
        counted = counted_now
    # Only empty texts: their tokens (an end of turn each) still have to be counted somewhere.
    if not sum(lengths):
        counts[0] = tokens
    return counts
