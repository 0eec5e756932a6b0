"""The policy at a server: it is sent the adapter of every step, and its speeches come back token by token.

Adapters lie in OUT/policy/step-000012 while they are in use; the server has them under a name with the step and their
fingerprint, so what it keeps of one is never taken for another's. What is learnt are the ids that the server drew. From
a server that tells none the text is encoded again, which mostly gives the same tokens, and counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from debate_rl.engines.chat import closing_ids, end_tokens, prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.marks import marks_of, neutral
from debate_rl.engines.request import (
    Choice,
    Completion,
    Engine,
    EngineFailure,
    Message,
    Request,
    Scores,
    answer_distinct,
)
from debate_rl.engines.server.budget import Budget
from debate_rl.engines.server.engine import ServerEngine
from debate_rl.errors import UserError
from debate_rl.judges.judge import AnyJudge, Panel
from debate_rl.players.debater import Debater
from debate_rl.trainers.grpo.groups import POLICY
from debate_rl.trainers.grpo.settings import Online, Server

Q = TypeVar("Q", Request, Choice)
A = TypeVar("A", Completion | EngineFailure, Scores | EngineFailure)


class Serving:
    """An engine whose players are at a server; its judges are there as well, or here.

    Args:
        online: rules and judges, with a server.
        here: answers for the judges that the server does not answer for.
        out: the job's folder.
        tokenizer: the policy's.
        base: the policy's base model, as the training loads it.
        rank: of this process.
    """

    def __init__(
        self, online: Online, here: TransformersEngine, out: Path, tokenizer: Any, base: str, rank: int = 0
    ) -> None:  # fmt: skip
        if online.server is None:
            raise ValueError("there is no server")
        self.server, self.base, self.folder = online.server, base, out / "policy"
        self.step: int | None = None
        """Whose policy the server answers with."""
        self.retokenized = 0
        """Speeches that came without ids since the policy sat down."""
        self._here, self._tokenizer = here, tokenizer
        self._marks = marks_of(tokenizer)
        self._ends = end_tokens(tokenizer)
        self._there = _opened(online.server, rank, self._ends)
        second = None if online.watch is None else online.watch.second
        judges = () if online.server.verdicts else (online.judge, *(() if second is None else (second,)))
        self._held = {weights for judge in judges for weights in _weights(judge)}

    @property
    def player(self) -> Debater:
        """The policy of the step, as the server has it."""
        return Debater(name=POLICY, model=self.server.model, adapter=str(self._place(self.step or 0)))

    def send(self, step: int, save: Callable[[Path], None]) -> None:
        """Write a step's adapter and have the server load it; for one process.

        Raises:
            UserError: it does not.
        """
        place, partial = self._place(step), self.folder / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        save(partial)
        self._forget(place)  # of a training that was stopped at this step
        partial.rename(place)
        self._there.load(self.server.model, str(place))

    def leave(self, step: int | None = None) -> None:
        """Have the server let go of all policies but a step's, of past ones in the league at the end as well."""
        kept = None if step is None else self._place(step)
        for place in sorted(self.folder.glob("step-*")):
            if place != kept:
                self._forget(place)
        if step is None:
            for place in sorted((self.folder.parent / "league").glob("step-*")):
                self._unload(place)
            shutil.rmtree(self.folder, ignore_errors=True)

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a prompt as it is sent."""
        return prompt_ids(self._tokenizer, self._sent(messages))

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request; those of the policy carry their tokens.

        Raises:
            UserError: see `ServerEngine`; or the server reads prompts otherwise than the training does.
        """
        return answer_distinct(requests, lambda distinct: self._dealt(distinct, self._written, self._here.generate))

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice."""
        return self._dealt(choices, self._there.choose, self._here.choose)

    def revision(self, model: str, adapter: str | None) -> str:
        """Name of what answers."""
        engine: Engine = self._here if (model, adapter) in self._held else self._there
        return engine.revision(model, adapter)

    def release(self) -> None:
        """Forget what judges here have read."""
        self._here.release()

    def _dealt(
        self, asked: Sequence[Q], there: Callable[[Sequence[Q]], list[A]], here: Callable[[Sequence[Q]], list[A]]
    ) -> list[A]:
        """Each question where its weights are."""
        own = [(one.model, one.adapter) in self._held for one in asked]
        sides = {
            True: iter(here([one for one, held in zip(asked, own, strict=True) if held]) if any(own) else []),
            False: iter(there([one for one, held in zip(asked, own, strict=True) if not held])),
        }
        return [next(sides[held]) for held in own]

    def _written(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """The server's texts."""
        policy = self.player
        mine = [(one.model, one.adapter) == (policy.model, policy.adapter) for one in requests]
        sent = [
            one.model_copy(update={"messages": self._sent(one.messages)}) if own else one
            for one, own in zip(requests, mine, strict=True)
        ]
        answers = self._there.generate(sent)
        return [
            self._learnable(one, answer) if own and isinstance(answer, Completion) else answer
            for one, own, answer in zip(requests, mine, answers, strict=True)
        ]

    def _learnable(self, request: Request, answer: Completion) -> Completion:
        """A speech of the policy with its tokens.

        Raises:
            UserError: the prompt was read otherwise than the training reads it.
        """
        ours = self.encode(request.messages)
        if answer.prompt_ids is not None and answer.prompt_ids != ours:
            raise UserError(
                f"{self._there.url} reads a prompt as {len(answer.prompt_ids)} tokens, and training reads other ones "
                f"({len(ours)}): its chat template or tokenizer is not that of {self.base}; start it with that "
                "model's (vllm serve --chat-template, --tokenizer), or set served: none"
            )
        if answer.tokens is not None:
            return self._ended(answer, answer.tokens)
        self.retokenized += 1
        ids = tuple(self._tokenizer(answer.text, add_special_tokens=False)["input_ids"])
        end = closing_ids(self._tokenizer) if answer.finish == "stop" else ()
        return answer.model_copy(update={"tokens": ids + end})

    def _ended(self, answer: Completion, tokens: tuple[int, ...]) -> Completion:
        """A speech up to its end of turn: a server that waits for another token writes the opponent's turn as well."""
        at = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        if at is None:
            return answer
        if at == len(tokens) - 1:
            return answer.model_copy(update={"finish": "stop"})
        text = self._tokenizer.decode(tokens[:at], skip_special_tokens=True)
        return answer.model_copy(update={"text": text.strip(), "tokens": tokens[: at + 1], "finish": "stop"})

    def _sent(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Messages without any control mark, neither of the usual templates nor of the policy's."""
        return tuple(one.model_copy(update={"content": neutral(one.content, self._marks)}) for one in messages)

    def _place(self, step: int) -> Path:
        """Folder of a step's adapter."""
        return self.folder / f"step-{step:06d}"

    def _forget(self, place: Path) -> None:
        """Have an adapter neither at the server nor on disk."""
        if place.is_dir():
            self._unload(place)
            shutil.rmtree(place)

    def _unload(self, place: Path) -> None:
        """Have the server let go of an adapter; one that it keeps costs room there, and no training."""
        for said in self._there.unload(str(place)):
            print(f"{place.name} was not unloaded: {said}", flush=True)


def _opened(server: Server, rank: int, ends: frozenset[int]) -> ServerEngine:
    """The server's engine; all processes write what they paid beside one ledger."""
    ledger = None if server.ledger is None else Path(server.ledger)
    return ServerEngine(
        server.url, server.key_env, concurrency=server.concurrency, retries=server.retries, timeout=server.timeout,
        deployed=server.revision, load_adapters=True, keep_tokens=True, ends=ends,
        budget=Budget(ledger, server.tokens, server.money, server.prices, rank),
    )  # fmt: skip


def _weights(judge: AnyJudge) -> set[tuple[str, str | None]]:
    """Models and adapters that answer for a judge."""
    if isinstance(judge, Panel):
        return {weights for member in judge.members for weights in _weights(member)}
    return {(judge.model, judge.adapter)}
