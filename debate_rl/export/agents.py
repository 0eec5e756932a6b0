"""Agents of `verifiers` as the engine of a debate: each speech is one run of the agent that sits on its seat."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

import verifiers.v1 as vf

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores


class SpeechData(vf.TaskData):
    """The prompt of one speech."""

    max_new_tokens: int
    """Longest speech in tokens, where the trainer's sampling does not say `max_tokens`."""


class SpeechTask(vf.Task[SpeechData]):
    """One speech. Its reward comes from the environment, when the debate is over."""


class DebateHarnessConfig(vf.HarnessConfig):
    """Settings of `DebateHarness`: none of its own."""


class DebateHarness(vf.Harness[DebateHarnessConfig]):
    """One call to the model, made by this process: a speech needs no tools, program or sandbox."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: SpeechData,
    ) -> vf.ProgramResult:
        """Ask for the speech at the address that verifiers gives, which records tokens and sets the sampling."""
        import httpx

        messages = [{"role": message.role, "content": message.content} for message in data.prompt or ()]
        body = {"model": ctx.model, "messages": messages, "max_tokens": data.max_new_tokens}
        # Without a limit of its own: verifiers bounds each run by the agent's `timeout.rollout`.
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
            headers = {"Authorization": f"Bearer {secret}"}
            answer = await client.post(f"{endpoint}/chat/completions", json=body, headers=headers)
        if answer.is_success:
            return vf.ProgramResult(exit_code=0, stdout="", stderr="")
        return vf.ProgramResult(exit_code=1, stdout="", stderr=f"the model answered {answer.status_code}")


class AgentEngine:
    """An `Engine` whose speeches come from agents; the judge's own engine answers for all other models.

    Games are played in a thread of their own, by the same code as everywhere; the agents live on the event loop.

    Args:
        agents: the agents of an episode by seat, which is the name of the seat's model.
        judge_engine: answers for the judge.
        lock: held while the judge's engine works; None where it may be asked by many threads at a time.
        loop: where the agents run.
    """

    def __init__(
        self,
        agents: dict[str, vf.Agent],
        judge_engine: Engine,
        lock: threading.Lock | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._agents = agents
        self._judge_engine = judge_engine
        self._lock = lock
        self._loop = loop
        self._under_way: set[Future[Any]] = set()
        self._closed = False
        self.traces: dict[str, list[vf.Trace]] = {seat: [] for seat in agents}
        """The traces of each seat's speeches, in the order in which it spoke."""

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Have all speeches of a turn written at once, and the judge's texts by its own engine."""
        futures: dict[int, Future[Any]] = {}
        for number, request in enumerate(requests):
            if request.model in self._agents:
                futures[number] = self._submit(request)
        rest = [request for number, request in enumerate(requests) if number not in futures]
        others = iter(self._judged(rest))
        answers: list[Completion | EngineFailure] = []
        for number in range(len(requests)):
            answers.append(futures[number].result() if number in futures else next(others))
        return answers

    def _judged(self, requests: list[Request]) -> list[Completion | EngineFailure]:
        if not requests:
            return []
        with self._lock or nullcontext():
            return self._judge_engine.generate(requests)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Ask the judge."""
        with self._lock or nullcontext():
            return self._judge_engine.choose(choices)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of the judge's model; that of a seat is the name of the model on it."""
        if model in self._agents:
            return str(self._agents[model].config.model)
        return self._judge_engine.revision(model, adapter)

    def close(self) -> None:
        """Stop what is under way: an episode that was cancelled must not go on speaking."""
        self._closed = True
        for future in list(self._under_way):
            future.cancel()

    def _submit(self, request: Request) -> Future[Any]:
        if self._closed:
            raise RuntimeError("the episode is over")
        future = asyncio.run_coroutine_threadsafe(self._speak(request), self._loop)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    async def _speak(self, request: Request) -> Completion | EngineFailure:
        prompt = [message.model_dump() for message in request.messages]
        data = SpeechData(prompt=prompt, max_new_tokens=request.sampling.max_new_tokens)
        agent = self._agents[request.model]
        trace = await agent.run(SpeechTask(data))
        if not trace.ok:
            error = trace.last_error
            reason = error.message.partition("\n")[0] if error else str(trace.stop_condition)
            return EngineFailure(kind="agent", message=reason)
        self.traces[request.model].append(trace)
        return Completion(
            text=request.trimmed(trace.last_reply),
            prompt_tokens=trace.num_input_tokens,
            new_tokens=trace.num_output_tokens,
            finish="length" if trace.is_truncated else "stop",
            revision=str(agent.config.model),
        )
