"""Lets the model in training play: as a player of a local engine, or through its adapter on a server.

The player's name contains the step, so that nothing cached for an earlier policy is taken for the current one's.
"""

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
from debate_rl.players.debater import Debater, PlayerSettings
from debate_rl.records import write_json
from debate_rl.trainers.grpo.groups import POLICY
from debate_rl.trainers.grpo.selfplay import LATE
from debate_rl.trainers.grpo.serving import Serving

CHUNK = 64
"""Games per call of a judge with a time limit."""
PATIENCE = 3
"""Training ends after this many steps in a row without any verdict in time."""


@contextlib.contextmanager
def whole(trainer: Any) -> Iterator[Any]:
    """The trainer's policy with its shards gathered, without gradients. All processes enter it together."""
    unwrapped = unwrap_model_for_generation(
        trainer.model_wrapped,
        trainer.accelerator,
        gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
    )
    # Loading an opponent's adapter draws its first weights; the fork keeps training's own random numbers as they are.
    with unwrapped as network, torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield network


def save_adapter(trainer: Any, folder: Path, model: str) -> None:
    """Write the policy's adapter into a folder. One process calls this, inside `whole`.

    Args:
        trainer: holds the policy.
        folder: takes the adapter.
        model: the adapter's base.
    """
    network = trainer.accelerator.unwrap_model(trainer.model)
    network.save_pretrained(folder, selected_adapters=["default"])
    write_json(folder / BASE_FILE, {"model": model, "fingerprint": fingerprint(model)})


@contextlib.contextmanager
def at_the_table(
    trainer: Any, engine: TransformersEngine | Serving, temperature: float, manner: PlayerSettings | None = None
) -> Iterator[Debater]:
    """The trainer's policy as a player.

    A local engine gets the model itself, gathered and in evaluation mode. A server is sent the adapter.

    Args:
        trainer: holds the policy.
        engine: answers for the player while the context is open.
        temperature: of the player.
        manner: how it writes; None is plainly.

    Raises:
        UserError: the server does not take the adapter.
    """
    # The last digits of a probability depend on what the engine has encoded before. A resumed training has not seen
    # the earlier steps, so no step may depend on them.
    engine.release()
    changes = {"temperature": temperature, **dict(manner or PlayerSettings())}
    if isinstance(engine, Serving):
        _send_policy(trainer, engine)
        engine.retokenized = 0
        yield engine.player.model_copy(update=changes)
        return
    name = f"{POLICY}@{trainer.state.global_step}"
    with whole(trainer) as network:
        was_training = network.training
        network.eval()
        engine.hold(name, network, trainer.processing_class)
        try:
            yield Debater(name=POLICY, model=name).model_copy(update=changes)
        finally:
            engine.let_go(name)
            network.train(was_training)


def _send_policy(trainer: Any, engine: Serving) -> None:
    """Make the server answer with the current policy, and unload that of an earlier step."""
    step = trainer.state.global_step
    is_main = trainer.accelerator.is_main_process
    if engine.step == step:
        return
    with whole(trainer):
        if is_main:
            engine.send(step, lambda folder: save_adapter(trainer, folder, engine.base))
    # Wait before unloading: until here another process may still ask for the earlier adapter.
    trainer.accelerator.wait_for_everyone()
    engine.step = step
    if is_main:
        engine.leave(step)


class PatientJudge:
    """A judge with a time limit for the games of one step. Games that it has not judged by then fail as late.

    Args:
        judge: who judges.
        engine: answers for the judge.
        seconds: the limit; None waits as long as it takes.
    """

    def __init__(self, judge: AnyJudge, engine: Engine, seconds: float | None) -> None:
        self.judge = judge
        self.engine = engine
        self.seconds = seconds
        self._late_steps = 0
        # One worker: a second call on the same model never runs beside one that hangs.
        self._worker = None if seconds is None else ThreadPoolExecutor(1, thread_name_prefix="judge")

    def __call__(self, games: Sequence[Transcript]) -> list[Verdict | Failure]:
        """Judge games, in order.

        Raises:
            UserError: no verdict came in time for several steps in a row.
        """
        if self._worker is None or self.seconds is None:
            return judge_transcripts(games, self.judge, self.engine)
        verdicts: list[Verdict | Failure] = []
        deadline = time.monotonic() + self.seconds
        # In chunks, so that the verdicts that came in time are kept.
        for start in range(0, len(games), CHUNK):
            chunk = games[start : start + CHUNK]
            pending = self._worker.submit(judge_transcripts, chunk, self.judge, self.engine)
            try:
                verdicts += pending.result(timeout=max(deadline - time.monotonic(), 0))
            except LateError:
                pending.cancel()
                break
        missing = len(games) - len(verdicts)
        if games and not verdicts:
            self._late_steps += 1
        else:
            self._late_steps = 0
        if self._late_steps >= PATIENCE:
            raise UserError(
                f"the judge gave no verdict within {self.seconds:g} seconds in {PATIENCE} steps in a row; "
                "raise judge_seconds, or ask a faster judge"
            )
        late = Failure(seat="judge", kind=LATE, message=f"no verdict within {self.seconds:g} seconds")
        return verdicts + [late] * missing
