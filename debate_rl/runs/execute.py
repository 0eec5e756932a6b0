"""Runs: named stages, each a function of its config and of what came before; killed anywhere, they go on.

runs/NAME/
    config.yaml      the resolved config, written first; a run with another config is refused
    code.json        version and commit
    store/           answers of the models (debate_rl.engines.store)
    paid.jsonl       what a server was paid (debate_rl.engines.server.budget)
    .STAGE/          a stage at work: its logs and checkpoints, from which it goes on
    STAGE/           a finished stage: stage.json, metrics.json, and what it made
    metrics.json     the metrics of all finished stages
    wandb/           the W&B run, where tracking is offline
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from debate_rl.arena.progress import heartbeat
from debate_rl.config.tree import Config, settled
from debate_rl.engines.file_hashes import changed_file, folder_hashes
from debate_rl.errors import UserError, existing, nearest
from debate_rl.game import run_files
from debate_rl.game.verdict import PASSING_KINDS
from debate_rl.records import SUMS, Record, digest, read_json, read_kept, write_json, write_text
from debate_rl.runs.folder import alone, claim_folder, input_files, remove_inside, sweep_partials
from debate_rl.runs.judge_check import check_judge, say_grid, wants_check
from debate_rl.runs.run import Run
from debate_rl.runs.stage_log import log_stage
from debate_rl.stages.base import Metrics, Stage

_CHANGE_LATER = ("README.md", run_files.TIMING)
"""Files that are completed after their stage, or that tell how long it took."""


def run_stages(run: Run, only: set[str] | None = None) -> dict[str, Metrics]:
    """Run the stages of a config in order, leaving out the finished ones.

    Args:
        run: the experiment.
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
        return _run_stages(run, only)


def _run_stages(run: Run, only: set[str] | None) -> dict[str, Metrics]:
    """See `run_stages`; the folder is this process's own."""
    done: dict[str, Metrics] = {}
    fingerprints = stage_fingerprints(run.config)
    for name, stage in run.config.stages.items():
        if only is not None and name not in only:
            continue
        fingerprint = fingerprints[name]
        final = run.folder / name
        built_on = _built_on(run, name)
        metrics: Metrics | None = None
        if not stage.repeats:
            if (final / run_files.STAGE).is_file():
                metrics = _done_before(run, name, fingerprint, built_on)
                if metrics is not None:
                    log_stage(run, name, metrics)
                    done[name] = metrics
                    continue
            # A stage that is to be made anew is not taken from the other run, which did not make it anew.
            if not final.exists():
                metrics = _reuse(run, name, fingerprint, built_on)
        if metrics is None:
            metrics = _run_stage(run, name, stage, fingerprint, built_on)
        log_stage(run, name, metrics)
        done[name] = metrics
        write_json(run.folder / run_files.METRICS, _all_metrics(run))
    run.finish_tracking()
    if run.paid:
        cost = f", cost {run.paid['cost']:.4f}" if "cost" in run.paid else ""
        tokens = run.paid["prompt_tokens"] + run.paid["new_tokens"]
        run.say(f"paid so far: {run.paid['answers']:,} answers, {tokens:,} tokens{cost}")
    return done


def _done_before(run: Run, name: str, fingerprint: str, built_on: dict[str, str]) -> Metrics | None:
    """Metrics of a finished stage; None where it is to be made again, which is said with the reason.

    Raises:
        UserError: its files were changed, or files that its settings name.
    """
    folder = run.folder / name
    note = read_note(folder)
    if note.fingerprint != fingerprint:
        raise UserError(f"{folder}: made from input files that have changed since; give the run a new name=...")
    if note.passing_failures:
        count = note.passing_failures
        run.say(f"{name}: {count} games failed for causes that may have passed; they are tried again")
        return None
    for other, files_digest in built_on.items():
        if note.built_on.get(other, files_digest) != files_digest:
            run.say(f"{name}: made again, since {other} was")
            return None
    run.say(f"{name}: done before")
    return dict(read_json(folder / run_files.METRICS))


def _reuse(run: Run, name: str, fingerprint: str, built_on: dict[str, str]) -> Metrics | None:
    """Copy a finished stage from the run that `reuse` names, where it was made from the very same things.

    Returns:
        Its metrics; None where there is no such stage.
    """
    if run.config.reuse is None:
        return None
    source = existing(run.config.reuse, "reuse", "give the folder of a finished run") / name
    if not (source / run_files.STAGE).is_file():
        return None
    note = read_note(source)
    if note.fingerprint != fingerprint or note.passing_failures:
        return None
    copy = run.folder / f".{name}"
    remove_inside(copy, run.folder)
    shutil.copytree(source, copy)
    copied_note = note.model_copy(update={"built_on": built_on})
    write_json(copy / run_files.STAGE, copied_note.model_dump(mode="json"))
    copy.rename(run.folder / name)
    run.say(f"{name}: taken from {source}")
    return dict(read_json(run.folder / name / run_files.METRICS))


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
    note = read_kept(folder / run_files.STAGE, StageNote, fix)
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
                # Few lines hold a failure: parsing every game of a large run would take minutes.
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
    fingerprints = {}
    for name, stage in config.stages.items():
        tree = stage.model_dump(mode="json")
        fingerprints[name] = fingerprint = digest([fingerprint, name, tree, input_files(tree)])
    return fingerprints


def _built_on(run: Run, name: str) -> dict[str, str]:
    """Digest of the files of each finished stage that a stage builds on, by name."""
    digests: dict[str, str] = {}
    stage = run.config.stages[name]
    for other, earlier in run.config.stages.items():
        if other == name:
            break  # a stage builds only on those before it
        note = run.folder / other / run_files.STAGE
        if stage.builds_on(other, earlier) and note.is_file():
            digests[other] = digest(read_json(note).get("files"))
    return digests


def _run_stage(run: Run, name: str, stage: Stage, fingerprint: str, built_on: dict[str, str]) -> Metrics:
    """Run one stage in its working folder, which takes its final name when everything is in it."""
    working, final = run.folder / f".{name}", run.folder / name
    note = working / "fingerprint"
    made_from = digest([fingerprint, built_on])
    begun_from = note.read_text(encoding="utf-8") if note.is_file() else None
    if begun_from != made_from:
        remove_inside(working, run.folder)  # begun from another config, other files or other stages
    write_text(note, made_from)
    began, cpu = time.perf_counter(), _cpu_seconds()
    hits, misses, tokens = run.store_counts
    run.at = name
    place = f"[{list(run.config.stages).index(name) + 1}/{len(run.config.stages)}] {name}"
    run.say(f"{place}: started")
    with heartbeat(place, run.say, lambda: run.last_said):
        if stage.asks_judge and wants_check(run):
            check_judge(run, working)
        result = stage.execute(run, working)
        say_grid(run, working)
    metrics = result.model_dump(mode="json") if isinstance(result, BaseModel) else result
    write_json(working / run_files.METRICS, metrics)
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
    write_json(working / run_files.STAGE, stage_note.model_dump(mode="json"))
    seconds = time.perf_counter() - began
    hits_now, misses_now, tokens_now = run.store_counts
    counts: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(_cpu_seconds() - cpu, 1),
        "tokens": tokens_now - tokens,
        "store_hits": hits_now - hits,
        "store_misses": misses_now - misses,
        "peak_memory_mib": peak_memory(),
        **({"paid_so_far": run.paid} if run.paid else {}),
    }
    write_json(working / run_files.TIMING, counts)
    # The rename is the moment at which the stage is finished: killed before it, a run goes on in the working folder.
    remove_inside(final, run.folder)
    working.rename(final)
    run.say(f"{name}: finished in {seconds:.0f} s")
    return metrics


def needed(config: Config, kind: str, table: str | None = None) -> set[str]:
    """Names of the stages of a kind and of all that they build on.

    Args:
        config: the experiment.
        kind: of stage.
        table: a weak-to-strong table, or one of its columns by the stage's name; only that, and the report.

    Raises:
        UserError: the config has no stage of that kind, or no such table.
    """
    chosen = {name for name, stage in config.stages.items() if stage.kind == kind}
    if not chosen:
        raise UserError(
            f"the config has no stage of kind {kind!r}; its stages are: {', '.join(config.stages) or 'none'}"
        )
    if table is not None:
        chosen = _columns(config, table)
    names = list(config.stages)
    # From the last stage to the first: a stage that is needed brings in what it builds on, which comes before it.
    for index in reversed(range(len(names))):
        if names[index] not in chosen:
            continue
        stage = config.stages[names[index]]
        for other in names[:index]:
            if stage.builds_on(other, config.stages[other]):
                chosen.add(other)
    if table is not None:
        chosen |= {name for name, stage in config.stages.items() if stage.repeats}
    return chosen


def _columns(config: Config, table: str) -> set[str]:
    """Stages that are columns of a weak-to-strong table; or the one column of this name."""
    columns: dict[str, set[str]] = {}
    for name, stage in config.stages.items():
        stage_table = stage.table_name(name)
        if stage_table is not None:
            columns.setdefault(stage_table, set()).add(name)
    if table in columns:
        return columns[table]
    every: set[str] = set().union(*columns.values())
    if table in every:
        return {table}
    raise UserError(f"the config has no table {table!r}; {nearest(table, [*columns, *sorted(every)])}")


def _all_metrics(run: Run) -> dict[str, Metrics]:
    """Metrics of the finished stages, by name."""
    # Not those of this call alone: with `only`, earlier calls have finished other stages.
    names = [name for name in run.config.stages if (run.folder / name / run_files.STAGE).is_file()]
    return {name: read_json(run.folder / name / run_files.METRICS) for name in names}


def peak_memory() -> int:
    """Most memory that this process has held so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


def _cpu_seconds() -> float:
    """CPU time of this process and of those it waited for, so far."""
    seconds = 0.0
    for processes in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(processes)
        seconds += usage.ru_utime + usage.ru_stime
    return seconds
