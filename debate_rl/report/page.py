"""The page of a run: results as static HTML, with all debates in files beside it (see `debate_files`).

One script of ours runs, which the page's content security policy names by its hash; no other can.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.effects.table import effects
from debate_rl.analysis.judging.judge_errors import JudgeErrors
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.grid import GRID_FILE, Grid
from debate_rl.judges.signal import SIGNAL_FILE, Signal
from debate_rl.records import read_json, write_text
from debate_rl.report import wording
from debate_rl.report.chart import Figure
from debate_rl.report.debate_files import DebateWriter, Keep, keep_in
from debate_rl.report.debates import Legs, failures_by_kind, read_legs, sample
from debate_rl.report.findings import asked, basis, findings
from debate_rl.report.learning_view import (
    JudgesView,
    TurnsView,
    judge_online_view,
    judged_sets,
    judges_view,
    turns_view,
)
from debate_rl.report.online_view import OnlineView
from debate_rl.report.reading_room import Room, complete, plain_templates
from debate_rl.report.render import to_svg
from debate_rl.report.run_folder import RunFolder, Stage, load_run
from debate_rl.report.stage_views import (
    JudgeView,
    OversightView,
    RatingsView,
    grpo_view,
    iterations_view,
    judge_view,
    oversight_view,
    ratings_view,
    reading_view,
    training_view,
)
from debate_rl.report.transcripts import Exhibit, exhibit
from debate_rl.report.transfer_tables import load_tables, write_tables
from debate_rl.report.transfer_view import TransferView, recovered, transfer_views
from debate_rl.weak_to_strong.results.tables import ENDS, Table

TRAINING = ("sft", "dpo", "grpo", "preferences", "judge", "stating", "judge_grpo")


class Section(NamedTuple):
    """A section of the page."""

    heading: str
    short: str
    """Name in the navigation."""
    kinds: tuple[str, ...]
    """Kinds of stages that it shows."""


SECTIONS = {
    "ratings": Section("Leaderboard", "Ratings", ("tournament",)),
    "iterations": Section("Iterated training", "Iterations", ("iterations",)),
    "online": Section("Online training", "Online", ("grpo",)),
    "oversight": Section("Judge accuracy by protocol", "Protocols", ("oversight",)),
    "reading": Section("Untrained readers", "Readers", ("reading",)),
    "judge": Section("Judge calibration", "Judge", ("judge",)),
    "judge_online": Section("Judges trained online", "Judges online", ("judge_grpo",)),
    "judges": Section("Judges on the same games", "Judges", ("judges",)),
    "cotraining": Section("Debaters and judge in turns", "In turns", ("cotraining",)),
    "transfer": Section("Weak-to-strong", "Weak-to-strong", ("weak_to_strong",)),
    "behaviour": Section("Behaviour of the debaters", "Behaviour", ("tournament",)),
    "training": Section("Training", "Training", TRAINING),
}
"""Sections by their anchor."""
OPTIONAL = {"reading", "iterations", "grpo", "judge_grpo", "judges", "cotraining"}
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
    """Write the page of a run, all of its debates beside it, and a page for sending with a sample of them.

    Args:
        run_folder: runs/NAME, at any point of its life; what is not finished is named in the page.
        out: folder for index.html, share.html and debates/, and for tables/ where the run has weak-to-strong stages.
        transcripts: debates in share.html at most, chosen by id and not by outcome.
        table: the run's effects, if they are known already; None measures them.
        errors: effects of errors in the verdicts; None takes those that a finished report stage has written, if any.

    Returns:
        The page.

    Raises:
        UserError: the folder is no run, a file in it is malformed, or the page can not be written.
    """
    if transcripts < 0:
        raise UserError(f"transcripts is the number shown, 0 or more, not {transcripts}")
    page, fresh = Path(out) / "index.html", Path(out) / ".debates"
    run = load_run(run_folder)
    tables = load_tables([run])
    rows = effects([run_folder]) if table is None else table
    shutil.rmtree(fresh, ignore_errors=True)
    pages = render_pages(run, transcripts, rows, tables, errors or _stored_errors(Path(run_folder)), keep_in(fresh))
    # The pages come first: what an older report wrote stays whole if rendering fails.
    write_text(page, pages.main)
    write_text(page.with_name("share.html"), pages.share)
    shutil.rmtree(page.with_name("debates"), ignore_errors=True)
    if fresh.is_dir():
        fresh.rename(page.with_name("debates"))
    write_tables(tables, Path(out) / "tables")
    return page


def _stored_errors(run_folder: Path) -> JudgeErrors | None:
    """Effects of judge errors that a finished report stage has written; unfinished stages begin with a dot."""
    paths = sorted(run_folder.glob(f"[!.]*/{ERRORS}"))
    return JudgeErrors.model_validate(read_json(paths[0])) if paths else None


class Pages(NamedTuple):
    """The two pages of a run, as text."""

    main: str
    """Takes all debates from the files beside it."""
    share: str
    """Holds a sample of the debates in itself."""


def render_pages(
    run: RunFolder,
    transcripts: int = 12,
    table: Sequence[EffectRow] = (),
    tables: Sequence[Table] | None = None,
    errors: JudgeErrors | None = None,
    keep: Keep | None = None,
) -> Pages:
    """The pages as text (see `write_report`).

    Args:
        run: the run.
        transcripts: debates in the page for sending.
        table: the run's effects.
        tables: its weak-to-strong tables; None reads them.
        errors: effects of errors in the verdicts.
        keep: takes the parts of all debates; None drops them.
    """
    writer = DebateWriter(keep or (lambda key, text: None))
    legs = {}
    for stage in run.stages:
        if stage.legs:
            legs[stage.name] = _read_stage(stage, writer, transcripts)
        for name, path in judged_sets(stage):
            one = writer.open(name)
            read_legs(name, path, 0, one.add)
            one.close()
    writer.close()
    chosen = sample(legs.values(), transcripts)
    parts: dict[str, str] = {}
    sample_writer = DebateWriter(parts.__setitem__)
    for sampled in dict.fromkeys(name for name, _ in chosen):
        one = sample_writer.open(sampled)
        for name, leg in chosen:
            if name == sampled:
                one.add(leg)
        one.close()
    sample_writer.close()
    html = _render(run, legs, chosen, table, load_tables([run]) if tables is None else tables, errors)
    played = sum(stage_legs.played for stage_legs in legs.values())
    all_sets = [one for one in writer.sets if one.debates]
    return Pages(
        main=complete(html, Room(all_sets, played, {})),
        share=complete(html, Room(sample_writer.sets, played, parts)),
    )


def render(
    run: RunFolder,
    transcripts: int = 12,
    table: Sequence[EffectRow] = (),
    tables: Sequence[Table] | None = None,
) -> str:
    """The page as text, without the files beside it (see `render_pages`)."""
    return render_pages(run, transcripts, table, tables).main


def _read_stage(stage: Stage, writer: DebateWriter, keep: int) -> Legs:
    """Read the debates of a stage and write them for the page."""
    assert stage.legs is not None, "only stages that played are read"
    one = writer.open(stage.name)
    stage_legs = read_legs(stage.name, stage.legs, max(keep, 1), one.add)
    one.close()
    return stage_legs


def _render(
    run: RunFolder,
    legs: Mapping[str, Legs],
    chosen: Sequence[tuple[str, JudgedDebate]],
    table: Sequence[EffectRow],
    tables: Sequence[Table],
    errors: JudgeErrors | None,
) -> str:
    """The page with a gap where the debates stand, which `complete` fills."""
    failed = []
    for stage_legs in legs.values():
        failed += [(stage_legs.stage, leg) for leg in stage_legs.failed]
    kinds = {stage.kind for stage in run.stages}
    ratings = [ratings_view(stage, legs.get(stage.name)) for stage in run.of("tournament")]
    ratings_by_stage = {view.stage: view.result.ratings for view in ratings}
    oversight = [oversight_view(stage, legs.get(stage.name), ratings_by_stage) for stage in run.of("oversight")]
    judges = [judge_view(stage) for stage in run.of("judge")]
    online = [grpo_view(stage, legs.get(stage.name)) for stage in run.of("grpo")]
    compared_judges = [judges_view(stage) for stage in run.of("judges")]
    in_turns = [turns_view(stage) for stage in run.of("cotraining")]
    transfer = transfer_views(tables, set(legs))
    played = sum(stage_legs.played for stage_legs in legs.values())
    html = (
        environment()
        .get_template("page.j2")
        .render(
            run=run,
            asked=asked(run),
            basis=basis(run, played, len(failed)),
            findings=findings(table, recovered(transfer)),
            key_figure=_key_figure(ratings, oversight, judges, transfer)
            or _learning_figure(compared_judges, in_turns, online),
            effects=by_group(table),
            seeds=[],
            sections={anchor: section for anchor, section in SECTIONS.items() if kinds & set(section.kinds)},
            absent=[section.heading for section in SECTIONS.values() if not (kinds | OPTIONAL) & set(section.kinds)],
            ratings=ratings,
            iterations=[iterations_view(stage, legs.get(stage.name)) for stage in run.of("iterations")],
            online=online,
            judges_online=[judge_online_view(stage) for stage in run.of("judge_grpo")],
            compared_judges=compared_judges,
            in_turns=in_turns,
            oversight=oversight,
            readings=[reading_view(stage) for stage in run.of("reading")],
            judges=judges,
            judge_errors=errors,
            signals=_signals(run),
            grids=_grids(run),
            transfer=transfer,
            training=[training_view(stage) for stage in run.of(*TRAINING)],
            shown=_first_exhibit(legs, chosen),
            failed=failed[:MAX_FAILURES],
            failed_more=max(0, len(failed) - MAX_FAILURES),
            failed_kinds=failures_by_kind([leg for _, leg in failed]),
        )
    )
    return wording.bidi_shown(wording.printable(html))


class KeyFigure(NamedTuple):
    """The figure on the first screen."""

    figure: Figure
    caption: str
    section: str


def _key_figure(
    ratings: Sequence[RatingsView],
    oversight: Sequence[OversightView],
    judges: Sequence[JudgeView],
    transfer: Sequence[TransferView],
) -> KeyFigure | None:
    """The first of these that the run has: accuracy over rating, accuracy by protocol, PGR, ratings, calibration."""
    for view in oversight:
        if view.over_rating is not None:
            return KeyFigure(view.over_rating, "Each point is a debater against itself.", "oversight")
    if oversight:
        return KeyFigure(oversight[0].accuracy, "Chance is one half.", "oversight")
    columns = [column for table in transfer for column in table.columns]
    if columns:
        return KeyFigure(columns[0].pgr or columns[0].accuracy, "Students of a weak supervisor.", "transfer")
    if ratings:
        return KeyFigure(ratings[0].elo, "Elo, mean of all players 1000.", "ratings")
    if judges:
        return KeyFigure(judges[0].calibration, "On the dashed line a judge means what it says.", "judge")
    return None


def _learning_figure(
    compared: Sequence[JudgesView], in_turns: Sequence[TurnsView], online: Sequence[OnlineView]
) -> KeyFigure | None:
    """For runs without those: turns of debaters and judge, judges side by side, or an online training."""
    for turns in in_turns:
        if turns.curve is not None:
            return KeyFigure(turns.curve, "After each turn, on test questions.", "cotraining")
    for judges in compared:
        if judges.accuracy is not None:
            return KeyFigure(judges.accuracy, "Every judge on the same debates.", "judges")
    for training in online:
        if training.hacking is not None:
            return KeyFigure(training.hacking, "Win rate before the training judge, and truth.", "online")
    return None


def _first_exhibit(legs: Mapping[str, Legs], chosen: Sequence[tuple[str, JudgedDebate]]) -> Exhibit | None:
    """The debate on the first screen: of the sample the first in which two sides speak."""
    candidates = list(chosen) or sample(legs.values(), 12)
    for stage, leg in candidates:
        if len(leg.transcript.players) > 1:
            return exhibit(stage, leg)
    return exhibit(*candidates[0]) if candidates else None


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


@cache
def environment() -> jinja2.Environment:
    """The templates beside this file; every value is escaped, figures become SVG."""
    environment = plain_templates().overlay()
    environment.filters = dict(environment.filters)  # an overlay shares them
    environment.globals = dict(environment.globals)
    filters = (wording.number, wording.count, wording.duration, wording.percent, wording.floor_text, wording.units)
    for function in (*filters, wording.slug, wording.debates_link, svg):
        environment.filters[function.__name__] = function
    environment.globals["ends"] = ENDS
    return environment


def svg(figure: Figure, page: str | None = "") -> Markup:
    """A figure as markup: the renderer has escaped the text in it.

    Args:
        figure: to show.
        page: address of the page that holds the debates; empty for this one, None if there is none.
    """
    return Markup(to_svg(figure, page))
