"""The effects of a study: one row for each thing that is claimed or compared, joined over seeds.

Every interval is a bootstrap over stories of the games of all seeds together, in weak-to-strong over training seeds
as well. So the intervals hold for the trainings that were done; how much trainings differ is seen in the seeds' own
values, which stand beside each estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from debate_rl.analysis.behaviour.game_features import read_played
from debate_rl.analysis.effects.debate import oversight_rows, quote_rows, skill_rows
from debate_rl.analysis.effects.judge import Seeds, judge_rows, protocol_rows, reading_rows
from debate_rl.analysis.effects.online import judged_rows, online_rows
from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.effects.training import iteration_rows, target_rows
from debate_rl.analysis.effects.transfer import transfer_rows
from debate_rl.arena.bradley_terry import RIDGE
from debate_rl.arena.ratings import RESAMPLES
from debate_rl.errors import UserError, existing
from debate_rl.records import read_json, write_json
from debate_rl.weak_to_strong.results.predictions import read_hits

GROUPS = (
    "reading",
    "quotes",
    "skill",
    "best-of-n",
    "targets",
    "iterations",
    "online",
    "judge",
    "protocols",
    "oversight",
    "weak-to-strong",
)
"""In the order of the table."""
T = TypeVar("T")


def effects(folders: Sequence[str | Path], resamples: int = RESAMPLES) -> list[EffectRow]:
    """Measure the effects of one run, or of runs of one config that differ in their seed.

    Args:
        folders: runs/NAME, or runs/NAME/seed0 and its neighbours. Stages that none has finished make no rows.
        resamples: Bradley-Terry refits.

    Returns:
        Rows by group, in the order of `GROUPS`.

    Raises:
        UserError: a folder is missing, a file in it is malformed, or the runs' questions can not be joined.
    """
    runs = [existing(folder, "run") for folder in folders]
    found = _found(runs)
    games = {name: [read_played(run / name / "legs.jsonl") for run in runs] for name in _of(found, *PLAYED)}
    rows: list[EffectRow] = []
    for kind, make in _makers(runs, found, games, resamples).items():
        names = _of(found, kind)
        for name in names:
            rows += [_told_apart(row, name, names) for row in make(name)]
    if not _of(found, "tournament"):
        rows += [row for name in _of(found, "oversight") for row in quote_rows(games[name], _players(runs, name))]
    return sorted(rows, key=lambda row: GROUPS.index(row.group))


PLAYED = ("reading", "tournament", "oversight", "iterations")
"""Kinds of stages whose legs are read."""


def _found(runs: Sequence[Path]) -> dict[str, str]:
    """Kind of every stage that some run has finished, by name."""
    paths = sorted(path for run in runs for path in run.glob("*/stage.json") if not path.parent.name.startswith("."))
    return {path.parent.name: str(read_json(path).get("kind", "")) for path in paths}


def _of(found: Mapping[str, str], *kinds: str) -> list[str]:
    return [name for name, kind in found.items() if kind in kinds]


def _columns(runs: Sequence[Path]) -> set[str]:
    """Stages that are columns of a weak-to-strong table: the report shows these tables whole."""
    paths = [path for run in runs if (path := run / "config.yaml").is_file()]
    stages = (yaml.safe_load(paths[0].read_text(encoding="utf-8")) or {}).get("stages") if paths else None
    return {name for name, stage in (stages or {}).items() if (stage or {}).get("table")}


def _told_apart(row: EffectRow, stage: str, names: Sequence[str]) -> EffectRow:
    """Name the stage in the row where several are of its kind."""
    return row if len(names) == 1 else row.model_copy(update={"name": f"{row.name} ({stage})"})


def _makers(
    runs: Sequence[Path], found: Mapping[str, str], games: Mapping[str, Seeds], resamples: int
) -> dict[str, Callable[[str], list[EffectRow]]]:
    """By kind of stage: the rows of a stage of it."""

    def tournament(name: str) -> list[EffectRow]:
        order = _players(runs, name)
        ridge, rows = _ridge(runs, name), list[EffectRow]()
        families = [{n: t for n, t in family.items() if n in order} for family in _targets(runs, _of(found, "dpo"))]
        siblings = {name for family in families if len(family) > 1 for name in family}
        for family in families:
            rows += target_rows(games[name], family, ridge, resamples)
        rows += quote_rows(games[name], order, siblings)
        for start, trained in _online(runs, found, order).items():
            rows += online_rows(games[name], start, trained, ridge, resamples)
        return rows + skill_rows(games[name], ridge, resamples, order, siblings)

    def iterations(name: str) -> list[EffectRow]:
        players = [point["player"] for point in _metrics(runs, name).get("points", ())]
        return iteration_rows(games[name], players, _ridge(runs, name), resamples)

    def judge(name: str) -> list[EffectRow]:
        before, after = ([read_played(run / name / f"{w}_legs.jsonl") for run in runs] for w in ("base", "test"))
        return judge_rows(before, after)

    def oversight(name: str) -> list[EffectRow]:
        rows = protocol_rows(games[name], _players(runs, name))
        for start, trained in _online(runs, found, _players(runs, name)).items():
            rows += judged_rows(games[name], start, list(trained), "training")
            if all((run / name / "second.jsonl").is_file() for run in runs):
                again = [read_played(run / name / "second.jsonl") for run in runs]
                rows += judged_rows(again, start, list(trained), "held-out")
        # The tournament that the stage itself took its ratings from: one slope has one interval wherever it is shown.
        rated = str(_metrics(runs, name).get("rated_by") or next(iter(_of(found, "tournament")), ""))
        if rated in games:
            rows += oversight_rows(games[rated], games[name], _ridge(runs, rated), resamples)
        return rows

    columns = _columns(runs)
    return {
        "reading": lambda name: reading_rows(games[name]),
        "tournament": tournament,
        "iterations": iterations,
        "judge": judge,
        "oversight": oversight,
        "weak_to_strong": lambda name: transfer_rows([read_hits(run / name) for run in runs if name not in columns]),
    }


def _metrics(runs: Sequence[Path], name: str) -> dict[str, Any]:
    """Metrics of a stage in the first run that has finished it."""
    paths = (run / name / "metrics.json" for run in runs)
    return next((dict(read_json(path)) for path in paths if path.is_file()), {})


def _ridge(runs: Sequence[Path], name: str) -> float:
    """The ridge that the stage's own ratings were fitted with."""
    return float((_metrics(runs, name).get("ratings") or {}).get("ridge", RIDGE))


def _targets(runs: Sequence[Path], names: Sequence[str]) -> list[dict[str, str]]:
    """Target of each dpo stage, those together that differ in nothing else that matters: start, preferences, loss."""
    families: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        about = _metrics(runs, name).get("objective")
        if about:
            family = families.setdefault((about["start"], about["preferences"], about["loss"]), {})
            family[name] = about["target"]
    return list(families.values())


def _online(runs: Sequence[Path], found: Mapping[str, str], players: Sequence[str]) -> dict[str, dict[str, int | None]]:
    """By start, where some player was trained online from it: the players trained from it, and the tokens of each."""
    starts: dict[str, dict[str, int | None]] = {}
    for name in players:
        kind, metrics = found.get(name), _metrics(runs, name)
        if kind in ("grpo", "dpo"):
            about = metrics if kind == "grpo" else metrics.get("objective") or {}
            made = metrics if kind == "grpo" else _metrics(runs, about.get("preferences", ""))
            starts.setdefault(str(about.get("start")), {})[name] = made.get("generated_tokens")
    with_online = {start: own for start, own in starts.items() if any(found[name] == "grpo" for name in own)}
    return {start: own for start, own in with_online.items() if start in players}


def _players(runs: Sequence[Path], name: str) -> list[str]:
    """Players as the stage lists them, which a failed game can not change."""
    metrics = _metrics(runs, name)
    return list(metrics.get("judge_accuracy", {})) or [row["player"] for row in metrics.get("rows", ())]


def effects_json(seeds: Sequence[int], rows: Sequence[EffectRow]) -> dict[str, Any]:
    """Plain form of the table."""
    return {"seeds": list(seeds), "rows": [row.model_dump(mode="json") for row in rows]}


def write_effects(path: str | Path, seeds: Sequence[int], rows: Sequence[EffectRow]) -> None:
    """Write the table as one JSON document: {"seeds": [0, 1], "rows": [{"group": ..., "name": ..., ...}]}."""
    write_json(path, effects_json(seeds, rows))


def read_effects(path: str | Path) -> list[EffectRow]:
    """Read what `write_effects` wrote.

    Raises:
        UserError: the file is missing or malformed.
    """
    try:
        return [EffectRow.model_validate(row) for row in read_json(path)["rows"]]
    except (ValidationError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a table of effects; write it again with `debate-rl report`") from error
