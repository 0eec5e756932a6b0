"""The figures of one finished stage, each as a page of its own: what the run's page shows, for places such as W&B."""

from __future__ import annotations

from html import escape
from pathlib import Path

from debate_rl.report.chart import Figure
from debate_rl.report.debates import Legs, read_legs
from debate_rl.report.learning_view import judge_online_view, judges_view, turns_view
from debate_rl.report.render import to_svg
from debate_rl.report.run_folder import RunFolder, Stage, load_run
from debate_rl.report.stage_views import grpo_view, iterations_view, judge_view, oversight_view, ratings_view
from debate_rl.report.transfer_tables import KIND as TRANSFER
from debate_rl.report.transfer_tables import load_tables
from debate_rl.report.transfer_view import transfer_views
from debate_rl.report.wording import printable
from debate_rl.stages.tournament import TournamentResult

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>body {{ background: #fff; margin: 8px; }} svg {{ width: 100%; max-width: 720px; height: auto; }}</style>
</head>
<body>
"""


def stage_charts(run_folder: str | Path, name: str) -> dict[str, str]:
    """The figures of a finished stage, by key, as HTML pages without scripts; empty for stages without figures.

    Args:
        run_folder: runs/NAME.
        name: of the stage.

    Raises:
        UserError: the folder is no run, or a file in it is malformed.
    """
    run = load_run(run_folder)
    stage = next((stage for stage in run.stages if stage.name == name), None)
    figures = {} if stage is None else _figures(run, stage)
    return {key: _page(figure) for key, figure in figures.items() if figure is not None}


def _figures(run: RunFolder, stage: Stage) -> dict[str, Figure | None]:
    """Figures of a stage's kind; None where a figure has nothing to show."""
    if stage.kind == "tournament":
        ratings = ratings_view(stage, _legs(stage))
        return {"elo": ratings.elo, "win_matrix": ratings.wins, "accuracy_over_rating": ratings.against_rating}
    if stage.kind == "oversight":
        return _oversight(run, stage)
    if stage.kind == "judge":
        judge = judge_view(stage)
        return {
            "calibration": judge.calibration,
            "calibration_before": judge.before,
            "calibration_after": judge.after,
            "coverage_before": judge.coverage_before,
            "coverage_after": judge.coverage_after,
        }
    if stage.kind == "iterations":
        iterated = iterations_view(stage, None)
        return {"elo": iterated.elo, "persuasion": iterated.persuasion}
    if stage.kind == "grpo":
        online = grpo_view(stage, None)
        return {"judge_hacking": online.hacking, **{caption: figure for figure, caption in online.figures}}
    if stage.kind in ("judge_grpo", "judges", "cotraining"):
        return _learning(stage)
    if stage.kind == TRANSFER:
        return _transfer(run, stage)
    return {}


def _learning(stage: Stage) -> dict[str, Figure | None]:
    """Figures of stages in which judges learn by reinforcement, or are compared."""
    if stage.kind == "judge_grpo":
        online = judge_online_view(stage)
        return {"calibration": online.calibration, "curve": online.curve, "brier": online.brier}
    if stage.kind == "judges":
        judges = judges_view(stage)
        return {"accuracy": judges.accuracy, "calibration": judges.calibration, "attacks": judges.attacks}
    return {"turns": turns_view(stage).curve}


def _oversight(run: RunFolder, stage: Stage) -> dict[str, Figure | None]:
    """Accuracy by protocol, over rating, and calibration of the judge under each protocol with each player."""
    tournaments = {other.name: other.read(TournamentResult).ratings for other in run.of("tournament")}
    view = oversight_view(stage, None, tournaments)
    figures: dict[str, Figure | None] = {"accuracy": view.accuracy, "accuracy_over_skill": view.over_rating}
    for row, figure in zip(view.result.rows, view.calibration, strict=True):
        figures[f"calibration/{row.protocol}/{row.player}"] = figure
    return figures


def _transfer(run: RunFolder, stage: Stage) -> dict[str, Figure | None]:
    """Accuracy and PGR of the students of a stage."""
    figures: dict[str, Figure | None] = {}
    # A table may join several stages; here each stage stands alone, as the others may not be finished.
    for view in transfer_views(load_tables([run._replace(stages=(stage,))])):
        column = view.columns[0]
        figures.update(students=column.accuracy, pgr=column.pgr, students_over=column.lines)
    return figures


def _legs(stage: Stage) -> Legs | None:
    """Who won against whom in a stage; no transcript is kept."""
    return None if stage.legs is None else read_legs(stage.name, stage.legs, keep=0)


def _page(figure: Figure) -> str:
    """A figure as a page; the renderer has escaped the text in it."""
    title = escape(printable(figure.to_dict(validate=False)["title"]["text"]))
    return f"{_HEAD.format(title=title)}{to_svg(figure, page=None)}\n</body>\n</html>\n"
