"""One answer for a question that is in a call several times: players who share a model draw the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores

Q = TypeVar("Q", Request, Choice)
A = TypeVar("A")


class Once:
    """An engine that is asked each question of a call once, however often the call holds it.

    Args:
        engine: who answers.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request."""
        return _answer(requests, self.engine.generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice."""
        return _answer(choices, self.engine.choose)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter."""
        return self.engine.revision(model, adapter)


def _answer(questions: Sequence[Q], ask: Callable[[Sequence[Q]], list[A]]) -> list[A]:
    """Ask each different question, in the order in which it first comes."""
    places: dict[Q, int] = {}
    for question in questions:
        places.setdefault(question, len(places))
    answers = ask(list(places))
    return [answers[places[question]] for question in questions]
