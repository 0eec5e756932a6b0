"""Measures a policy while it trains: games with a fixed pool, two judges, a curve, and alarms that may end training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate.utils import gather_object
from pydantic import BaseModel
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from debate_rl.arena.rollout import play
from debate_rl.engines.request import Engine
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.players.debater import Debater
from debate_rl.records import append, read_log
from debate_rl.trainers.grpo.eval_metrics import START, Measured, Point, judged_leg, point
from debate_rl.trainers.grpo.groups import POLICY
from debate_rl.trainers.grpo.judge_metrics import JudgePoint
from debate_rl.trainers.grpo.policy import at_the_table
from debate_rl.trainers.grpo.selfplay import schedule
from debate_rl.trainers.grpo.settings import Online

CURVE = "curve.jsonl"


P = TypeVar("P", Point, JudgePoint)
G = TypeVar("G", bound=BaseModel)


class CurveCallback(TrainerCallback, Generic[P, G]):
    """Measures what is trained every few steps, right after the step is logged.

    Args:
        every: steps between two measurements.
        stop: whether an alarm ends the training.
        folder: the job's, where the curve and the games of each measurement are written.
        point_type: record of a measurement.
        game_type: record of one of its games.
    """

    def __init__(self, every: int, stop: bool, folder: Path, point_type: type[P], game_type: type[G]) -> None:
        self.every = every
        self.stop = stop
        self.folder = folder
        self.game_type = game_type
        # A resumed training finds its points here and does not measure their steps again.
        self.points: dict[int, P] = {point.step: point for point in read_log(folder / CURVE, point_type)}
        self.trainer: Any = None
        """Set once the trainer exists."""
        self._last_log: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure before the first step."""
        if state.global_step == 0:
            self.measure(0, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a log before each measurement, which needs entropy and KL."""
        if self._is_due(state):
            control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Measure after a step's log if a measurement is due."""
        # Only a step's own log has a loss; the log of a measurement comes by here as well.
        if not logs or "loss" not in logs:
            return
        self._last_log = {}
        for name in ("entropy", "kl"):  # no KL is logged with beta 0
            if logs.get(name) is not None:
                self._last_log[name] = float(logs[name])
        if self._is_due(state):
            self.measure(state.global_step, control)

    def _is_due(self, state: TrainerState) -> bool:
        return state.global_step % self.every == 0 or state.global_step >= state.max_steps

    def measure(self, step: int, control: TrainerControl) -> P:
        """The point of a step, read from the curve if it is there already."""
        measured = self.points.get(step)
        if measured is None:
            measured = self._measure(step)
        if measured.alarms and self.stop:
            control.should_training_stop = True
        # Bypasses TRL's own `log`, which would add the metrics that it has gathered a second time.
        Trainer.log(self.trainer, {f"watch/{name}": value for name, value in measured.numbers.items()})
        return measured

    def _measure(self, step: int) -> P:
        """Measure, and write the point and its games."""
        games = self._games()
        is_main = self.trainer.accelerator.is_main_process
        path = self._games_file(step)
        # The games are written before the point: a training killed in between measures again and keeps these.
        if is_main and not path.is_file():
            append(path, games)
        before = games if step == 0 else read_log(self._games_file(0), self.game_type)
        measured = self._point(step, games, before).model_copy(update=self._last_log)
        self.points[step] = measured
        if is_main:
            append(self.folder / CURVE, [measured])
            for alarm in measured.alarms:
                print(f"alarm at step {step}: {alarm}", flush=True)
        self.trainer.accelerator.wait_for_everyone()
        return measured

    def _games_file(self, step: int) -> Path:
        return self.folder / "watch" / f"step-{step:06d}.jsonl"

    def _games(self) -> list[G]:
        """The games of a measurement, in all processes the same."""
        raise NotImplementedError

    def _point(self, step: int, games: Sequence[G], before: Sequence[G]) -> P:
        """The point of a step from its games and those of step 0."""
        raise NotImplementedError


class Watcher(CurveCallback[Point, Measured]):
    """Measures the policy every `watch.every` steps, right after the step is logged, and writes the curve.

    Args:
        online: protocol, judges and alarms, with `watch` set.
        questions: questions that training does not play.
        engine: answers for judges and pool, and for the policy during a measurement.
        start: the policy before training.
        out: the job's folder.
        seed: of the games.
    """

    def __init__(
        self, online: Online, questions: Sequence[Question], engine: Any, start: Debater, out: Path, seed: int
    ) -> None:
        if online.watch is None:
            raise ValueError("there is nothing to watch")
        super().__init__(online.watch.every, online.watch.alarms.stop, out, Point, Measured)
        self.online = online
        self.watch = online.watch
        self.engine = engine
        self.players = {START: start.model_copy(update={"name": START})}
        self.players.update({player.name: player for player in self.watch.pool})
        self.games = schedule(list(self.players), questions, online, seed)
        self._pool_legs: dict[str, JudgedDebate] = {}
        """Games of the pool among itself, by game; they are the same at every step, and played once."""

    def _point(self, step: int, games: Sequence[Measured], before: Sequence[Measured]) -> Point:
        return point(step, games, before, self.watch.alarms)

    def _games(self) -> list[Measured]:
        """All games, played and judged; each process plays its share and gets those of the others."""
        accelerator = self.trainer.accelerator
        games = self.games[accelerator.process_index :: accelerator.num_processes]
        policy_games = []
        pool_games = []
        for game in games:
            if POLICY in game.players.values():
                policy_games.append(game)
            else:
                pool_games.append(game)
        if not self._pool_legs:
            self._pool_legs = self._play_pool(pool_games)
        with at_the_table(self.trainer, self.engine, self.online.temperature, self.online.players) as policy:
            players = {**self.players, POLICY: policy}
            policy_legs = play(policy_games, players, self.engine, self.online.judge)
        legs = dict(self._pool_legs)
        for leg in policy_legs:
            legs[leg.transcript.id] = leg
        measured = _judge_again([legs[game.id] for game in games], self.watch.second, self.engine)
        if accelerator.num_processes == 1:
            return measured
        gathered = dict(gather_object([(game.leg.transcript.id, game) for game in measured]))
        return [gathered[game.id] for game in self.games]

    def _play_pool(self, games: Sequence[Transcript]) -> dict[str, JudgedDebate]:
        """Play the games of the pool among itself; returns legs by game."""
        # In a call of their own, because a probability depends in its last digits on the rest of the batch: a resumed
        # training then gets the same numbers, whichever step it plays them at.
        self.engine.release()
        with torch.random.fork_rng(devices=[]):
            legs = play(games, self.players, self.engine, self.online.judge)
        return {leg.transcript.id: leg for leg in legs}


def _judge_again(legs: Sequence[JudgedDebate], judge: AnyJudge | None, engine: Engine) -> list[Measured]:
    """Show the policy's games to the held-out judge as well."""
    if judge is None:
        return [Measured(leg=leg) for leg in legs]
    # Games of the pool among itself serve the ratings only, which the held-out judge has no part in.
    policy_games = [leg.transcript for leg in legs if _is_policy_game(leg)]
    verdicts = iter(judge_transcripts(policy_games, judge, engine))
    measured = []
    for leg in legs:
        second = judged_leg(leg.transcript, next(verdicts)) if _is_policy_game(leg) else None
        measured.append(Measured(leg=leg, second=second))
    return measured


def _is_policy_game(leg: JudgedDebate) -> bool:
    """Whether the policy took part in a game that did not fail."""
    return leg.failure is None and POLICY in leg.transcript.players.values()
