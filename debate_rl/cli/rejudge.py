"""`debate-rl rejudge`: show what a run kept to another judge; no text is generated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from debate_rl.cli.execute import Json, at_work

rejudge_app = typer.Typer(
    no_args_is_help=True,
    help="Show kept debates (games), or the kept candidates of Best-of-N (candidates), to another judge; nothing is "
    "generated. games: would it have decided the debates otherwise? candidates: would it have chosen other speeches?",
)


@rejudge_app.command("games")
@at_work("rejudge games")
def rejudge_games(
    stages: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finished stages, for example runs/quickstart/oversight, or files of judged debates."
        ),
    ],
    judge: Annotated[str, typer.Option(help="A judge stage of the run, `base` for its judge model, or another model.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter, where --judge names a model.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Only the games of this protocol.")] = None,
    protocol_view: Annotated[
        str | None,
        typer.Option(
            help="Show consultancies as `double` or `ensembled` ones; two single ones, one for each side of "
            "a question, are joined. Where a stage has other protocols too, choose the consultancies with --protocol."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the debates with the new verdicts to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Have the games of saved stages judged by another judge, beside the first one; no text is generated."""
    from debate_rl.analysis.judging.rejudge import rejudge, saved_legs
    from debate_rl.records import write
    from debate_rl.runs.reopen import judge_by_name

    legs = saved_legs(stages)
    compared, judged_again = rejudge(legs, *judge_by_name(stages[0], judge, adapter), protocol_view, protocol)
    typer.echo(compared.model_dump_json(indent=2) if as_json else str(compared))
    if out is not None:
        write(out, judged_again, inline=True)


@rejudge_app.command("candidates")
@at_work("rejudge candidates")
def rejudge_candidates(
    folder: Annotated[
        Path, typer.Argument(help="A finished stage, for example runs/quickstart/preferences.", show_default=False)
    ],
    judge: Annotated[
        str,
        typer.Option(help="A judge stage of the run, `base` for its judge model, or another model."),
    ],
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter, where --judge names a model.")] = None,
    best_of: Annotated[
        int | None, typer.Option(help="Choose among this many of the first candidates. Default: all.", min=2)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the candidates with their new scores to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Have a stage's kept candidates judged by another judge and choose again; no text is generated."""
    from debate_rl.analysis.judging.rescore import rescore
    from debate_rl.records import write
    from debate_rl.runs.reopen import judge_by_name

    compared, pools = rescore(folder, *judge_by_name(folder, judge, adapter), best_of)
    typer.echo(compared.model_dump_json(indent=2) if as_json else str(compared))
    if out is not None:
        write(out, pools, inline=True)
