"""The page: one static HTML file of everything a run folder holds, with nothing to fetch and no script to run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.effects.table import effects
from debate_rl.analysis.judging.judge_errors import JudgeErrors
from debate_rl.analysis.oversight import Oversight
from debate_rl.errors import UserError
from debate_rl.intervals import Effect, Estimate
from debate_rl.judges.scores import JudgeScores
from debate_rl.records import read_json, write_text
from debate_rl.report import plots
from debate_rl.report.attack_view import AttackView, attack_view
from debate_rl.report.debates import Legs, failures_by_kind, read_legs, sample
from debate_rl.report.online_view import OnlineView, online_view
from debate_rl.report.plots import Curve, Reliability, Row, RowPlot, Scatter
from debate_rl.report.run_folder import RunFolder, Stage, load_run
from debate_rl.report.transcripts import exhibit
from debate_rl.report.transfer_tables import load_tables, write_tables
from debate_rl.report.transfer_view import findings, transfer_views
from debate_rl.stages.grpo import GrpoResult
from debate_rl.stages.iterations import IterationsResult
from debate_rl.stages.judge import JudgeResult
from debate_rl.stages.reading import ReadingResult
from debate_rl.stages.tournament import TournamentResult
from debate_rl.weak_to_strong.results.tables import ENDS, Table

TRAINING = ("sft", "dpo", "grpo", "preferences")
SECTIONS = {
    "ratings": ("Leaderboard", ("tournament",)),
    "iterations": ("Iterated training", ("iterations",)),
    "online": ("Online training", ("grpo",)),
    "oversight": ("Judge accuracy by protocol", ("oversight",)),
    "reading": ("Untrained readers", ("reading",)),
    "judge": ("Judge calibration", ("judge",)),
    "transfer": ("Weak-to-strong", ("weak_to_strong",)),
    "behaviour": ("Behaviour of the debaters", ("tournament",)),
    "training": ("Training", (*TRAINING, "judge")),
    "transcripts": ("Transcripts", ("tournament", "oversight", "iterations")),
}
"""Anchor: (heading, kinds of stages it is made of)."""
OPTIONAL = ("reading", "iterations", "grpo")
"""Kinds of stages that a run is not missing when it has none."""
ERRORS = "judge_errors.json"
"""In the folder of a report stage: the run scored again with errors in its verdicts, where that was asked for."""
FAILURES = 50
"""Failed legs listed one by one."""
_CONTROLS = {code: "\ufffd" for code in (*range(32), 127) if code not in (9, 10)}


class RatingsView(NamedTuple):
    """A tournament, ready to show."""

    stage: str
    found: TournamentResult
    unit: str
    elo: RowPlot
    against_rating: Scatter | None
    slope: Effect | None
    """Judge accuracy for 100 Elo points."""


class IterationsView(NamedTuple):
    """Iterated training, ready to show."""

    stage: str
    found: IterationsResult
    unit: str
    elo: Scatter | None
    """Elo over the start; None where the protocol has no opponent."""
    persuasion: Scatter | None


class OversightView(NamedTuple):
    """Judge accuracy by protocol, ready to show."""

    stage: str
    found: Oversight
    unit: str
    accuracy: RowPlot
    calibration: list[Reliability]


class ReadingView(NamedTuple):
    """Untrained readers, ready to show."""

    stage: str
    found: ReadingResult


class JudgeView(NamedTuple):
    """A finetuned judge, ready to show."""

    stage: str
    found: JudgeResult
    before: Reliability
    after: Reliability
    coverage_before: RowPlot | None
    coverage_after: RowPlot | None
    attacks: AttackView | None


class TrainingView(NamedTuple):
    """What a training stage logged, ready to show."""

    stage: str
    kind: str
    numbers: dict[str, float]
    curves: list[Curve]
    left_out: list[str]


def write_report(
    run_folder: str | Path, out: str | Path, transcripts: int = 12, table: Sequence[EffectRow] | None = None,
    errors: JudgeErrors | None = None,
) -> Path:  # fmt: skip
    """Write the page of a run.

    Args:
        run_folder: runs/NAME, at any point of its life; what is not finished is named in the page.
        out: folder for index.html, and for tables/ where the run has weak-to-strong stages.
        transcripts: at most so many are shown in full, chosen by id and not by outcome.
        table: the run's effects, where they are known already; None measures them.
        errors: what errors in the verdicts do; None takes what a finished report stage has kept, if any.

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
    known = effects([run_folder]) if table is None else table
    write_text(page, render(run, transcripts, known, tables, errors or _kept_errors(Path(run_folder))))
    write_tables(tables, Path(out) / "tables")
    return page


def _kept_errors(run_folder: Path) -> JudgeErrors | None:
    """Those of a finished report stage."""
    found = sorted(run_folder.glob(f"[!.]*/{ERRORS}"))
    return JudgeErrors.model_validate(read_json(found[0])) if found else None


def render(
    run: RunFolder, transcripts: int = 12, table: Sequence[EffectRow] = (), tables: Sequence[Table] | None = None,
    errors: JudgeErrors | None = None,
) -> str:  # fmt: skip
    """The page as text (see `write_report`)."""
    legs = {stage.name: read_legs(stage.name, stage.legs, transcripts) for stage in run.stages if stage.legs}
    chosen = sample(legs.values(), transcripts)
    failed = [(found.stage, leg) for found in legs.values() for leg in found.failed]
    kinds = {stage.kind for stage in run.stages}
    transfer = transfer_views(load_tables([run]) if tables is None else tables)
    html = (
        environment()
        .get_template("page.j2")
        .render(
            run=run,
            effects=by_group(table),
            seeds=[],
            sections={key: heading for key, (heading, needed) in SECTIONS.items() if kinds & set(needed)},
            absent=[heading for heading, needed in SECTIONS.values() if not {*kinds, *OPTIONAL} & set(needed)],
            ratings=[_ratings(stage, legs.get(stage.name)) for stage in run.of("tournament")],
            iterations=[_iterations(stage, legs.get(stage.name)) for stage in run.of("iterations")],
            online=[_online(stage, legs.get(stage.name)) for stage in run.of("grpo")],
            oversight=[_oversight(stage, legs.get(stage.name)) for stage in run.of("oversight")],
            readings=[ReadingView(stage.name, stage.read(ReadingResult)) for stage in run.of("reading")],
            judges=[_judge(stage) for stage in run.of("judge")],
            judge_errors=errors,
            transfer=transfer,
            recovered=findings(transfer),
            training=[_training(stage) for stage in run.of(*TRAINING, "judge")],
            exhibits=[exhibit(stage, leg) for stage, leg in chosen],
            played=sum(found.played for found in legs.values()),
            failed=failed[:FAILURES],
            failed_more=max(0, len(failed) - FAILURES),
            failed_kinds=failures_by_kind([leg for _, leg in failed]),
        )
    )
    return as_text(html)


def as_text(html: str) -> str:
    """A debater's control characters and unpaired surrogates would make the file no text; tabs and line ends stay."""
    return html.translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")


def by_group(table: Sequence[EffectRow]) -> dict[str, list[EffectRow]]:
    """Rows of the table of effects by group, in order."""
    groups: dict[str, list[EffectRow]] = {}
    for row in table:
        groups.setdefault(row.group, []).append(row)
    return groups


def _ratings(stage: Stage, legs: Legs | None) -> RatingsView:
    """Ratings, and judge accuracy against them."""
    found = stage.read(TournamentResult)
    elo = {row.player: row.rating for row in found.ratings.standings}
    both = {name: (elo[name], scores.accuracy) for name, scores in found.judge_accuracy.items() if name in elo}
    key = slug(stage.name)
    ranking = [Row(*entry) for entry in elo.items()]
    return RatingsView(
        stage=stage.name,
        found=found,
        unit=legs.unit if legs else "clusters",
        elo=plots.rows(f"elo-{key}", "Elo with intervals", ranking, plots.whole, plots.plain),
        against_rating=plots.scatter(
            f"skill-{key}", "Judge accuracy against rating", ("Elo", "judge accuracy"), both
        ) if len(both) > 1 else None,
        # Of two players it would be their difference in other words.
        slope=found.accuracy_over_rating if len(both) > 2 else None,
    )  # fmt: skip


def _iterations(stage: Stage, legs: Legs | None) -> IterationsView:
    """The curve of ratings, of consultants that of persuasion."""
    found = stage.read(IterationsResult)
    key = slug(stage.name)
    start, *later = found.points
    elo = {point.player: point.over_start for point in later if point.over_start is not None}
    zero = Estimate(value=0.0, n=0, clusters=0)
    won = {point.player: point.persuaded for point in found.points if point.persuaded is not None}
    return IterationsView(
        stage=stage.name,
        found=found,
        unit=legs.unit if legs else "clusters",
        elo=plots.climb(
            f"climb-{key}", "Elo over the start by iteration", ("iteration", "Elo over the start"),
            {start.player: zero, **elo}, plots.whole,
        ) if elo else None,
        persuasion=plots.climb(
            f"won-{key}", "The judge's probability for the consultant", ("iteration", "probability"), won, plots.percent
        ) if won else None,
    )  # fmt: skip


def _online(stage: Stage, legs: Legs | None) -> OnlineView:
    """The curve of an online training."""
    return online_view(stage.name, slug(stage.name), stage.read(GrpoResult), legs.unit if legs else "clusters")


def _oversight(stage: Stage, legs: Legs | None) -> OversightView:
    """Judge accuracy of each protocol and player."""
    found = stage.read(Oversight)
    players = {row.player for row in found.rows}
    names = [row.protocol if len(players) == 1 else f"{row.protocol} \u00b7 {row.player}" for row in found.rows]
    key = slug(stage.name)
    return OversightView(
        stage=stage.name,
        found=found,
        unit=legs.unit if legs else "clusters",
        accuracy=plots.rows(
            f"accuracy-{key}", "Judge accuracy by protocol",
            [Row(name, row.scores.accuracy) for name, row in zip(names, found.rows, strict=True)],
            plots.percent, plots.short_percent, reference=(0.5, "chance"), within=(0, 1),
        ),
        calibration=[
            plots.reliability(f"calibration-{key}-{index}", name, row.scores)
            for index, (name, row) in enumerate(zip(names, found.rows, strict=True))
        ],
    )  # fmt: skip


def _judge(stage: Stage) -> JudgeView:
    """A judge before and after finetuning."""
    found = stage.read(JudgeResult)
    key = slug(stage.name)
    return JudgeView(
        stage=stage.name,
        found=found,
        before=plots.reliability(f"before-{key}", "Before finetuning", found.before),
        after=plots.reliability(f"after-{key}", "After finetuning", found.after),
        coverage_before=_coverage(f"coverage-before-{key}", "before", found.before),
        coverage_after=_coverage(f"coverage-after-{key}", "after", found.after),
        attacks=attack_view(f"attacks-{key}", found.attacks),
    )


def _coverage(id: str, when: str, found: JudgeScores) -> RowPlot | None:
    """Accuracy where the judge is surest, one row for each share of the verdicts."""
    points = found.coverage.points if found.coverage else ()
    return plots.rows(
        id, f"Accuracy of the surest verdicts {when} finetuning",
        [Row(f"{point.coverage:.0%}, from {point.threshold:.2f}", point.accuracy) for point in points],
        plots.percent, plots.short_percent, reference=(0.5, "chance"), within=(0, 1),
    ) if points else None  # fmt: skip


def _training(stage: Stage) -> TrainingView:
    """Numbers and curves of a training stage."""
    drawn, left_out = plots.curves(f"curve-{slug(stage.name)}", stage.history)
    return TrainingView(stage.name, stage.kind, stage.numbers, drawn, left_out)


def slug(name: str) -> str:
    """A name that can stand in an id of the page; different names give different ids."""
    return re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):x}_", name)


def number(value: float | None, digits: int = 3, plus: bool = False) -> str:
    """A number of fixed digits, with a plus sign where wanted; a dash for none."""
    if value is None:
        return "\u2013"
    text = plots.fixed(value, digits)
    return f"+{text}" if plus and float(f"{value:.{digits}f}") > 0 else text


def count(value: float) -> str:
    """A number in a list of facts: whole ones in full with narrow spaces, others to four digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "\u2212")
    return f"{value:.4g}".replace("-", "\u2212")


def duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "12 min 5 s", "3 h 20 min"."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def floor_text(scores: JudgeScores) -> str:
    """ECE beside what a perfectly calibrated judge would show by chance."""
    return (
        f"ECE {number(scores.ece)}; a perfectly calibrated judge with these confidences shows "
        f"{number(scores.floor.median)} by chance, and stays below {number(scores.floor.high)} 19 times in 20"
    )


def units(estimates: Sequence[Estimate], unit: str = "clusters") -> str:
    """What a group of intervals rests on, in words: "80 stories", or a range where they differ."""
    found = sorted({estimate.clusters for estimate in estimates})
    if not found:
        return unit
    return f"{found[0]} {unit}" if len(found) == 1 else f"{found[0]} to {found[-1]} {unit}"


def environment() -> jinja2.Environment:
    """The templates beside this file; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, count=count, duration=duration, percent=plots.percent, slug=slug,
        floor_text=floor_text, units=units,
    )  # fmt: skip
    environment.globals["ends"] = ENDS
    return environment
