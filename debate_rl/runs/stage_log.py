"""What a finished stage leaves in W&B: its numbers, its charts, and what it made as artifacts with their sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from debate_rl.game import run_files
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import digest, read_json, scan_log, write_json
from debate_rl.runs.live_curve import log_history
from debate_rl.runs.tracking import attempt
from debate_rl.stages.base import Metrics, Stage
from debate_rl.stages.flat_metrics import flat_numbers

if TYPE_CHECKING:
    from debate_rl.runs.run import Run

LOGGED = "wandb-logged.json"
"""File in a run's folder: the stages that W&B was told of, with a digest of their files."""
PAGE = "index.html"
LARGEST_PAGE = 32 << 20
"""Bytes of a report page that is shown in the workspace; a larger one is only an artifact."""
_MEASURED = (run_files.BASE_DEBATES, run_files.TEST_DEBATES, run_files.HUMAN_DEBATES)
"""Debates that show what was trained: nothing is learnt from them."""
_WEIGHTS = ("adapter", "model")
_EFFECT_COLUMNS = ("group", "name", "value", "low", "high", "n", "clusters", "unit", "shown", "note")
_DATA = ("-rows", "-debates")
"""Ends of the names of artifacts that rows can be made from; others are weights."""


def log_stage(run: Run, name: str, metrics: Metrics) -> None:
    """Log a finished stage, once: also one that was finished before W&B was asked for, or killed before it was told.

    Args:
        run: the experiment.
        name: of the stage, whose folder is finished.
        metrics: what it measured.
    """
    if run.config.tracking.mode != "disabled":
        with attempt(f"log {name}"):
            _log_stage(run, name, metrics)


def _log_stage(run: Run, name: str, metrics: Metrics) -> None:
    """See `log_stage`."""
    folder, note = run.folder / name, run.folder / LOGGED
    # Where nothing was made anew, W&B is not even opened. A page is written again by every call, but says what the
    # stages before it say.
    marks = _marks(run, name)
    logged: dict[str, Any] = read_json(note) if note.is_file() else {}
    if logged.get(name) == marks:
        return
    tracker = run.tracker
    if not tracker.is_on:
        return
    tracker.summary(flat_numbers(metrics, f"{name}/"))
    if (folder / run_files.TIMING).is_file():
        tracker.summary(flat_numbers(read_json(folder / run_files.TIMING), f"{name}/cost/"))
    _log_rest(run, name, folder)
    with attempt(f"draw the charts of {name}"):
        from debate_rl.report.stage_charts import stage_charts  # here: it loads the plotting library

        tracker.pages({f"{name}/charts/{key}": page for key, page in stage_charts(run.folder, name).items()})
    _log_page(run, name, folder / PAGE)
    _log_effects(run, name, folder / run_files.EFFECTS)
    log_folder(run, name, folder)
    if tracker.is_on:
        write_json(note, {**logged, name: marks})


def _marks(run: Run, name: str) -> str:
    """What tells whether a stage was made again: its own files; of a report, those of the stages that it shows."""
    files = {}
    for other, stage in run.config.stages.items():
        path = run.folder / other / run_files.STAGE
        wanted = not stage.repeats if run.config.stages[name].repeats else other == name
        if wanted and path.is_file():
            files[other] = read_json(path).get("files")
    return digest(files)


def _log_rest(run: Run, name: str, folder: Path) -> None:
    """Log what the stage has not logged itself while it was at work in this process."""
    if run.at != name:
        log_history(run.tracker, name, folder)
    debates = folder / run_files.DEBATES
    if debates.is_file() and f"{name}/debates" not in run.tracker.tables:
        with attempt(f"read the debates of {name}"):
            run.log_debates(name, (leg for _, leg in scan_log(debates, JudgedDebate)))


def log_study(run: Run, page: Path) -> None:
    """Log the effects over all seeds of a study, into a W&B run of its own beside those of the seeds; once.

    Args:
        run: the study, whose config has the seeds.
        page: of the study.
    """
    if run.config.tracking.mode == "disabled":
        return
    note, table = run.folder / LOGGED, run.folder / run_files.EFFECTS
    with attempt(f"log the study {run.config.name}"):
        mark = {"effects": digest(read_json(table))}
        if not (note.is_file() and read_json(note) == mark) and run.tracker.is_on:
            _log_page(run, "report", page)
            _log_effects(run, "report", table)
            if run.tracker.is_on:
                write_json(note, mark)
    run.finish_tracking()


def _log_page(run: Run, name: str, page: Path) -> None:
    """Log a report's page, and its folder as an artifact."""
    if not page.is_file():
        return
    if page.stat().st_size <= LARGEST_PAGE:
        run.tracker.pages({f"{name}/page": page.read_text(encoding="utf-8")})
    if run.config.tracking.artifacts:
        sources = _sources(run, name) if name in run.config.stages and not run.config.seeds else []
        # Written again by every later call of the run, so a copy is kept.
        run.tracker.artifact(f"{run.label}-{name}", "report", page.parent, {}, sources)


def _log_effects(run: Run, name: str, file: Path) -> None:
    """Log a table of effects, as a table and as numbers that can be compared between runs."""
    if not file.is_file():
        return
    rows = []
    numbers: dict[str, float] = {}
    for row in read_json(file)["rows"]:
        cells = {**row, **(row["estimate"] or {})}
        rows.append([cells.get(column) for column in _EFFECT_COLUMNS])
        numbers |= flat_numbers({f"{row['group']}/{row['name']}": row["estimate"]}, f"{name}/effects/")
    run.tracker.table(f"{name}/effects", _EFFECT_COLUMNS, rows)
    run.tracker.summary(numbers)


def log_folder(run: Run, name: str, folder: Path, facts: dict[str, Any] | None = None) -> None:
    """Log what a stage or one training of it made: debates, the rows made of them, the weights trained on these.

    Args:
        run: the experiment.
        name: of the stage or training (see `Run.name_of`).
        folder: where it lies; files of a stage at work are copied, as the folder will be renamed.
        facts: metadata of the weights.
    """
    tracker = run.tracker
    if not tracker.is_on or not run.config.tracking.artifacts:
        return
    label = f"{run.label}-{name}"
    stage_name = folder.relative_to(run.folder).parts[0].lstrip(".")
    sources = _sources(run, stage_name)
    is_moving = any(part.startswith(".") for part in folder.relative_to(run.folder).parts)
    weights = _weights(folder)
    has_rows = (folder / "rows.jsonl").is_file()
    # A judge learns from the debates beside it, and rows are made of those; what an online training or a series of
    # them leaves are games of its last weights.
    learns_from_debates = has_rows and (weights is None or run.config.stages[stage_name].trains_judge)
    played = []
    if learns_from_debates:
        for file in (run_files.DEBATES, run_files.POOLS):
            if (folder / file).is_file():
                played.append(f"{label}-{Path(file).stem}")
                tracker.artifact(played[-1], "debates", folder / file, {}, sources, is_moving)
    data = [source for source in sources if source.endswith(_DATA)]
    made_from = sources
    if has_rows:
        tracker.artifact(f"{label}-rows", "dataset", folder / "rows.jsonl", {}, played or data, is_moving)
        made_from = [f"{label}-rows", *(source for source in sources if source not in data)]
    if weights is not None:
        tracker.artifact(label, "model", weights, facts or {}, made_from, is_moving)
        sources = [label, *sources]
    for file in (run_files.DEBATES, run_files.POOLS, *_MEASURED):
        tracker.artifact(f"{label}-{Path(file).stem}", "debates", folder / file, {}, sources, is_moving)


def _sources(run: Run, name: str) -> list[str]:
    """Names of the artifacts that a stage builds on: the last thing that each stage before it made."""
    stage = run.config.stages[name]
    sources = []
    for other_name, other in run.config.stages.items():
        if other_name == name:
            break  # a stage builds only on those before it
        if stage.builds_on(other_name, other):
            made = _made_by(run, other_name, other)
            if made is not None:
                sources.append(made)
    return sources


def _made_by(run: Run, name: str, stage: Stage) -> str | None:
    """Name of the artifact that later stages take from a stage; None where it left none."""
    path = Path(stage.makes(name).get(name, name))
    folder = run.folder / path
    # As `Run.name_of` names trainings: iterations/iteration2 is iterations.2.
    label = f"{run.label}-{'.'.join(part.removeprefix('iteration') if part != name else part for part in path.parts)}"
    if _weights(folder) is not None:
        return label
    if (folder / "rows.jsonl").is_file():
        return f"{label}-rows"
    if (folder / run_files.DEBATES).is_file():
        return f"{label}-{Path(run_files.DEBATES).stem}"
    return None


def _weights(folder: Path) -> Path | None:
    """The adapter or the fully trained model in a folder."""
    return next((folder / part for part in _WEIGHTS if (folder / part).is_dir()), None)
