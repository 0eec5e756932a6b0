"""Figures as files for papers and slides: those of the page, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from debate_rl.errors import UserError
from debate_rl.report.chart import Figure
from debate_rl.report.debates import read_legs
from debate_rl.report.learning_view import judge_online_view, judges_view, turns_view
from debate_rl.report.render import FileFormat, write_figure
from debate_rl.report.run_folder import RunFolder, load_run
from debate_rl.report.stage_views import grpo_view, judge_view, oversight_view, ratings_view, training_view
from debate_rl.report.study_page import study_seeds
from debate_rl.report.transfer_tables import load_tables
from debate_rl.report.transfer_view import transfer_views
from debate_rl.report.wording import slug
from debate_rl.stages.tournament import TournamentResult

Drawn = dict[str, Figure | None]
"""Figures by stage, or by stage and what else tells them apart; None where a stage lacks what a figure shows."""


def plot(run_folder: str | Path, name: str, file_format: FileFormat, out: Path | None = None) -> list[Path]:
    """Write a figure of a run, one file for each stage that has it.

    Args:
        run_folder: runs/NAME.
        name: one of `FIGURES`.
        file_format: pdf and svg are drawn with lines, png in three times the size of the page's figure.
        out: folder for the files; None takes runs/NAME/figures.

    Raises:
        UserError: the folder is no run or a study, or the run does not have the figure.
    """
    seeds = study_seeds(run_folder)
    if seeds:
        raise UserError(f"{run_folder} is a study; plot a seed of it, such as {Path(run_folder) / f'seed{seeds[0]}'}")
    run = load_run(run_folder)
    drawn = {label: figure for label, figure in FIGURES[name](run).items() if figure is not None}
    if not drawn:
        had = [other for other, draw in FIGURES.items() if any(draw(run).values())]
        listed = f"it has: {', '.join(had)}" if had else "no stage with figures is finished"
        raise UserError(f"{run_folder} has no figure {name!r}; {listed}")
    folder = Path(run_folder) / "figures" if out is None else out
    paths = []
    for label, figure in drawn.items():
        path = folder / f"{name if len(drawn) == 1 else f'{name}-{slug(label)}'}.{file_format}"
        write_figure(figure, path, file_format)
        paths.append(path)
    return paths


def _ratings(run: RunFolder) -> Drawn:
    return {stage.name: ratings_view(stage, None).elo for stage in run.of("tournament")}


def _win_matrix(run: RunFolder) -> Drawn:
    drawn: Drawn = {}
    for stage in run.of("tournament"):
        legs = read_legs(stage.name, stage.legs, 0) if stage.legs else None
        drawn[stage.name] = ratings_view(stage, legs).wins
    return drawn


def _accuracy_over_skill(run: RunFolder) -> Drawn:
    """Under every protocol of an oversight stage; without one, in the self-play of a tournament."""
    ratings = {stage.name: stage.read(TournamentResult).ratings for stage in run.of("tournament")}
    drawn = {stage.name: oversight_view(stage, None, ratings).over_rating for stage in run.of("oversight")}
    if not any(drawn.values()):
        drawn = {stage.name: ratings_view(stage, None).against_rating for stage in run.of("tournament")}
    return drawn


def _accuracy_by_protocol(run: RunFolder) -> Drawn:
    return {stage.name: oversight_view(stage, None, {}).accuracy for stage in run.of("oversight")}


def _calibration(run: RunFolder) -> Drawn:
    drawn: Drawn = {stage.name: judge_view(stage).calibration for stage in run.of("judge")}
    drawn |= {stage.name: judge_online_view(stage).calibration for stage in run.of("judge_grpo")}
    return drawn | {stage.name: judges_view(stage).calibration for stage in run.of("judges")}


def _judges(run: RunFolder) -> Drawn:
    return {stage.name: judges_view(stage).accuracy for stage in run.of("judges")}


def _attacks(run: RunFolder) -> Drawn:
    drawn: Drawn = {}
    for stage in run.of("judge"):
        attacks = judge_view(stage).attacks
        drawn[stage.name] = attacks.figure if attacks else None
    return drawn | {stage.name: judges_view(stage).attacks for stage in run.of("judges")}


def _cotraining(run: RunFolder) -> Drawn:
    return {stage.name: turns_view(stage).curve for stage in run.of("cotraining")}


def _judge_hacking(run: RunFolder) -> Drawn:
    return {stage.name: grpo_view(stage, None).hacking for stage in run.of("grpo")}


def _online_curves(run: RunFolder) -> Drawn:
    """What online trainings measured over their steps, with intervals."""
    drawn: Drawn = {}
    for stage in run.of("grpo"):
        for number, (figure, _) in enumerate(grpo_view(stage, None).figures):
            drawn[f"{stage.name}-{number}"] = figure
    for stage in run.of("judge_grpo"):
        view = judge_online_view(stage)
        drawn |= {f"{stage.name}-0": view.curve, f"{stage.name}-1": view.brier}
    return drawn


def _training_curves(run: RunFolder) -> Drawn:
    drawn: Drawn = {}
    for stage in run.stages:
        for number, curve in enumerate(training_view(stage).curves if stage.history else ()):
            drawn[f"{stage.name}-{number}"] = curve
    return drawn


def _pgr(run: RunFolder) -> Drawn:
    drawn: Drawn = {}
    for view in transfer_views(load_tables([run])):
        for column in view.columns:
            drawn[f"{view.stage}-{column.label}" if column.label else view.stage] = column.pgr
    return drawn


FIGURES: dict[str, Callable[[RunFolder], Drawn]] = {
    "accuracy_over_skill": _accuracy_over_skill,
    "accuracy_by_protocol": _accuracy_by_protocol,
    "ratings": _ratings,
    "win_matrix": _win_matrix,
    "calibration": _calibration,
    "training_curves": _training_curves,
    "online_curves": _online_curves,
    "judge_hacking": _judge_hacking,
    "judges": _judges,
    "attacks": _attacks,
    "cotraining": _cotraining,
    "pgr": _pgr,
}
"""What draws each figure."""
