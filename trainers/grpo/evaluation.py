"""Measuring a policy while it trains: games with a fixed pool before two judges, a curve, and alarms that may stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from debate_rl.arena.rollout import play
from debate_rl.engines.request import Engine
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Leg, Verdict
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.players.debater import Debater
from debate_rl.records import append, read_log
from debate_rl.trainers.grpo.eval_metrics import START, Measured, Point, point
from debate_rl.trainers.grpo.policy import at_the_table
from debate_rl.trainers.grpo.selfplay import POLICY, schedule
from debate_rl.trainers.grpo.settings import Online

CURVE = "curve.jsonl"


class Watcher(TrainerCallback):
    """Measures every so many steps, right after the log of the step, and writes the curve.

    Args:
        online: rules, judges and alarms; with `watch`.
        questions: that training does not play.
        engine: answers for the judges and the pool, and for the policy while it is held.
        start: the policy before training.
        out: the job's folder.
        seed: of the games.
    """

    def __init__(
        self, online: Online, questions: Sequence[Question], engine: Any, start: Debater, out: Path, seed: int
    ) -> None:
        if online.watch is None:
            raise ValueError("there is nothing to watch")
        self.online, self.watch, self.engine = online, online.watch, engine
        self.players = {START: start.model_copy(update={"name": START}), **{one.name: one for one in self.watch.pool}}
        self.games = schedule(list(self.players), questions, online, seed)
        self.folder = out
        self.points = {found.step: found for found in read_log(out / CURVE, Point)}
        self.trainer: Any = None
        """Set once there is one."""
        self._last: dict[str, float] = {}
        self._fixed: dict[str, Leg] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure before the first step."""
        if state.global_step == 0:
            self.measure(0, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Have entropy and KL logged up to where it is measured."""
        if self._due(state):
            control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Measure after the log of a step where it is due."""
        if logs and "loss" in logs:
            self._last = {name: float(logs[name]) for name in ("entropy", "kl") if logs.get(name) is not None}
            if self._due(state):
                self.measure(state.global_step, control)

    def _due(self, state: TrainerState) -> bool:
        return state.global_step % self.watch.every == 0 or state.global_step >= state.max_steps

    def measure(self, step: int, control: TrainerControl) -> Point:
        """The point of a step, taken from the curve where it stands there already."""
        found = self.points.get(step) or self._measure(step)
        if found.alarms and self.watch.alarms.stop:
            control.should_training_stop = True
        # Past TRL's own `log`, which would add what it has gathered a second time.
        Trainer.log(self.trainer, {f"watch/{name}": value for name, value in found.numbers.items()})
        return found

    def _measure(self, step: int) -> Point:
        """Play, judge twice, and write the point and its games."""
        played = self._play()
        main = self.trainer.accelerator.is_main_process
        path = self._games(step)
        if main and not path.is_file():
            append(path, played)
        before = played if step == 0 else read_log(self._games(0), Measured)
        found = point(step, played, before, self.watch.alarms).model_copy(update=self._last)
        self.points[step] = found
        if main:
            append(self.folder / CURVE, [found])
            for alarm in found.alarms:
                print(f"alarm at step {step}: {alarm}", flush=True)
        self.trainer.accelerator.wait_for_everyone()
        return found

    def _games(self, step: int) -> Path:
        return self.folder / "watch" / f"step-{step:06d}.jsonl"

    def _play(self) -> list[Measured]:
        """All games, those of the pool among itself once; each process plays its share."""
        rank, world = self.trainer.accelerator.process_index, self.trainer.accelerator.num_processes
        mine = self.games[rank::world]
        if not self._fixed:
            self._fixed = self._among([game for game in mine if POLICY not in game.players.values()])
        with at_the_table(self.trainer, self.engine, self.online.temperature) as policy:
            own = [game for game in mine if POLICY in game.players.values()]
            legs = play(own, {**self.players, POLICY: policy}, self.engine, self.online.judge)
        found = {**self._fixed, **{leg.transcript.id: leg for leg in legs}}
        shown = [found[game.id] for game in mine]
        measured = _judged_again(shown, self.watch.second, self.engine)
        if world == 1:
            return measured
        gathered = gather_object([(game.leg.transcript.id, game) for game in measured])
        by_name = dict(gathered)
        return [by_name[game.id] for game in self.games]

    def _among(self, games: Sequence[Transcript]) -> dict[str, Leg]:
        """Games of the pool among itself, by name; alone, so that their numbers are the same in a resumed training."""
        self.engine.release()
        with torch.random.fork_rng(devices=[]):
            legs = play(games, self.players, self.engine, self.online.judge)
        return {leg.transcript.id: leg for leg in legs}


def _judged_again(legs: Sequence[Leg], judge: AnyJudge | None, engine: Engine) -> list[Measured]:
    """The policy's games before the held-out judge as well."""
    if judge is None:
        return [Measured(leg=leg) for leg in legs]
    asked = [at for at, leg in enumerate(legs) if leg.failure is None and POLICY in leg.transcript.players.values()]
    verdicts = dict(zip(asked, judge_transcripts([legs[at].transcript for at in asked], judge, engine), strict=True))
    return [
        Measured(leg=leg, second=_leg(leg.transcript, verdicts[at]) if at in verdicts else None)
        for at, leg in enumerate(legs)
    ]


def _leg(game: Transcript, found: Verdict | Failure) -> Leg:
    """A game with what a judge said of it."""
    if isinstance(found, Verdict):
        return Leg(transcript=game, verdict=found)
    return Leg(transcript=game, failure=found)
