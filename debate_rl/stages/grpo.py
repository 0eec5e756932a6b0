"""Online training of the debater: it plays the training questions, is judged, and learns; its curve is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from debate_rl.arena.rollout import play
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.judges.judge import AnyJudge, Panel, judge_transcripts, models_of
from debate_rl.judges.settings import JudgeSettings, judge_of_kind
from debate_rl.players.debater import Debater, read_name
from debate_rl.records import Record, explain, read_json, read_log, write
from debate_rl.stages.base import Metrics, StageResult, TrainingStage
from debate_rl.stages.habits import measured_habits, model_sizes, size_of
from debate_rl.stages.training import start_from, train
from debate_rl.stages.workload import Asked, Rehearsed, Rows, TrainingLoad, some_games
from debate_rl.trainers.common.arguments import default_arguments
from debate_rl.trainers.common.memory import Reference, sharding_of
from debate_rl.trainers.common.model_shapes import shape_of
from debate_rl.trainers.common.settings import Kind
from debate_rl.trainers.grpo.eval_metrics import START, Measured, Point
from debate_rl.trainers.grpo.groups import COPIES, POLICY, block_of, places
from debate_rl.trainers.grpo.opponent_pool import draw_player
from debate_rl.trainers.grpo.selfplay import Participants, rollout, schedule
from debate_rl.trainers.grpo.settings import Alarms, Online, Opponents, Rewards, Server, Watch

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run


class GrpoResult(StageResult):
    """Online training: who played, and the curve."""

    start: str
    protocol: str
    opponent: str
    judge: str
    second: str | None = None
    stopped: bool = False
    steps: int
    generated_tokens: int
    skipped: dict[str, int] = {}
    curve: tuple[Point, ...] = ()


class WatchSettings(Record):
    """What is measured while an online training goes on."""

    every: int = Field(default=20, ge=1)
    """Steps between two measurements; there is one before the first step and one after the last."""
    questions: int = Field(default=40, ge=2)
    """Training questions kept for it: the last ones, which are not played in training."""
    pool: tuple[str, ...] = ()
    """Fixed players that the policy meets, besides what it starts from."""
    second: str | JudgeSettings | None = None
    """Held-out judge: a judge stage, `base` for the judge model as it is, another model, or settings as of `judge`."""
    alarms: Alarms = Alarms()


class GrpoStage(TrainingStage):
    """Online training: the debater plays, is judged, and learns from what its speeches earned (TRL's GRPO)."""

    kind: Literal["grpo"] = "grpo"
    start: str = "sft"
    """Earlier stage whose debater is trained further; KL (`train.beta`) is taken to it."""
    protocol: str | None = None
    questions: int | None = Field(default=None, ge=1)
    """Training questions that are played; empty takes all but those of `watch`."""
    skip: int = Field(default=0, ge=0)
    """Training questions left out before the first."""
    temperature: float | None = Field(default=None, gt=0)
    """Of the policy and its opponents while it learns; empty is engine.temperature."""
    rewards: Rewards = Rewards()
    opponent: Literal["self", "start", "pool", "players"] = "self"
    """Who speaks for the other side: the current policy (which learns on both), what it started from, past checkpoints
    drawn by rating, or `players`."""
    players: tuple[str, ...] = ()
    """Of opponent players: one is drawn for each question and step."""
    snapshot: int = Field(default=25, ge=1)
    """Of opponent pool: a checkpoint joins every so many steps."""
    spread: float = Field(default=200.0, gt=0)
    """Of opponent pool: a member is drawn e times as often as one rated so many Elo points lower."""
    roles: Literal["both", "A", "B", "correct", "wrong"] = "both"
    """Sides that learn; those of the other ones are played all the same."""
    judge_seconds: float | None = Field(default=None, gt=0)
    """The judge's time in each step; what it has not judged by then earns nothing and is counted."""
    served: Literal["all", "speeches", "none"] = "all"
    """What an engine of kind server answers while the debater learns: speeches and verdicts (it is sent the policy's
    adapter before every step), speeches alone, or nothing, so that the training process holds policy and judge."""
    watch: WatchSettings | None = WatchSettings()
    """Ratings, accuracy of two judges and alarms over steps; null measures nothing."""

    @model_validator(mode="after")
    def _has_opponents(self) -> GrpoStage:
        if (self.opponent == "players") != bool(self.players):
            raise ValueError("opponent: players and players belong together; name at least one player")
        if self.train.get("eval_strategy") is not None:
            raise ValueError("train.eval_strategy is not for online training; set watch")
        return self

    def against(self, players: tuple[Any, ...]) -> Opponents:
        """The opponents, with the players named."""
        return Opponents(kind=self.opponent, players=players, snapshot=self.snapshot, spread=self.spread)

    def references(self) -> set[str]:
        """Where it starts, its opponents, and whom its curve is measured against."""
        return {self.start, *self.players, *(self.watch.pool if self.watch else ())}

    @property
    def asks_judge(self) -> bool:
        """Every rollout is judged."""
        return True

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """One."""
        yield "grpo", self

    def games(self, run: Run) -> list[Transcript]:
        """The games of one pass over the training questions."""
        return _one_pass(self, run)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """The rollouts on some questions and one measurement of the curve, each as often as training has them."""
        return _rehearse(self, run, name, run.judge(name), engine)

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """The speeches that it learns from, each time that they are read."""
        amount = volume(self, run, planned(self, run, run.judge(name)))
        reference: Reference | None = None
        if self.train.get("beta") and self.start == "base" and self.lora is not None:
            reference = "base"
        return TrainingLoad(
            "grpo",
            run.config.models.debater,
            _sequences(name, self, run, like),
            batch=amount.batch,
            beside=_beside(name, self, run),
            reference=reference,
        )

    def execute(self, run: Run, out: Path) -> Metrics:
        """Train, and put the curve together."""
        return _execute(self, run, out)


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


def _execute(stage: GrpoStage, run: Run, out: Path) -> Metrics:
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
    found = run.judge_named(wanted) if isinstance(wanted, str) else judge_of_kind(wanted, run.model_judge())
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


def _one_pass(stage: GrpoStage, run: Run) -> list[Transcript]:
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


def _rehearse(stage: GrpoStage, run: Run, name: str, judge: AnyJudge, engine: CountingEngine) -> Rehearsed:
    """The rollouts on some questions and one measurement of the curve, each as often as training has them."""
    settings = planned(stage, run, judge)
    amount, (played, watched) = volume(stage, run, settings), shares(stage, run)
    names = {game.question.id for game in some_games(_one_pass(stage, run))}
    kept = [question for question in played if question.id in names]
    start, policy = (
        run.debater(player).model_copy(update={"name": seat, "temperature": settings.temperature})
        for player, seat in ((stage.start, START), (name, POLICY))
    )
    drawn = draw_player(settings.opponents.players, run.config.seed) if settings.opponents.players else None

    def opponent(question: Question) -> Debater | None:
        if settings.opponents.kind == "self":
            return None
        return start if drawn is None else drawn(question.id, 0)

    rolling = engine.learning()
    groups = [group for at, question in enumerate(kept) for group in places(at, question, settings)]
    participants = Participants(
        policy=policy,
        opponent=opponent,
        engine=rolling,
        judge=lambda games: judge_transcripts(games, judge, rolling),
        encode=lambda request: (),
    )
    found = rollout(groups, amount.copies, kept, settings, participants, [run.config.seed, "plan"])
    times = amount.questions / max(len(kept), 1)
    counted = {weights: own.times(times) for weights, own in rolling.asked.items()}
    debates = round(times * len(found.legs))
    if stage.watch is not None:
        measuring = engine.learning()
        table = {name: run.debater(name) for name in stage.watch.pool} | {POLICY: policy, START: start}
        shown = schedule([START, *stage.watch.pool], watched, settings, run.config.seed)
        legs = play(shown, table, measuring, judge)
        if stage.watch.second is not None:
            own = [leg for leg in legs if POLICY in leg.transcript.players.values()]
            judge_transcripts([leg.transcript for leg in own], run.judge_to_be(stage.watch.second), measuring)
        for weights, asked in measuring.asked.items():
            counted[weights] = counted.get(weights, Asked()) + asked.times(amount.points)
        debates += amount.points * len(shown)
    return Rehearsed(debates, 1.0, counted)


def _sequences(name: str, stage: GrpoStage, run: Run, like: Path | None) -> Rows:
    """The speeches that an online training learns from, each time that it reads them, with their prompts."""
    rules, habits = planned(stage, run, run.judge(name)), measured_habits(run.folder if like is None else like)
    a_token = size_of(model_sizes(run), run.config.models.debater)[0]
    policy, most = run.debater(name), rules.protocol.max_new_tokens
    total, count, longest = 0.0, 0, 0.0
    for index, question in enumerate(shares(stage, run)[0]):
        for place in places(index, question, rules):
            seats = {place.side: "-"} if rules.protocol.sides == "drawn" else dict.fromkeys(SIDES, "-")
            game = Transcript(question=question, protocol=rules.protocol, players=seats)
            first = policy.request(game, place.side, 0)
            seen = place.turn * (2 if rules.protocol.speakers_see == "all" else 1)
            new, prompt = habits.tokens(first), sum(len(message.content) for message in first.messages) / a_token
            total, count = total + prompt + (seen + 1) * new, count + 1
            longest = max(longest, prompt + seen * most)
    sequences = volume(stage, run, rules).sequences
    return Rows(sequences, round(sequences * total / max(count, 1)), round(longest), most)


def _beside(name: str, stage: GrpoStage, run: Run) -> float:
    """Bytes of the models that an online training holds beside the policy: judges, and other players' base."""
    served, models = run.config.engine.kind == "server", set[str]()
    if not served or stage.served != "all":
        judges = [run.judge(name)]
        if stage.watch is not None and stage.watch.second is not None:
            judges.append(run.judge_to_be(stage.watch.second))
        models |= {model for judge in judges for model in _base_models(judge)}
    if (stage.watch is not None or stage.opponent != "self") and (not served or stage.served == "none"):
        models.add(run.config.models.debater)
    shapes = [shape_of(run.resolve(model)) for model in sorted(models)]
    unit = 2 if run.config.hardware is not None else 4
    return float(unit * sum(shape.parameters for shape in shapes if shape is not None))


def _base_models(wanted: AnyJudge) -> set[str]:
    """Base models of a judge."""
    if isinstance(wanted, Panel):
        return {model for member in wanted.members for model in _base_models(member)}
    return {wanted.model}
