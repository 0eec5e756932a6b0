"""Commands that show finished runs: their page, their comparison, and single figures."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from debate_rl.cli.execute import at_work


class FigureName(str, Enum):
    """Figures that `plot` writes; the names of `debate_rl.report.plot.FIGURES`, which loads the plotting library."""

    accuracy_over_skill = "accuracy_over_skill"
    accuracy_by_protocol = "accuracy_by_protocol"
    ratings = "ratings"
    win_matrix = "win_matrix"
    calibration = "calibration"
    training_curves = "training_curves"
    online_curves = "online_curves"
    judge_hacking = "judge_hacking"
    judges = "judges"
    attacks = "attacks"
    cotraining = "cotraining"
    pgr = "pgr"


class FileFormatName(str, Enum):
    """Formats of a figure's file."""

    pdf = "pdf"
    svg = "svg"
    png = "png"


@at_work("report")
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Folder of a run or study, for example runs/quickstart; several are compared side by side.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write index.html; default FOLDER/report, of several runs compare/A-B.")
    ] = None,
    transcripts: Annotated[
        int, typer.Option(help="Debates in share.html, the one file for sending; index.html shows all.", min=0)
    ] = 12,
) -> None:
    """Write the results of a run or study as an HTML page, or compare several."""
    from debate_rl.report.compare_page import write_comparison
    from debate_rl.report.page import write_report
    from debate_rl.report.study_page import study_seeds
    from debate_rl.runs.study import write_study

    if len(folders) > 1:
        typer.echo(write_comparison(folders, out))
        return
    folder = folders[0]
    if study_seeds(folder):
        typer.echo(write_study(folder, out or folder / "report")[1])
        return
    typer.echo(write_report(folder, out or folder / "report", transcripts))


@at_work("plot")
def plot(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, for example runs/quickstart.", show_default=False)],
    figure: Annotated[
        FigureName,
        typer.Option(
            metavar="NAME",
            help="One of: accuracy_over_skill (judge accuracy over the debaters' rating, a line for each protocol), "
            "accuracy_by_protocol, ratings, win_matrix, calibration, training_curves, "
            "online_curves, judge_hacking, judges, attacks, cotraining, pgr.",
        ),
    ] = FigureName.accuracy_over_skill,
    file_format: Annotated[FileFormatName, typer.Option("--format", help="Format of the file.")] = FileFormatName.pdf,
    out: Annotated[Path | None, typer.Option(help="Folder for the file; default FOLDER/figures.")] = None,
) -> None:
    """Write one figure of a run as a file for a paper; one file for each stage that has it."""
    from debate_rl.report.plot import plot as write_plot

    for path in write_plot(folder, figure.value, file_format.value, out):
        typer.echo(path)
