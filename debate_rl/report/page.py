"""The page: one static HTML file of everything a run folder holds, with nothing to fetch and no script to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.effects.table import effects
from debate_rl.analysis.judging.judge_errors import JudgeErrors
from debate_rl.errors import UserError
from debate_rl.judges.grid import GRID_FILE, Grid
from debate_rl.judges.signal import SIGNAL_FILE, Signal
from debate_rl.records import read_json, write_text
from debate_rl.report import wording
from debate_rl.report.debates import failures_by_kind, read_legs, sample
from debate_rl.report.figures import Figure, to_svg
from debate_rl.report.run_folder import RunFolder, load_run
from debate_rl.report.stage_views import (
    grpo_view,
    iterations_view,
    judge_view,
    oversight_view,
    ratings_view,
    reading_view,
    training_view,
)
from debate_rl.report.transcripts import exhibit
from debate_rl.report.transfer_tables import load_tables, write_tables
from debate_rl.report.transfer_view import findings, transfer_views
from debate_rl.weak_to_strong.results.tables import ENDS, Table

TRAINING = ("sft", "dpo", "grpo", "preferences", "judge")


class Section(NamedTuple):
    """A section of the page."""

    heading: str
    kinds: tuple[str, ...]
    """Kinds of stages that it shows."""


SECTIONS = {
    "ratings": Section("Leaderboard", ("tournament",)),
    "iterations": Section("Iterated training", ("iterations",)),
    "online": Section("Online training", ("grpo",)),
    "oversight": Section("Judge accuracy by protocol", ("oversight",)),
    "reading": Section("Untrained readers", ("reading",)),
    "judge": Section("Judge calibration", ("judge",)),
    "transfer": Section("Weak-to-strong", ("weak_to_strong",)),
    "behaviour": Section("Behaviour of the debaters", ("tournament",)),
    "training": Section("Training", TRAINING),
    "transcripts": Section("Transcripts", ("tournament", "oversight", "iterations")),
}
"""Sections by their anchor."""
OPTIONAL = {"reading", "iterations", "grpo"}
"""Kinds of stages whose sections are not listed as missing."""
ERRORS = "judge_errors.json"
"""File of a report stage: the run scored again with errors in its verdicts, if the stage was asked for that."""
MAX_FAILURES = 50
"""Failed legs listed one by one."""


def write_report(
    run_folder: str | Path,
    out: str | Path,
    transcripts: int = 12,
    table: Sequence[EffectRow] | None = None,
    errors: JudgeErrors | None = None,
) -> Path:
    """Write the page of a run.

    Args:
        run_folder: runs/NAME, at any point of its life; what is not finished is named in the page.
        out: folder for index.html, and for tables/ where the run has weak-to-strong stages.
        transcripts: at most so many are shown in full, chosen by id and not by outcome.
        table: the run's effects, if they are known already; None measures them.
        errors: effects of errors in the verdicts; None takes those that a finished report stage has written, if any.

    Returns:
        The page.

    Raises:
        UserError: the folder is no run, a file in it is malformed, or the page can not be written.
    """
    if transcripts < 0:
        raise UserError(f"transcripts is the number shown, 0 or more, not {transcripts}")
    page = Path(out) / "index.html"
    run = load_run(run_folder)
    tables = load_tables([run])
    rows = effects([run_folder]) if table is None else table
    # The page comes first: tables of an older report stay whole if rendering fails.
    write_text(page, render(run, transcripts, rows, tables, errors or _stored_errors(Path(run_folder))))
    write_tables(tables, Path(out) / "tables")
    return page


def _stored_errors(run_folder: Path) -> JudgeErrors | None:
    """Effects of judge errors that a finished report stage has written; unfinished stages begin with a dot."""
    paths = sorted(run_folder.glob(f"[!.]*/{ERRORS}"))
    return JudgeErrors.model_validate(read_json(paths[0])) if paths else None


def render(
    run: RunFolder,
    transcripts: int = 12,
    table: Sequence[EffectRow] = (),
    tables: Sequence[Table] | None = None,
    errors: JudgeErrors | None = None,
) -> str:
    """The page as text (see `write_report`)."""
    legs = {stage.name: read_legs(stage.name, stage.legs, transcripts) for stage in run.stages if stage.legs}
    failed = []
    for stage_legs in legs.values():
        failed += [(stage_legs.stage, leg) for leg in stage_legs.failed]
    kinds = {stage.kind for stage in run.stages}
    ratings = [ratings_view(stage, legs.get(stage.name)) for stage in run.of("tournament")]
    ratings_by_stage = {view.stage: view.result.ratings for view in ratings}
    transfer = transfer_views(load_tables([run]) if tables is None else tables)
    template = environment().get_template("page.j2")
    html = template.render(
        run=run,
        effects=by_group(table),
        seeds=[],
        sections={anchor: section.heading for anchor, section in SECTIONS.items() if kinds & set(section.kinds)},
        absent=[section.heading for section in SECTIONS.values() if not (kinds | OPTIONAL) & set(section.kinds)],
        ratings=ratings,
        iterations=[iterations_view(stage, legs.get(stage.name)) for stage in run.of("iterations")],
        online=[grpo_view(stage, legs.get(stage.name)) for stage in run.of("grpo")],
        oversight=[oversight_view(stage, legs.get(stage.name), ratings_by_stage) for stage in run.of("oversight")],
        readings=[reading_view(stage) for stage in run.of("reading")],
        judges=[judge_view(stage) for stage in run.of("judge")],
        judge_errors=errors,
        signals=_signals(run),
        grids=_grids(run),
        transfer=transfer,
        recovered=findings(transfer),
        training=[training_view(stage) for stage in run.of(*TRAINING)],
        exhibits=[exhibit(stage, leg) for stage, leg in sample(legs.values(), transcripts)],
        played=sum(stage_legs.played for stage_legs in legs.values()),
        failed=failed[:MAX_FAILURES],
        failed_more=max(0, len(failed) - MAX_FAILURES),
        failed_kinds=failures_by_kind([leg for _, leg in failed]),
    )
    return wording.printable(html)


def _signals(run: RunFolder) -> dict[Signal, list[str]]:
    """What the checked judges could tell, each with the stages that it judges."""
    signals: dict[Signal, list[str]] = {}
    for stage in run.stages:
        path = stage.folder / SIGNAL_FILE
        if path.is_file():
            signals.setdefault(Signal.model_validate(read_json(path)), []).append(stage.name)
    return signals


def _grids(run: RunFolder) -> dict[str, Grid]:
    """Stages whose verdicts lie on a grid."""
    paths = {stage.name: stage.folder / GRID_FILE for stage in run.stages}
    return {name: Grid.model_validate(read_json(path)) for name, path in paths.items() if path.is_file()}


def by_group(table: Sequence[EffectRow]) -> dict[str, list[EffectRow]]:
    """Rows of the table of effects by group, in order."""
    groups: dict[str, list[EffectRow]] = {}
    for row in table:
        groups.setdefault(row.group, []).append(row)
    return groups


def environment() -> jinja2.Environment:
    """The templates beside this file; every value is escaped, figures become SVG."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        # A misspelt name in a template fails in the tests instead of leaving a hole in the page.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (wording.number, wording.count, wording.duration, wording.percent, wording.floor_text, wording.units)
    environment.filters.update({function.__name__: function for function in (*filters, wording.slug, svg)})
    environment.globals["ends"] = ENDS
    return environment


def svg(figure: Figure) -> Markup:
    """A figure as markup: the renderer has escaped the text in it."""
    return Markup(to_svg(figure))
