"""Online training of the debater: it plays the training questions, is judged, and learns; its curve is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from debate_rl.arena.rollout import play
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge, FunctionJudge, Panel, judge_transcripts, models_of
from debate_rl.judges.settings import JudgeSettings
from debate_rl.players.debater import Debater, read_name
from debate_rl.records import Record, explain, read_json, read_log, write
from debate_rl.stages.base import Metrics, StageResult, TrainingStage
from debate_rl.stages.habits import measured_habits, model_sizes, size_of
from debate_rl.stages.rollout_counts import counted, generated
from debate_rl.stages.training import CardFacts, log_intervals, start_from, train
from debate_rl.stages.workload import Rehearsed, Rows, TrainingLoad, added, some_games
from debate_rl.trainers.common.arguments import default_arguments
from debate_rl.trainers.common.memory import Reference, sharding_of
from debate_rl.trainers.common.model_shapes import shape_of
from debate_rl.trainers.common.settings import Kind
from debate_rl.trainers.grpo.eval_metrics import START, Measured, Point
from debate_rl.trainers.grpo.groups import COPIES, POLICY, block_of, places
from debate_rl.trainers.grpo.opponent_pool import draw_player
from debate_rl.trainers.grpo.parting import Parting, parting
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
    parting: Parting = Parting()
    """From which step on the training judge's favour and the truth, or the held-out judge, go different ways."""


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
    """When an alarm sounds; see below."""


class GrpoStage(TrainingStage):
    """Online training: the debater plays, is judged, and learns from what its speeches earned (TRL's GRPO)."""

    kind: Literal["grpo"] = "grpo"
    start: str = "sft"
    """Earlier stage whose debater is trained further; KL (`train.beta`) is taken to it."""
    protocol: str | None = None
    """Protocol of the games; empty takes the run's."""
    questions: int | None = Field(default=None, ge=1)
    """Training questions that are played; empty takes all but those of `watch`."""
    skip: int = Field(default=0, ge=0)
    """Training questions left out before the first."""
    temperature: float | None = Field(default=None, gt=0)
    """Sampling temperature of the policy and its opponents during training; empty takes engine.temperature."""
    rewards: Rewards = Rewards()
    """How verdicts become rewards; see below."""
    opponent: Literal["self", "start", "pool", "players"] = "self"
    """Who speaks for the other side: the current policy (which learns on both), what it started from (a frozen
    opponent), past checkpoints drawn by rating, or `players`, which are frozen as well."""
    players: tuple[str, ...] = ()
    """Opponents where `opponent: players`; one is drawn for each question and step."""
    snapshot: int = Field(default=25, ge=1)
    """Steps after which a checkpoint joins the pool (`opponent: pool`)."""
    spread: float = Field(default=200.0, gt=0)
    """Elo points that make a member of the pool e times as likely to be drawn (`opponent: pool`)."""
    roles: Literal["both", "A", "B", "correct", "wrong"] = "both"
    """Sides that learn; those of the other ones are played all the same."""
    advantages: Literal["group", "role"] = "group"
    """What a speech is compared with: the others of its group (GRPO), or the running mean of its side's rewards
    (SPIRAL), with which train.num_generations may be 1."""
    decay: float = Field(default=0.95, ge=0, lt=1)
    """advantages role: weight of the old mean at each rollout."""
    judge_seconds: float | None = Field(default=None, gt=0)
    """The judge's time in each step; what it has not judged by then earns nothing and is counted."""
    server_roles: Literal["all", "speeches", "none"] = "all"
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
        if self.train.get("num_generations") == 1 and self.advantages == "group":
            raise ValueError("train.num_generations 1 leaves nothing to compare a speech with; set advantages: role")
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
        return rehearse_training(self, run, name, run.judge(name), engine)

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
        return learn(self, run, out)


def shares(stage: GrpoStage, run: Run) -> tuple[list[Question], list[Question]]:
    """Training questions to play, and those that are held back to measure on.

    Raises:
        UserError: there are not enough for both.
    """
    questions = run.questions("train")
    held_back = 0 if stage.watch is None else stage.watch.questions
    available = len(questions) - held_back - stage.skip
    count = available if stage.questions is None else stage.questions
    if count < 1 or count > available:
        raise UserError(
            f"online training plays {max(count, 1)} training questions after {stage.skip} and keeps {held_back} for "
            f"watch, and there are {len(questions)}; raise questions.train, or lower questions, skip or watch.questions"
        )
    return questions[stage.skip : stage.skip + count], questions[len(questions) - held_back :]


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
    """How much a training plays and reads, by TRL's rules for batches (GRPOConfig).

    Raises:
        UserError: there are not enough questions, or sides speak unequally often.
    """
    questions = len(shares(stage, run)[0])
    block = block_of(online)
    arguments: dict[str, Any] = {**default_arguments("grpo"), **stage.train}
    copies = int(arguments.get("num_generations") or COPIES)
    batch = int(arguments.get("per_device_train_batch_size") or 0) or block * copies
    processes = sharding_of(stage.launch)[1]
    if run.config.hardware is not None and stage.launch is not None:
        processes = run.config.hardware.cards
    accumulation = int(arguments.get("gradient_accumulation_steps") or 1)
    # A rollout fills `generation_batch_size` sequences, or so many micro-batches (steps_per_generation).
    micro_batches = int(arguments.get("generation_batch_size") or 0) // (batch * processes)
    micro_batches = micro_batches or int(arguments.get("steps_per_generation") or accumulation)
    reads = micro_batches * int(arguments.get("num_iterations") or 1)
    questions_per_rollout = max(micro_batches * batch * processes // (block * copies), 1)
    steps = int(arguments.get("max_steps") or -1)
    if steps > 0:
        rollouts = math.ceil(steps * accumulation / reads)
    else:
        rollouts = questions // questions_per_rollout * arguments["num_train_epochs"]
        steps = round(rollouts * reads / accumulation)
    points = 0 if stage.watch is None else 1 + math.ceil(steps / stage.watch.every)
    return Volume(
        copies=copies,
        block=block,
        questions=round(rollouts * questions_per_rollout),
        sequences=steps * accumulation * batch * processes,
        batch=batch,
        points=points,
    )


def planned(stage: GrpoStage, run: Run, judge: AnyJudge) -> Online:
    """The stage's settings before the weights of its players and judges exist.

    Raises:
        UserError: the protocol can not be played online.
    """
    temperature = run.config.engine.temperature if stage.temperature is None else stage.temperature
    players = tuple(run.debater(name).model_copy(update={"temperature": temperature}) for name in stage.players)
    try:
        return Online(
            protocol=run.protocol(stage.protocol),
            judge=judge,
            temperature=temperature,
            players=run.config.players,
            rewards=stage.rewards,
            opponents=stage.against(players),
            roles=stage.roles,
            advantages=stage.advantages,
            decay=stage.decay,
        )
    except ValidationError as error:
        raise UserError(explain(error)) from error


def learn(stage: GrpoStage, run: Run, out: Path, judge: AnyJudge | None = None) -> Metrics:
    """Train in a folder against a judge, the run's own if none is given, and put the curve together."""
    played, watched = shares(stage, run)
    base, start = start_from(run, stage.start, run.config.models.debater)
    if stage.watch is not None:
        write(out / "watch.jsonl", watched)
    online = settings(stage, run, out, judge)
    card: dict[str, str | float] = {
        "data": f"{len(played)} training questions ({run.config.questions.source}), played under protocol "
        f"{online.protocol.name} against {stage.opponent if not stage.players else ', '.join(stage.players)}",
        "judge": f"{online.judge.name} ({models_of(online.judge)})",
        "rewards": ", ".join(f"{key} {value}" for key, value in stage.rewards.model_dump().items()),
    }
    metrics = train(run, stage, "grpo", played, out, base, start, CardFacts(card), online=online)
    curve = read_log(out / "curve.jsonl", Point)
    history = read_json(out / run_files.HISTORY)
    for point in curve:
        for alarm in point.alarms:
            run.say(f"  step {point.step}: {alarm}")
    parts = parting(curve)
    if curve:
        if str(parts):
            run.say(f"  judge hacking {parts}")
        run.say(f"  Elo over {stage.start} by step: " + ", ".join(f"{p.step}: {_value(p)}" for p in curve))
        write(out / run_files.DEBATES, watched_games(stage, run, out, curve[-1]))
        name = run.name_of(out)
        log_intervals(run, name, curve)
        for point in curve if run.tracker.is_on else ():
            legs = watched_games(stage, run, out, point)
            run.log_debates(name, legs, step={f"{name}/step": float(point.step)})
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
        "parting": parts.model_dump(mode="json"),
        "skipped": counted(history),
        **({} if online.server is None else {"retokenized": counted(history, ("retokenized",))["retokenized"]}),
    }


def watched_games(stage: GrpoStage, run: Run, out: Path, point: Point) -> list[JudgedDebate]:
    """The games of one measurement of the curve.

    Training writes where the weights of its players lie on this machine; here they have their names in the run again,
    so that a run that is moved, or made elsewhere, has the same records.
    """
    players = {stage.start, *stage.players, *(stage.watch.pool if stage.watch else ())}
    names: dict[str | None, str] = {}
    for debater in map(run.debater, sorted(players)):
        for name in filter(None, (debater.model, debater.adapter)):
            names[run.resolve(name)] = name

    def named(speech: Speech) -> Speech:
        origin = speech.origin
        changes = {"model": names.get(origin.model, origin.model), "adapter": names.get(origin.adapter, origin.adapter)}
        return speech.model_copy(update={"origin": origin.model_copy(update=changes)})

    legs = []
    for game in read_log(out / "watch" / f"step-{point.step:06d}.jsonl", Measured):
        speeches = tuple(named(speech) for speech in game.leg.transcript.speeches)
        transcript = game.leg.transcript.model_copy(update={"speeches": speeches})
        legs.append(game.leg.model_copy(update={"transcript": transcript}))
    return legs


def _value(point: Point) -> str:
    return "-" if point.elo is None else f"{point.elo:.0f}"


def settings(stage: GrpoStage, run: Run, out: Path, judge: AnyJudge | None = None) -> Online:
    """The stage's settings as the training job takes them: players and judges with the paths of their weights.

    Raises:
        UserError: the protocol can not be played online, or a judge or player is not there.
    """
    temperature = run.config.engine.temperature if stage.temperature is None else stage.temperature
    server = server_of(stage, run)
    player = _placed(run, temperature, server is not None)
    # Judges that the server answers for keep the names that it knows them by.
    judge_at = run.resolve if server is None or not server.verdicts else str
    watch = None
    if stage.watch is not None:
        second = second_judge(stage, run)
        watch = Watch(
            every=stage.watch.every,
            pool=tuple(player(name) for name in stage.watch.pool),
            second=None if second is None else resolved(second, run.resolve, judge_at),
            alarms=stage.watch.alarms,
        )
    engine = run.config.engine
    try:
        return Online(
            protocol=run.protocol(stage.protocol),
            judge=resolved(judge or run.judge(), run.resolve, judge_at),
            temperature=temperature,
            players=run.config.players,
            rewards=stage.rewards,
            opponents=stage.against(tuple(player(name) for name in stage.players)),
            roles=stage.roles,
            advantages=stage.advantages,
            decay=stage.decay,
            judge_seconds=stage.judge_seconds,
            watch=watch,
            watch_questions=None if watch is None else str(out / "watch.jsonl"),
            server=server,
            device=engine.device,
            dtype=engine.dtype,
            judge_dtype=engine.judge_dtype,
            batch_tokens=engine.batch_tokens,
        )
    except ValidationError as error:
        raise UserError(f"{run.name_of(out)}: {explain(error)}") from error


def server_of(stage: GrpoStage, run: Run) -> Server | None:
    """The run's server, where it writes the stage's speeches."""
    wanted = run.config.engine
    if wanted.kind != "server" or wanted.url is None or stage.server_roles == "none":
        return None
    return Server(
        url=wanted.url,
        model=start_from(run, stage.start, run.config.models.debater)[0],
        verdicts=stage.server_roles == "all",
        revision=wanted.revision,
        software=wanted.software,
        key_env=wanted.key_env,
        concurrency=wanted.concurrency,
        timeout=wanted.timeout,
        retries=wanted.retries,
        ledger=str(run.folder / "paid.jsonl"),
        tokens=wanted.budget.tokens,
        money=wanted.budget.money,
        prices=wanted.prices,
    )


def _placed(run: Run, temperature: float, served: bool = False) -> Callable[[str], Debater]:
    """A function that gives a player by name, at the training's temperature, with the paths of its weights.

    Models that a server answers for keep the server's names.
    """

    def player(name: str) -> Debater:
        if read_name(name).best_of > 1:
            raise UserError(f"player {name!r}: an opponent in online training draws one speech; name it without @N")
        debater = run.debater(name)
        changes = {
            "temperature": temperature,
            "model": debater.model if served else run.resolve(debater.model),
            "adapter": None if debater.adapter is None else run.resolve(debater.adapter),
        }
        return debater.model_copy(update=changes)

    return player


def second_judge(stage: GrpoStage, run: Run) -> AnyJudge | None:
    """The held-out judge.

    Raises:
        UserError: it is the training judge once more, or a judge stage that is not finished.
    """
    if stage.watch is None or stage.watch.second is None:
        return None
    advice = "the judge that training uses; name another one"
    return run.second_judge(stage.watch.second, "watch.second", advice)


def resolved(judge: AnyJudge, resolve: Callable[[str], str], model: Callable[[str], str]) -> AnyJudge:
    """A judge with the places of its weights instead of their names; `model` places its model."""
    if isinstance(judge, Panel):
        members = tuple(resolved(member, resolve, model) for member in judge.members)
        return judge.model_copy(update={"members": members})
    if isinstance(judge, FunctionJudge):
        return judge
    adapter = None if judge.adapter is None else resolve(judge.adapter)
    return judge.model_copy(update={"model": model(judge.model), "adapter": adapter})


def _one_pass(stage: GrpoStage, run: Run) -> list[Transcript]:
    """The games of one pass over the training questions, for planning."""
    rules = run.protocol(stage.protocol)
    copies = int(stage.train.get("num_generations", COPIES))
    seatings: list[dict[Side, str]] = [dict.fromkeys(SIDES, stage.start)]
    if rules.sides == "drawn":
        seatings = [{side: stage.start} for side in SIDES]
    games = []
    for question in shares(stage, run)[0]:
        for seats in seatings:
            games += [Transcript(question=question, protocol=rules, players=seats, seed=copy) for copy in range(copies)]
    return games


def rehearse_training(stage: GrpoStage, run: Run, name: str, judge: AnyJudge, engine: CountingEngine) -> Rehearsed:
    """Count the rollouts and the measurements of the curve, each as often as training has them."""
    online = planned(stage, run, judge)
    amount = volume(stage, run, online)
    played, watched = shares(stage, run)
    chosen = {game.question.id for game in some_games(_one_pass(stage, run))}
    questions = [question for question in played if question.id in chosen]
    start = _seated(run.debater(stage.start), START, online)
    policy = _seated(run.debater(name), POLICY, online)
    draw = draw_player(online.opponents.players, run.config.seed) if online.opponents.players else None

    def opponent(question: Question) -> Debater | None:
        if online.opponents.kind == "self":
            return None
        return start if draw is None else draw(question.id, 0)

    rollouts = engine.learning()
    groups = []
    for index, question in enumerate(questions):
        groups += places(index, question, online)
    participants = Participants(
        policy=policy,
        opponent=opponent,
        engine=rollouts,
        judge=lambda games: judge_transcripts(games, judge, rollouts),
        encode=lambda request: (),
    )
    rolled_out = rollout(groups, amount.copies, questions, online, participants, [run.config.seed, "plan"])
    times = amount.questions / max(len(questions), 1)
    counted_requests = rollouts.take(times)
    debates = round(times * len(rolled_out.legs))
    if stage.watch is not None:
        measuring = engine.learning()
        table = {player: run.debater(player) for player in stage.watch.pool}
        table |= {POLICY: policy, START: start}
        games = schedule([START, *stage.watch.pool], watched, online, run.config.seed)
        legs = play(games, table, measuring, judge)
        if stage.watch.second is not None:
            policy_games = [leg.transcript for leg in legs if POLICY in leg.transcript.players.values()]
            judge_transcripts(policy_games, run.judge_to_be(stage.watch.second), measuring)
        counted_requests = added(counted_requests, measuring.take(amount.points))
        debates += amount.points * len(games)
    return Rehearsed(debates, 1.0, counted_requests)


def _seated(debater: Debater, seat: str, online: Online) -> Debater:
    """A debater under the name of its seat, at the training's temperature."""
    return debater.model_copy(update={"name": seat, "temperature": online.temperature})


def _sequences(name: str, stage: GrpoStage, run: Run, like: Path | None) -> Rows:
    """The speeches that an online training reads, counted each time, with their prompts."""
    online = planned(stage, run, run.judge(name))
    habits = measured_habits(run.folder if like is None else like)
    characters_per_token, _ = size_of(model_sizes(run), run.config.models.debater)
    policy = run.debater(name)
    longest_speech = online.protocol.max_new_tokens
    total, count, longest = 0.0, 0, 0.0
    for index, question in enumerate(shares(stage, run)[0]):
        for group in places(index, question, online):
            seats = {group.side: "-"} if online.protocol.sides == "drawn" else dict.fromkeys(SIDES, "-")
            game = Transcript(question=question, protocol=online.protocol, players=seats)
            request = policy.request(game, group.side, 0)
            speeches_seen = group.turn * (2 if online.protocol.speakers_see == "all" else 1)
            new_tokens = habits.tokens(request)
            prompt = sum(len(message.content) for message in request.messages) / characters_per_token
            total += prompt + (speeches_seen + 1) * new_tokens
            count += 1
            longest = max(longest, prompt + speeches_seen * longest_speech)
    sequences = volume(stage, run, online).sequences
    return Rows(sequences, round(sequences * total / max(count, 1)), round(longest), longest_speech)


def _beside(name: str, stage: GrpoStage, run: Run) -> float:
    """Bytes of the models that an online training holds beside the policy: judges, and other players' base."""
    served = run.config.engine.kind == "server"
    models: set[str] = set()
    if not served or stage.server_roles != "all":
        models |= _base_models(run.judge(name))
        if stage.watch is not None and stage.watch.second is not None:
            models |= _base_models(run.judge_to_be(stage.watch.second))
    plays_others = stage.watch is not None or stage.opponent != "self"
    if plays_others and (not served or stage.server_roles == "none"):
        models.add(run.config.models.debater)
    bytes_per_weight = 2 if run.config.hardware is not None else 4
    total = 0.0
    for model in sorted(models):
        shape = shape_of(run.resolve(model))
        if shape is not None:
            total += bytes_per_weight * shape.parameters
    return total


def _base_models(judge: AnyJudge) -> set[str]:
    """Base models of a judge, for a panel those of its members."""
    if not isinstance(judge, Panel):
        return {judge.model}
    models: set[str] = set()
    for member in judge.members:
        models |= _base_models(member)
    return models
