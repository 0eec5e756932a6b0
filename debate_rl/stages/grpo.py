"""Online training of the debater: it plays the training questions, is judged, and learns; its curve is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from debate_rl.config.training_stages import GrpoStage
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.judges.judge import AnyJudge, Panel, models_of
from debate_rl.players.debater import Debater, read_name
from debate_rl.records import explain, read_json, read_log, write
from debate_rl.runs.reopen import judge_of
from debate_rl.runs.run import Metrics, Run, judge_of_kind
from debate_rl.stages.training import start_from, train
from debate_rl.trainers.common.arguments import default_arguments
from debate_rl.trainers.common.memory import sharding_of
from debate_rl.trainers.grpo.eval_metrics import Measured, Point
from debate_rl.trainers.grpo.groups import COPIES, block_of
from debate_rl.trainers.grpo.settings import Online, Server, Watch


def shares(stage: GrpoStage, run: Run) -> tuple[list[Question], list[Question]]:
    """Training questions that are played, and those that are kept to measure on.

    Raises:
        UserError: there are not enough for both.
    """
    found = run.questions("train")
    kept = 0 if stage.watch is None else stage.watch.questions
    there = len(found) - kept - stage.skip
    wanted = there if stage.questions is None else stage.questions
    if wanted < 1 or wanted > there:
        raise UserError(
            f"online training plays {max(wanted, 1)} training questions after {stage.skip} and keeps {kept} for watch, "
            f"and there are {len(found)}; raise questions.train, or lower questions, skip or watch.questions"
        )
    return found[stage.skip : stage.skip + wanted], found[len(found) - kept :]


class Volume(NamedTuple):
    """How much an online training plays and learns from, over all its steps.

    Example:
        Volume(copies=8, block=2, questions=192, sequences=3072, batch=64, points=3)
    """

    copies: int
    """Games of a question."""
    block: int
    """Groups of a question: places in which a learning side speaks."""
    questions: int
    """Played in all rollouts together, one that comes again counted again."""
    sequences: int
    """That the loss reads, once for each time."""
    batch: int
    """Sequences of a micro-batch of one process."""
    points: int
    """Measurements of the curve."""


def volume(stage: GrpoStage, run: Run, online: Online) -> Volume:
    """What `train` makes of the stage's questions, by TRL's rules for batches.

    Raises:
        UserError: there are not enough questions, or sides speak unequally often.
    """
    played, block = len(shares(stage, run)[0]), block_of(online)
    given: dict[str, Any] = {**default_arguments("grpo"), **stage.train}
    copies, batch = int(given.get("num_generations") or COPIES), int(given.get("per_device_train_batch_size") or 0)
    batch = batch or block * copies
    hardware, processes = run.config.hardware, sharding_of(stage.launch)[1]
    if hardware is not None and stage.launch is not None:
        processes = hardware.cards
    accumulated = int(given.get("gradient_accumulation_steps") or 1)
    batches = int(given.get("generation_batch_size") or 0) // (batch * processes)
    batches = batches or int(given.get("steps_per_generation") or accumulated)
    reused = batches * int(given.get("num_iterations") or 1)  # micro-batches that each rollout gives
    whole = max(batches * batch * processes // (block * copies), 1)
    steps = int(given.get("max_steps") or -1)
    rollouts = math.ceil(steps * accumulated / reused) if steps > 0 else played // whole * given["num_train_epochs"]
    steps = steps if steps > 0 else round(rollouts * reused / accumulated)
    points = 0 if stage.watch is None else 1 + math.ceil(steps / stage.watch.every)
    return Volume(
        copies, block, round(rollouts * whole), steps * accumulated * batch * processes, batch, points
    )  # fmt: skip


def games(stage: GrpoStage, run: Run) -> list[Transcript]:
    """The games of one pass over the training questions, for planning."""
    rules, copies = run.protocol(stage.protocol), int(stage.train.get("num_generations", COPIES))
    seats: list[dict[Side, str]] = [dict.fromkeys(SIDES, stage.start)]
    if rules.sides == "drawn":
        seats = [{side: stage.start} for side in SIDES]
    return [
        Transcript(question=question, protocol=rules, players=seated, seed=copy)
        for question in shares(stage, run)[0]
        for seated in seats
        for copy in range(copies)
    ]


def planned(stage: GrpoStage, run: Run, judge: AnyJudge) -> Online:
    """The stage's settings before anything that it needs is there.

    Raises:
        UserError: the protocol can not be played online.
    """
    temperature = run.config.engine.temperature if stage.temperature is None else stage.temperature
    players = tuple(run.debater(name).model_copy(update={"temperature": temperature}) for name in stage.players)
    try:
        return Online(
            protocol=run.protocol(stage.protocol), judge=judge, temperature=temperature, rewards=stage.rewards,
            opponents=stage.against(players), roles=stage.roles,
        )  # fmt: skip
    except ValidationError as error:
        raise UserError(explain(error)) from error


def run(stage: GrpoStage, run: Run, out: Path) -> Metrics:
    """Train, and put the curve together."""
    played, watched = shares(stage, run)
    base, start = start_from(run, stage.start, run.config.models.debater)
    if stage.watch is not None:
        write(out / "watch.jsonl", watched)
    online = settings(stage, run, out)
    told: dict[str, str | float] = {
        "data": f"{len(played)} training questions ({run.config.questions.source}), played under protocol "
        f"{online.protocol.name} against {stage.opponent if not stage.players else ', '.join(stage.players)}",
        "judge": f"{online.judge.name} ({models_of(online.judge)})",
        "rewards": ", ".join(f"{key} {value}" for key, value in stage.rewards.model_dump().items()),
    }
    metrics = train(run, stage, "grpo", played, out, base, start, told, online=online)
    curve = read_log(out / "curve.jsonl", Point)
    history = read_json(out / "history.json")
    for point in curve:
        for alarm in point.alarms:
            run.say(f"  step {point.step}: {alarm}")
    if curve:
        run.say(f"  Elo over {stage.start} by step: " + ", ".join(f"{p.step}: {_value(p)}" for p in curve))
        last = read_log(out / "watch" / f"step-{curve[-1].step:06d}.jsonl", Measured)
        write(out / "legs.jsonl", [game.leg for game in last])
        run.log_debates(run.name_of(out), [game.leg for game in last])
    return {
        **metrics,
        "start": stage.start,
        "protocol": online.protocol.name,
        "opponent": stage.opponent,
        "judge": online.judge.name,
        "second": online.watch.second.name if online.watch and online.watch.second else None,
        "stopped": bool(curve and curve[-1].alarms and online.watch and online.watch.alarms.stop),
        "generated_tokens": generated(history),
        "curve": [point.model_dump(mode="json") for point in curve],
        "skipped": counted(history),
        **({} if online.server is None else {"retokenized": counted(history, ("retokenized",))["retokenized"]}),
    }


def _value(point: Point) -> str:
    return "-" if point.elo is None else f"{point.elo:.0f}"


def settings(stage: GrpoStage, run: Run, out: Path) -> Online:
    """The stage as a job takes it: players and judges by where their weights lie.

    Raises:
        UserError: the protocol can not be played online, or a judge or player is not there.
    """
    temperature = run.config.engine.temperature if stage.temperature is None else stage.temperature
    server = server_of(stage, run)
    player = _placed(run, temperature, server is not None)
    judge_at = run.resolve if server is None or not server.verdicts else str
    wanted = run.config.engine
    watch = None
    if stage.watch is not None:
        second = second_judge(stage, run)
        watch = Watch(
            every=stage.watch.every, pool=tuple(player(name) for name in stage.watch.pool),
            second=None if second is None else resolved(second, run.resolve, judge_at), alarms=stage.watch.alarms,
        )  # fmt: skip
    try:
        return Online(
            protocol=run.protocol(stage.protocol), judge=resolved(run.judge(), run.resolve, judge_at),
            temperature=temperature,
            rewards=stage.rewards, opponents=stage.against(tuple(player(name) for name in stage.players)),
            roles=stage.roles, judge_seconds=stage.judge_seconds, watch=watch,
            watch_questions=None if watch is None else str(out / "watch.jsonl"), server=server,
            device=wanted.device, dtype=wanted.dtype, batch_tokens=wanted.batch_tokens,
        )  # fmt: skip
    except ValidationError as error:
        raise UserError(f"{run.name_of(out)}: {explain(error)}") from error


def server_of(stage: GrpoStage, run: Run) -> Server | None:
    """The run's server, where it writes the stage's speeches."""
    wanted = run.config.engine
    if wanted.kind != "server" or wanted.url is None or stage.served == "none":
        return None
    return Server(
        url=(wanted.url,) if isinstance(wanted.url, str) else wanted.url,
        model=start_from(run, stage.start, run.config.models.debater)[0], verdicts=stage.served == "all",
        revision=wanted.revision, key_env=wanted.key_env, concurrency=wanted.concurrency, timeout=wanted.timeout,
        retries=wanted.retries, ledger=str(run.folder / "paid.jsonl"), tokens=wanted.budget.tokens,
        money=wanted.budget.money, prices=wanted.prices,
    )  # fmt: skip


def _placed(run: Run, temperature: float, served: bool = False) -> Callable[[str], Debater]:
    """Players by name, at the temperature of the training, with the places of their weights; of models that are served
    the server's name."""

    def player(name: str) -> Debater:
        if read_name(name).best_of > 1:
            raise UserError(f"player {name!r}: an opponent in online training draws one speech; name it without @N")
        found = run.debater(name).model_copy(update={"temperature": temperature})
        adapter = None if found.adapter is None else run.resolve(found.adapter)
        return found.model_copy(
            update={"model": found.model if served else run.resolve(found.model), "adapter": adapter}
        )

    return player


def second_judge(stage: GrpoStage, run: Run) -> AnyJudge | None:
    """The held-out judge.

    Raises:
        UserError: it is the training judge once more, or a judge stage that is not finished.
    """
    if stage.watch is None or stage.watch.second is None:
        return None
    wanted = stage.watch.second
    found = judge_of(run, wanted) if isinstance(wanted, str) else judge_of_kind(wanted, run.model_judge())
    if found.model_copy(update={"name": run.judge().name}) == run.judge():
        raise UserError(f"watch.second: {found.name!r} is the judge that training uses; name another one")
    return found


def resolved(judge: AnyJudge, resolve: Callable[[str], str], model: Callable[[str], str]) -> AnyJudge:
    """A judge with the places of its weights instead of their names; `model` places its model."""
    if isinstance(judge, Panel):
        members = tuple(resolved(member, resolve, model) for member in judge.members)
        return judge.model_copy(update={"members": members})
    adapter = None if judge.adapter is None else resolve(judge.adapter)
    return judge.model_copy(update={"model": model(judge.model), "adapter": adapter})


def generated(history: list[dict[str, Any]]) -> int:
    """Tokens that the policy and its opponents generated in training, one rollout a step."""
    total, last = 0.0, 0
    for entry in history:
        if "rollout/new_tokens" in entry:
            total += float(entry["rollout/new_tokens"]) * (entry["step"] - last)
            last = entry["step"]
    return round(total)


COUNTED = (
    "groups",
    "skipped_groups",
    "truncated",
    "no_reward",
    "failed_games",
    "judge_failures",
    "judge_late",
    "judged",
)


def counted(history: list[dict[str, Any]], names: Sequence[str] = COUNTED) -> dict[str, int]:
    """What was counted over all steps: groups, those without differences, speeches cut off or without a reward, ..."""
    totals, last = dict.fromkeys(names, 0.0), 0
    for entry in history:
        if "rollout/groups" in entry:
            for name in names:
                totals[name] += float(entry.get(f"rollout/{name}") or 0.0) * (entry["step"] - last)
            last = entry["step"]
    return {name: round(total) for name, total in totals.items()}
