"""An engine whose answers are functions of the request: for tests, and for players that follow a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Scores, answer_distinct
from debate_rl.records import digest


class ScriptedEngine:
    """Answers by two functions and records the requests.

    Args:
        write: returns the text for a request; an exception makes that request fail.
        score: returns the log-probability of each candidate of a choice; may raise as well.
        keep: whether to record requests and choices.
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
        """Write a text for each request."""
        return answer_distinct(requests, self._generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice."""
        return answer_distinct(choices, self._choose)

    def revision(self, model: str, adapter: str | None) -> str:
        """A fixed name per model and adapter, since a script has no weights."""
        revision = self._revisions.get((model, adapter))
        if revision is None:
            revision = digest(["scripted", model, adapter])
            self._revisions[model, adapter] = revision
        return revision

    def _generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        self.calls += 1
        if self._keep:
            self.requests.extend(requests)
        return [self._complete(request) for request in requests]

    def _choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        self.calls += 1
        if self._keep:
            self.choices.extend(choices)
        return [self._rate(choice) for choice in choices]

    def _complete(self, request: Request) -> Completion | EngineFailure:
        try:
            text = self._write(request)
        except Exception as error:  # a script stands for a model: whatever goes wrong in it is that request's failure
            return EngineFailure(kind="scripted", message=str(error))
        return Completion(
            text=text,
            prompt_tokens=_count_words(request.messages),
            new_tokens=len(text.split()),
            finish="stop",
            revision=self.revision(request.model, request.adapter),
        )

    def _rate(self, choice: Choice) -> Scores | EngineFailure:
        try:
            logprobs = tuple(float(logprob) for logprob in self._score(choice))
        except Exception as error:  # as above
            return EngineFailure(kind="scripted", message=str(error))
        return Scores(
            logprobs=logprobs,
            prompt_tokens=_count_words(choice.messages),
            revision=self.revision(choice.model, choice.adapter),
            candidate_tokens=tuple(len(candidate.split()) for candidate in choice.candidates),
        )


def _count_words(messages: Sequence[Message]) -> int:
    """Words of a prompt, which stand for its tokens."""
    return sum(len(message.content.split()) for message in messages)
