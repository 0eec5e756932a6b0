"""Runs: named stages, each a function of its config and of what came before; killed anywhere, they go on.

runs/NAME/
    config.yaml      the resolved config, written first; a run with another config is refused
    code.json        version and commit
    store/           answers of the models (debate_rl.engines.store)
    paid.jsonl       what a server was paid (debate_rl.engines.budget)
    .STAGE/          a stage at work: its logs and checkpoints, from which it goes on
    STAGE/           a finished stage: stage.json, metrics.json, and what it made
    metrics.json     the metrics of all finished stages
    wandb/           the W&B run, where tracking is offline
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from debate_rl.arena.log import Progress
from debate_rl.arena.progress import ProgressLine, heartbeat
from debate_rl.config import Config, settled
from debate_rl.config_stages import (
    JudgeSettings,
    OversightStage,
    ReportStage,
    Stage,
    TournamentStage,
    WeakToStrongStage,
    made_by,
    references,
)
from debate_rl.config_training import IterationsStage, TrainingStage
from debate_rl.data.models import model_path
from debate_rl.data.questions import load_questions
from debate_rl.engines.crew import Crew, CrewEngine
from debate_rl.engines.file_hashes import changed_file, folder_hashes
from debate_rl.engines.parallel import Parallel
from debate_rl.engines.request import Engine
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError, nearest
from debate_rl.folder import alone, claim_folder, input_files, remove_inside, sweep_partials
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question, Split
from debate_rl.game.verdict import PASSING_KINDS, Leg
from debate_rl.judges.calibration import load_calibrator
from debate_rl.judges.judge import AnyJudge, Judge, Panel, ReasoningJudge, StatedJudge
from debate_rl.judges.probe import load_probe
from debate_rl.players.debater import Debater, read_name
from debate_rl.records import SUMS, Record, digest, read_json, read_kept, write_json, write_text
from debate_rl.tracking import Tracker

Metrics = dict[str, Any]
"""What a stage measured: numbers, estimates as {"value", "low", "high", ...}, and rows of them."""
_CHANGE_LATER = ("README.md", "timing.json")
"""Files that are completed after their stage, or that tell how long it took."""
StageFunction = Callable[[Any, "Run", Path], Metrics]


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
            own = self._engine or open_engine(self.config, self.resolve)
            self._stored, self._front = shared_engine(own, self.folder / "store", self.config, self.crew)
            self._engine = own
        return self._front

    @property
    def paid(self) -> dict[str, Any]:
        """What the run's server was paid so far (see `Budget.summary`); empty where there is none."""
        if self.config.engine.kind != "server" or self._engine is None:
            return {}
        from debate_rl.engines.server import ServerEngine

        return self._engine.budget.summary() if isinstance(self._engine, ServerEngine) else {}

    def rest(self) -> None:
        """Have the crew's processes let go of their models, before a training takes the devices."""
        if self.crew is not None:
            self.crew.tell("rest")

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
            self._tracker = Tracker(wanted.mode, wanted.project, wanted.entity, self.label, self.folder, tree)
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

    def log_debates(self, stage: str, legs: Sequence[Leg], count: int = 32) -> None:
        """Put a sample of debates, drawn by name, into a W&B table."""
        drawn = sorted(legs, key=lambda leg: digest(leg.transcript.id))[:count]
        columns = ["question", "protocol", "player A", "player B", "speeches", "correct", "p(A)", "failure"]
        rows = []
        for leg in drawn:
            game = leg.transcript
            said = "\n\n".join(f"{speech.side}: {speech.text}" for speech in game.speeches)
            p = None if leg.verdict is None else leg.verdict.p[0]
            failure = None if leg.failure is None else leg.failure.message
            players = [game.players.get("A", "-"), game.players.get("B", "-")]
            correct = None if game.question.correct is None else "AB"[game.question.correct]
            rows.append([game.question.text, game.protocol.name, *players, said, correct, p, failure])
        self.tracker.table(f"{stage}/debates", columns, rows)

    def resolve(self, name: str) -> str:
        """Where a model or adapter lies: in this run's folder, as a lab model, or where its name says.

        What a stage at work has made already is found as well, in its working folder.
        """
        inside = next((path for path in (self.folder / name, self.folder / f".{name}") if path.is_dir()), None)
        return model_path(name) if inside is None else str(inside)

    def questions(self, split: Split, count: int | None = None) -> list[Question]:
        """Questions of a split, the first `count` of them.

        Raises:
            UserError: the source can not be read, or the split is empty.
        """
        if not self._questions:
            self._questions = _load_splits(self.config)
        found = self._questions[split]
        if not found:
            raise UserError(f"no questions in split {split!r} of source {self.config.questions.source!r}")
        return found[:count]

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
            name=name, model=model, adapter=adapter, best_of=best_of, refine=refine, opponents=opponents,
            temperature=self.config.engine.temperature, reuse_opponents=self.config.engine.reuse_opponents,
        )  # fmt: skip

    def judge(self, at: str | None = None) -> AnyJudge:
        """The judge of the config's kind, with the model of the last judge stage before a stage (see `model_judge`)."""
        return judge_of_kind(self.config.judge, self.model_judge(at))

    def model_judge(self, at: str | None = None) -> Judge:
        """The judge of the last judge stage before a stage, the one at work if none is named; else the judge model."""
        names, at = list(self.config.stages), at or self.at
        earlier = names if at is None else names[: names.index(at)]
        for name in reversed(earlier):
            if self.config.stages[name].kind == "judge" and (self.folder / name / "stage.json").is_file():
                model, adapter = self.weights(name, self.config.models.judge)
                found = self.folder / name / "calibrator.json"
                calibrator = load_calibrator(found) if found.is_file() else None
                return Judge(name=name, model=model, adapter=adapter, calibrator=calibrator)
        return Judge(name="base judge", model=self.config.models.judge)

    def weights(self, stage: str, base: str) -> tuple[str, str | None]:
        """Model and adapter that a training stage or an iteration (NAME.K) made; `base` is the model as it is."""
        if stage == "base":
            return base, None
        trained = {
            player: folder
            for name, made in self.config.stages.items()
            if isinstance(made, TrainingStage | IterationsStage)
            for player, folder in made_by(name, made).items()
        }
        if stage not in trained:
            raise UserError(f"no player or training stage {stage!r}; {nearest(stage, ['base', *trained])}")
        model = f"{trained[stage]}/model"
        if any((self.folder / path).is_dir() for path in (model, f".{model}")):
            return model, None
        return base, f"{trained[stage]}/adapter"


def judge_of_kind(wanted: JudgeSettings, run_judge: Judge) -> AnyJudge:
    """The judge that settings ask for; a calibrator holds for the kind of verdict that it was fitted on, and stays."""
    judge = run_judge
    if wanted.model is not None:
        judge = Judge(name=wanted.model, model=wanted.model, adapter=wanted.adapter)
    if wanted.kind == "model":
        changed = {
            "name": wanted.name or judge.name,
            "both_orders": wanted.both_orders,
            "least_mass": wanted.least_mass,
        }
        return judge.model_copy(update=changed)
    name = wanted.name or f"{wanted.kind} {judge.name}"
    if wanted.kind == "panel":
        members = tuple(judge_of_kind(member, run_judge) for member in wanted.members)
        return Panel(name=wanted.name or "panel", members=members, combine=wanted.combine)
    if wanted.kind == "probe":
        return load_probe(wanted.path or "").model_copy(
            update={"name": wanted.name or "probe", "both_orders": wanted.both_orders}
        )
    written = {key: getattr(wanted, key) for key in ("temperature", "max_new_tokens")}
    fields = {
        "name": name, "model": judge.model, "adapter": judge.adapter, "both_orders": wanted.both_orders,
        "votes": wanted.votes, "combine": wanted.combine, **{key: v for key, v in written.items() if v is not None},
    }  # fmt: skip
    return (ReasoningJudge if wanted.kind == "reasoning" else StatedJudge).model_validate(fields)


def run_stages(run: Run, functions: Mapping[str, StageFunction], only: set[str] | None = None) -> dict[str, Metrics]:
    """Run the stages of a config in order, leaving out the finished ones.

    Args:
        run: the experiment.
        functions: by kind of stage.
        only: names of the stages to run; None runs all.

    Returns:
        Metrics of every finished stage, by name.

    Raises:
        UserError: the folder holds a run with another config, or a stage can not be done.
    """
    with alone(run.folder):
        claim_folder(run.config)
        sweep_partials(run.folder)
        if run.config.engine.threads:
            import torch

            torch.set_num_threads(run.config.engine.threads)  # of trainings as well
        return _run_stages(run, functions, only)


def _run_stages(run: Run, functions: Mapping[str, StageFunction], only: set[str] | None) -> dict[str, Metrics]:
    """See `run_stages`; the folder is this process's own."""
    done: dict[str, Metrics] = {}
    fingerprints = stage_fingerprints(run.config)
    for name, stage in run.config.stages.items():
        if only is not None and name not in only:
            continue
        fingerprint = fingerprints[name]
        final = run.folder / name
        built_on = _built_on(run, name)
        if (final / "stage.json").is_file() and not isinstance(stage, ReportStage):
            note = read_note(final)
            if note.fingerprint != fingerprint:
                raise UserError(f"{final}: made from input files that have changed since; give the run a new name=...")
            changed = [other for other, made in built_on.items() if note.built_on.get(other, made) != made]
            if not note.passing_failures and not changed:
                done[name] = read_json(final / "metrics.json")
                run.say(f"{name}: done before")
                continue
            if note.passing_failures:
                count = note.passing_failures
                run.say(f"{name}: {count} games failed for causes that may have passed; they are tried again")
            else:
                run.say(f"{name}: made again, since {changed[0]} was")
        done[name] = _run_stage(run, name, stage, functions[stage.kind], fingerprint, built_on)
        write_json(run.folder / "metrics.json", _all_metrics(run))
    run.finish_tracking()
    if run.paid:
        cost = f", cost {run.paid['cost']:.4f}" if "cost" in run.paid else ""
        tokens = run.paid["prompt_tokens"] + run.paid["new_tokens"]
        run.say(f"paid so far: {run.paid['answers']:,} answers, {tokens:,} tokens{cost}")
    return done


class StageNote(Record):
    """What a finished stage says of itself, in its `stage.json`.

    Example:
        StageNote(name="sft", kind="sft", fingerprint="9f86d081884c7d65", files={"metrics.json": "5feceb66ffc8..."})
    """

    name: str
    kind: str
    fingerprint: str
    """What it was made from (see `stage_fingerprints`)."""
    files: dict[str, str]
    """SHA-256 of each of its files; model cards may be completed by later stages."""
    passing_failures: int = 0
    """Games that failed for causes that may have passed since; a run that goes on tries them again."""
    built_on: dict[str, str] = {}
    """Digest of the files of each finished stage that it builds on: where one was made again, this one is as well."""


def read_note(folder: Path) -> StageNote:
    """The note of a finished stage, whose files are as they were.

    Raises:
        UserError: a file is damaged or was changed.
    """
    fix = f"remove {folder} and run again: what its models said is in the store"
    note = read_kept(folder / "stage.json", StageNote, fix)
    changed = changed_file(folder, note.files)
    if changed is not None:
        raise UserError(f"{changed} is damaged or was changed since the stage was finished; {fix}")
    return note


def passing_failures(folder: Path) -> int:
    """Failures in a stage's logs whose cause may pass: those of a server that did not answer."""
    count = 0
    for path in folder.rglob("*.jsonl"):
        with path.open("rb") as file:
            for line in file:
                if b'"failure":{' in line:
                    count += _passing_in(json.loads(line))
    return count


def _passing_in(record: Any) -> int:
    """Failures of passing kinds anywhere in a record."""
    if isinstance(record, list):
        return sum(map(_passing_in, record))
    if not isinstance(record, dict):
        return 0
    failure = record.get("failure")
    own = isinstance(failure, dict) and failure.get("kind") in PASSING_KINDS
    return int(own) + sum(map(_passing_in, record.values()))


def stage_fingerprints(config: Config) -> dict[str, str]:
    """What each stage is made from, by name: the config above it, the stages before it, and the files these name."""
    shared = settled(config, "stages", "name", "seeds")
    fingerprint = digest([shared, input_files(shared)])
    found = {}
    for name, stage in config.stages.items():
        tree = stage.model_dump(mode="json")
        found[name] = fingerprint = digest([fingerprint, name, tree, input_files(tree)])
    return found


def _built_on(run: Run, name: str) -> dict[str, str]:
    """Digest of the files of each finished stage that a stage builds on, by name."""
    stages, digests = run.config.stages, {}
    earlier = list(stages)[: list(stages).index(name)]
    for other in earlier:
        note = run.folder / other / "stage.json"
        if _builds_on(stages[name], other, stages[other]) and note.is_file():
            digests[other] = digest(read_json(note).get("files"))
    return digests


def _run_stage(
    run: Run, name: str, stage: Stage, function: StageFunction, fingerprint: str, built_on: dict[str, str]
) -> Metrics:
    """Run one stage in its working folder, which takes its final name when everything is in it."""
    working, final = run.folder / f".{name}", run.folder / name
    note, made_from = working / "fingerprint", digest([fingerprint, built_on])
    if working.exists() and (not note.is_file() or note.read_text(encoding="utf-8") != made_from):
        remove_inside(working, run.folder)  # begun from another config, other files or other stages
    write_text(note, made_from)
    began, cpu = time.perf_counter(), _cpu_seconds()
    hits, misses, tokens = _store_counts(run)
    run.at = name
    place = f"[{list(run.config.stages).index(name) + 1}/{len(run.config.stages)}] {name}"
    run.say(f"{place}: started")
    with heartbeat(place, run.say, lambda: run.last_said):
        metrics = function(stage, run, working)
    write_json(working / "metrics.json", metrics)
    note.unlink()
    for sums in working.rglob(f"*{SUMS}"):
        sums.unlink()  # of logs that only grow while the stage is at work
    stage_note = StageNote(
        name=name,
        kind=stage.kind,
        fingerprint=fingerprint,
        files=folder_hashes(working, without=_CHANGE_LATER),
        passing_failures=passing_failures(working),
        built_on=built_on,
    )
    write_json(working / "stage.json", stage_note.model_dump(mode="json"))
    seconds = time.perf_counter() - began
    found, made, read = _store_counts(run)
    counts: dict[str, Any] = {
        "seconds": round(seconds, 1), "cpu_seconds": round(_cpu_seconds() - cpu, 1), "tokens": read - tokens,
        "store_hits": found - hits, "store_misses": made - misses, "peak_memory_mib": peak_memory(),
        **({"paid_so_far": run.paid} if run.paid else {}),
    }  # fmt: skip
    write_json(working / "timing.json", counts)
    remove_inside(final, run.folder)
    working.rename(final)
    run.tracker.summary({f"{name}/{key}": value for key, value in flat(metrics).items()})
    run.tracker.summary({f"{name}/cost/{key}": value for key, value in flat(counts).items()})
    run.say(f"{name}: finished in {seconds:.0f} s")
    return metrics


def needed(config: Config, kind: str, table: str | None = None) -> set[str]:
    """Names of the stages of a kind and of all that they build on.

    Args:
        config: the experiment.
        kind: of stage.
        table: of weak_to_strong only the columns of this table, and the report.

    Raises:
        UserError: the config has no stage of that kind, or no such table.
    """
    found = {name for name, stage in config.stages.items() if stage.kind == kind}
    if not found:
        raise UserError(
            f"the config has no stage of kind {kind!r}; its stages are: {', '.join(config.stages) or 'none'}"
        )
    if table is not None:
        found = _columns(config, table)
    names = list(config.stages)
    for name in reversed(names):
        if name in found:
            earlier = names[: names.index(name)]
            found |= {other for other in earlier if _builds_on(config.stages[name], other, config.stages[other])}
    reports = {name for name, stage in config.stages.items() if isinstance(stage, ReportStage)}
    return found if table is None else found | reports


def _columns(config: Config, table: str) -> set[str]:
    """Stages that are columns of a weak-to-strong table."""
    tables = {
        name: stage.table or name for name, stage in config.stages.items() if isinstance(stage, WeakToStrongStage)
    }
    if table not in tables.values():
        raise UserError(f"the config has no table {table!r}; {nearest(table, list(dict.fromkeys(tables.values())))}")
    return {name for name, own in tables.items() if own == table}


def _builds_on(stage: Stage, name: str, other: Stage) -> bool:
    """Whether a stage reads what an earlier one made: it is named, or judges for it, or rates players of oversight."""
    if stage.kind == "report" or set(made_by(name, other)) & references(stage):
        return True
    if isinstance(other, TournamentStage) and isinstance(stage, OversightStage):
        return len(set(other.players) & set(stage.players)) > 1  # it rates the debaters
    if isinstance(stage, WeakToStrongStage) and stage.asks_judge and other.kind == "judge":
        return True
    return other.kind == "judge" and stage.kind in ("preferences", "grpo", "iterations", "tournament", "oversight")


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers at the top of a stage's metrics; of an estimate its value."""
    found = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping) and isinstance(value.get("value"), int | float):
            found[key] = float(value["value"])
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = float(value)
    return found


def _all_metrics(run: Run) -> dict[str, Metrics]:
    """Metrics of the finished stages, by name."""
    names = [name for name in run.config.stages if (run.folder / name / "stage.json").is_file()]
    return {name: read_json(run.folder / name / "metrics.json") for name in names}


def peak_memory() -> int:
    """Most memory that this process has held so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


def _store_counts(run: Run) -> tuple[int, int, int]:
    """Answers taken from the store, answers made, and tokens read and written for these, so far in this process."""
    stored = run._stored
    return (0, 0, 0) if stored is None else (stored.hits, stored.misses, stored.tokens)


def _cpu_seconds() -> float:
    """CPU time of this process and of those it waited for, so far."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _load_splits(config: Config) -> dict[Split, list[Question]]:
    """Train and test questions, whose stories differ."""
    wanted = config.questions
    counts: dict[Split, int] = {"train": wanted.train, "test": wanted.test}
    seeds: dict[Split, int] = {"train": config.seed, "test": config.question_seed}
    return {
        split: load_questions(
            wanted.source, wanted.path, split, count, seeds[split],
            family=wanted.family, knobs=wanted.knobs, hard_only=wanted.hard_only,
            human=wanted.human,
        )
        for split, count in counts.items()
    }  # fmt: skip


def shared_engine(
    own: Engine, store: Path, config: Config, crew: Crew | None = None
) -> tuple[StoredEngine, Engine]:  # fmt: skip
    """An engine with its store, and what is asked: where several parts are answered at a time, each through the store.

    A server answers many requests at a time by itself, so a crew has nothing to do there.
    """
    if config.engine.kind == "server":
        from debate_rl.engines.server import ServerEngine

        if isinstance(own, ServerEngine):
            stored = StoredEngine(own, store)
            return stored, Parallel(stored, own)
    elif crew is not None:
        spread = CrewEngine(own, crew, config)
        stored = StoredEngine(spread, store)
        return stored, Parallel(stored, spread)
    stored = StoredEngine(own, store)
    return stored, stored


def member_engine(config: Config, local: int) -> Engine:
    """The engine of a crew's process: on the device of its number, where the config names none."""
    import torch

    cards = torch.cuda.device_count()
    if config.engine.device is None and cards:
        engine = config.engine.model_copy(update={"device": f"cuda:{local % cards}"})
        config = config.model_copy(update={"engine": engine})
    if config.engine.threads:
        torch.set_num_threads(config.engine.threads)
    return open_engine(config, Run(config).resolve)


def open_engine(config: Config, resolve: Callable[[str], str]) -> Engine:
    """The engine of the config's kind, with its settings."""
    wanted = config.engine
    if wanted.kind == "server":
        from debate_rl.engines.budget import Budget
        from debate_rl.engines.server import ServerEngine

        folder = Path(config.runs) / config.name
        ledger = folder / "paid.jsonl" if (folder / "config.yaml").is_file() else None
        return ServerEngine(
            wanted.url or "", wanted.key_env, concurrency=wanted.concurrency, retries=wanted.retries,
            timeout=wanted.timeout, deployed=wanted.revision, resolve=resolve, load_adapters=wanted.load_adapters,
            refused=wanted.refused,
            budget=Budget(ledger, wanted.budget.tokens, wanted.budget.money, wanted.prices),
        )  # fmt: skip
    from debate_rl.engines.transformers_engine import TransformersEngine

    return TransformersEngine(
        resolve,
        device=wanted.device,
        dtype=wanted.dtype,
        batch_tokens=wanted.batch_tokens,
        revision=wanted.revision,
        cache_tokens=wanted.cache_tokens,
    )
