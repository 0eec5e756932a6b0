"""Judges compared on the same games: accuracy, calibration, consistency between both orders, and under attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from debate_rl.arena.rollout import LogOptions, check_played, play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.errors import UserError, nearest
from debate_rl.game import run_files
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Effect, Estimate
from debate_rl.judges.attacks.edits import chosen
from debate_rl.judges.attacks.robustness import Attacked, AttackTable, Trial, attack_judge
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.judges.scores import JudgeScores, judge_change, judge_scores
from debate_rl.records import write
from debate_rl.stages.attacks import draw
from debate_rl.stages.base import Stage, StageResult, untrained_judge
from debate_rl.stages.stating import spoken
from debate_rl.stages.workload import Rehearsed, added
from debate_rl.trainers.grpo.eval_metrics import judged_leg
from debate_rl.trainers.grpo.judge_metrics import consistency

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run


class JudgesChange(StageResult):
    """A judge minus the first one, on the games that both decided."""

    n: int
    accuracy: Effect
    brier: Effect
    ece: Effect


class MeasuredJudge(StageResult):
    """One judge on the games of the stage."""

    judge: str
    games: int
    failed: int
    """Games without a verdict, such as those in which it stated no probability."""
    scores: JudgeScores | None = None
    """On the games with a verdict; None if there are none."""
    consistent: Estimate | None = None
    """Share of games in which both presentation orders favour the same answer."""
    change: JudgesChange | None = None
    """Against the first judge; None for that one."""
    attacks: AttackTable | None = None

    def __str__(self) -> str:
        """One line."""
        if self.scores is None:
            return f"{self.judge:<16} no verdict in {self.games} games"
        line = f"{self.judge:<16} accuracy {self.scores.accuracy:.3f}  Brier {self.scores.brier:.3f}"
        line += f"  ECE {self.scores.ece:.3f} (95 % by chance: {self.scores.floor.high:.3f})"
        if self.consistent is not None:
            line += f"  consistent {self.consistent:.3f}"
        return line + f"  without a verdict {self.failed} of {self.games}"


class JudgesResult(StageResult):
    """Judges on the same games."""

    rows: tuple[MeasuredJudge, ...] = Field(min_length=1)
    failed_games: int = 0


class JudgesStage(Stage):
    """Several judges on the same debates on test questions."""

    kind: Literal["judges"] = "judges"
    judges: tuple[str, ...] = Field(default=("base", "judge"), min_length=1)
    """Stages that train a judge, `base`, or models; the others are compared with the first."""
    players: tuple[str, ...] = Field(default=("sft",), min_length=1)
    """Whose debates with themselves are judged."""
    protocol: str | None = None
    """Protocol of the games; empty takes the run's."""
    questions: int | None = Field(default=None, ge=1)
    """Test questions; empty takes all."""
    attacks: bool | tuple[str, ...] = False
    """Attacks on every judge: true for all, or names, such as [suffix_sure, forged_verdict]."""
    attack_games: int = Field(default=40, ge=2)
    """Debates that are attacked, drawn by name."""

    @field_validator("judges")
    @classmethod
    def _each_once(cls, judges: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(judges)) != len(judges):
            raise ValueError("judges names one twice; give each once")
        return judges

    @field_validator("attacks")
    @classmethod
    def _known_attacks(cls, names: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        try:
            chosen(names)
        except UserError as error:
            raise ValueError(str(error)) from error
        return names

    def references(self) -> set[str]:
        """The players. Judges are found by `builds_on`: they may be models, which are no stages."""
        return set(self.players)

    def builds_on(self, name: str, other: Stage) -> bool:
        """It reads the players and the judges that it names."""
        return bool(other.makes_judges(name) & set(self.judges)) or super().builds_on(name, other)

    def games(self, run: Run) -> list[Transcript]:
        """Self-play on the test questions.

        Raises:
            UserError: a judge is neither a stage's nor a model.
        """
        self._check_judges(run)
        questions = run.questions("test", self.questions)
        return self_play(self.players, questions, run.protocol(self.protocol), run.config.seed)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Play some games, and ask every judge about them."""
        legs, debates, scale = self.play_some(run, name, engine)
        counted = engine.take(scale)
        games = [leg.transcript for leg in legs if spoken(leg)]
        for judge in self.judges:
            judge_transcripts(games, run.judge_to_be(judge), engine)
        return Rehearsed(debates, 1.0, added(counted, engine.take(scale)))

    def execute(self, run: Run, out: Path) -> JudgesResult:
        """Play, have every judge judge, and compare."""
        judges = {name: run.judge_named(name) for name in self.judges}
        games = self.games(run)
        players = self.players_of(run, games)
        options = LogOptions(asker=untrained_judge(run))
        path = out / run_files.DEBATES
        legs = play_to_file(games, players, run.engine, None, path, progress=run.progress(out), options=options)
        write(out / run_files.DEBATES, legs)
        check_played(legs)
        played = [leg.transcript for leg in legs if leg.failure is None]
        rows: list[MeasuredJudge] = []
        trials: list[Trial] = []
        first: list[JudgedDebate] = []
        for name, judge in judges.items():
            judged = judged_games(played, judge, run)
            write(out / run_files.verdicts_of(name), judged)
            row = measured_judge(name, judged)
            if first:
                row = row.model_copy(update={"change": change(judged, first)})
            first = first or judged
            if self.attacks:
                attacked = self._attacked(played, judge, run)
                if attacked is not None:
                    row = row.model_copy(update={"attacks": attacked.table})
                    # The trials bear the name that the stage gives the judge, under which effects find them.
                    trials += [trial.model_copy(update={"judge": name}) for trial in attacked.trials]
            run.say(f"  {row}")
            rows.append(row)
        if self.attacks:
            write(out / run_files.ATTACKS, trials)
        return JudgesResult(rows=tuple(rows), failed_games=len(legs) - len(played))

    def _check_judges(self, run: Run) -> None:
        """Make sure that every judge is a stage's, a folder, or a model by a name that may exist."""
        trained = {"base"}
        for other, stage in run.config.stages.items():
            trained |= stage.makes_judges(other)
        for judge in self.judges:
            found = judge in trained or Path(run.resolve(judge)).is_dir()
            if judge in run.config.stages and judge not in trained:
                found = False
            if not found and "/" not in judge and run.config.engine.kind != "server":
                raise UserError(
                    f"judges: {judge!r} is no stage that trains a judge, no folder, no hub name (OWNER/NAME), no lab "
                    f"and no library model; {nearest(judge, sorted(trained))}"
                )

    def _attacked(self, games: Sequence[Transcript], judge: AnyJudge, run: Run) -> Attacked | None:
        """The attacks on one judge; None where it gives no verdicts to change."""
        try:
            attacked = attack_judge(draw(games, self.attack_games), judge, run.engine, self.attacks)
        except UserError as error:
            # Of several judges, one that states nothing is a result; the others are attacked all the same.
            run.say(f"  not attacked: {error}")
            return None
        run.say(str(attacked.table))
        return attacked


def judged_games(games: Sequence[Transcript], judge: AnyJudge, run: Run) -> list[JudgedDebate]:
    """Games with a judge's verdicts, or with its failures."""
    answers = judge_transcripts(games, judge, run.engine)
    return [judged_leg(game, answer) for game, answer in zip(games, answers, strict=True)]


def measured_judge(name: str, judged: Sequence[JudgedDebate]) -> MeasuredJudge:
    """Scores of one judge over its games."""
    decided = [leg for leg in judged if leg.p_correct is not None]
    if not decided:
        return MeasuredJudge(judge=name, games=len(judged), failed=len(judged))
    p_correct = [leg.p_correct for leg in decided if leg.p_correct is not None]
    stories = [leg.transcript.question.cluster for leg in decided]
    return MeasuredJudge(
        judge=name,
        games=len(judged),
        failed=len(judged) - len(decided),
        scores=judge_scores(p_correct, stories),
        consistent=consistency(decided),
    )


def change(judged: Sequence[JudgedDebate], first: Sequence[JudgedDebate]) -> JudgesChange | None:
    """One judge's scores minus another's, on the games that both decided; None if there are none."""
    p_first = {leg.transcript.id: leg.p_correct for leg in first}
    new, old, stories = [], [], []
    for leg in judged:
        before = p_first.get(leg.transcript.id)
        if leg.p_correct is not None and before is not None:
            new.append(leg.p_correct)
            old.append(before)
            stories.append(leg.transcript.question.cluster)
    if not new:
        return None
    found = judge_change(new, old, stories)
    return JudgesChange(n=len(new), accuracy=found.accuracy, brier=found.brier, ece=found.ece)
