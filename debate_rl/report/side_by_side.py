"""Runs in columns: what the page of a study shows of its seeds, and that of a comparison of its runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from debate_rl.report.chart import Figure
from debate_rl.report.findings import Finding
from debate_rl.report.run_folder import RunFolder
from debate_rl.report.stage_views import judge_view, oversight_view, ratings_view
from debate_rl.stages.tournament import TournamentResult


class Side(NamedTuple):
    """One of the runs side by side."""

    name: str
    address: str | None
    """Address of its page, relative to this one; None if it has none."""
    figures: list[Figure]
    findings: list[Finding]
    seeds: int
    unfinished: tuple[str, ...]


def page_address(folder: Path, out: Path) -> str | None:
    """Address of a run's own page, relative to another page's folder so that both can be moved together."""
    pages = sorted(page for page in folder.glob("*/index.html") if not page.parent.name.startswith("."))
    return quote(Path(os.path.relpath(pages[0], out)).as_posix()) if pages else None


def main_figures(run: RunFolder) -> list[Figure]:
    """The figures by which runs are compared: ratings, accuracy over rating and by protocol, calibration."""
    ratings = {stage.name: stage.read(TournamentResult).ratings for stage in run.of("tournament")}
    figures: list[Figure | None] = [ratings_view(stage, None).elo for stage in run.of("tournament")]
    for stage in run.of("oversight"):
        view = oversight_view(stage, None, ratings)
        figures += [view.over_rating, view.accuracy]
    figures += [judge_view(stage).calibration for stage in run.of("judge")]
    return [figure for figure in figures if figure is not None]
