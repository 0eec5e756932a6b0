"""A debate as an environment of `verifiers` (Prime Intellect), so that its trainers learn on our protocols and judges.

verifiers finds the three classes here by the name `debate-rl`. A task is a question. In an episode the `debater` and
the `opponent` debate it, in self-play unless the opponent has a model of its own, and the judge of the config decides.
Every speech is a trace with its own prompt and reward, since no seat's prompt goes on from its last one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import verifiers.v1 as vf

from debate_rl.arena.rollout import play
from debate_rl.config.tree import Config, load_config
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.export.agents import AgentEngine, DebateHarness, DebateHarnessConfig
from debate_rl.export.environment import PLUGIN
from debate_rl.game.protocol import Protocol, Side, drawn_side, other
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech, open_transcript
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.judge import AnyJudge
from debate_rl.players.debater import Debater
from debate_rl.runs.run import Run
from debate_rl.trainers.grpo.rewards import earned, invalid_share, win_term
from debate_rl.trainers.grpo.settings import Rewards

__all__ = ["DebateEnv", "DebateEnvConfig", "DebateHarness", "DebateHarnessConfig", "DebateTaskset"]

SEATS = ("debater", "opponent")


class DebateTasksetConfig(vf.TasksetConfig):
    """Which questions are debated."""

    config: str = ""
    """A YAML file, as for `debate-rl run`."""
    overrides: list[str] = []
    """`key.path=value`, as on the command line."""
    split: Literal["train", "test"] = "train"


class DebateData(vf.TaskData):
    """A question, as verifiers sends it between processes."""

    question: dict[str, Any]


class DebateTask(vf.Task[DebateData]):
    """A question to debate."""


class DebateTaskset(vf.Taskset[DebateTask, DebateTasksetConfig]):
    """The questions of a config."""

    def load(self) -> Iterable[DebateTask]:
        """One task for each question of the split."""
        run = _open_run(self.config.config, tuple(self.config.overrides))
        for question in run.questions(self.config.split):
            row = question.model_dump(mode="json")
            yield DebateTask(DebateData(id=question.id, question=row), self.config.task)


class DebateEnvConfig(vf.EnvConfig):
    """Who debates, and what a speech earns."""

    debater: vf.AgentConfig = vf.AgentConfig(harness={"id": PLUGIN}, runtime={"type": "subprocess"})
    """The policy that is trained. Which side it argues is drawn by question."""
    opponent: vf.AgentConfig = vf.AgentConfig(harness={"id": PLUGIN}, runtime={"type": "subprocess"})
    """Speaks for the other side. Without a `model` it is the policy too, and learns; with one it is not trained."""
    rewards: Rewards = Rewards()
    """Terms of a speech's reward, as of a stage of kind grpo."""
    debates: int = 256
    """Most debates under way at once in a process."""


class Table(NamedTuple):
    """What all episodes share."""

    protocol: Protocol
    judge: AnyJudge
    judge_engine: Engine
    lock: threading.Lock | None
    rewards: Rewards
    seed: int


class DebateEnv(vf.Env[DebateEnvConfig]):
    """Debates between agents, decided by a judge.

    Raises:
        UserError: the config can not be read, or has rules that can not be played here.
    """

    def __init__(self, config: DebateEnvConfig) -> None:
        tasks = config.taskset
        if not isinstance(tasks, DebateTasksetConfig) or not tasks.config:
            raise UserError(
                f"the environment of a debate needs taskset.id = {PLUGIN!r} and taskset.config = a YAML file"
            )
        self._table = _set_table(_open_run(tasks.config, tuple(tasks.overrides)), config.rewards)
        self._threads = ThreadPoolExecutor(config.debates, thread_name_prefix="debate")
        super().__init__(config)

    async def setup(self, agents: vf.Agents) -> None:
        """A model that was named for the opponent is not the policy, so nothing is learnt from its speeches."""
        agents.opponent.trainable = self.config.opponent.model is None

    async def run(self, task: DebateTask, agents: vf.Agents) -> None:
        """Play one debate, have it judged, and give every speech its reward.

        Raises:
            RuntimeError: a seat or the judge failed. The episode then has an error and no rewards, since nobody lost.
        """
        table = self._table
        loop = asyncio.get_running_loop()
        seated = {seat: getattr(agents, seat) for seat in SEATS}
        engine = AgentEngine(seated, table.judge_engine, table.lock, loop)
        question = Question.model_validate(task.data.question)
        try:
            debate = await loop.run_in_executor(self._threads, _play, question, table, engine)
        finally:
            engine.close()
        if debate.failure is not None or debate.verdict is None:
            failure = debate.failure
            reason = "no verdict" if failure is None else f"{failure.seat} failed: {failure.kind}: {failure.message}"
            raise RuntimeError(f"question {question.id!r}: {reason}")
        waiting = {seat: iter(traces) for seat, traces in engine.traces.items()}
        for speech in debate.transcript.speeches:
            _pay(next(waiting[speech.origin.player]), speech, debate, debate.verdict, table.rewards)


@lru_cache(maxsize=8)
def _open_run(config: str, overrides: tuple[str, ...]) -> Run:
    """The run of a config, which is only read here: nothing is written to its folder."""
    return Run(load_config(config, list(overrides)), say=lambda line: None)


def _set_table(run: Run, rewards: Rewards) -> Table:
    """Open what a config names.

    Raises:
        UserError: see `DebateEnv`.
    """
    config = run.config
    protocol = run.protocol()
    _check_playable(config, protocol)
    # A local model works on one batch at a time; a server takes many.
    lock = None if config.engine.kind == "server" else threading.Lock()
    return Table(protocol, run.judge(), run.open_engine(), lock, rewards, config.seed)


def _check_playable(config: Config, protocol: Protocol) -> None:
    """Refuse what agents behind a chat API can not do."""
    if protocol.turns == 0:
        raise UserError(f"under {protocol.name!r} nobody speaks, so nothing is learnt; choose another protocol")
    if protocol.open:
        raise UserError(f"protocol {protocol.name!r} lets one player pick its side; choose another protocol")
    if config.players.opening or config.players.quotes.constrained:
        raise UserError(
            "players.opening and players.quotes.constrained need an engine of our own: verifiers asks its models by a "
            "plain chat API; leave them out"
        )


def _play(question: Question, table: Table, engine: AgentEngine) -> JudgedDebate:
    """Play one debate, in a thread that waits for the agents."""
    # By question, not by episode: a group of episodes of one task then argues the same side, and can be compared.
    side: Side = drawn_side(question.id, table.seed)
    game = open_transcript(question, table.protocol, {side: "debater", other(side): "opponent"}, table.seed)
    players = {seat: Debater(seat, model=seat) for seat in SEATS}
    return play([game], players, engine, table.judge)[0]


def _pay(trace: vf.Trace, speech: Speech, debate: JudgedDebate, verdict: Verdict, rewards: Rewards) -> None:
    """Record what a speech earned, and what the judge thought of its side."""
    p_own = verdict.p_side(speech.side)
    trace.record_metrics(
        {
            "p_own": p_own,
            "turn": float(speech.turn),
            "is_side_b": float(speech.side == "B"),
            "invalid_quotes": invalid_share(speech),
        }
    )
    if debate.p_correct is not None:
        trace.record_metric("p_correct", debate.p_correct)
    reward = earned(speech, win_term([p_own], rewards), rewards)
    if reward is None:
        # Cut off, and such speeches are masked: no token of it is learnt from.
        trace.agent.trainable = False
        return
    for term, amount in reward.model_dump().items():
        trace.record_reward(term, amount)
