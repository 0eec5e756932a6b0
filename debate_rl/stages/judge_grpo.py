"""Online training of a judge: it reads finished debates, states a probability, and is paid by the true answer.

In the stage's folder: rows.jsonl (games that it learns from), watch.jsonl (games that it is watched on), curve.jsonl,
history.json, adapter/, and the test debates as the judge before and after the training saw them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, model_validator

from debate_rl.arena.rollout import LogOptions, play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.judges.callables import load_function
from debate_rl.judges.judge import judge_transcripts
from debate_rl.records import Record, explain, read_json, read_log, write
from debate_rl.stages.base import StageResult, TrainingStage, untrained_judge
from debate_rl.stages.judges import JudgesChange, MeasuredJudge, change, judged_games, measured_judge
from debate_rl.stages.rollout_counts import counted, generated
from debate_rl.stages.stating import StatedJudgeStage, finished_games, spoken, trained_weights
from debate_rl.stages.training import CardFacts, log_intervals, start_from, train
from debate_rl.stages.workload import Rehearsed, Rows, TrainingLoad, added, verdict_rows
from debate_rl.trainers.common.arguments import default_arguments
from debate_rl.trainers.common.settings import Kind
from debate_rl.trainers.grpo.judge_metrics import JudgePoint
from debate_rl.trainers.grpo.judge_settings import RULES, JudgeRewards, JudgeWatch, Judging
from debate_rl.trainers.grpo.settings import Alarms

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

COUNTED = ("answers", "unstated", "truncated", "failed", "no_reward", "reward_errors", "groups", "skipped_groups")
"""What a rollout counts, summed over all steps."""


class JudgeWatchSettings(Record):
    """What is measured while a judge learns."""

    every: int = Field(default=20, ge=1)
    """Steps between two measurements; there is one before the first step and one after the last."""
    questions: int = Field(default=40, ge=2)
    """Training questions kept for it, the last ones; their games are not learnt from."""
    alarms: Alarms = Alarms()
    """When an alarm sounds; see below."""


class JudgeGrpoResult(StageResult):
    """A judge before and after online training, on test debates, and its curve."""

    start: str
    reward: str
    games: int
    """Games that it learnt from."""
    rows: int
    steps: int
    train_loss: float
    generated_tokens: int
    before: MeasuredJudge
    after: MeasuredJudge
    change: JudgesChange | None = None
    stopped: bool = False
    counts: dict[str, int] = {}
    curve: tuple[JudgePoint, ...] = ()


class JudgeGrpoStage(StatedJudgeStage):
    """Online training of a judge that states its probability (TRL's GRPO), paid by the true answers."""

    kind: Literal["judge_grpo"] = "judge_grpo"
    reward: str = "correctness+brier"
    """What a statement earns: correctness, brier, log or correctness+brier (RLCR), or a Python function as
    module:function, which takes a `Judgement` (trainers/grpo/judge_rollout.py) and returns a number."""
    least: float = Field(default=0.01, gt=0, lt=0.5)
    """reward log: least distance of a probability from 0 and 1."""
    length: float = Field(default=0.0, ge=0)
    """Penalty of an answer that uses all of its tokens; shorter ones pay in proportion."""
    format: float = Field(default=0.0, ge=0)
    """Penalty of an answer that states no probability, which earns the worst reward already, or that was cut off."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the answers that it learns from."""
    watch: JudgeWatchSettings | None = JudgeWatchSettings()
    """Accuracy, Brier score, calibration, consistency and alarms over steps; null measures nothing."""

    @model_validator(mode="after")
    def _reward_is_known(self) -> JudgeGrpoStage:
        if self.reward not in RULES and ":" not in self.reward:
            raise ValueError(f"reward {self.reward!r} is none of {', '.join(RULES)}, and no module:function")
        if self.train.get("eval_strategy") is not None:
            raise ValueError("train.eval_strategy is not for online training; set watch")
        return self

    @property
    def rewards(self) -> JudgeRewards:
        """The reward with its terms."""
        how: dict[str, Any] = {"rule": self.reward} if self.reward in RULES else {"function": self.reward}
        return JudgeRewards(**how, least=self.least, length=self.length, format=self.format)

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """One."""
        yield "grpo", self

    def games(self, run: Run) -> list[Transcript]:
        """The games on training questions, then the test debates that it is measured on.

        Raises:
            UserError: the reward is no function that can be imported.
        """
        if self.reward not in RULES:
            load_function(self.reward)
        return super().games(run) + tested_games(self, run)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Play some games without a judge, and ask it as often as the training and the measurements will."""
        legs, debates, scale = self.play_some(run, name, engine)
        counted_games = engine.take(scale)
        games = [leg.transcript for leg in legs if spoken(leg)]
        model, adapter = start_from(run, self.start, run.config.models.judge)
        judge = self.stated_judge(run, name, model, adapter)
        learning = engine.learning()
        judge_transcripts(games, judge.model_copy(update={"temperature": self.temperature}), learning)
        asked = max(len(games) * (1 + judge.both_orders), 1)
        rollouts = learning.take(answers(self) / asked)
        judge_transcripts(games, judge, engine)
        return Rehearsed(debates, 1.0, added(counted_games, rollouts, engine.take(scale)))

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """The answers that it learns from, with their prompts."""
        rows = verdict_rows(super().games(run) or tested_games(self, run), 2)
        count = answers(self)
        tokens = round(count * (rows.tokens / max(rows.count, 1) + self.max_new_tokens))
        scaled = Rows(count, tokens, rows.prompt, self.max_new_tokens)
        return TrainingLoad("grpo", run.config.models.judge, scaled, batch=_batch(self)[0])

    def execute(self, run: Run, out: Path) -> JudgeGrpoResult:
        """Train, and compare before and after on test debates."""
        return _execute(self, run, out)


def answers(stage: JudgeGrpoStage) -> int:
    """Answers that the judge writes in training, by TRL's rules for batches."""
    batch, accumulation = _batch(stage)
    arguments = {**default_arguments("grpo"), **stage.train}
    steps = int(arguments.get("max_steps") or -1)
    if steps > 0:
        return steps * batch * accumulation
    # Every game in both orders, G answers each.
    groups = 2 * stage.questions * len(stage.players) * len(stage.protocols)
    return round(groups * int(arguments["num_generations"]) * float(arguments["num_train_epochs"]))


def _batch(stage: JudgeGrpoStage) -> tuple[int, int]:
    """Answers of a micro-batch, and micro-batches of a step."""
    arguments = {**default_arguments("grpo"), **stage.train}
    batch = int(arguments.get("per_device_train_batch_size") or 8 * int(arguments["num_generations"]))
    return batch, int(arguments.get("gradient_accumulation_steps") or 1)


def tested_games(stage: JudgeGrpoStage, run: Run) -> list[Transcript]:
    """Self-play of the last player on the test questions."""
    return self_play(stage.players[-1:], run.questions("test"), run.protocol(), run.config.seed)


def learnt_and_watched(
    stage: JudgeGrpoStage, games: Sequence[Transcript], questions: Sequence[Question]
) -> tuple[list[Transcript], list[Transcript]]:
    """Divide finished games on training questions by story into those that are learnt from and those for `watch`.

    Raises:
        UserError: nothing is left to learn from.
    """
    held_back = 0 if stage.watch is None else stage.watch.questions
    kept = questions[len(questions) - held_back :] if held_back else []
    stories = {question.cluster for question in kept}
    learnt = [game for game in games if game.question.cluster not in stories]
    watched = [game for game in games if game.question.cluster in stories]
    if not learnt or (held_back and not watched):
        raise UserError(
            f"watch keeps the games of {held_back} of {len(questions)} training questions, which leaves {len(learnt)} "
            f"games to learn from and {len(watched)} to watch; change questions or watch.questions"
        )
    return learnt, watched


def settings(stage: JudgeGrpoStage, run: Run, watch_games: Path | None) -> Judging:
    """The stage's settings as the training job takes them.

    Raises:
        UserError: they do not go together.
    """
    engine = run.config.engine
    watch = None
    if stage.watch is not None and watch_games is not None:
        watch = JudgeWatch(every=stage.watch.every, alarms=stage.watch.alarms)
    try:
        return Judging(
            rewards=stage.rewards,
            reasoning=stage.reasoning,
            both_orders=run.config.judge.both_orders,
            temperature=stage.temperature,
            max_new_tokens=stage.max_new_tokens,
            watch=watch,
            watch_games=None if watch is None else str(watch_games),
            device=engine.device,
            dtype=engine.dtype,
            batch_tokens=engine.batch_tokens,
        )
    except ValidationError as error:
        raise UserError(explain(error)) from error


def learn(
    stage: JudgeGrpoStage, run: Run, out: Path, games: Sequence[Transcript], watched: Sequence[Transcript]
) -> dict[str, Any]:
    """Train on finished games in a folder; returns what the training measured, with the curve."""
    base, start = start_from(run, stage.start, run.config.models.judge)
    watch_games = out / "watch.jsonl" if watched else None
    if watch_games is not None:
        write(watch_games, watched)
    judging = settings(stage, run, watch_games)
    card: dict[str, str | float] = {
        "data": f"{len(games)} debates on training questions ({run.config.questions.source})",
        "reward": stage.reward,
    }
    metrics = train(run, stage, "grpo", games, out, base, start, CardFacts(card), judging=judging)
    curve = read_log(out / "curve.jsonl", JudgePoint)
    log_intervals(run, run.name_of(out), curve)
    for point in curve:
        for alarm in point.alarms:
            run.say(f"  step {point.step}: {alarm}")
    history = read_json(out / run_files.HISTORY)
    counts = counted(history, COUNTED)
    if counts["unstated"]:
        run.say(f"  {counts['unstated']} of {counts['answers']} answers stated no probability; they earned the worst")
    return {
        **metrics,
        "generated_tokens": generated(history),
        "counts": counts,
        "curve": curve,
        "stopped": bool(curve and curve[-1].alarms and stage.watch is not None and stage.watch.alarms.stop),
    }


def _execute(stage: JudgeGrpoStage, run: Run, out: Path) -> JudgeGrpoResult:
    """Play or read the games, train, and compare before and after on test debates."""
    finished = finished_games(stage, run, out)
    questions = run.questions("train", stage.questions)
    allowed = {question.id for question in questions}
    games = [game for game in finished if game.question.id in allowed]
    tested = [game for game in finished if game.question.id not in allowed] or _tested(stage, run, out)
    learnt, watched = learnt_and_watched(stage, games, questions)
    metrics = learn(stage, run, out, learnt, watched)
    model, adapter = start_from(run, stage.start, run.config.models.judge)
    name = run.name_of(out)
    measured = []
    judged = []
    for judge, file in (
        (stage.stated_judge(run, stage.start, model, adapter), run_files.BASE_DEBATES),
        (stage.stated_judge(run, name, *trained_weights(stage, run, out)), run_files.TEST_DEBATES),
    ):
        judged.append(judged_games(tested, judge, run))
        measured.append(measured_judge(judge.name, judged[-1]))
        write(out / file, judged[-1])
        run.say(f"  {measured[-1]}")
    return JudgeGrpoResult(
        **metrics,
        start=stage.start,
        reward=stage.reward,
        games=len(learnt),
        before=measured[0],
        after=measured[1],
        change=change(judged[1], judged[0]),
    )


def _tested(stage: JudgeGrpoStage, run: Run, out: Path) -> list[Transcript]:
    """Test debates of a stage that reads the debates of other stages, and so has played none."""
    games = tested_games(stage, run)
    players = stage.players_of(run, games)
    options = LogOptions(asker=untrained_judge(run))
    path = out / run_files.DEBATES
    legs = play_to_file(games, players, run.engine, None, path, progress=run.progress(out), options=options)
    write(out / run_files.DEBATES, legs)
    return [leg.transcript for leg in legs if leg.failure is None]
