"""Finetuning and calibrating the judge on the debates of untrained and trained players; between the two adversarial
rounds where the stage wants any (`stages.adversarial`).

It is calibrated twice on held-out stories: on games whose sides it reads together, and on lone speakers. The latter are
the consultancies among its protocols, else each side of the debates alone, for which nothing is generated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from debate_rl.arena.rollout import LogOptions, check_played, play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.attacks.edits import attacked_copies, chosen, learnable
from debate_rl.judges.attacks.robustness import attack_judge
from debate_rl.judges.attacks.sycophancy import both_kinds, consultants, fit_lone, is_drawn
from debate_rl.judges.calibration import Calibrator, Kind, fit_calibrator, split_clusters
from debate_rl.judges.judge import Judge, judge_transcripts, mean_probability
from debate_rl.judges.scores import order_effect
from debate_rl.records import read, write, write_json
from debate_rl.stages import recorded_judge
from debate_rl.stages.adversarial import ROUND_SHARE, adversarial_rounds, search
from debate_rl.stages.attacks import attack_numbers, compare_attacks, draw
from debate_rl.stages.base import TrainingStage, untrained_judge
from debate_rl.stages.judge_result import JudgeAttacks, JudgeResult, before_and_after, judge_twice
from debate_rl.stages.training import train, trained_judge
from debate_rl.stages.workload import Asked, Rehearsed, Rows, TrainingLoad, Weights, added, verdict_rows
from debate_rl.trainers.common.rows import judge_rows
from debate_rl.trainers.common.settings import Kind as TrainingKind
from debate_rl.trainers.common.warning_signs import is_one_class, one_class_sign

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

SUFFIX_SEARCH = "suffix_search"
CALIBRATION_SHARE = 0.25
"""Share of the training stories that is held out from finetuning to calibrate on."""
_PLAYED = (
    "players",
    "protocols",
    "calibrate_lone",
    "train_attacks",
    "train_copies",
    "adversarial_rounds",
    "attacks",
    "attack_games",
)
"""Settings that only a judge trained on the run's own games has."""


class JudgeStage(TrainingStage):
    """Finetuning and calibrating the judge on verdict labels."""

    trains_judge: ClassVar[bool] = True

    kind: Literal["judge"] = "judge"
    from_: Literal["self_play", "recorded"] = Field(default="self_play", alias="from")
    """self_play: the players' debates on training questions, and their gold labels. recorded: the human debates of the
    source nyu and their judges' final probabilities, compared with the humans on test stories."""
    path: str | None = None
    """Where the recorded debates lie (from: recorded), as of source nyu; empty is questions.path of that source. Where
    questions are of another one, questions.human keeps the stories apart."""
    players: tuple[str, ...] = ("base", "sft")
    """Whose debates the judge learns from."""
    protocols: tuple[str, ...] = ("debate", "single")
    """Protocols of the games it learns from."""
    questions: int = Field(default=200, ge=2)
    """Training questions; a quarter of the stories is held out to calibrate on."""
    calibrate: Literal["temperature", "platt", "isotonic", "none"] = "temperature"
    """Map from the judge's probabilities to calibrated ones, fitted on the held-out stories."""
    calibrate_lone: bool = True
    """Calibrate lone speakers (consultancies) apart from debates; else one map serves all protocols."""
    train_attacks: tuple[str, ...] = ()
    """Attacks that the judge learns to see through: it is shown every training game once more with one of these, by
    its sides in turn. Judge by attacks that it has not learnt from."""
    train_copies: int = Field(default=1, ge=1)
    """Times that every game is shown with an attack, each time with the next one of the list."""
    adversarial_rounds: int = Field(default=0, ge=0)
    """After the training: rounds of a search for suffixes against the judge, on stories that it learns from, and of
    further training on a third of its games with what was found."""
    attacks: bool | tuple[str, ...] = False
    """Attacks on the base judge and the finetuned one, on its test debates: true for all, or names of
    judges/attacks/edits.py, such as [suffix_sure, suffix_search, sycophancy]."""
    attack_games: int = Field(default=100, ge=2)
    """Test debates that are attacked, drawn by name; each is judged some 70 times over by either judge."""

    @model_validator(mode="after")
    def _recorded_games_are_as_they_are(self) -> JudgeStage:
        changed = [name for name in _PLAYED if getattr(self, name) != type(self).model_fields[name].default]
        if changed and self.from_ == "recorded":
            raise ValueError(f"{changed[0]} is for from: self_play; recorded games are neither played nor attacked")
        if self.path is not None and self.from_ != "recorded":
            raise ValueError("path is for from: recorded; leave it out")
        return self

    @field_validator("attacks", "train_attacks")
    @classmethod
    def _known_attacks(cls, names: bool | tuple[str, ...], info: ValidationInfo) -> bool | tuple[str, ...]:
        try:
            if isinstance(names, bool) or info.field_name == "attacks":
                chosen(names)
            else:
                learnable(names)
        except UserError as error:
            raise ValueError(str(error)) from error
        return names

    def references(self) -> set[str]:
        """The players, where games are played for it."""
        return set() if self.from_ == "recorded" else set(self.players)

    def input_files(self) -> Iterator[tuple[str, str]]:
        """The recorded debates, where they are not the questions' own."""
        if self.path is not None:
            yield "path", self.path

    def makes(self, name: str) -> dict[str, str]:
        """The judge of its last adversarial round, else of its only training."""
        return {name: f"{name}/round{self.adversarial_rounds}" if self.adversarial_rounds else name}

    def trainings(self) -> Iterator[tuple[TrainingKind, TrainingStage]]:
        """One, whose settings the adversarial rounds share."""
        yield "judge", self

    def games(self, run: Run) -> list[Transcript]:
        """Self-play on training questions, then on the test questions it is measured on; none if recorded."""
        if self.from_ == "recorded":
            return []
        return _training_games(self, run) + _test_games(self, run)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Play some games without a judge, then measure and attack it as the stage will."""
        if self.from_ == "recorded":
            return Rehearsed(0, 1.0, _rehearse_recorded(self, run, name, engine))
        legs, debates, scale = self.play_some(run, name, engine)
        counted = engine.take(scale)
        return Rehearsed(debates, 1.0, added(counted, _rehearse(self, run, name, legs, engine, scale)))

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """Every game that it learns from in both orders, with the attacked copies."""
        if self.from_ == "recorded":
            taught, _ = recorded_judge.divided(self, run, CALIBRATION_SHARE)
            learnt = [leg.transcript for leg in taught]
        else:
            learnt, _ = learnt_and_held_out(self, run, _training_games(self, run))
        return TrainingLoad("judge", run.config.models.judge, _attacked(self, verdict_rows(learnt, 2)))

    def execute(self, run: Run, out: Path) -> JudgeResult:
        """Finetune, calibrate on held-out stories, and compare before and after on test stories."""
        if self.from_ == "recorded":
            return recorded_judge.execute(self, run, out, CALIBRATION_SHARE)
        return _execute(self, run, out)


def _training_games(stage: JudgeStage, run: Run) -> list[Transcript]:
    """Self-play of all players under all protocols on the training questions."""
    questions = run.questions("train", stage.questions)
    games: list[Transcript] = []
    for name in stage.protocols:
        games += self_play(stage.players, questions, run.protocol(name), run.config.seed)
    return games


def _test_games(stage: JudgeStage, run: Run) -> list[Transcript]:
    """Self-play of the last player on the test questions."""
    return self_play(stage.players[-1:], run.questions("test"), run.protocol(), run.config.seed)


def _execute(stage: JudgeStage, run: Run, out: Path) -> JudgeResult:
    """Play, finetune on gold labels, calibrate on held-out stories, and compare before and after on test stories."""
    players = {name: run.debater(name) for name in stage.players}
    options = LogOptions(asker=untrained_judge(run))
    path = out / run_files.DEBATES
    legs = play_to_file(stage.games(run), players, run.engine, None, path, progress=run.progress(out), options=options)
    # In the order of the games: the log has them as they were finished, which differs from run to run.
    write(out / run_files.DEBATES, legs)
    check_played(legs)
    training_count = len(_training_games(stage, run))
    training_games = [leg.transcript for leg in legs[:training_count] if leg.failure is None]
    test_games = [leg.transcript for leg in legs[training_count:] if leg.failure is None]

    shown, held_out = learnt_and_held_out(stage, run, training_games)
    learnt = [*shown, *attacked_copies(shown, stage.train_attacks, stage.train_copies)]
    rows = judge_rows(learnt, readout=run.config.judge.readout)
    metrics = train(run, stage, "judge", rows, out, run.config.models.judge)
    before = run.read_as_set(Judge(name="base judge", model=run.config.models.judge))
    after, suffixes, adversarial = adversarial_rounds(
        stage, run, out, shown, trained_judge(stage, run, out, out.name.lstrip("."))
    )

    failed_verdicts = 0
    if stage.calibrate != "none":
        calibrator, failed_verdicts = _calibrator(stage.calibrate, held_out, after, run, stage.calibrate_lone)
        write_json(out / run_files.CALIBRATOR, calibrator.model_dump(mode="json"))
        after = after.model_copy(update={"calibrator": calibrator})
    compared, failed_comparisons = _compare(test_games, before, after, run, out)
    failed_verdicts += failed_comparisons
    failed_games = sum(leg.failure is not None for leg in legs)
    if failed_games or failed_verdicts:
        run.say(f"  {failed_games} games and {failed_verdicts} verdicts failed; they count for nothing")
    metrics["warnings"] = (*metrics.get("warnings", ()), *_collapsed(run, out))
    attacks: JudgeAttacks | None = compare_attacks(test_games, before, after, stage, run, out, suffixes)
    return JudgeResult(
        **metrics,
        adversarial=adversarial,
        failed_games=failed_games,
        failed_verdicts=failed_verdicts,
        **compared,
        attacks=attacks,
        **attack_numbers(attacks),
    )


def _collapsed(run: Run, out: Path) -> list[str]:
    """A warning where the trained judge gives one answer to all test debates."""
    judged = [leg for leg in read(out / run_files.TEST_DEBATES, JudgedDebate) if leg.verdict is not None]
    p = [leg.verdict.p[0] for leg in judged if leg.verdict is not None]
    if not is_one_class(p, [int(leg.transcript.question.correct == 0) for leg in judged]):
        return []
    run.say(f"  warning: {run.name_of(out)}: {one_class_sign(len(p))}")
    return [one_class_sign(len(p))]


def learnt_and_held_out(
    stage: JudgeStage, run: Run, games: Sequence[Transcript]
) -> tuple[list[Transcript], list[Transcript]]:
    """Divide training games by story into those that the judge learns from and those that calibrate it."""
    stories = [game.question.cluster for game in games]
    held_out, learnt = split_clusters(stories, CALIBRATION_SHARE, run.config.seed)
    # Calibrate on the last player alone, whose debates will be judged: with the weaker players' debates among them the
    # judge would come out less sure than it may be.
    last_player = stage.players[-1]
    calibration_games = [games[index] for index in held_out if last_player in games[index].players.values()]
    return [games[index] for index in learnt], calibration_games


def lone_games(games: Sequence[Transcript]) -> list[Transcript]:
    """Each side of the debates alone, to calibrate on lone speakers; empty where the games hold consultancies."""
    if both_kinds(list(filter(is_drawn, games))):
        return []
    return consultants([game for game in games if len(game.present) == 2])


def _calibrator(
    kind: Kind, games: Sequence[Transcript], judge: Judge, run: Run, apart: bool = True
) -> tuple[Calibrator, int]:
    """Calibrate the judge on held-out games.

    Args:
        kind: of the map.
        games: held-out games.
        judge: the trained judge.
        run: the experiment.
        apart: fit a map of its own for lone speakers.

    Returns:
        The calibrator, and how many verdicts failed.
    """
    judged = _verdicts(games, judge, run)
    failed = len(games) - len(judged)
    together = judged
    if apart:
        # Where all games are consultancies there is nothing else to fit the map of debates on.
        together = [(game, verdict) for game, verdict in judged if len(game.present) != 1] or judged
    p = [verdict.p[0] for _, verdict in together]
    correct = [float(game.question.correct == 0) for game, _ in together]
    stories = [game.question.cluster for game, _ in together]
    calibrator = fit_calibrator(kind, p, correct, stories)
    if not apart:
        return calibrator, failed
    lone = [(game, verdict) for game, verdict in judged if is_drawn(game)]
    extra = lone_games([game for game, _ in judged])
    if extra:
        lone = _verdicts(extra, judge, run)
        failed += len(extra) - len(lone)
    if not both_kinds([game for game, _ in lone]):
        run.say("  no lone speakers for both right and wrong answers to calibrate on; they are treated as debates")
        return calibrator, failed
    return calibrator.model_copy(update={"lone": fit_lone(kind, lone)}), failed


def _verdicts(games: Sequence[Transcript], judge: Judge, run: Run) -> list[tuple[Transcript, Verdict]]:
    """Games with their verdicts; those without a verdict are left out."""
    answers = judge_transcripts(games, judge, run.engine)
    return [(game, answer) for game, answer in zip(games, answers, strict=True) if isinstance(answer, Verdict)]


def _compare(
    games: Sequence[Transcript], before: Judge, after: Judge, run: Run, out: Path
) -> tuple[dict[str, Any], int]:
    """Compare the base judge and the trained one on the test debates that both decided.

    Returns:
        Four fields of a `JudgeResult`, and how many verdicts failed.
    """
    twice = judge_twice(games, before, after, run.engine)
    decided = [games[index] for index in twice.indices]
    for file_name, verdicts in ((run_files.BASE_DEBATES, twice.before), (run_files.TEST_DEBATES, twice.after)):
        pairs = zip(decided, verdicts, strict=True)
        write(out / file_name, [JudgedDebate(transcript=game, verdict=verdict) for game, verdict in pairs])
    questions = [game.question for game in decided]
    shown_first = [mean_probability(verdict, (0, 1)) for verdict in twice.after]
    shown_second = [mean_probability(verdict, (1, 0)) for verdict in twice.after]
    order = order_effect(shown_first, shown_second, [question.cluster for question in questions])
    return {**before_and_after(twice, questions), "order_effect": order}, twice.failed


def _attacked(stage: JudgeStage, rows: Rows) -> Rows:
    """Games, their attacked copies, and the share of both that each adversarial round shows once more."""
    copies = stage.train_copies
    times = 1 + copies * bool(stage.train_attacks) + stage.adversarial_rounds * ROUND_SHARE * (1 + copies)
    return replace(rows, count=round(times * rows.count), tokens=round(times * rows.tokens))


def _rehearse(
    stage: JudgeStage, run: Run, name: str, legs: Sequence[JudgedDebate], engine: CountingEngine, scale: float
) -> dict[Weights, Asked]:
    """Count the verdicts of a judge stage: adversarial rounds, calibration, test debates before and after, attacks.

    Searches and attacks take a fixed number of games, so their counts do not grow with the questions.
    """
    before = run.read_as_set(Judge(name="base judge", model=run.config.models.judge))
    test_questions = {question.id for question in run.questions("test")}
    games = [leg.transcript for leg in legs if leg.failure is None]
    test_games = [game for game in games if game.question.id in test_questions]
    training_games = [game for game in games if game.question.id not in test_questions]
    shown, held_out = learnt_and_held_out(stage, run, training_games)
    adapters = [f"{name}/adapter"]
    for number in range(1, stage.adversarial_rounds + 1):
        adapters.append(f"{name}/round{number}/adapter")
    after = before.model_copy(update={"adapter": adapters[-1]})
    parts: list[dict[Weights, Asked]] = []
    if stage.adversarial_rounds:
        search(shown, before, engine, 1)
        # Each round searches as much, against the judge of the round before.
        for asked in engine.take().values():
            parts += [{(before.model, adapter): asked} for adapter in adapters[:-1]]
    if stage.calibrate != "none":
        judge_transcripts(held_out, after, engine)
        if stage.calibrate_lone:
            judge_transcripts(lone_games(held_out), after, engine)
    for judge in (before, after):
        judge_transcripts(test_games, judge, engine)
    parts.append(engine.take(scale))
    if stage.attacks and test_games:
        parts += _rehearse_attacks(stage, test_games, (before, after), engine, scale)
    return added(*parts)


def _rehearse_attacks(
    stage: JudgeStage, test: Sequence[Transcript], judges: Sequence[Judge], engine: CountingEngine, scale: float
) -> list[dict[Weights, Asked]]:
    """Count the attacks on both judges; the search for a suffix is as long for any number of debates."""
    sample = draw(test, stage.attack_games)
    whole = min(stage.attack_games, round(scale * len(test)))
    names = chosen(stage.attacks)
    fixed = tuple(name for name in names if name != SUFFIX_SEARCH)
    if fixed:
        attack_judge(sample, judges[0], engine, fixed)
    counted = list(engine.take(whole / len(sample)).values())
    if SUFFIX_SEARCH in names:
        attack_judge(sample, judges[0], engine, (SUFFIX_SEARCH,))
    counted += engine.take().values()
    parts: list[dict[Weights, Asked]] = []
    for judge in judges:
        parts += [{(judge.model, judge.adapter): asked} for asked in counted]
    return parts


def _rehearse_recorded(stage: JudgeStage, run: Run, name: str, engine: CountingEngine) -> dict[Weights, Asked]:
    """Verdicts of a judge that learns from recorded games: on those that it is calibrated on, and on the test games."""
    before = run.read_as_set(Judge(name="untrained judge", model=run.config.models.judge))
    after = before.model_copy(update={"adapter": f"{name}/adapter"})
    held_out = recorded_judge.divided(stage, run, CALIBRATION_SHARE)[1]
    judge_transcripts([leg.transcript for leg in held_out], after, engine)
    test = [leg.transcript for leg in recorded_judge.judged(stage, run, "test")]
    for judge in (before, after):
        judge_transcripts(test, judge, engine)
    return engine.take()
