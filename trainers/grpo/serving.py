"""Lets a server write the policy's speeches: it loads the adapter of every step and returns token ids with the text.

Adapters lie in OUT/policy/step-000012 while they are in use. On the server their names contain the step and their
fingerprint, so that nothing cached for one adapter is used for another. Training learns the token ids that the server
drew. If a server does not return ids, the text is encoded again, which mostly gives the same tokens, and counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from debate_rl.engines.chat import closing_ids, end_tokens, turn_marks
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.marks import marks_of, neutral
from debate_rl.engines.opening import request_ids
from debate_rl.engines.request import (
    Choice,
    Completion,
    EngineFailure,
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
    """An engine whose players are on a server. Its judges are there as well, or in this process.

    Args:
        online: protocol and judges, with `server` set.
        here: answers for the judges that the server does not hold.
        out: the job's folder.
        tokenizer: the policy's tokenizer.
        base: the policy's base model, as the training loads it.
        rank: number of this process.
    """

    def __init__(
        self, online: Online, here: TransformersEngine, out: Path, tokenizer: Any, base: str, rank: int = 0
    ) -> None:
        if online.server is None:
            raise ValueError("there is no server")
        self.server = online.server
        self.base = base
        self.folder = out / "policy"
        self.step: int | None = None
        """Step whose policy the server answers with."""
        self.retokenized = 0
        """Speeches of this step that came without token ids."""
        self._here = here
        self._tokenizer = tokenizer
        self._marks = marks_of(tokenizer)
        self._ends = end_tokens(tokenizer)
        self._there = _open_server(online.server, rank, tokenizer)
        self._local_weights: set[tuple[str, str | None]] = set()
        if not online.server.verdicts:
            self._local_weights |= _weights(online.judge)
            if online.watch is not None and online.watch.second is not None:
                self._local_weights |= _weights(online.watch.second)

    @property
    def player(self) -> Debater:
        """The policy of the current step, as the server names it."""
        adapter = self._adapter_folder(self.step or 0)
        return Debater(name=POLICY, model=self.server.model, adapter=str(adapter))

    def send(self, step: int, save: Callable[[Path], None]) -> None:
        """Write a step's adapter and make the server load it. One process calls this.

        Args:
            step: of the policy.
            save: writes the adapter into a folder.

        Raises:
            UserError: the server does not load it.
        """
        folder = self._adapter_folder(step)
        # Written beside its name and renamed: a training killed here leaves no half adapter under that name.
        partial = self.folder / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        save(partial)
        self._remove(folder)  # left by a training that was stopped at this step
        partial.rename(folder)
        self._there.load(self.server.model, str(folder))

    def leave(self, step: int | None = None) -> None:
        """Unload all policies from the server except that of a step. None ends training and unloads the league too."""
        current = None if step is None else self._adapter_folder(step)
        for folder in sorted(self.folder.glob("step-*")):
            if folder != current:
                self._remove(folder)
        if step is not None:
            return
        # Members of the league stay on disk: they are results of the training.
        for folder in sorted((self.folder.parent / "league").glob("step-*")):
            self._unload(folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def encode(self, request: Request) -> tuple[int, ...]:
        """Token ids of a prompt and its opening as they are sent."""
        return request_ids(self._tokenizer, self._neutralised(request))

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request; the policy's texts carry their tokens.

        Raises:
            UserError: see `ServerEngine`; or the server encodes prompts differently from the training.
        """
        return answer_distinct(
            requests, lambda distinct: self._dispatch(distinct, self._generate_there, self._here.generate)
        )

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice."""
        return self._dispatch(choices, self._there.choose, self._here.choose)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of what answers for a model with its adapter."""
        if (model, adapter) in self._local_weights:
            return self._here.revision(model, adapter)
        return self._there.revision(model, adapter)

    def release(self) -> None:
        """Forget the prompts that local judges have encoded."""
        self._here.release()

    def _dispatch(
        self, questions: Sequence[Q], there: Callable[[Sequence[Q]], list[A]], here: Callable[[Sequence[Q]], list[A]]
    ) -> list[A]:
        """Answer each question where its weights are; returns answers in the order of the questions."""
        is_local = [(question.model, question.adapter) in self._local_weights for question in questions]
        local: list[Q] = []
        remote: list[Q] = []
        for question, held_here in zip(questions, is_local, strict=True):
            if held_here:
                local.append(question)
            else:
                remote.append(question)
        local_answers = iter(here(local) if local else [])
        remote_answers = iter(there(remote))
        answers = []
        for held_here in is_local:
            if held_here:
                answers.append(next(local_answers))
            else:
                answers.append(next(remote_answers))
        return answers

    def _generate_there(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """The server's texts; those of the policy are made learnable."""
        policy = self.player
        is_policy = [(request.model, request.adapter) == (policy.model, policy.adapter) for request in requests]
        # Only what the policy reads has to be what training reads; prompts of opponents go to the server unchanged.
        sent = []
        for request, by_policy in zip(requests, is_policy, strict=True):
            if by_policy:
                request = self._neutralised(request)
            sent.append(request)
        answers = []
        for request, by_policy, answer in zip(requests, is_policy, self._there.generate(sent), strict=True):
            if by_policy and isinstance(answer, Completion):
                answer = self._with_tokens(request, answer)
            answers.append(answer)
        return answers

    def _with_tokens(self, request: Request, answer: Completion) -> Completion:
        """A speech of the policy with its tokens.

        Raises:
            UserError: the server encoded the prompt differently from the training.
        """
        ours = self.encode(request)
        if answer.prompt_ids is not None and answer.prompt_ids != ours:
            raise UserError(
                f"{self._there.url} reads a prompt as {len(answer.prompt_ids)} tokens, and training reads other ones "
                f"({len(ours)}): its chat template or tokenizer is not that of {self.base}; start it with that "
                "model's (vllm serve --chat-template, --tokenizer), or set server_roles: none"
            )
        if answer.tokens is not None:
            return self._until_end_of_turn(request, answer, answer.tokens)
        self.retokenized += 1
        ids = tuple(self._tokenizer(answer.text, add_special_tokens=False)["input_ids"])
        if answer.finish == "stop":
            # The text lacks the token that ended it, and the policy has to learn to end its turns.
            ids += closing_ids(self._tokenizer)
        return answer.model_copy(update={"tokens": ids})

    def _until_end_of_turn(self, request: Request, answer: Completion, tokens: tuple[int, ...]) -> Completion:
        """Cut a speech after its end of turn.

        A server that stops at another token than the template's end of turn goes on to write the opponent's turn.
        """
        end = next((index for index, token in enumerate(tokens) if token in self._ends), None)
        if end is None:
            return answer
        if end == len(tokens) - 1:
            return answer.model_copy(update={"finish": "stop"})
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return answer.model_copy(update={"text": request.trimmed(text), "tokens": tokens[: end + 1], "finish": "stop"})

    def _neutralised(self, request: Request) -> Request:
        """A request whose messages are without control marks of the usual templates or of the policy's.

        The server engine does this too, but knows the usual templates only.
        """
        messages = tuple(
            message.model_copy(update={"content": neutral(message.content, self._marks)})
            for message in request.messages
        )
        return request.model_copy(update={"messages": messages, "opening": neutral(request.opening, self._marks)})

    def _adapter_folder(self, step: int) -> Path:
        """Folder of a step's adapter."""
        return self.folder / f"step-{step:06d}"

    def _remove(self, folder: Path) -> None:
        """Remove an adapter from the server and from disk."""
        if folder.is_dir():
            self._unload(folder)
            shutil.rmtree(folder)

    def _unload(self, folder: Path) -> None:
        """Unload an adapter from the server."""
        # A failure is only printed: an adapter that stays loaded takes memory there, but harms no training.
        complaint = self._there.unload(str(folder))
        if complaint is not None:
            print(f"{folder.name} was not unloaded: {complaint}", flush=True)


def _open_server(server: Server, rank: int, tokenizer: Any) -> ServerEngine:
    """The server's engine. All processes write what they paid beside one ledger."""
    ledger = None if server.ledger is None else Path(server.ledger)
    budget = Budget(ledger, server.tokens, server.money, server.prices, rank)
    ends, marks = end_tokens(tokenizer), turn_marks(tokenizer)
    return ServerEngine(server.settings(), budget=budget, keep_tokens=True, ends=ends, marks=marks)


def _weights(judge: AnyJudge) -> set[tuple[str, str | None]]:
    """The (model, adapter) pairs that answer for a judge."""
    if not isinstance(judge, Panel):
        return {(judge.model, judge.adapter)}
    weights: set[tuple[str, str | None]] = set()
    for member in judge.members:
        weights |= _weights(member)
    return weights
