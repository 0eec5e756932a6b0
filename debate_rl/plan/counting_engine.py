"""An engine that only counts: it answers the real prompts of a rehearsal with words of the right length.

So a plan counts what the run will ask, for any protocol, player and judge: the games are played by their own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

from debate_rl.engines.request import Choice, Completion, EngineFailure, Request, Scores
from debate_rl.records import digest
from debate_rl.stages.habits import WORD, Habits
from debate_rl.stages.workload import SAMPLES, Asked, Weights

_BLOCK = 8
_STRIDE = 512
"""Stories are read in such steps: of a prompt whose beginning was met before, only the rest is cut into blocks."""


class CountingEngine:
    """Answers at once, and counts; what an earlier stage asked is in the store by then, and costs nothing more.

    Args:
        habits: how the models write.
        words: tokens of a word, by model.
    """

    def __init__(self, habits: Habits, words: Callable[[str], float] = lambda model: WORD) -> None:
        self.asked: dict[Weights, Asked] = {}
        self.habits = habits
        self._words = words
        self._known: set[Any] = set()
        self._blocks: set[int] = set()

    def learning(self) -> CountingEngine:
        """One for online training, which draws otherwise and never asks the store."""
        return CountingEngine(replace(self.habits, kinds=self.habits.learning), self._words)

    def begin(self) -> None:
        """Count from 0, for the next stage."""
        self.asked = {}
        self._blocks.clear()

    def take(self, factor: float = 1.0) -> dict[Weights, Asked]:
        """What was asked since the last time, as much for each of so many repetitions; then count from 0."""
        counted = {weights: own.times(factor) for weights, own in self.asked.items()}
        self.asked = {}
        return counted

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Words of the prompt, from a place that the seed draws."""
        return [self._text(request) for request in requests]

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Probabilities drawn by the prompt."""
        return [self._scores(choice) for choice in choices]

    def revision(self, model: str, adapter: str | None) -> str:
        """A name: nothing is loaded."""
        return digest(["rehearsal", model, adapter])

    def _text(self, request: Request) -> Completion:
        new = self.habits.tokens(request)
        own, first = self._count(request)
        if first:
            own.texts += 1
            own.new += new
            own.write += sum(len(message.content) for message in request.messages)
        drawn = request.seed % self.habits.kinds if self.habits.kinds else request.seed
        words = request.messages[-1].content.split() or ["word"]
        start = drawn * 7919 % len(words)
        wanted = max(1, round(new / self._words(request.model)))
        text = " ".join((words[start:] + words * (wanted // len(words) + 1))[:wanted])
        return Completion(
            text=f"{text} {drawn}",
            prompt_tokens=0,
            new_tokens=new,
            finish="stop",
            revision=self.revision(request.model, request.adapter),
            tokens=(),
        )

    def _scores(self, choice: Choice) -> Scores:
        own, first = self._count(choice)
        if first:
            own.verdicts += 1
            own.score += sum(len(message.content) for message in choice.messages)
        drawn = crc32(choice.messages[-1].content.encode()) % 1000 / 1000
        logprobs = [-1.0 - abs(drawn - at / len(choice.candidates)) for at in range(len(choice.candidates))]
        return Scores(
            logprobs=tuple(logprobs),
            prompt_tokens=0,
            revision=self.revision(choice.model, choice.adapter),
            candidate_tokens=(1,) * len(choice.candidates),
        )

    def _count(self, asked: Request | Choice) -> tuple[Asked, bool]:
        """The account of the model that is asked, and whether this is asked for the first time."""
        own = self.asked.setdefault((asked.model, asked.adapter), Asked())
        if asked in self._known:
            return own, False
        self._known.add(asked)
        text = "\n".join(message.content for message in asked.messages)
        own.longest = max(own.longest, len(text))
        if len(own.samples) < SAMPLES:
            own.samples.append(asked.messages)
        before = hash((asked.model, asked.adapter))
        for start in range(0, len(text), _STRIDE):
            part = text[start : start + _STRIDE]
            after = hash((before, part))
            if after not in self._blocks:
                own.once += self._unread(before, part)
                self._blocks.add(after)
            before = after
        return own, True

    def _unread(self, before: int, part: str) -> int:
        """Characters of a part of a prompt that no prompt with the same beginning had."""
        unread = 0
        for start in range(0, len(part), _BLOCK):
            block = part[start : start + _BLOCK]
            before = hash((before, block))
            if before not in self._blocks:
                self._blocks.add(before)
                unread += len(block)
        return unread
