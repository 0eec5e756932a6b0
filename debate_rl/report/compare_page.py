"""Several runs or studies side by side: effects in one table, figures, and what differs in their configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.effects.table import effects
from debate_rl.errors import UserError
from debate_rl.records import write_text
from debate_rl.report.findings import findings
from debate_rl.report.page import environment
from debate_rl.report.run_folder import RunFolder, load_run
from debate_rl.report.side_by_side import Side, main_figures, page_address
from debate_rl.report.study_page import seed_runs, study_seeds
from debate_rl.report.wording import bidi_shown, printable

UNTOLD = {"name", "runs", "seed", "seeds", "processes"}
"""Keys at the top of a config in which runs differ anyway."""


class Compared(NamedTuple):
    """One effect in all runs."""

    group: str
    name: str
    unit: str
    rows: list[EffectRow | None]
    """In the order of the runs; None where a run does not have it."""


def write_comparison(folders: Sequence[str | Path], out: Path | None = None) -> Path:
    """Write a page that sets runs or studies side by side.

    Args:
        folders: two or more of runs/NAME.
        out: folder for index.html; None takes compare/NAME-NAME beside the first one.

    Raises:
        UserError: a folder is no run, or the same as another; or the page can not be written.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a run is named twice; name each of the runs to compare once")
    runs = [load_run(path) for path in paths]
    names = _names(paths, runs)
    page = (out or paths[0].parent / "compare" / "-".join(path.resolve().name for path in paths)) / "index.html"
    tables, sides = [], []
    for path, run, name in zip(paths, runs, names, strict=True):
        # A study's effects are those over all of its seeds; its figures are its first seed's.
        seeds = seed_runs(path)
        rows = effects(seeds or [path])
        shown = load_run(seeds[0]) if seeds else run
        tables.append(rows)
        sides.append(
            Side(
                name=name,
                address=page_address(path, page.parent),
                figures=main_figures(shown),
                findings=findings(rows),
                seeds=len(study_seeds(path)),
                unfinished=shown.unfinished,
            )
        )
    html = (
        environment()
        .get_template("compare.j2")
        .render(sides=sides, compared=_aligned(tables), configs=_config_differences(runs))
    )
    write_text(page, bidi_shown(printable(html)))
    return page


def _names(paths: Sequence[Path], runs: Sequence[RunFolder]) -> list[str]:
    """Names of the runs; where two have the same, those of their folders, or else their paths."""
    for names in ([run.name for run in runs], [path.resolve().name for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _aligned(tables: Sequence[Sequence[EffectRow]]) -> list[Compared]:
    """Effects of all runs, in the order in which they are met."""
    by_name = [{(row.group, row.name): row for row in rows} for rows in tables]
    keys: dict[tuple[str, str], EffectRow] = {}
    for rows in by_name:
        for key, row in rows.items():
            keys.setdefault(key, row)
    compared = []
    for (group, name), row in keys.items():
        compared.append(Compared(group, name, row.unit, [rows.get((group, name)) for rows in by_name]))
    return compared


def _config_differences(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """Values of the keys in which the configs differ, by dotted key."""
    flat = [_flat(yaml.safe_load(run.config)) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    differences = {}
    for key in keys:
        values = [one.get(key, "\u2013") for one in flat]
        if len(set(values)) > 1 and key.split(".")[0] not in UNTOLD:
            differences[key] = values
    return differences


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """Values of a tree by dotted key."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: str(tree)} if prefix else {}
    values = {}
    for key, value in tree.items():
        values.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return values
