"""Small games for tests of online training: questions, a tiny model's words, and engines that follow a script."""

from __future__ import annotations

from debate_rl.engines.request import Choice, Completion, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.game.question import Question
from debate_rl.judges.judge import Judge
from debate_rl.records import digest
from debate_rl.trainers.grpo.settings import Online
from tests.trainers.tiny import PLACES

RULES = {"prompts": "lab", "max_new_tokens": 6}


def question(number: int, passage: bool = True, correct: int | None = 0) -> Question:
    text = f"the pipe was moved to the {PLACES[number % 4]} at dusk and ines saw . story {number}"
    return Question(
        id=f"q{number}", text="where is the pipe ?", answers=(PLACES[number % 4], PLACES[(number + 1) % 4]),
        correct=correct, passage=text if passage else None, group=f"g{number}", source="test", split="train",
    )  # fmt: skip


def questions(count: int) -> list[Question]:
    return [question(number) for number in range(count)]


def rules(name: str = "debate", **changes) -> Protocol:
    return load_protocol(name, **{**RULES, **changes})


def online(name: str = "debate", **fields) -> Online:
    settings = {"protocol": rules(name), "judge": Judge(model="judge"), **fields}
    return Online.model_validate(settings)


class TokenEngine(ScriptedEngine):
    """A scripted engine that keeps tokens: one for each letter."""

    def generate(self, requests):
        answers = super().generate(requests)
        return [
            a.model_copy(update={"tokens": tuple(map(ord, a.text))}) if isinstance(a, Completion) else a
            for a in answers
        ]


def numbered(request: Request) -> str:
    """A speech that differs from draw to draw."""
    return f"w{request.seed % 97}"


def drawn_verdict(choice: Choice) -> list[float]:
    """A judge whose log-probabilities depend on all that it reads."""
    text = " ".join(message.content for message in choice.messages)
    return [-0.1 - (int(digest([text, candidate]), 16) % 50) / 50 for candidate in choice.candidates]
