"""A run at work: the names of its players and judges with their weights, its folder, its engine and its reporter."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.judging.judge_errors import JudgeErrors
from debate_rl.arena.progress import ProgressLine
from debate_rl.arena.resume_log import Progress
from debate_rl.config.tree import Config, load_config
from debate_rl.data.excerpts import with_excerpts
from debate_rl.data.models import model_path
from debate_rl.data.models.library import LIBRARY, cache_folder, is_complete
from debate_rl.engines.request import Engine
from debate_rl.engines.store import StoredEngine
from debate_rl.engines.workers import Crew
from debate_rl.errors import UserError, existing, nearest
from debate_rl.game import run_files
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question, Split
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.calibration import load_calibrator
from debate_rl.judges.judge import AnyJudge, Judge
from debate_rl.judges.settings import JudgeSettings, judge_of_kind
from debate_rl.players.debater import Debater, read_name
from debate_rl.records import write_json
from debate_rl.runs.engines import formats_said, load_splits, open_engine, passage_counter, shared_engine
from debate_rl.runs.live_curve import live_curve
from debate_rl.runs.stage_log import log_folder
from debate_rl.runs.tracking import Labels, Tracker, attempt
from debate_rl.stages.base import Stage, is_path


class Run:
    """One experiment at work: its config, folder, engine and tracker, and the players and judges made so far.

    Args:
        config: the experiment.
        engine: answers instead of the transformers engine, for tests and rules.
        say: takes lines of progress.
        crew: other processes that answer as well (see `engines.crew`).
    """

    def __init__(
        self,
        config: Config,
        engine: Engine | None = None,
        say: Callable[[str], None] = print,
        crew: Crew | None = None,
    ) -> None:
        self.config = config
        self.crew = crew
        self.folder = Path(config.runs) / config.name
        self._say = say
        self.last_said = time.monotonic()
        """When something was said last."""
        self.at: str | None = None
        """Name of the stage at work."""
        self._engine = engine
        self._stored: StoredEngine | None = None
        self._front: Engine | None = None
        self._questions: dict[Split, list[Question]] = {}
        self._tracker: Tracker | None = None

    def say(self, line: str) -> None:
        """Give a line of progress to who watches."""
        self.last_said = time.monotonic()
        self._say(line)

    @property
    def engine(self) -> Engine:
        """The engine with this run's store in front, opened when first needed."""
        if self._front is None:
            formats = formats_said(self.config, self.resolve) if self._engine is None else None
            if formats is not None:
                self.say(formats)
            own = self._engine or self.open_engine()
            self._stored, self._front = shared_engine(own, self.folder / "store", self.config, self.crew)
            self._engine = own
        return self._front

    @property
    def paid(self) -> dict[str, Any]:
        """What the run's server was paid so far (see `Budget.summary`); empty where there is none."""
        if self.config.engine.kind != "server" or self._engine is None:
            return {}
        from debate_rl.engines.server.engine import ServerEngine

        return self._engine.budget.summary() if isinstance(self._engine, ServerEngine) else {}

    def open_engine(self) -> Engine:
        """A new engine of the config's kind, without the run's store."""
        return open_engine(self.config, self.resolve)

    @property
    def store_counts(self) -> tuple[int, int, int]:
        """Answers taken from the store, answers made, and tokens read and written for these, in this process."""
        stored = self._stored
        return (0, 0, 0) if stored is None else (stored.hits, stored.misses, stored.tokens)

    def rest(self) -> None:
        """Let go of the models, here and in the crew's processes, before a training takes the memory."""
        if self.crew is not None:
            self.crew.tell("rest")
        if self._engine is None or self.config.engine.kind == "server":
            return
        from debate_rl.engines.local.engine import TransformersEngine

        if isinstance(self._engine, TransformersEngine):
            self._engine.rest()

    @property
    def label(self) -> str:
        """Name outside the run's folder: the config's, after that of the study."""
        group = self.config.tracking.group
        return f"{group}-{self.config.name}" if group else self.config.name

    @property
    def tracker(self) -> Tracker:
        """The W&B run, opened when first needed."""
        if self._tracker is None:
            wanted = self.config.tracking
            tree = self.config.model_dump(mode="json", by_alias=True)
            job_type = wanted.job_type or ("study" if self.config.seeds else None)
            labels = Labels(wanted.group or self.config.name, job_type, wanted.tags, wanted.notes)
            self._tracker = Tracker(wanted.mode, wanted.project, wanted.entity, self.label, self.folder, tree, labels)
            if self._tracker.note:
                self.say(self._tracker.note)
        return self._tracker

    def finish_tracking(self) -> None:
        """Close the W&B run, where there is one: a run whose stages were all done before opens none."""
        if self._tracker is not None:
            self._tracker.finish()

    def progress(self, out: Path) -> Progress:
        """A line that says how far a stage's games are."""
        terminal = sys.stdout if self._say is print and sys.stdout.isatty() else None
        return ProgressLine(
            out.name.lstrip("."), self.say, terminal, lambda: 0 if self._stored is None else self._stored.tokens
        )

    def name_of(self, out: Path) -> str:
        """Name of what a stage's working folder, or an iteration's in it, will hold."""
        inside = out.name.lstrip(".")
        return f"{self.at}.{inside.removeprefix('iteration')}" if out.parent.name == f".{self.at}" else inside

    def log_debates(
        self, stage: str, legs: Iterable[JudgedDebate], count: int = 32, step: Mapping[str, float] | None = None
    ) -> None:
        """Put a sample of debates, drawn by name, into a W&B table.

        Args:
            stage: what they were played for, before the slash of the key.
            legs: the debates.
            count: at most so many.
            step: the point of training at which they were played (see `Tracker.log`).
        """
        if not self.tracker.is_on:
            return
        from debate_rl.report.debate_rows import COLUMNS, PAGE, debate_rows  # here: it loads the plotting library

        with attempt(f"show debates of {stage}"):
            self.tracker.table(f"{stage}/debates", COLUMNS, debate_rows(legs, count), PAGE, step)

    def live_curve(self, name: str, out: Path) -> AbstractContextManager[None]:
        """Log the curve of a training to W&B while it trains (see `debate_rl.runs.live_curve`)."""
        return live_curve(self.tracker, name, out)

    def log_folder(self, name: str, out: Path, facts: dict[str, Any]) -> None:
        """Log what a training made to W&B, with its sources (see `debate_rl.runs.stage_log`)."""
        with attempt(f"log {name}"):
            log_folder(self, name, out, facts)

    def write_page(self, out: Path, transcripts: int, table: Sequence[EffectRow], errors: JudgeErrors | None) -> Path:
        """Write the run's HTML page, and the effects of judge errors beside it.

        Stages write it through the run: the room of the page lies above theirs and reads their results.

        Args:
            out: folder of the page.
            transcripts: at most so many are shown in full.
            table: the run's effects.
            errors: effects of errors in the verdicts, if they were asked for.

        Returns:
            The page.
        """
        from debate_rl.report.page import ERRORS, write_report  # here: it loads the plotting library

        if errors is not None:
            write_json(out / ERRORS, errors.model_dump(mode="json"))
        return write_report(self.folder, out, transcripts, table, errors)

    def resolve(self, name: str) -> str:
        """Path of a model or adapter: in this run's folder, as a lab or library model, or as its name says.

        What a stage at work has made already is found as well, in its working folder.

        Raises:
            UserError: a library model was not fetched, or `models.template` can not be added to a model.
        """
        path = self._located(name)
        # A server renders the prompts of its models by their own templates.
        own_template = self.config.engine.kind == "server" and not Path(path).is_dir()
        if self.config.models.template is None or own_template:
            return path
        from debate_rl.data.models.plain_template import with_plain_template  # here: few configs need it

        return with_plain_template(path)

    def _located(self, name: str) -> str:
        """See `resolve`; without the template of the config."""
        for path in (self.folder / name, self.folder / f".{name}"):
            if path.is_dir():
                return str(path)
        # A server may serve a model under a library name that is not on this machine.
        is_served = self.config.engine.kind == "server" and name in LIBRARY
        if is_served and not is_complete(cache_folder() / name):
            return name
        return model_path(name)

    def questions(self, split: Split, count: int | None = None) -> list[Question]:
        """Questions of a split, the first `count` of them.

        Raises:
            UserError: the source can not be read, or the split is empty.
        """
        if not self._questions:
            for part, loaded in load_splits(self.config).items():
                self._questions[part] = self.with_excerpts(loaded)
        questions = self._questions[split]
        if not questions:
            raise UserError(f"no questions in split {split!r} of source {self.config.questions.source!r}")
        return questions[:count]

    def with_excerpts(self, questions: Sequence[Question]) -> list[Question]:
        """Give questions on long passages an excerpt, where `protocol.passage_tokens` asks for it."""
        limit = self.config.protocol.passage_tokens
        if limit is None:
            return list(questions)
        count, _ = passage_counter(self.config, self.resolve)
        return with_excerpts(questions, limit, count)

    def protocol(self, name: str | None = None) -> Protocol:
        """The protocol of this name with the config's changes, else the config's own."""
        return self.config.protocol.load(name)

    def debater(self, name: str, opponents: int = 2) -> Debater:
        """The player of a name: `base` or a training stage, `@N` for Best-of-N, `@NcK` with K critiques as well.

        Raises:
            UserError: there is no such stage, or N or K is not a number.
        """
        stage, best_of, refine = read_name(name)
        model, adapter = self.weights(stage, self.config.models.debater)
        return Debater(
            name=name,
            model=model,
            adapter=adapter,
            best_of=best_of,
            refine=refine,
            opponents=opponents,
            temperature=self.config.engine.temperature,
            reuse_opponents=self.config.engine.reuse_opponents,
            **dict(self.config.players),
        )

    def judge(self, at: str | None = None) -> AnyJudge:
        """The judge of the config's kind, with the model of the last judge stage before a stage (see `model_judge`)."""
        stage = self._judge_stage(at)
        settings = self.config.judge if stage is None else self.config.stages[stage].judged_as(self.config.judge)
        return judge_of_kind(settings, self.model_judge(at))

    def model_judge(self, at: str | None = None) -> Judge:
        """The judge of the last judge stage before a stage, the one at work if none is named; else the judge model."""
        stage = self._judge_stage(at)
        return Judge(name="base judge", model=self.config.models.judge) if stage is None else self._trained_judge(stage)

    def _judge_stage(self, at: str | None = None) -> str | None:
        """The last finished judge stage before a stage, the one at work if none is named; None without any."""
        names, at = list(self.config.stages), at or self.at
        earlier = names if at is None else names[: names.index(at)]
        for name in reversed(earlier):
            if self.config.stages[name].trains_judge and (self.folder / name / run_files.STAGE).is_file():
                return name
        return None

    def read_as_set(self, judge: Judge) -> Judge:
        """A judge whose verdicts are read as `judge.readout` and `judge.debias` say: it is trained to be read so."""
        settings = self.config.judge
        return judge.model_copy(update={"readout": settings.readout, "debias": settings.debias})

    def judge_named(self, name: str) -> AnyJudge:
        """A judge by the name of its stage, `base` for the run's judge model, or any model by its own name.

        The judges of the run come to a verdict as `judge:` in its config says, by their own weights and under their
        own names. A probe or panel is made of other weights than theirs: there the judge is asked for its
        probabilities.

        Raises:
            UserError: the stage is not finished, or trains no judge.
        """
        stages = self.config.stages
        if name == "base":
            return self._asked_like_the_run(Judge(name="base judge", model=self.config.models.judge))
        # A name with a slash is a model of the hub unless there is such a folder, and one with config.json is a model.
        if name not in stages and Path(name).is_dir() and not (Path(name) / "config.json").is_file():
            model, adapter = trained_elsewhere(name, self.config.models.judge)
            path = Path(name) / run_files.CALIBRATOR
            calibrator = load_calibrator(path) if path.is_file() else None
            judge = Judge(name=name, model=model, adapter=adapter, calibrator=calibrator)
            own_stage = _stage_of(Path(name))
            settings = None if own_stage is None else own_stage.judged_as(self.config.judge)
            return self._asked_like_the_run(judge, settings)
        made_by = next((other for other in stages if name in stages[other].makes_judges(other)), name)
        if made_by not in stages:
            return Judge(name=name, model=name)
        if made_by == name and not stages[name].trains_judge:
            judges = [other for other, stage in stages.items() if stage.trains_judge]
            raise UserError(
                f"stage {name!r} trains no judge; choose one of: {', '.join(['base', *judges])}, or a model"
            )
        if not (self.folder / made_by / run_files.STAGE).is_file():
            raise UserError(f"stage {made_by!r} of {self.folder} is not finished; finish it first: debate-rl run")
        return self._asked_like_the_run(self._trained_judge(name), stages[made_by].judged_as(self.config.judge))

    def second_judge(self, wanted: str | JudgeSettings, key: str, advice: str) -> AnyJudge:
        """A judge beside the run's own, which it must not be.

        Args:
            wanted: name of a judge (see `judge_named`), or settings.
            key: of the config, for the message.
            advice: what the run's own judge does here, and what to name instead.

        Raises:
            UserError: it is the run's judge once more, or a judge stage that is not finished.
        """
        judge = self.judge_named(wanted) if isinstance(wanted, str) else judge_of_kind(wanted, self.model_judge())
        first = self.judge()
        if judge.model_copy(update={"name": first.name}) == first:
            raise UserError(f"{key}: {judge.name!r} is {advice}")
        return judge

    def judge_to_be(self, wanted: str | JudgeSettings) -> AnyJudge:
        """A second judge before the run; one that is still to be trained is as large as the run's own."""
        if not isinstance(wanted, str):
            return judge_of_kind(wanted, self.model_judge())
        if wanted in self.config.stages:
            return self.model_judge().model_copy(update={"adapter": f"{wanted}/adapter", "name": wanted})
        if wanted == "base":
            return Judge(name=wanted, model=self.config.models.judge)
        return Judge(name=wanted, model=wanted)

    def _trained_judge(self, stage: str) -> Judge:
        """The judge of a finished stage, with its calibration where it has one."""
        model, adapter = self.weights(stage, self.config.models.judge)
        path = self.folder / stage / run_files.CALIBRATOR
        calibrator = load_calibrator(path) if path.is_file() else None
        return Judge(name=stage, model=model, adapter=adapter, calibrator=calibrator)

    def _asked_like_the_run(self, judge: Judge, wanted: JudgeSettings | None = None) -> AnyJudge:
        """A judge with the run's kind of verdict, orders and least mass, or with those that its stage wants."""
        settings = wanted or self.config.judge
        changes: dict[str, Any] = {"name": None, "model": None, "adapter": None}
        if settings.kind in ("probe", "panel"):
            changes["kind"] = "model"
        return judge_of_kind(settings.model_copy(update=changes), judge)

    def weights(self, stage: str, base: str) -> tuple[str, str | None]:
        """Model and adapter behind a name.

        Args:
            stage: `base`, a training stage or an iteration (NAME.K) of this run, or the path of a training stage of
                another run or of an adapter's folder.
            base: the model that `base` stands for, and that adapters belong to unless they were trained on a merged or
                fully trained model.

        Returns:
            The model and, where there is one, the adapter on it; see `resolve` for where they lie.

        Raises:
            UserError: there is no such stage or folder.
        """
        if stage == "base":
            return base, None
        trained = self.trained_folders()
        if stage in trained:
            model = f"{trained[stage]}/model"
            is_there = any((self.folder / path).is_dir() for path in (model, f".{model}"))
            if is_there or self._maker(stage).makes_model:
                return model, None
            return self.base_below(stage, base), f"{trained[stage]}/adapter"
        if is_path(stage):
            return trained_elsewhere(stage, base)
        raise UserError(
            f"no player or training stage {stage!r}; {nearest(stage, ['base', *trained])}; the trained weights of "
            "another run are named by their folder, such as runs/quickstart/dpo"
        )

    def trained_folders(self) -> dict[str, str]:
        """Folder of each player or judge that the run's stages train, in the run's, by name."""
        folders: dict[str, str] = {}
        for name, stage in self.config.stages.items():
            if stage.makes_players:
                folders |= stage.makes(name)
        return folders

    def base_below(self, made: str, base: str) -> str:
        """The model that carries an adapter of this run: `base`, or what an earlier stage merged or trained whole."""
        return self.weights(self._maker(made).start_of(made), base)[0]

    def _maker(self, made: str) -> Stage:
        """The stage that trains a player or judge."""
        return next(stage for name, stage in self.config.stages.items() if made in stage.makes(name))


def trained_elsewhere(path: str, base: str) -> tuple[str, str | None]:
    """Model and adapter of a training stage's folder in another run, or of an adapter's folder.

    A stage's own run says where its weights lie: those of iterations or adversarial rounds are the last ones'.

    Raises:
        UserError: the folder is missing or holds no trained weights.
    """
    folder = existing(path, "player's folder").resolve()
    maker = _maker_of(folder)
    if maker is not None:
        other, name = maker
        folder = other.folder / other.trained_folders()[name]
        below = other.base_below(name, base)
        # Named as in its own run, where this one would not find it.
        base = str(other.folder / below) if (other.folder / below).is_dir() else below
    for candidate in (folder / "adapter", folder):
        if (candidate / "adapter_config.json").is_file():
            return base, str(candidate)
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file():
            return str(candidate), None
    raise UserError(
        f"{path} holds no trained weights; name the folder of a training stage (with adapter/ or model/ in it), "
        "or an adapter's own folder"
    )


def _maker_of(folder: Path) -> tuple[Run, str] | None:
    """The run that trained the weights in a folder, and their name there; None for folders of no run."""
    if folder.name in ("adapter", "model"):
        folder = folder.parent
    for parent in folder.parents[:2]:
        if not (parent / run_files.CONFIG).is_file():
            continue
        other = Run(load_config(parent / run_files.CONFIG))
        other.folder = parent  # it may have been moved or renamed since
        inside = folder.relative_to(parent).as_posix()
        for name, place in other.trained_folders().items():
            if inside in (name, place):
                return other, name
    return None


def _stage_of(folder: Path) -> Stage | None:
    """The stage of another run whose folder this is; None for other folders."""
    folder = folder.resolve()
    config_path = folder.parent / run_files.CONFIG
    return load_config(config_path).stages.get(folder.name) if config_path.is_file() else None
