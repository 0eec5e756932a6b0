"""The policy at the table: the model in training answers as it stands, under a name that carries the step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from pathlib import Path
from typing import Any

import torch
from trl.models import unwrap_model_for_generation

from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Engine
from debate_rl.engines.weights import BASE_FILE, fingerprint
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.players.debater import Debater
from debate_rl.records import write_json
from debate_rl.trainers.grpo.selfplay import LATE, POLICY
from debate_rl.trainers.grpo.serving import Serving

CHUNK = 64
"""Games that a judge with a time limit is given at a time."""
PATIENCE = 3
"""Steps in a row without any verdict in time, after which training ends."""


@contextlib.contextmanager
def whole(trainer: Any) -> Iterator[Any]:
    """The trainer's policy with its weights whole, without gradients."""
    gather = trainer.args.ds3_gather_for_generation
    with (
        unwrap_model_for_generation(
            trainer.model_wrapped, trainer.accelerator, gather_deepspeed3_params=gather,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as network,
        torch.no_grad(),
        # Loading an opponent's adapter draws its first weights: training's own random numbers stay as they are.
        torch.random.fork_rng(devices=[]),
    ):  # fmt: skip
        yield network


def save_adapter(trainer: Any, folder: Path, model: str) -> None:
    """Write the policy's adapter, whole, into a folder; for one process, while its weights are `whole`."""
    network = trainer.accelerator.unwrap_model(trainer.model)
    network.save_pretrained(folder, selected_adapters=["default"])
    write_json(folder / BASE_FILE, {"model": model, "fingerprint": fingerprint(model)})


@contextlib.contextmanager
def at_the_table(trainer: Any, engine: TransformersEngine | Serving, temperature: float) -> Iterator[Debater]:
    """The trainer's policy as a player: of an engine here, in evaluation mode and with its weights whole, or of a
    server that is sent its adapter.

    Raises:
        UserError: the server does not take it.
    """
    # A probability depends in its last digits on what else is encoded; so a step never depends on those before it,
    # which a resumed training has not seen.
    engine.release()
    if isinstance(engine, Serving):
        _send(trainer, engine)
        engine.retokenized = 0
        yield engine.player.model_copy(update={"temperature": temperature})
        return
    name = f"{POLICY}@{trainer.state.global_step}"
    with whole(trainer) as network:
        training = network.training
        network.eval()
        engine.hold(name, network, trainer.processing_class)
        try:
            yield Debater(name=POLICY, model=name, temperature=temperature)
        finally:
            engine.let_go(name)
            network.train(training)


def _send(trainer: Any, engine: Serving) -> None:
    """Have the server answer with the policy as it stands now, and no longer with that of an earlier step."""
    step, main = trainer.state.global_step, trainer.accelerator.is_main_process
    if engine.step == step:
        return
    with whole(trainer):
        if main:
            engine.send(step, lambda folder: save_adapter(trainer, folder, engine.base))
    # By then no process asks for the adapter before this one any more.
    trainer.accelerator.wait_for_everyone()
    engine.step = step
    if main:
        engine.leave(step)


class PatientJudge:
    """A judge with a limit of time for the games of one step; what it has not judged by then fails as late.

    Args:
        judge: who judges.
        engine: answers for it.
        seconds: the limit; None waits as long as it takes.
    """

    def __init__(self, judge: AnyJudge, engine: Engine, seconds: float | None) -> None:
        self.judge, self.engine, self.seconds = judge, engine, seconds
        self._late_steps = 0
        # One worker: a call that hangs is never joined by a second one on the same model.
        self._worker = None if seconds is None else ThreadPoolExecutor(1, thread_name_prefix="judge")

    def __call__(self, games: Sequence[Transcript]) -> list[Verdict | Failure]:
        """Judge games, in order.

        Raises:
            UserError: no verdict came in time for several steps in a row.
        """
        if self._worker is None or self.seconds is None:
            return judge_transcripts(games, self.judge, self.engine)
        found: list[Verdict | Failure] = []
        end = time.monotonic() + self.seconds
        for start in range(0, len(games), CHUNK):
            asked = games[start : start + CHUNK]
            waiting = self._worker.submit(judge_transcripts, asked, self.judge, self.engine)
            try:
                found += waiting.result(timeout=max(end - time.monotonic(), 0))
            except LateError:
                waiting.cancel()
                break
        missing = len(games) - len(found)
        late = Failure(seat="judge", kind=LATE, message=f"no verdict within {self.seconds:g} seconds")
        self._late_steps = self._late_steps + 1 if games and missing == len(games) else 0
        if self._late_steps >= PATIENCE:
            raise UserError(
                f"the judge gave no verdict within {self.seconds:g} seconds in {PATIENCE} steps in a row; "
                "raise judge_seconds, or ask a faster judge"
            )
        return found + [late] * missing
