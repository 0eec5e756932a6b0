"""The page of a study: its table of effects over all seeds, links to the seeds' own pages, and its costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.records import write_text
from debate_rl.report.findings import asked, findings
from debate_rl.report.page import by_group, environment
from debate_rl.report.run_folder import RunFolder, load_run, seed_folder
from debate_rl.report.side_by_side import Side, main_figures, page_address
from debate_rl.report.transfer_tables import load_tables, write_tables
from debate_rl.report.transfer_view import transfer_views
from debate_rl.report.wording import bidi_shown, printable


class SeedCost(NamedTuple):
    """Time and memory of one seed's run.

    Example:
        SeedCost(seed=0, address="../seed0/report/index.html", seconds=611.2, peak=1840, unfinished=())
    """

    seed: int
    address: str | None
    """Address of the seed's page, relative to the study's; None if it has none."""
    seconds: float
    peak: int
    """Peak memory in MiB."""
    unfinished: tuple[str, ...]


def study_seeds(folder: str | Path) -> list[int]:
    """Seeds of a study's folder; empty for an ordinary run or another folder."""
    path = Path(folder) / run_files.CONFIG
    if not path.is_file():
        return []
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except yaml.YAMLError:
        return []  # `load_run` gives the error message
    seeds = tree.get("seeds") if isinstance(tree, dict) else None
    if not isinstance(seeds, list):
        return []
    return [seed for seed in seeds if isinstance(seed, int)]


def seed_runs(folder: str | Path) -> list[Path]:
    """Run folders of a study's seeds, in the order of its config.

    Raises:
        UserError: a seed's run is not there yet.
    """
    runs = [Path(folder) / seed_folder(seed) for seed in study_seeds(folder)]
    for run in runs:
        if not (run / run_files.CONFIG).is_file():
            raise UserError(f"{run} is not there yet; run the study with `debate-rl run` first")
    return runs


def write_study_page(folder: str | Path, out: str | Path, table: Sequence[EffectRow]) -> Path:
    """Write the page of a study.

    Args:
        folder: runs/NAME, which holds seed0 and the runs of the other seeds.
        out: folder for index.html, and for tables/ where the study has weak-to-strong stages.
        table: the effects over all seeds.

    Returns:
        The page.

    Raises:
        UserError: the folder is no study, or the page can not be written.
    """
    runs = seed_runs(folder)
    loaded = [load_run(run) for run in runs]
    costs = [_seed_cost(seed, run, Path(out)) for seed, run in zip(study_seeds(folder), runs, strict=True)]
    if not costs:
        raise UserError(f"{folder} is no study; its config has no seeds")
    page = Path(out) / "index.html"
    tables = load_tables(loaded)
    sides = []
    for cost, run in zip(costs, loaded, strict=True):
        sides.append(Side(f"seed {cost.seed}", cost.address, main_figures(run), [], 0, run.unfinished))
    whole = load_run(folder)
    template = environment().get_template("study.j2")
    html = template.render(
        run=whole,
        asked=asked(loaded[0]),
        findings=findings(table),
        sides=sides,
        costs=costs,
        effects=by_group(table),
        seeds=[(cost.seed, cost.address) for cost in costs],
        transfer=transfer_views(tables),
    )
    write_text(page, bidi_shown(printable(html)))
    write_tables(tables, Path(out) / "tables")
    return page


def _seed_cost(seed: int, folder: Path, out: Path) -> SeedCost:
    run = load_run(folder)
    return SeedCost(
        seed=seed,
        address=page_address(folder, out),
        seconds=sum(_timings(run, "seconds")),
        peak=int(max(_timings(run, "peak_memory_mib"), default=0)),
        unfinished=run.unfinished,
    )


def _timings(run: RunFolder, key: str) -> list[Any]:
    return [stage.timing[key] for stage in run.stages if key in stage.timing]
