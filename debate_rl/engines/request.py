"""Requests to an engine and its answers. An answer depends on its own request and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal, Protocol, TypeVar

from pydantic import Field

from debate_rl.records import Record

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


def _is_one(value: float) -> bool:
    return value == 1


def _is_empty(value: str | None) -> bool:
    return not value


class Message(Record):
    """One chat message.

    Example:
        Message(role="user", content="story : the pipe was moved to the shed ...")
    """

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Record):
    """Sampling parameters. Nothing else is applied: no hidden top-k, no repetition penalty but the one given."""

    max_new_tokens: int = Field(default=300, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()
    """Texts that end the answer, besides the model's own end of turn. They are not part of the answer."""
    # Left out of a dump where it says nothing: dumps are in the keys of stores and in the random numbers of requests.
    repetition_penalty: float = Field(default=1.0, ge=1, exclude_if=_is_one)
    """Divides the logits of tokens that stand in the prompt or the answer (multiplies negative ones), as transformers,
    vLLM and SGLang do (Keskar et al. 2019); 1 changes nothing."""


class Request(Record):
    """One text to generate.

    Example:
        Request(messages=(Message(role="user", content="..."),), model="lab-base", seed=7)
    """

    messages: tuple[Message, ...]
    model: str
    adapter: str | None = None
    """Folder of a LoRA adapter for the model; None is the model itself."""
    sampling: Sampling = Sampling()
    seed: int = 0
    """Two draws from one prompt are two requests with different seeds."""
    opening: str = Field(default="", exclude_if=_is_empty)
    """Beginning of the assistant's message; the answer is what follows it, and does not repeat it."""
    grammar: str | None = Field(default=None, exclude_if=_is_empty)
    """Lark grammar (llguidance) that the answer keeps to, from its first character; an answer that reaches the limit of
    tokens is the beginning of such a text."""

    def trimmed(self, text: str) -> str:
        """An answer without the spaces around it; behind an opening the first space parts two words, and stays."""
        return text.rstrip() if self.opening else text.strip()


class Choice(Record):
    """One prompt with given continuations, for which the engine returns the model's log-probabilities.

    Example:
        Choice(messages=(Message(role="user", content="..."),), model="lab-base", candidates=("shed", "barn"))
    """

    messages: tuple[Message, ...]
    model: str
    adapter: str | None = None
    candidates: tuple[str, ...] = Field(min_length=2)


class Completion(Record):
    """The text of a request.

    Example:
        Completion(text="the answer is shed", prompt_tokens=131, new_tokens=5, finish="stop", revision="9f86d0818")
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length"]
    revision: str
    """Fingerprint of the weights that answered."""
    tokens: tuple[int, ...] | None = Field(default=None, exclude=True, repr=False)
    """Sampled token ids with the one that ended the answer, if the engine keeps them. Training needs exactly these ids:
    encoding the text again may give others. Never written to a file."""
    prompt_ids: tuple[int, ...] | None = Field(default=None, exclude=True, repr=False)
    """Token ids of the prompt as a server read it, if the server reports them. Never written to a file."""


class Scores(Record):
    """Log-probability of each candidate of a choice, natural log, summed over the candidate's tokens.

    Example:
        Scores(logprobs=(-0.41, -1.09), prompt_tokens=88, revision="9f86d081884c7d65", candidate_tokens=(1, 1))
    """

    logprobs: tuple[float, ...]
    prompt_tokens: int
    revision: str
    candidate_tokens: tuple[int, ...] | None = None
    """Number of tokens of each candidate; None where they were not counted: a server that scores the first token alone,
    or a store of an older version."""


class EngineFailure(Record):
    """A request that could not be answered. The other requests of its call are not affected.

    Example:
        EngineFailure(kind="context", message="prompt of 9120 tokens and 300 new ones exceed the model's 8192")
    """

    kind: str
    message: str


class Engine(Protocol):
    """Answers requests in batches: all requests of a debate round go into one call.

    Answers come in the order of the requests, and equal requests of one call get the same answer.
    """

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request."""
        ...

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice."""
        ...

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter; part of an answer's key in the store."""
        ...


def answer_distinct(questions: Sequence[K], ask: Callable[[list[K]], list[A]]) -> list[A]:
    """Ask each distinct question once and give equal questions the same answer.

    Every engine passes its calls through here. Players who share a model send equal requests, and a server would draw
    a different text for each of them.

    Args:
        questions: requests, choices, or their keys in the store.
        ask: answers the distinct questions, in the order of their first appearance.

    Returns:
        One answer per question, in order.
    """
    distinct = list(dict.fromkeys(questions))
    answers = dict(zip(distinct, ask(distinct), strict=True))
    return [answers[question] for question in questions]
