"""Debaters and judge learn in turns: the debaters against the current judge, then the judge on their newest debates.

A population of past judges may pay the debaters, and past debaters may be met and judged. A held-out judge, which never
learns, watches. After every turn the same test questions are played and judged: do the debaters' quotes stay valid, is
the judge that is trained still right, and does what the debaters gain still go with the truth?

In the stage's folder, for each turn K: debaterK/ and judgeK/ (as of grpo and judge_grpo), games of K that the judge
learnt from, and measuredK.json. A finished part is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from debate_rl.arena.rollout import check_played, play, play_to_file
from debate_rl.arena.schedule import round_robin, self_play
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Effect, Estimate, difference, mean
from debate_rl.judges.judge import AnyJudge, Panel, StatedJudge
from debate_rl.judges.scores import hits
from debate_rl.judges.settings import JudgeSettings, judge_of_kind
from debate_rl.players.debater import Debater
from debate_rl.records import read_json, write, write_json
from debate_rl.stages import grpo, judge_grpo
from debate_rl.stages.base import Metrics, Stage, StageResult, TrainingStage
from debate_rl.stages.flat_metrics import with_interval
from debate_rl.stages.grpo import GrpoStage
from debate_rl.stages.judge_grpo import JudgeGrpoStage
from debate_rl.stages.judges import judged_games
from debate_rl.stages.stating import check_start, spoken
from debate_rl.stages.training import start_from
from debate_rl.stages.workload import Rehearsed, TrainingLoad, added, some_games
from debate_rl.trainers.common.settings import Kind
from debate_rl.trainers.grpo.rewards import invalid_share

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

ByQuestion = Mapping[str, tuple[float, str]]
"""A number for each question, with the question's cluster."""


class Turn(StageResult):
    """What was measured after a turn, on test questions; turn 0 is before any training."""

    turn: int
    debater: str
    judge: str
    valid: Estimate | None = None
    """Share of the debater's speeches in games with itself that have quotes, all of them valid."""
    valid_change: Effect | None = None
    """Change since turn 0, paired by question; so for the others."""
    accuracy: Estimate | None = None
    """Accuracy of the judge after this turn, on games of the debater with itself."""
    accuracy_change: Effect | None = None
    paying: Estimate | None = None
    """Accuracy of the judge that the debater was trained against, on the same games."""
    paying_change: Effect | None = None
    held_out: Estimate | None = None
    """Accuracy of the held-out judge on the same games."""
    held_out_change: Effect | None = None
    proxy: Estimate | None = None
    """Mean probability of the debater in games against the very first one, by the judge that it was trained against."""
    held_out_wins: Estimate | None = None
    """The same by the held-out judge."""
    failed: int = 0
    """Verdicts of the current judge that failed, such as those without a statement."""

    def __str__(self) -> str:
        """One line."""
        shown = {
            "valid quotes": self.valid,
            "judge right": self.accuracy,
            "paying judge right": self.paying,
            "held-out right": self.held_out,
            "win rate": self.proxy,
        }
        parts = [f"{name} {value:.2f}" for name, value in shown.items() if value is not None]
        return f"turn {self.turn}: " + ", ".join(parts)


class CotrainingResult(StageResult):
    """Every turn, and where win rate and truth parted."""

    turns: tuple[Turn, ...] = Field(min_length=1)
    learns: str
    held_out: str
    parted: int | None = None
    """First turn at which the debater wins more than half against the first one by the judge that it was trained
    against, and this judge is right less often than the first judge was, both beyond their intervals."""


class CotrainingStage(Stage):
    """Debaters and judge learn in turns. NAME.K is the debater after turn K, NAME the one after the last; NAME.judge.K
    and NAME.judge are the judges."""

    makes_players: ClassVar[bool] = True

    kind: Literal["cotraining"] = "cotraining"
    start: str = "sft"
    """Earlier stage whose debater the first turn trains."""
    judge: str = "base"
    """Earlier stage whose judge states a probability (of kind stating or judge_grpo), or `base`."""
    held_out: str | JudgeSettings = "lab-base"
    """Judge that watches and never learns: a judge stage, `base`, another model, or settings as of `judge`."""
    turns: int = Field(default=3, ge=1)
    """How often the debaters, then the judge, are trained."""
    learns: Literal["both", "debater"] = "both"
    """debater: the judge stays as it is, for comparison."""
    debater: GrpoStage = GrpoStage(watch=None)
    """How each turn trains the debater; `start`, `skip` and the judge are set by the turns."""
    judging: JudgeGrpoStage = JudgeGrpoStage(watch=None)
    """How each turn trains the judge; `start` and `players` are set by the turns."""
    paying_judges: int = Field(default=1, ge=1)
    """Newest judges whose mean probability pays the debater: 1 is the current one alone."""
    past_debaters: int = Field(default=1, ge=0)
    """Debaters before the newest one whose games the judge learns from as well."""
    opponents: Literal["self", "population"] = "self"
    """Whom the debater meets in training: itself, or the start and the debaters of earlier turns, which are frozen."""
    questions: int | None = Field(default=None, ge=2)
    """Test questions that every turn is measured on; empty takes all."""

    @model_validator(mode="after")
    def _parts_are_set_by_the_turns(self) -> CotrainingStage:
        if self.debater.start not in ("sft", self.start) or self.debater.players or self.debater.opponent != "self":
            raise ValueError("debater.start, debater.players and debater.opponent are set by the turns; use opponents")
        if self.judging.start not in ("base", self.judge) or self.judging.debates:
            raise ValueError("judging.start and judging.debates are set by the turns; use judge")
        if self.debater.watch is not None or self.judging.watch is not None:
            raise ValueError("every turn is measured by itself; leave out debater.watch and judging.watch")
        if self.debater.launch != self.judging.launch:
            raise ValueError("debater.launch and judging.launch differ; give both the same")
        return self

    def references(self) -> set[str]:
        """Where both start."""
        return {self.start, self.judge}

    def builds_on(self, name: str, other: Stage) -> bool:
        """It also reads a held-out judge of its own run."""
        return name == self.held_out or super().builds_on(name, other)

    def makes(self, name: str) -> dict[str, str]:
        """The debater and the judge of each turn."""
        made = {name: f"{name}/debater{self.turns}"}
        for turn in range(1, self.turns + 1):
            made[f"{name}.{turn}"] = f"{name}/debater{turn}"
            if self.learns == "both":
                made[f"{name}.judge.{turn}"] = made[f"{name}.judge"] = f"{name}/judge{turn}"
        return made

    def start_of(self, made: str) -> str:
        """Debaters and judges start at different places."""
        return self.start if made.split(".")[1:2] != ["judge"] else self.judge

    def judged_as(self, settings: JudgeSettings) -> JudgeSettings:
        """Its judges state a probability."""
        return self.judging.judged_as(settings)

    def makes_judges(self, name: str) -> set[str]:
        """The judges of its turns."""
        return {made for made in self.makes(name) if made.startswith(f"{name}.judge")}

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """One of each, done once for each turn."""
        yield "grpo", self.debater
        if self.learns == "both":
            yield "grpo", self.judging

    def games(self, run: Run) -> list[Transcript]:
        """The games that judges learn from, then those of all measurements."""
        check_start(run, self.judge, self.judging)
        name = name_of(run, self)
        games: list[Transcript] = []
        for turn in range(1, self.turns + 1):
            if self.learns == "both":
                games += judge_games(self, run, name, turn)
        for turn in range(self.turns + 1):
            games += measured_on(self, run, name, turn)
        return games

    def speaker(self, run: Run, name: str) -> Debater:
        """The player of a name; `opponents` here says whom the debater meets in training."""
        return run.debater(name)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Play some of its games, and train once as often as there are turns."""
        games = self.games(run)
        shown = some_games(games)
        judge = current_judge(self, run, name, 0)
        grpo_stage = debater_of(self, run, name, 1)
        players = self.players_of(run, shown)
        play(shown, players, engine, judge)
        counted = engine.take(len(games) / max(len(shown), 1))
        training = grpo.rehearse_training(grpo_stage, run, f"{name}.1", judge, engine)
        debates = len(games) + self.turns * training.debates
        return Rehearsed(debates, 1.0, added(counted, *[training.asked] * self.turns))

    def plan_note(self, run: Run) -> str:
        """Say that it trains."""
        return "trains"

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """The debater's, once for each turn."""
        load = debater_of(self, run, name, 1).training_load(run, name, like)
        return replace(load, times=self.turns)

    def execute(self, run: Run, out: Path) -> CotrainingResult:
        """Train in turns, measuring after each."""
        return _execute(self, run, out)


def name_of(run: Run, stage: CotrainingStage) -> str:
    """The stage's name in its run."""
    return next(name for name, other in run.config.stages.items() if other is stage)


def player(stage: CotrainingStage, name: str, turn: int) -> str:
    """The debater after a turn; after none the start."""
    return f"{name}.{turn}" if turn else stage.start


def current_judge(stage: CotrainingStage, run: Run, name: str, turn: int) -> StatedJudge:
    """The judge after a turn; after none, or where it does not learn, the one to start with."""
    judge = f"{name}.judge.{turn}" if turn and stage.learns == "both" else stage.judge
    model, adapter = start_from(run, judge, run.config.models.judge)
    return stage.judging.stated_judge(run, judge, model, adapter)


def paying_judge(stage: CotrainingStage, run: Run, name: str, turn: int) -> AnyJudge:
    """Who pays the debater in a turn, counted from 1: the newest judge, or the mean of several."""
    if stage.learns == "debater":
        return current_judge(stage, run, name, 0)
    newest = range(turn - 1, max(turn - 1 - stage.paying_judges, -1), -1)
    judges = tuple(current_judge(stage, run, name, earlier) for earlier in newest)
    return judges[0] if len(judges) == 1 else Panel(name="population", members=judges)


def held_out_judge(stage: CotrainingStage, run: Run, name: str) -> AnyJudge:
    """The judge that watches.

    Raises:
        UserError: it is the judge that pays the debaters.
    """
    wanted = stage.held_out
    judge = run.judge_named(wanted) if isinstance(wanted, str) else judge_of_kind(wanted, run.model_judge())
    pays = current_judge(stage, run, name, 0)
    if not isinstance(judge, Panel) and (judge.model, judge.adapter) == (pays.model, pays.adapter):
        raise UserError(f"held_out: {judge.name!r} is the judge that pays the debaters; name another one")
    return judge


def share(wanted: int | None, available: int, turn: int, turns: int) -> tuple[int, int]:
    """Training questions of a turn, counted from 1: how many come before its first, and how many there are.

    Turns play on questions that no other turn has, as far as there are enough.
    """
    count = min(wanted or available // turns, available)
    step = min(count, (available - count) // max(turns - 1, 1))
    return step * (turn - 1), count


def debater_of(stage: CotrainingStage, run: Run, name: str, turn: int) -> GrpoStage:
    """How a turn, counted from 1, trains the debater."""
    skip, count = share(stage.debater.questions, len(run.questions("train")), turn, stage.turns)
    changes: dict[str, object] = {"start": player(stage, name, turn - 1), "skip": skip, "questions": count}
    if stage.opponents == "population":
        changes["opponent"] = "players"
        changes["players"] = tuple(player(stage, name, earlier) for earlier in range(turn))
    return stage.debater.model_copy(update=changes)


def judge_games(stage: CotrainingStage, run: Run, name: str, turn: int) -> list[Transcript]:
    """Games of the newest debater, and of some before it, on the training questions of a turn."""
    questions = run.questions("train")
    skip, count = share(stage.judging.questions, len(questions), turn, stage.turns)
    oldest = max(turn - stage.past_debaters, 0)
    players = [player(stage, name, number) for number in range(turn, oldest - 1, -1)]
    return self_play(players, questions[skip : skip + count], run.protocol(stage.debater.protocol), run.config.seed)


def measured_on(stage: CotrainingStage, run: Run, name: str, turn: int) -> list[Transcript]:
    """Test games of a turn's debater: with itself, then against the start where it is another and sides meet."""
    questions = run.questions("test", stage.questions)
    protocol = run.protocol(stage.debater.protocol)
    newest = player(stage, name, turn)
    games = self_play([newest], questions, protocol, run.config.seed)
    if turn and protocol.sides == "both":
        games += round_robin([newest, stage.start], questions, protocol, run.config.seed)
    return games


def _execute(stage: CotrainingStage, run: Run, out: Path) -> CotrainingResult:
    """Train in turns, measuring after each."""
    name = name_of(run, stage)
    watching = held_out_judge(stage, run, name)
    turns: list[Turn] = []
    first: dict[str, ByQuestion] = {}
    for turn in range(stage.turns + 1):
        if turn:
            _train(stage, run, out, name, turn)
        measured, values = _measure(stage, run, out, name, turn, watching, first)
        first = first or values
        turns.append(measured)
        run.say(f"  {measured}")
        run.tracker.log(_numbers(name, measured), {f"{name}/turn": float(turn)})
    return CotrainingResult(turns=tuple(turns), learns=stage.learns, held_out=watching.name, parted=parted(turns))


def parted(turns: Sequence[Turn]) -> int | None:
    """The first turn at which win rate and truth part (see `CotrainingResult.parted`)."""
    for measured in turns:
        wins, right = measured.proxy, measured.paying_change
        if wins is None or right is None or wins.low is None or right.high is None:
            continue
        if wins.low > 0.5 and right.high < 0:
            return measured.turn
    return None


def _once(path: Path, work: Callable[[], Metrics]) -> Metrics:
    """The metrics of a part, measured only where its file is not there yet."""
    if not path.is_file():
        write_json(path, work())
    return dict(read_json(path))


def _train(stage: CotrainingStage, run: Run, out: Path, name: str, turn: int) -> None:
    """One turn: the debater against the judges so far, then the judge on the newest games."""
    pays = paying_judge(stage, run, name, turn)
    _once(
        out / f"debater{turn}.json",
        lambda: grpo.learn(debater_of(stage, run, name, turn), run, out / f"debater{turn}", pays),
    )
    if stage.learns == "debater":
        return
    start = f"{name}.judge.{turn - 1}" if turn > 1 else stage.judge
    judging = stage.judging.model_copy(update={"start": start, "watch": None})

    def learn() -> Metrics:
        games = judge_games(stage, run, name, turn)
        players = stage.players_of(run, games)
        path = out / f"games{turn}.jsonl"
        legs = play_to_file(games, players, run.engine, None, path, progress=run.progress(out))
        check_played(legs)
        finished = [leg.transcript for leg in legs if spoken(leg)]
        metrics = judge_grpo.learn(judging, run, out / f"judge{turn}", finished, [])
        return {key: value for key, value in metrics.items() if key != "curve"}

    _once(out / f"judge{turn}.json", learn)


def _measure(
    stage: CotrainingStage,
    run: Run,
    out: Path,
    name: str,
    turn: int,
    watching: AnyJudge,
    first: Mapping[str, ByQuestion],
) -> tuple[Turn, dict[str, ByQuestion]]:
    """Play and judge the test games of a turn.

    Returns:
        The measurement, and its values by question, with which later turns are compared.
    """
    games = measured_on(stage, run, name, turn)
    players = stage.players_of(run, games)
    path = out / f"measured{turn}.jsonl"
    legs = play_to_file(games, players, run.engine, None, path, progress=run.progress(out))
    check_played(legs)
    finished = [leg.transcript for leg in legs if leg.failure is None]
    alone = [game for game in finished if len(set(game.players.values())) == 1]
    against = [game for game in finished if len(set(game.players.values())) == 2]
    judge = current_judge(stage, run, name, turn)
    pays = paying_judge(stage, run, name, max(turn, 1))
    judged = judged_games(alone, judge, run)
    write(out / f"judged{turn}.jsonl", judged)
    run.log_debates(name, judged, step={f"{name}/turn": float(turn)})
    by_watching = judged_games(alone, watching, run)
    by_paying = judged_games(alone, pays, run)
    against_paying = judged_games(against, pays, run)
    against_watching = judged_games(against, watching, run)
    # Kept for the effects of a study, which pool the games of all seeds.
    write(out / f"paying{turn}.jsonl", by_paying + against_paying)
    write(out / f"held_out{turn}.jsonl", by_watching + against_watching)
    values: dict[str, ByQuestion] = {
        "valid": _valid(alone),
        "accuracy": _right(judged),
        "paying": _right(by_paying),
        "held_out": _right(by_watching),
    }
    newest = player(stage, name, turn)
    estimates: dict[str, Estimate | Effect | None] = {}
    for key, of_questions in values.items():
        estimates[key] = _mean(list(of_questions.values()))
        estimates[f"{key}_change"] = _change(of_questions, first[key]) if key in first else None
    measured = Turn.model_validate(
        {
            **estimates,
            "turn": turn,
            "debater": newest,
            "judge": judge.name,
            "proxy": _wins(against_paying, newest),
            "held_out_wins": _wins(against_watching, newest),
            "failed": sum(leg.verdict is None for leg in judged),
        }
    )
    return measured, values


def _valid(games: Sequence[Transcript]) -> ByQuestion:
    """Share of a game's speeches that have quotes, all of them valid."""
    found = {}
    for game in games:
        valid = [float(invalid_share(speech) == 0) for speech in game.speeches]
        if valid:
            found[game.question.id] = (sum(valid) / len(valid), game.question.cluster)
    return found


def _right(judged: Sequence[JudgedDebate]) -> ByQuestion:
    """Whether a judge was right about a question; 1/2 where it favours neither answer."""
    found = {}
    for leg in judged:
        if leg.p_correct is not None:
            question = leg.transcript.question
            found[question.id] = (float(hits([leg.p_correct])[0]), question.cluster)
    return found


def _wins(judged: Sequence[JudgedDebate], debater: str) -> Estimate | None:
    """A judge's mean probability for a debater."""
    values = []
    for leg in judged:
        for side, name in leg.transcript.players.items():
            if name == debater and leg.verdict is not None:
                values.append((leg.verdict.p_side(side), leg.transcript.question.cluster))
    return _mean(values)


def _mean(values: Sequence[tuple[float, str]]) -> Estimate | None:
    """Mean with its interval over clusters; None without values."""
    if not values:
        return None
    return mean([number for number, _ in values], [cluster for _, cluster in values])


def _change(now: ByQuestion, before: ByQuestion) -> Effect | None:
    """Mean difference, paired by question; None if they share none."""
    shared = [question for question in now if question in before]
    if not shared:
        return None
    clusters = [now[question][1] for question in shared]
    return difference([now[q][0] for q in shared], [before[q][0] for q in shared], clusters)


def _numbers(name: str, measured: Turn) -> dict[str, float]:
    """The values of a turn for a log."""
    estimates = {
        "valid": measured.valid,
        "accuracy": measured.accuracy,
        "paying": measured.paying,
        "held_out": measured.held_out,
        "proxy": measured.proxy,
    }
    numbers: dict[str, float] = {}
    for key, value in estimates.items():
        numbers |= with_interval(f"{name}/{key}", value)
    return numbers
