"""The table of effects of a study: one row for each claim or comparison, over all seeds.

Every interval is a bootstrap over stories of the games of all seeds together; in weak-to-strong, over training seeds
as well. So the intervals hold for the trainings that were done; the value of each seed, beside the estimate, shows how
much trainings differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from debate_rl.analysis.behaviour.game_features import Played, read_played
from debate_rl.analysis.effects.debate import oversight_rows, quote_rows, skill_rows
from debate_rl.analysis.effects.judge import Seeds, judge_rows, protocol_rows, reading_rows
from debate_rl.analysis.effects.learning import (
    Turns,
    arm_rows,
    attack_rows,
    compared_rows,
    hacking_rows,
    turn_rows,
)
from debate_rl.analysis.effects.online import judged_rows, online_rows
from debate_rl.analysis.effects.row import EffectRow
from debate_rl.analysis.effects.training import iteration_rows, target_rows
from debate_rl.analysis.effects.transfer import transfer_rows
from debate_rl.arena.bradley_terry import RIDGE
from debate_rl.arena.ratings import RESAMPLES
from debate_rl.errors import UserError, existing
from debate_rl.game import run_files
from debate_rl.judges.attacks.robustness import Trial
from debate_rl.records import read_json, read_log, write_json
from debate_rl.trainers.common.settings import DpoComparison
from debate_rl.trainers.grpo.eval_metrics import Measured, Point
from debate_rl.trainers.grpo.parting import parting
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
    "judge online",
    "judges",
    "attacks",
    "cotraining",
    "protocols",
    "oversight",
    "weak-to-strong",
)
"""Groups in the order of the table."""
PLAYED = ("reading", "tournament", "oversight", "iterations")
"""Kinds of stages whose legs are read."""


class _Study(NamedTuple):
    """Runs of one config, with what their stages hold."""

    runs: Sequence[Path]
    kinds: Mapping[str, str]
    """Kind of every stage that some run has finished, by name."""
    games: Mapping[str, Seeds]
    """Judged games by stage, for the kinds in PLAYED."""
    resamples: int

    def of(self, *kinds: str) -> list[str]:
        """Names of the stages of some kinds."""
        return [name for name, kind in self.kinds.items() if kind in kinds]

    def metrics(self, name: str) -> dict[str, Any]:
        """Metrics of a stage in the first run that has finished it; empty if none has."""
        for run in self.runs:
            path = run / name / run_files.METRICS
            if path.is_file():
                return dict(read_json(path))
        return {}

    def dpo(self, name: str) -> DpoComparison | None:
        """What a dpo stage trained on; None if no run has finished it."""
        objective = self.metrics(name).get("objective")
        return None if objective is None else DpoComparison.model_validate(objective)

    def ridge(self, name: str) -> float:
        """The ridge with which the stage's own ratings were fitted."""
        return float((self.metrics(name).get("ratings") or {}).get("ridge", RIDGE))

    def players(self, name: str) -> list[str]:
        """Players as the stage lists them, also those whose games all failed."""
        metrics = self.metrics(name)
        return list(metrics.get("judge_accuracy", {})) or [row["player"] for row in metrics.get("rows", ())]


def effects(folders: Sequence[str | Path], resamples: int = RESAMPLES) -> list[EffectRow]:
    """Measure the effects of one run, or of runs of one config that differ in their seed.

    Args:
        folders: runs/NAME, or runs/NAME/seed0 and the folders of the other seeds. A stage that no run has finished
            makes no rows.
        resamples: Bradley-Terry refits.

    Returns:
        Rows by group, in the order of `GROUPS`.

    Raises:
        UserError: a folder is missing, a file in it is malformed, or the runs' questions can not be joined.
    """
    runs = [existing(folder, "run") for folder in folders]
    kinds = _stage_kinds(runs)
    games = {}
    for name, kind in kinds.items():
        if kind in PLAYED:
            games[name] = [read_played(run / name / run_files.DEBATES) for run in runs]
    study = _Study(runs, kinds, games, resamples)
    rows: list[EffectRow] = []
    for kind, make_rows in _ROWS.items():
        names = study.of(kind)
        for name in names:
            for row in make_rows(study, name):
                # Several stages of a kind make rows of the same names: the stage tells them apart.
                rows.append(row if len(names) == 1 else row.model_copy(update={"name": f"{row.name} ({name})"}))
    if not study.of("tournament"):
        # Without a tournament the debaters' quotes are taken from the oversight stage.
        for name in study.of("oversight"):
            rows += quote_rows(games[name], study.players(name))
    # A stable sort: within a group, rows stay in the order in which they were made.
    return sorted(rows, key=lambda row: GROUPS.index(row.group))


def _stage_kinds(runs: Sequence[Path]) -> dict[str, str]:
    paths: list[Path] = []
    for run in runs:
        paths += [path for path in run.glob(f"*/{run_files.STAGE}") if not path.parent.name.startswith(".")]
    return {path.parent.name: str(read_json(path).get("kind", "")) for path in sorted(paths)}


def _tournament_rows(study: _Study, name: str) -> list[EffectRow]:
    games, players, ridge = study.games[name], study.players(name), study.ridge(name)
    # Debaters trained on the same preferences with different targets are siblings: compared with each other as
    # targets, and not as steps of one training.
    rows: list[EffectRow] = []
    siblings: set[str] = set()
    for dpo_targets in _target_families(study):
        targets = {player: target for player, target in dpo_targets.items() if player in players}
        rows += target_rows(games, targets, ridge, study.resamples)
        if len(targets) > 1:
            siblings.update(targets)
    rows += quote_rows(games, players, siblings)
    for start, trained in _trained_online(study, players).items():
        rows += online_rows(games, start, trained, ridge, study.resamples)
    return rows + skill_rows(games, ridge, study.resamples, players, siblings)


def _iteration_rows(study: _Study, name: str) -> list[EffectRow]:
    players = [point["player"] for point in study.metrics(name).get("points", ())]
    return iteration_rows(study.games[name], players, study.ridge(name), study.resamples)


def _judge_rows(study: _Study, name: str) -> list[EffectRow]:
    before = [read_played(run / name / run_files.BASE_DEBATES) for run in study.runs]
    after = [read_played(run / name / run_files.TEST_DEBATES) for run in study.runs]
    return judge_rows(before, after)


def _judge_online_rows(study: _Study, name: str) -> list[EffectRow]:
    before = [read_played(run / name / run_files.BASE_DEBATES) for run in study.runs]
    after = [read_played(run / name / run_files.TEST_DEBATES) for run in study.runs]
    return judge_rows(before, after, "judge online", "online training")


def _hacking_rows(study: _Study, name: str) -> list[EffectRow]:
    first: list[list[Measured]] = []
    last: list[list[Measured]] = []
    partings = []
    for run in study.runs:
        curve = read_log(run / name / run_files.CURVE, Point)
        for games, place in ((first, 0), (last, -1)):
            path = run / name / run_files.watched(curve[place].step) if curve else None
            games.append([] if path is None else read_log(path, Measured))
        if curve:
            partings.append(str(parting(curve)) or "they do not part")
    return hacking_rows(first, last, " | ".join(partings))


def _compared_rows(study: _Study, name: str) -> list[EffectRow]:
    judges = [str(row["judge"]) for row in study.metrics(name).get("rows", ())]
    games = {}
    for judge in judges:
        games[judge] = [read_played(run / name / run_files.verdicts_of(judge)) for run in study.runs]
    trials = [read_log(run / name / run_files.ATTACKS, Trial) for run in study.runs]
    return compared_rows(games) + attack_rows(trials, judges)


def _turns(study: _Study, name: str) -> Turns | None:
    """The first and the last measurement of a cotraining stage; None where no run has finished it."""
    points = study.metrics(name).get("turns", ())
    if len(points) < 2:
        return None
    seen: dict[str, list[list[Played]]] = {}
    for kind in ("judged", "paying", "held_out"):
        seen[kind] = []
        for run in study.runs:
            files = [run / name / f"{kind}{points[place]['turn']}.jsonl" for place in (0, -1)]
            seen[kind].append(read_played(files[0]) + read_played(files[1]))
    return Turns(points[0]["debater"], points[-1]["debater"], seen["judged"], seen["paying"], seen["held_out"])


def _turn_rows(study: _Study, name: str) -> list[EffectRow]:
    turns = _turns(study, name)
    if turns is None:
        return []
    rows = turn_rows(turns)
    if study.metrics(name).get("learns") == "debater":
        return rows
    for other in study.of("cotraining"):
        frozen = _turns(study, other)
        if study.metrics(other).get("learns") == "debater" and frozen is not None and frozen.start == turns.start:
            rows += arm_rows(turns, frozen)
    return rows


def _oversight_rows(study: _Study, name: str) -> list[EffectRow]:
    games, players = study.games[name], study.players(name)
    rows = protocol_rows(games, players)
    second_paths = [run / name / "second.jsonl" for run in study.runs]
    for start, trained in _trained_online(study, players).items():
        rows += judged_rows(games, start, list(trained), "training")
        if all(path.is_file() for path in second_paths):
            second_games = [read_played(path) for path in second_paths]
            rows += judged_rows(second_games, start, list(trained), "held-out")
    # The tournament from which the stage took its ratings: the page and this table then show the same slope.
    tournaments = study.of("tournament")
    rated_by = str(study.metrics(name).get("rated_by") or (tournaments[0] if tournaments else ""))
    if rated_by in study.games:
        rows += oversight_rows(study.games[rated_by], games, study.ridge(rated_by), study.resamples)
    return rows


def _transfer_rows(study: _Study, name: str) -> list[EffectRow]:
    """Rows of a weak-to-strong stage; none if it is a column of a table, which the report shows whole."""
    if _stage_settings(study).get(name, {}).get("table"):
        return []
    return transfer_rows([read_hits(run / name) for run in study.runs])


def _stage_settings(study: _Study) -> dict[str, dict[str, Any]]:
    """The stages of the first config that there is, as they are written."""
    for run in study.runs:
        path = run / run_files.CONFIG
        if path.is_file():
            tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            stages = tree.get("stages") or {}
            # A stage without settings is written as `dpo:`, which YAML reads as None.
            return {name: settings or {} for name, settings in stages.items()}
    return {}


_ROWS: dict[str, Callable[[_Study, str], list[EffectRow]]] = {
    "reading": lambda study, name: reading_rows(study.games[name]),
    "tournament": _tournament_rows,
    "iterations": _iteration_rows,
    "judge": _judge_rows,
    "grpo": _hacking_rows,
    "judge_grpo": _judge_online_rows,
    "judges": _compared_rows,
    "cotraining": _turn_rows,
    "oversight": _oversight_rows,
    "weak_to_strong": _transfer_rows,
}
"""By kind of stage, the rows of one stage."""


def _target_families(study: _Study) -> list[dict[str, str]]:
    """Target of each dpo stage, grouped by start, preferences and loss: within a group only the target differs."""
    families: dict[tuple[str, ...], dict[str, str]] = {}
    for name in study.of("dpo"):
        training = study.dpo(name)
        if training is not None:
            family = families.setdefault((training.start, training.preferences, training.loss), {})
            family[name] = training.target
    return list(families.values())


def _trained_online(study: _Study, players: Sequence[str]) -> dict[str, dict[str, int | None]]:
    """Players trained from each start from which some player was trained online, with the tokens generated for each.

    DPO players of such a start are in the group too: they are what online training is compared with.
    """
    by_start: dict[str, dict[str, int | None]] = {}
    for name in players:
        kind = study.kinds.get(name)
        if kind == "grpo":
            metrics = study.metrics(name)
            by_start.setdefault(str(metrics.get("start")), {})[name] = metrics.get("generated_tokens")
        elif kind == "dpo":
            training = study.dpo(name)
            if training is not None:
                preferences = study.metrics(training.preferences)
                by_start.setdefault(training.start, {})[name] = preferences.get("generated_tokens")
    online = {}
    for start, trained in by_start.items():
        if start in players and any(study.kinds[name] == "grpo" for name in trained):
            online[start] = trained
    return online


def effects_json(seeds: Sequence[int], rows: Sequence[EffectRow]) -> dict[str, Any]:
    """The table as plain JSON values."""
    return {"seeds": list(seeds), "rows": [row.model_dump(mode="json") for row in rows]}


def write_effects(path: str | Path, seeds: Sequence[int], rows: Sequence[EffectRow]) -> None:
    """Write the table as one JSON document: {"seeds": [0, 1], "rows": [{"group": ..., "name": ..., ...}]}."""
    write_json(path, effects_json(seeds, rows))


def read_effects(path: str | Path) -> list[EffectRow]:
    """Read a table that `write_effects` wrote.

    Raises:
        UserError: the file is missing or malformed.
    """
    try:
        return [EffectRow.model_validate(row) for row in read_json(path)["rows"]]
    except (ValidationError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a table of effects; write it again with `debate-rl report`") from error
