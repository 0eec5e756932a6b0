"""Judges that state a probability in words: what their stages share, and the stage that teaches the form alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from debate_rl.arena.rollout import LogOptions, check_played, play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.prompts import stated_messages
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.judge import Judge, StatedJudge, judge_transcripts
from debate_rl.judges.presentation import probability
from debate_rl.judges.settings import JudgeSettings
from debate_rl.judges.stated import listed_answers
from debate_rl.judges.statement import statement
from debate_rl.records import read, write
from debate_rl.stages.base import Metrics, TrainingStage, untrained_judge
from debate_rl.stages.training import CardFacts, start_from, train
from debate_rl.stages.workload import Rehearsed, TrainingLoad, added, verdict_rows
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.common.settings import Kind

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run


class StatedJudgeStage(TrainingStage):
    """What the stages have that train a judge to state its probability."""

    trains_judge: ClassVar[bool] = True

    start: str = "base"
    """Earlier stage whose judge is trained further; `base` is the judge model as it is."""
    players: tuple[str, ...] = ("sft",)
    """Whose debates with themselves the judge reads."""
    protocols: tuple[str, ...] = ("debate",)
    """Protocols of the games it learns from."""
    debates: tuple[str, ...] = ()
    """Earlier stages whose debates on training questions are read instead, such as [judge, grpo]; nobody plays then."""
    questions: int = Field(default=200, ge=2)
    """Training questions."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Longest answer, in tokens: reasoning and statement."""
    reasoning: bool = False
    """Ask for a short reasoning before the statement; set max_new_tokens to hold both."""

    def references(self) -> set[str]:
        """The judge that it starts from, and whose debates it reads."""
        return {self.start, *(self.debates or self.players)}

    def games(self, run: Run) -> list[Transcript]:
        """Self-play of all players under all protocols on the training questions; none where debates are read."""
        check_start(run, self.start, self)
        if self.debates:
            return []
        questions = run.questions("train", self.questions)
        games: list[Transcript] = []
        for name in self.protocols:
            games += self_play(self.players, questions, run.protocol(name), run.config.seed)
        return games

    def judged_as(self, settings: JudgeSettings) -> JudgeSettings:
        """It states its probability; other settings of a stated judge are the run's own."""
        if settings.kind == "stated":
            return settings
        return JudgeSettings(
            kind="stated",
            both_orders=settings.both_orders,
            max_new_tokens=self.max_new_tokens,
            reasoning=self.reasoning,
        )

    def stated_judge(self, run: Run, name: str, model: str, adapter: str | None) -> StatedJudge:
        """A judge with some weights that answers in the form that this stage trains."""
        return StatedJudge(
            name=name,
            model=model,
            adapter=adapter,
            both_orders=run.config.judge.both_orders,
            max_new_tokens=self.max_new_tokens,
            reasoning=self.reasoning,
        )

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """Every game in both orders."""
        return TrainingLoad("sft", run.config.models.judge, verdict_rows(self.games(run), 2))


def check_start(run: Run, start: str, stage: TrainingStage) -> None:
    """Make sure that an adapter is not trained on a model that later stages would not put under it.

    Raises:
        UserError: the stage trains an adapter, and it starts from a judge whose every weight was trained.
    """
    earlier = run.config.stages.get(start)
    whole = isinstance(earlier, TrainingStage) and earlier.lora is None
    if whole and stage.lora is not None:
        raise UserError(f"judge {start!r} has lora null, so its model is a new one; set lora: null where it goes on")


def finished_games(stage: StatedJudgeStage, run: Run, out: Path) -> list[Transcript]:
    """Play the stage's games, or read those of the stages that it names; failed ones are left out.

    Raises:
        UserError: a named stage has no debates on the training questions, or every game failed.
    """
    if not stage.debates:
        games = stage.games(run)
        players = stage.players_of(run, games)
        options = LogOptions(asker=untrained_judge(run))
        path = out / run_files.DEBATES
        legs = play_to_file(games, players, run.engine, None, path, progress=run.progress(out), options=options)
        write(out / run_files.DEBATES, legs)
        check_played(legs)
        return [leg.transcript for leg in legs if leg.failure is None]
    # Only training questions: a stage's debates may be on test questions as well.
    allowed = {question.id for question in run.questions("train", stage.questions)}
    found: list[Transcript] = []
    for name in stage.debates:
        path = run.folder / name / run_files.DEBATES
        read_games = read(path, JudgedDebate) if path.is_file() else []
        own = [leg.transcript for leg in read_games if leg.transcript.question.id in allowed and spoken(leg)]
        if not own:
            raise UserError(
                f"stage {name!r} has no debates on the first {len(allowed)} training questions; name a stage that "
                "plays them (judge, grpo), or leave out debates and name players"
            )
        found += own
    return found


def spoken(leg: JudgedDebate) -> bool:
    """Whether all speeches of a game were given; a judge may have failed afterwards."""
    return leg.failure is None or leg.failure.seat == "judge"


def trained_weights(stage: TrainingStage, run: Run, out: Path) -> tuple[str, str | None]:
    """Model and adapter that a judge's stage has just trained."""
    if stage.lora is None:
        return str(out / "model"), None
    return run.config.models.judge, str(out / "adapter")


class StatingStage(StatedJudgeStage):
    """Finetuning on the form of a statement: the judge learns to write down the probability that it has already.

    The numbers are its own probabilities of the answers (`judge.readout`), on training questions. No correct answer is
    shown, so what it knows stays what it was; online training can start from it.
    """

    kind: Literal["stating"] = "stating"
    step: int = Field(default=5, ge=1, le=50)
    """Percent to which the statements are rounded."""

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """One."""
        yield "sft", self

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Play some games, and ask the judge about them."""
        legs, debates, scale = self.play_some(run, name, engine)
        counted = engine.take(scale)
        judge_transcripts([leg.transcript for leg in legs if spoken(leg)], _asked_judge(self, run), engine)
        return Rehearsed(debates, 1.0, added(counted, engine.take(scale)))

    def execute(self, run: Run, out: Path) -> Metrics:
        """Ask the judge for its probabilities, and train it to state them."""
        games = finished_games(self, run, out)
        rows = _rows(games, _asked_judge(self, run), self, run)
        base, start = start_from(run, self.start, run.config.models.judge)
        facts = {"data": f"{len(rows)} statements of the judge's own probabilities, in steps of {self.step} %"}
        return {**train(run, self, "sft", rows, out, base, start, CardFacts(facts)), "games": len(games)}


def _asked_judge(stage: StatingStage, run: Run) -> Judge:
    """The judge before the stage, asked for its probabilities."""
    model, adapter = start_from(run, stage.start, run.config.models.judge)
    return run.read_as_set(Judge(name=stage.start, model=model, adapter=adapter))


def _rows(games: Sequence[Transcript], judge: Judge, stage: StatingStage, run: Run) -> list[SftRow]:
    """A row for each presentation of each game that the judge could judge."""
    rows = []
    for game, verdict in zip(games, judge_transcripts(games, judge, run.engine), strict=True):
        if not isinstance(verdict, Verdict):
            continue
        for ask in verdict.asks:
            p_first = probability(ask.logprobs) if ask.order == (0, 1) else 1 - probability(ask.logprobs)
            rounded = round(100 * p_first / stage.step) * stage.step / 100
            row = SftRow(
                prompt=stated_messages(game, ask.sides, ask.order, ask.after_turn),
                completion=statement(min(rounded, 1.0), listed_answers(game, ask.order)),
                question=game.question.id,
                group=game.question.cluster,
                source=judge.name,
                split="train",
            )
            rows.append(row)
    return rows
