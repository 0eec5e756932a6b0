"""The store in front of an engine: no answer is paid for twice.

An answer's name is the content of its request and of the weights that answer it. Answers are appended to JSON-lines
files, one per writing process, so that several processes may share a store; a line torn by a crash is skipped.
Prompts are not kept: a line is a name and an answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores
from debate_rl.records import Record, append, digest, read_log

Q = TypeVar("Q", Request, Choice)
A = TypeVar("A", Completion, Scores)


class Stored(Record):
    """One line of the store.

    Example:
        Stored(key="5f1d7a84db00d2fc", completion=Completion(text="the answer is shed", ...))
    """

    key: str
    completion: Completion | None = None
    scores: Scores | None = None


class StoredEngine:
    """An engine with a store in front.

    Args:
        engine: who answers what the store does not hold.
        folder: where the store lives; it is made if absent.
        wave: so many missing requests are answered before they are written down, so that a crash loses at most these.
    """

    def __init__(self, engine: Engine, folder: str | Path, wave: int = 256) -> None:
        self.engine = engine
        self.folder = Path(folder)
        self.wave = wave
        self.hits = 0
        self.misses = 0
        self._file = self.folder / f"{os.getpid()}-{uuid4().hex[:8]}.jsonl"
        self._completions: dict[str, Completion] = {}
        self._scores: dict[str, Scores] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            for line in read_log(file, Stored):
                self._keep(line)

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request, or take it from the store."""
        keys = [self._key("generate", request) for request in requests]
        return self._answer(keys, requests, self._completions, self.engine.generate, "completion")

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice, or take the scores from the store."""
        keys = [self._key("choose", choice) for choice in choices]
        return self._answer(keys, choices, self._scores, self.engine.choose, "scores")

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter."""
        return self.engine.revision(model, adapter)

    def _key(self, verb: str, question: Request | Choice) -> str:
        """Name of an answer. The path of a model or adapter does not count, its weights do."""
        asked = question.model_dump(mode="json", exclude={"model", "adapter"})
        return digest([verb, asked, self.engine.revision(question.model, question.adapter)])

    def _keep(self, line: Stored) -> None:
        if line.completion is not None:
            self._completions[line.key] = line.completion
        if line.scores is not None:
            self._scores[line.key] = line.scores

    def _answer(
        self,
        keys: Sequence[str],
        questions: Sequence[Q],
        shelf: dict[str, A],
        ask: Callable[[Sequence[Q]], list[A | EngineFailure]],
        field: str,
    ) -> list[A | EngineFailure]:
        """Ask for each missing answer once, write it down, and give every answer in order. Failures are not kept."""
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in shelf}
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        failures: dict[str, EngineFailure] = {}
        wanted = list(missing)
        for start in range(0, len(wanted), self.wave):
            names = wanted[start : start + self.wave]
            answers = ask([missing[name] for name in names])
            lines = []
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, EngineFailure):
                    failures[name] = answer
                else:
                    shelf[name] = answer
                    lines.append(Stored.model_validate({"key": name, field: answer}))
            append(self._file, lines)
        return [failures[key] if key in failures else shelf[key] for key in keys]
