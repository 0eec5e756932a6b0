"""`debate-rl judge serve`: people judge debates in a browser on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from debate_rl.cli.execute import Overrides, at_work
from debate_rl.cli.judge import live_rounds, opened_games, played_games
from debate_rl.errors import UserError

if TYPE_CHECKING:
    from debate_rl.game.transcript import Transcript
    from debate_rl.judges.human import PlayRound
    from debate_rl.runs.run import Run


def judge_serve(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a run, a file of judged debates, or a YAML config whose models debate first; default the "
            "lab.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a person who judges, in the records human/NAME; repeat it for each person. Default: me."
        ),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Judge only the debates of this stage of the run.")] = None,
    count: Annotated[int, typer.Option(help="Debates for each person.", min=1)] = 12,
    log: Annotated[Path, typer.Option(help="Verdicts are added to this file of judged debates.")] = Path(
        "judgements.jsonl"
    ),
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes any free one.", min=0, max=65535)] = 8321,
) -> None:
    """Let people judge debates in a browser, without the passage: records and scores are those of judge play."""
    try:
        from debate_rl.judges.browser.app import Pages, listen, serve
    except ImportError as error:
        raise UserError("judge serve needs two packages more: pip install 'debate-rl[serve]'") from error
    from debate_rl.judges.browser.sittings import Bench, judge_tokens
    from debate_rl.judges.human import judgements, recorded_verdicts
    from debate_rl.records import locked

    people = judge or ["me"]
    judgements(log)  # refuse a bad log before any model debates
    busy = f"another server writes to {log}; stop it, or name another file with --log"
    with locked(log.with_name(f".{log.name}.lock"), busy):
        tokens = judge_tokens(log, people)
        with listen(port) as server:
            with at_work("judge serve"):
                games, play_round = _games(source, overrides, stage, count, log)
                others = {} if source is None or _is_config(source) else recorded_verdicts(source, stage)
                live = play_round is not None
                bench = Bench(games, [f"human/{name}" for name in people], log, count, live=live)
            address = f"http://127.0.0.1:{server.getsockname()[1]}"
            for name, token in tokens.items():
                typer.echo(f"{name}: {address}/j/{token}")
            typer.echo(f"verdicts: {log}; stop with Ctrl-C, every answer is kept")
            by_judge = {f"human/{name}": token for name, token in tokens.items()}
            serve(Pages(bench, by_judge, others, play_round).app(), server)


def _games(
    source: Path | None, overrides: list[str] | None, stage: str | None, count: int, log: Path
) -> tuple[list[Transcript], PlayRound | None]:
    """The games to judge, and what plays their rounds where judges may ask between these.

    Raises:
        UserError: there is none.
    """
    from debate_rl.judges.human import saved_games

    if source is not None and not _is_config(source):
        if overrides:
            raise UserError(f"{source} is no config, so {overrides[0]!r} changes nothing; leave it out, or give a YAML")
        return saved_games(source, stage), None
    if stage is not None:
        raise UserError(f"--stage {stage} is of a run; a config's models play new debates")
    one, opened = opened_games(source, overrides)
    if one.protocol().judge_questions:
        return _one_a_story(opened, count), live_rounds(one)
    games = _played_games(one, _one_a_story(opened, count), log)
    if not games:
        raise UserError("no debate was played to its end; see the messages above")
    return games, None


def _played_games(one: Run, wanted: list[Transcript], log: Path) -> list[Transcript]:
    """Debates of a config's models, kept beside the log: a judge who comes back must find the words that it read."""
    from debate_rl.game.verdict import JudgedDebate
    from debate_rl.records import append, digest, read_log

    path = log.with_name(f"{log.stem}.games-{digest(one.config)}.jsonl")
    games = {leg.transcript.id: leg.transcript for leg in read_log(path, JudgedDebate)}
    missing = [game for game in wanted if game.id not in games]
    for game in played_games(one, missing):
        if game.complete:
            append(path, [JudgedDebate(transcript=game)])
            games[game.id] = game
    return [games[game.id] for game in wanted if game.id in games]


def _is_config(source: Path) -> bool:
    """Whether models debate first; else the debates lie in a run or file."""
    return source.suffix in (".yaml", ".yml")


def _one_a_story(opened: list[Transcript], count: int) -> list[Transcript]:
    """The first games on so many stories, the same at every start."""
    by_story: dict[str, Transcript] = {}
    for game in opened:
        by_story.setdefault(game.question.cluster, game)
    return list(by_story.values())[:count]
