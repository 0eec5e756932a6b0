"""A real engine whose answers are functions of the request: for tests, and for players that follow a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from debate_rl.engines.request import Choice, Completion, EngineFailure, Request, Scores
from debate_rl.records import digest


class ScriptedEngine:
    """Answers by two functions and keeps what it was asked.

    Args:
        write: text for a request; it may raise to make that request fail.
        score: log-probability of each candidate of a choice; it may raise as well.
        keep: whether to keep what was asked.
    """

    def __init__(
        self,
        write: Callable[[Request], str] = lambda request: f"speech {digest(request)}",
        score: Callable[[Choice], Sequence[float]] = lambda choice: [0.0] * len(choice.candidates),
        keep: bool = True,
    ) -> None:
        self._write = write
        self._score = score
        self._keep = keep
        self._revisions: dict[tuple[str, str | None], str] = {}
        self.requests: list[Request] = []
        self.choices: list[Choice] = []
        self.calls = 0

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request, cut at its limit of words."""
        self.calls += 1
        if self._keep:
            self.requests.extend(requests)
        return [self._complete(request) for request in requests]

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice."""
        self.calls += 1
        if self._keep:
            self.choices.extend(choices)
        return [self._rate(choice) for choice in choices]

    def revision(self, model: str, adapter: str | None) -> str:
        """A fixed name: a script has no weights."""
        found = self._revisions.get((model, adapter))
        if found is None:
            found = self._revisions[model, adapter] = digest(["scripted", model, adapter])
        return found

    def _complete(self, request: Request) -> Completion | EngineFailure:
        try:
            text = self._write(request)
        except Exception as error:  # a script stands for a model: whatever goes wrong in it is that request's failure
            return EngineFailure(kind="scripted", message=str(error))
        tokens = sum(len(message.content.split()) for message in request.messages)
        return Completion(
            text=text, prompt_tokens=tokens, new_tokens=len(text.split()), finish="stop",
            revision=self.revision(request.model, request.adapter),
        )  # fmt: skip

    def _rate(self, choice: Choice) -> Scores | EngineFailure:
        try:
            logprobs = tuple(float(x) for x in self._score(choice))
        except Exception as error:  # as above
            return EngineFailure(kind="scripted", message=str(error))
        tokens = sum(len(message.content.split()) for message in choice.messages)
        return Scores(logprobs=logprobs, prompt_tokens=tokens, revision=self.revision(choice.model, choice.adapter))
