"""Weak-to-strong: trained debaters help weak supervisors, whose labels teach a strong student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from debate_rl.data.questions import Generated, claims, load_questions
from debate_rl.data.tasks import binary_items
from debate_rl.data.tasks.binary_items import BinaryItem, Selection
from debate_rl.data.tasks.chess_puzzles import chess_questions
from debate_rl.data.tasks.reward_pairs import load_pairs
from debate_rl.errors import UserError, name_fault
from debate_rl.game import run_files
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.players.debater import Debater, read_name
from debate_rl.records import read_json, write, write_json
from debate_rl.stages.base import TrainingStage
from debate_rl.stages.flat_metrics import with_interval
from debate_rl.stages.workload import Rows, TrainingLoad, rough_tokens, verdict_rows
from debate_rl.trainers.common.settings import Kind, StudentLoss
from debate_rl.weak_to_strong.contexts import ROLES, SHIPPED, Context
from debate_rl.weak_to_strong.debate_function import DebateFunction
from debate_rl.weak_to_strong.ensemble import MOST_MEMBERS, Combination
from debate_rl.weak_to_strong.labels import Labelling
from debate_rl.weak_to_strong.methods import Method, check_methods
from debate_rl.weak_to_strong.results.results import Results, results
from debate_rl.weak_to_strong.results.split_report import write_account
from debate_rl.weak_to_strong.results.tables import Over, measures
from debate_rl.weak_to_strong.rollout import Rollout, SupervisorBelief, open_games
from debate_rl.weak_to_strong.tasks.items import Item, Samples, Splits, items_of, plain_samples, sample_of, split_items
from debate_rl.weak_to_strong.tasks.pairs import heard_pair, pair_questions, pair_samples

if TYPE_CHECKING:
    from debate_rl.config.settings import Models
    from debate_rl.runs.run import Run
    from debate_rl.weak_to_strong.training_cache import Settings

SPARE = 8
"""Items loaded beyond those used: splits do not cut stories, so the parts miss their sizes by less than a story."""
CHESS_MOVES: dict[str, Literal["mate", "best"]] = {"chess-mate-moves": "mate", "chess-best-moves": "best"}
"""Tasks of chess puzzles with two moves to choose from, and the kind of puzzle."""
READOUTS: dict[str, Kind] = {"answers": "judge", "head": "classifier", "probe": "classifier", "reward": "reward"}
"""What trains models that answer in each way."""


class WeakToStrongStage(TrainingStage):
    """Weak supervisors label data, with or without debates to help them; a strong student learns from the labels."""

    kind: Literal["weak_to_strong"] = "weak_to_strong"
    context: tuple[str, ...] = Field(default=("none", "debate"), min_length=1)
    """What the supervisor reads beside the item: none, debate, consultancy, market_making, explanations,
    explanations_weak, or one of `contexts`."""
    contexts: dict[str, Context] = {}
    """Further help by name, or changes to what ships: who speaks, in how many turns, under which protocol."""
    ensemble: int = Field(default=4, ge=1, le=8)
    """Supervisors whose labels are combined; with debates each reads its own draw."""
    combine: Combination = "mean"
    """How: mean (of probabilities), vote, confidence or boosting."""
    labels: Labelling = Labelling()
    """What becomes of their labels: soft, hard, confident, weighted or truth, with errors at a rate."""
    loss: StudentLoss = StudentLoss()
    """What students minimise: xent, confidence, product or entropy."""
    methods: dict[str, Method] = {}
    """Rows of the table, by name, the first being what the others are compared with; empty makes one of each context,
    with the settings above."""
    debater: str = "dpo"
    """Who speaks where a context names nobody."""
    naive: str = "none"
    """Context of the weak model alone: none, or one of kind recorded, whose labels are those of a file."""
    task: str = "questions"
    """questions (those above, of the validation split), claims (the same, each naming one answer as the correct one),
    sciq, boolq, cosmosqa or hh, the path of a binary task's YAML file, pairs (which of two replies of Anthropic HH do
    people prefer; with readout: reward), chess-mate-moves and chess-best-moves (puzzles with two moves, one of them
    right), or chess-mate and chess-best (puzzles whose answers are written; of `methods` the members count, who
    vote)."""
    protocol: str | None = None
    """Protocol of the debates; empty takes the run's own for questions, and `claim` for other tasks."""
    readout: Literal["answers", "head", "probe", "reward"] = "answers"
    """How models answer: by their probabilities of the two answers, by a new classification head, by a head on
    frozen weights, or by the rewards of both answers."""
    knobs: dict[str, Any] = {}
    """Knobs of the lab's stories in place of the run's, so that what is asked may be new to every model."""
    path: str | None = None
    """Local file of the task; empty loads it from the hub."""
    supervisor: int = Field(default=200, ge=2)
    """D1: items with ground truth for the weak supervisor."""
    student: int = Field(default=200, ge=2)
    """D2: items that the supervisor labels for the student."""
    test: int = Field(default=200, ge=2)
    """Items that everyone is tested on."""
    seeds: int = Field(default=2, ge=1)
    """Trainings of each method with other seeds."""
    supervisor_reads_passage: bool = True
    """Whether the weak supervisor may read the passage as well; the student always does."""
    family: str | None = None
    """Family of lab stories in place of the run's."""
    weak: str | None = None
    """Weak model in place of the run's (`models.weak`), for tables over sizes."""
    strong: str | None = None
    """Strong model in place of the run's."""
    table: str | None = None
    """Table in which this stage is a column; empty is a table of its own, by the stage's name."""
    curve: Over | None = None
    """What the table's plot runs over: supervisors (members), turns of the context, rate of errors in the labels, or
    share of the context's speeches that are exchanged (worsened). Methods that differ in nothing else are points of one
    line."""

    @field_validator("table")
    @classmethod
    def _is_file_name(cls, table: str | None) -> str | None:
        fault = None if table is None else name_fault(table, "a table")
        if fault is not None:
            raise ValueError(fault)
        return table

    @field_validator("methods")
    @classmethod
    def _folders(cls, value: dict[str, Method]) -> dict[str, Method]:
        for name in value:
            fault = name_fault(name, "a method")
            if fault is not None:
                raise ValueError(fault)
            if name in ("ceiling", "weak", "untrained"):
                raise ValueError(f"{name!r} can not name a method; use letters, digits and - and not a model's name")
        return value

    @model_validator(mode="after")
    def _reads_what_there_is(self) -> WeakToStrongStage:
        try:
            check_methods(self.rows, self.helps)
        except UserError as error:
            raise ValueError(str(error)) from error
        naive = self.helps.get(self.naive)
        if self.naive != "none" and (naive is None or naive.kind != "recorded"):
            raise ValueError(f"naive is none or a context of kind recorded, not {self.naive!r}")
        if self.readout == "probe" and self.lora is not None:
            raise ValueError("readout: probe trains a head on frozen weights; set lora: null, or readout: head")
        return self

    @model_validator(mode="after")
    def _writes_or_answers(self) -> WeakToStrongStage:
        if self.generative and any(row != Method(members=row.members) for row in self.rows.values()):
            raise ValueError(
                f"answers to {self.task} are written, so its methods differ in members alone; set context: [none]"
            )
        if self.generative and self.readout != "answers":
            raise ValueError(f"answers to {self.task} are written; leave out readout")
        return self

    @property
    def generative(self) -> bool:
        """Whether models write their answers, and an exact match counts."""
        return self.task in ("chess-mate", "chess-best")

    @property
    def helps(self) -> dict[str, Context]:
        """All contexts by name, with the stage's protocol for debates that name none."""
        contexts = {**SHIPPED, **self.contexts}
        if self.protocol is not None:
            for name, context in contexts.items():
                if context.kind == "debate" and context.protocol is None:
                    contexts[name] = context.model_copy(update={"protocol": self.protocol})
        return contexts

    def references(self) -> set[str]:
        """Who speaks for some method, apart from the stage's own weak and strong model."""
        return {name for name in self.players if name.partition("@")[0] not in ROLES}

    @property
    def players(self) -> set[str]:
        """Everybody who speaks for some method, as the config names them."""
        names: set[str] = set()
        for row in self.rows.values():
            if row.context == "none":
                continue
            context = self.helps[row.context]
            if context.kind != "recorded":
                names |= {context.debater or self.debater, *context.players}
        return names

    @property
    def rows(self) -> dict[str, Method]:
        """The methods by name, those made of `context` included."""
        if self.methods:
            return self.methods
        return {
            name: Method(context=name, members=self.ensemble, combine=self.combine, labels=self.labels, loss=self.loss)
            for name in self.context
        }

    @property
    def asks_judge(self) -> bool:
        """Whether the run's judge chooses for a Best-of-N player, calls sides or compares explanations."""
        if any("@" in name for name in self.players):
            return True
        if any(row.transfer.refine or row.labels.debate is not None for row in self.rows.values()):
            return True
        contexts = [self.helps[name] for name in self.draws]
        return any(context.kind == "market_making" and context.turns != 1 for context in contexts)

    @property
    def draws(self) -> dict[str, int]:
        """Games of an item that some supervisor reads, by context."""
        draws: dict[str, int] = {}
        for row in self.rows.values():
            if row.context == "none" or self.helps[row.context].kind == "recorded":
                continue
            games = 1 if row.same_sample else row.members
            draws[row.context] = max(draws.get(row.context, 0), games)
        return draws

    def table_name(self, name: str) -> str:
        """The table it is a column of; one of its own where it names none."""
        return self.table or name

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """All of one kind, by what models answer with."""
        yield "sft" if self.generative else READOUTS[self.readout], self

    def input_files(self) -> Iterator[tuple[str, str]]:
        """The task and its items."""
        if self.path is not None:
            yield "path", self.path
        if self.task.endswith((".yaml", ".yml")):
            yield "task", self.task

    def protocols_named(self) -> Iterator[str]:
        """Its own, and those of its contexts."""
        yield from super().protocols_named()
        for context in self.helps.values():
            if context.protocol is not None:
                yield context.protocol

    def models_used(self, models: Models) -> Iterator[tuple[str, str]]:
        """The config's, and its weak and strong model."""
        yield from super().models_used(models)
        yield "models.weak", self.weak or models.weak
        yield "models.strong", self.strong or models.strong

    def tested_questions(self, run: Run) -> list[Question]:
        """The questions of all its parts."""
        if self.generative:
            return []
        return [item.question for item in splits(self, run).every if isinstance(item.question, Question)]

    def games(self, run: Run) -> list[Transcript]:
        """The games of each context, one an item for each draw that some supervisor reads."""
        return _games(self, run, splits(self, run).every) if self.draws else []

    def speaker(self, run: Run, name: str) -> Debater:
        """The player of a name: one of the run's, or the stage's strong or weak model as it is."""
        role, best_of, refine = read_name(name)
        if role not in ROLES:
            return run.debater(name)
        used = models(self, run)
        return Debater(
            name=name,
            model=used.weak if role == "weak" else used.strong,
            best_of=best_of,
            refine=refine,
            temperature=run.config.engine.temperature,
            **dict(run.config.players),
        )

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """Items for every supervisor and student, for each seed."""
        return TrainingLoad(
            READOUTS[self.readout], self.strong or run.config.models.strong, _items(self, run), self.seeds
        )

    def execute(self, run: Run, out: Path) -> Results:
        """Play the games, train supervisors, students and ceiling, measure PGR."""
        return _written(self, run, out) if self.generative else _execute(self, run, out)


def splits(stage: WeakToStrongStage, run: Run) -> Splits:
    """D1, D2 and test of the stage's task; questions come from stories that no debater was trained or rated on."""
    parts, _ = _read(stage, run)
    return parts


def _read(stage: WeakToStrongStage, run: Run) -> tuple[Splits, Selection | None]:
    """The splits, and how the items of a binary task were selected."""
    seed = run.config.question_seed
    count = stage.supervisor + stage.student + stage.test + SPARE
    items: Sequence[Question | BinaryItem]
    selection = None
    if stage.task in ("questions", "claims"):
        settings = run.config.questions
        source: str | Generated = settings.source
        if settings.source == "lab" or settings.source == "word_problems":
            knobs = stage.knobs if stage.family else {**settings.knobs, **stage.knobs}
            source = Generated(source=settings.source, family=stage.family or settings.family, knobs=knobs)
        # The validation split: debaters are trained on stories of the first split and rated on those of the last.
        questions = load_questions(
            source,
            settings.path,
            "validation",
            count,
            seed,
            hard_only=settings.hard_only,
            human=settings.human,
            min_passage_words=settings.min_passage_words,
        )
        questions = run.with_excerpts(questions)
        items = claims(questions, seed) if stage.task == "claims" else questions
    elif stage.task == "pairs":
        items = pair_questions(load_pairs("hh", stage.path, limit=count, seed=seed).pairs, seed)
    elif stage.task in CHESS_MOVES:
        items = chess_questions(CHESS_MOVES[stage.task], count, seed, stage.path)
    else:
        selection = binary_items.load(stage.task, stage.path, limit=count, seed=seed)
        items = selection.items
    return split_items(items_of(items), stage.supervisor, stage.student, stage.test, seed), selection


def rules(stage: WeakToStrongStage, run: Run, context: Context) -> Protocol:
    """The protocol of a context; tasks without passages need none."""
    protocol = context.rules(stage.task not in ("questions", "pairs", *CHESS_MOVES), run.protocol)
    if stage.task == "questions":
        return protocol
    return protocol.model_copy(update={"needs_passage": False})


def first_seed(run: Run) -> int:
    """Seed of the first member's games: the seeds of a study play different games, the tables of a run share them."""
    return run.config.seed * MOST_MEMBERS


def models(stage: WeakToStrongStage, run: Run) -> Models:
    """The run's models with the stage's own weak and strong one."""
    own = {role: name for role, name in (("weak", stage.weak), ("strong", stage.strong)) if name is not None}
    return run.config.models.model_copy(update=own)


def _execute(stage: WeakToStrongStage, run: Run, out: Path) -> Results:
    """Play the games, train supervisors, students and ceiling, measure PGR."""
    from debate_rl.weak_to_strong.study import Reading, run_study  # here: it loads torch
    from debate_rl.weak_to_strong.training_cache import Trainings

    parts, selection = _read(stage, run)
    blind = run.protocol("blind")
    shared_folder = run.folder / "transfer"
    rollout = _rollout(stage, run, out, shared_folder / "games")
    reading = Reading(
        weak=_samples(stage, parts, blind, stage.supervisor_reads_passage),
        strong=_samples(stage, parts, blind, True),
        contexts=stage.helps,
        rollout=rollout,
        weak_reads_passage=stage.supervisor_reads_passage,
        task=stage.task,
        resolve=run.resolve,
        naive=stage.naive,
    )
    settings = _settings(stage, run)
    readers = {"weak": (reading.weak, settings.weak), "strong": (reading.strong, settings.strong)}
    for note in write_account(out, parts, readers, selection).notes:
        run.say(f"  {note}")
    trainings = Trainings(settings, run.open_engine, shared_folder, run.rest)
    measured = results(run_study(parts, reading, trainings, out / "trainings", stage.rows))
    debates = out / "trainings" / "debate_function.json"
    if debates.is_file():
        for row in read_json(debates):
            run.say(f"  {DebateFunction.model_validate(row)}")
    legs: list[JudgedDebate] = []
    for played in rollout.played.values():
        legs += played
    if legs:
        write(out / run_files.DEBATES, legs)
    return _reported(run, measured)


def _written(stage: WeakToStrongStage, run: Run, out: Path) -> Results:
    """The same for a task whose answers are written."""
    from debate_rl.weak_to_strong.tasks.generative import generative_task, run_generative

    seed = run.config.question_seed
    task = generative_task(stage.task, stage.supervisor, stage.student, stage.test, seed, stage.path)  # type: ignore[arg-type]
    members = {name: method.members for name, method in stage.rows.items()}
    hits = run_generative(task, _settings(stage, run), run.open_engine, run.folder / "transfer", members)
    write_json(out / "trainings" / "hits.json", hits.model_dump(mode="json"))
    return _reported(run, results(hits))


def _reported(run: Run, measured: Results) -> Results:
    """Print and log the results, and return them."""
    _say(run, measured)
    _track(run, measured)
    return measured


def _samples(stage: WeakToStrongStage, parts: Splits, blind: Protocol, passage: bool) -> Samples:
    """What a model reads of each item without help: a conversation with either reply, else what a judge reads."""
    if stage.task == "pairs" and stage.readout == "reward":
        return pair_samples(parts.every)
    return plain_samples(parts.every, blind, passage)


def _rollout(stage: WeakToStrongStage, run: Run, out: Path, folder: Path) -> Rollout:
    """What plays the stage's games; they lie in a folder that all tables of the run share."""
    return Rollout(
        engine=run.engine,
        player=lambda name: stage.speaker(run, name),
        rules=lambda context: rules(stage, run, context),
        judge=run.judge,
        folder=folder,
        seed=first_seed(run),
        debater=stage.debater,
        progress=run.progress(out),
        show=heard_pair if stage.readout == "reward" else sample_of,
    )


def _settings(stage: WeakToStrongStage, run: Run) -> Settings:
    """Models and training settings of supervisors and students."""
    from debate_rl.weak_to_strong.training_cache import Settings

    used = models(stage, run)
    hardware = run.config.hardware
    return Settings(
        weak=run.resolve(used.weak),
        strong=run.resolve(used.strong),
        readout=stage.readout,
        seeds=stage.seeds,
        lora=stage.lora,
        train=stage.train,
        quantize=stage.quantize,
        launch=stage.launch,
        processes=hardware.cards if hardware and stage.launch else None,
        # Bits are `quantize`'s there; what is read in 4 bits is computed in float32.
        dtype="float32" if run.config.engine.judge_dtype == "nf4" else run.config.engine.judge_dtype,
        seed=run.config.seed * stage.seeds,  # the runs of a study train no model twice
    )


def _track(run: Run, measured: Results) -> None:
    """Log the results to W&B: one table, and the values in the run's summary."""
    rows = []
    summary: dict[str, float] = {}
    for model, measure, estimate in measures(measured):
        if estimate is not None:
            interval = [estimate.value, estimate.low, estimate.high, estimate.n, estimate.clusters]
            rows.append([model, measure, *interval])
            summary |= with_interval(f"{run.at}/{model}/{measure}", estimate)
    run.tracker.table(f"{run.at}/results", ["model", "measure", "value", "low", "high", "n", "clusters"], rows)
    run.tracker.summary(summary)


def _say(run: Run, measured: Results) -> None:
    """Print the table in a few lines."""
    for method in measured.methods:
        supervisor = "-" if method.supervisor is None else f"{method.supervisor.value:.3f}"
        accuracies = f"supervisor {supervisor}, labels {method.labels.value:.3f}, student {method.student.value:.3f}"
        run.say(f"  {method.name:<8} {accuracies}, PGR {method.pgr_text}")
    references = {
        "weak alone": measured.weak,
        "strong untrained": measured.untrained,
        "strong on D1": measured.strong,
        "ceiling": measured.ceiling,
    }
    parts = [f"{name} {estimate.value:.3f}" for name, estimate in references.items() if estimate is not None]
    run.say("  " + ", ".join(parts))
    for warning in measured.warnings:
        run.say(f"  warning: {warning}")
    for note in measured.notes:
        run.say(f"  {note}")


def _games(stage: WeakToStrongStage, run: Run, items: Sequence[Item]) -> list[Transcript]:
    """The games of each context, one an item for each draw that some supervisor reads.

    Games of later rounds are not known before the first ones are trained on, and are not counted.
    """
    # Which side market-making calls first is known when the weak model is trained; either costs the same.
    belief = SupervisorBelief(p={item.id: 0.0 for item in items})
    games: list[Transcript] = []
    for name, draws in stage.draws.items():
        context = stage.helps[name]
        protocol = rules(stage, run, context)
        for seed in range(first_seed(run), first_seed(run) + draws):
            games += open_games(context, protocol, items, seed, stage.debater, belief)
    return games


def _items(stage: WeakToStrongStage, run: Run) -> Rows:
    """Estimate the items that every supervisor and student reads, alone or with a game, and their lengths."""
    if stage.generative:
        weak, strong, games = [0], [0], verdict_rows([], 1)  # a position and a move are a few tokens
    else:
        parts = splits(stage, run)
        weak = _lengths(stage, run, parts, stage.supervisor_reads_passage)
        strong = _lengths(stage, run, parts, True)
        games = verdict_rows(_games(stage, run, parts.every), 1)
    weak_length, strong_length, game = mean(weak), mean(strong), games.tokens // max(games.count, 1)
    # The weak model alone; the strong model is trained on D1 and, as the ceiling, on D2.
    supervisors = {Method(members=1).supervisor(0): 0}
    trainings = [(stage.supervisor + stage.student, strong_length)]
    for row in stage.rows.values():
        heard = 0 if row.context == "none" else game
        supervisors |= {row.supervisor(member): heard for member in range(row.members)}
        transfer = row.transfer
        students = (1 + transfer.generative + (transfer.refine is not None)) * transfer.rounds
        heard_by_student = heard if row.student_reads == "context" else 0
        trainings.append((students * stage.student, strong_length + heard_by_student))
        later_supervisors = (transfer.rounds - 1) * row.members
        trainings.append((later_supervisors * stage.supervisor, weak_length + heard))
    trainings += [(stage.supervisor, weak_length + heard) for heard in supervisors.values()]
    count = sum(rows for rows, _ in trainings)
    tokens = sum(rows * length for rows, length in trainings)
    return Rows(count, round(tokens), max(max(strong), max(weak) + games.prompt), 8)


def _lengths(stage: WeakToStrongStage, run: Run, parts: Splits, passage: bool) -> list[int]:
    """Rough tokens of what a model reads of each item without help."""
    samples = _samples(stage, parts, run.protocol("blind"), passage)
    return [rough_tokens(sample.prompt) for sample in samples.values()]
