"""What is asked of an engine and what it answers. An answer depends on its own request and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import Field

from debate_rl.records import Record


class Message(Record):
    """One chat message.

    Example:
        Message(role="user", content="story : the pipe was moved to the shed ...")
    """

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Record):
    """How text is drawn. Nothing else is applied: no hidden top-k, no repetition penalty."""

    max_new_tokens: int = Field(default=300, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()
    """Texts that end the answer, besides the model's own end of turn; they are not part of it."""


class Request(Record):
    """One text to generate.

    Example:
        Request(messages=(Message(role="user", content="..."),), model="lab-base", seed=7)
    """

    messages: tuple[Message, ...]
    model: str
    adapter: str | None = None
    """Folder of a LoRA adapter of the model; None is the model itself."""
    sampling: Sampling = Sampling()
    seed: int = 0
    """Two draws from one prompt are two requests with different seeds."""


class Choice(Record):
    """One question with given continuations, of which the model's probabilities are wanted.

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
    """Token ids as they were drawn, the one that ended the answer included, where the engine keeps them: training needs
    these and no others. They are in no file."""
    prompt_ids: tuple[int, ...] | None = Field(default=None, exclude=True, repr=False)
    """Token ids of the prompt as a server read it, where it tells. They are in no file."""


class Scores(Record):
    """Log-probability of each candidate of a choice, natural log, summed over the candidate's tokens.

    Example:
        Scores(logprobs=(-0.41, -1.09), prompt_tokens=88, revision="9f86d081884c7d65")
    """

    logprobs: tuple[float, ...]
    prompt_tokens: int
    revision: str


class EngineFailure(Record):
    """A request that could not be answered; the others of its call are not affected.

    Example:
        EngineFailure(kind="context", message="prompt of 9120 tokens and 300 new ones exceed the model's 8192")
    """

    kind: str
    message: str
    status: int | None = None
    """Of HTTP, where a server refused."""
    param: str | None = None
    """What it refused, where it says so."""


class Engine(Protocol):
    """Two verbs. Everything a round needs is handed over in one call; answers come in the order of the requests."""

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request."""
        ...

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice."""
        ...

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter: part of what identifies an answer."""
        ...
