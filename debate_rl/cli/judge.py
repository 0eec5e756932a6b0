"""`debate-rl judge`: train judges, judge in person, score recorded judges, attack judges, put errors into them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from debate_rl.cli.execute import ConfigFile, DryRun, Json, Overrides, at_work, config_or_lab, execute
from debate_rl.errors import UserError, existing

if TYPE_CHECKING:
    from debate_rl.game.transcript import Transcript
    from debate_rl.judges.human import PlayRound
    from debate_rl.runs.run import Run

judge_app = typer.Typer(no_args_is_help=True, help="Train, attack and score judges; judge in person.")
RunFolder = Annotated[
    Path, typer.Argument(help="Folder of a run; of a study, the folder of one seed.", show_default=False)
]


@judge_app.command("train")
def judge_train(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Finetune and calibrate a judge: the judge stages of a config and what they need."""
    execute(config, overrides, dry_run, "judge")


@judge_app.command("evaluate")
def judge_evaluate(
    recorded: Annotated[
        Path,
        typer.Option(
            help="Recorded judgements: debates.jsonl of Michael et al. 2023, its folder, or a file of judged debates, "
            "such as the log of judge play."
        ),
    ],
    every: Annotated[bool, typer.Option("--all", help="Include debates that the paper left out.")] = False,
    as_json: Json = False,
) -> None:
    """Score recorded judges by condition: n, accuracy, mean reward, Brier, with intervals over stories."""
    from debate_rl.judges.human_records import formatted, table

    existing(recorded, "judged debates", "judge serve and judge play write them with the first decision")
    rows = table(recorded, paper_only=not every)
    typer.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=2) if as_json else formatted(rows))


@judge_app.command("play")
def judge_play(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a run, a file of judged debates, or a YAML config whose models debate; default the lab.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Your name; the records say human/NAME.")] = "me",
    stage: Annotated[str | None, typer.Option(help="Judge only the debates of this stage of the run.")] = None,
    count: Annotated[int, typer.Option(help="Debates to judge.", min=1)] = 1,
    log: Annotated[Path, typer.Option(help="Your verdicts are added to this file of judged debates.")] = Path(
        "judgements.jsonl"
    ),
) -> None:
    """Judge debates yourself, without the passage: a probability after every round, scored by log2 p - .05 a round.

    Under a protocol with judge_questions, models of a config answer what you ask between the rounds.
    """
    from debate_rl.judges.human import judge_in_person, saved_games, unjudged

    judge = f"human/{name}"
    games: Iterable[Transcript]
    play_round: PlayRound | None = None
    if source is None or source.suffix in (".yaml", ".yml"):
        one, opened = opened_games(source, overrides)
        games = unjudged(opened, judge, log)
        if one.protocol().judge_questions:
            play_round = live_rounds(one)
        else:
            games = played_games(one, games)
    else:
        if overrides:
            raise UserError(f"{source} is no config, so {overrides[0]!r} changes nothing; leave it out, or give a YAML")
        games = unjudged(saved_games(source, stage), judge, log)
    judged = judge_in_person(games, judge, log, typer.echo, input, count, play_round)
    typer.echo(f"{judged} judged; verdicts: {log}" if judged else "no debate judged; nothing was written")


def opened_games(config: Path | None, overrides: list[str] | None) -> tuple[Run, list[Transcript]]:
    """A config's run, and the debates of its untrained debater on test questions, which are still to be played.

    Raises:
        UserError: the protocol can not be played without a judge, or has no speeches.
    """
    from debate_rl.game.transcript import open_transcript
    from debate_rl.runs.run import Run

    one = Run(config_or_lab(config, overrides))
    rules = one.protocol()
    if rules.calls == "rejected":
        raise UserError(f"protocol {rules.name!r} needs a judge to call its speakers; judge games of a finished run")
    if rules.turns == 0:
        raise UserError(f"protocol {rules.name!r} has no speeches to judge; set for example protocol.name=debate")
    opened = [open_transcript(q, rules, {"A": "base", "B": "base"}, one.config.seed) for q in one.questions("test")]
    return one, [game for game in opened if game.question.correct is not None]


def played_games(one: Run, games: Iterable[Transcript]) -> Iterator[Transcript]:
    """Play each game when it is wanted."""
    from debate_rl.arena.rollout import play

    players = {"base": one.debater("base")}
    engine = one.open_engine()
    for game in games:
        (leg,) = play([game], players, engine, None)
        if leg.failure is not None:
            typer.echo(f"not played: {leg.failure.message}", err=True)
        yield leg.transcript


def live_rounds(one: Run) -> PlayRound:
    """What plays the next round of a game of the untrained debater."""
    from debate_rl.arena.live import play_round

    players = {"base": one.debater("base")}
    engine = one.open_engine()
    return lambda game: play_round(game, players, engine)


@judge_app.command("probe")
@at_work("judge probe")
def judge_probe(
    source: Annotated[Path, typer.Argument(help="Folder of a run, or a file of judged debates.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Where to write the probe, for `judge: {kind: probe, path: ...}`.")],
    model: Annotated[
        str, typer.Option(help="Model whose hidden states are read: a lab model, a folder or a hub name.")
    ] = "lab-base",
    adapter: Annotated[str | None, typer.Option(help="Folder of that model's adapter.")] = None,
    layer: Annotated[
        int, typer.Option(help="Layer whose states are read: 0 is the embedding, -1 the last layer.")
    ] = -1,
    last: Annotated[
        int, typer.Option(help="Number of tokens at the end of the prompt whose states are averaged.", min=1)
    ] = 1,
    stage: Annotated[str | None, typer.Option(help="Learn only from the debates of this stage of the run.")] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the split of stories into those learnt from and those held out.")
    ] = 0,
) -> None:
    """Fit a linear probe on a model's hidden states over finished debates, and score it on stories held out."""
    from debate_rl.judges.human import saved_games
    from debate_rl.judges.probe import fit_probe, save_probe

    fitted = fit_probe(saved_games(source, stage), model, adapter, layer=layer, last=last, seed=seed)
    save_probe(out, fitted.probe)
    typer.echo(
        f"fitted on {fitted.probe.n} prompts of {fitted.probe.stories} stories; on the others:\n{fitted.held_out}"
    )
    typer.echo(f"probe: {out}")


@judge_app.command("attack")
@at_work("judge attack")
def judge_attack(
    folder: RunFolder,
    judge: Annotated[
        str, typer.Option(help="A judge stage of the run, `base` for its judge model, or another model.")
    ] = "base",
    attacks: Annotated[
        str, typer.Option(help="`all`, or names separated by commas, such as suffix_sure,suffix_search,sycophancy.")
    ] = "all",
    stage: Annotated[
        str | None,
        typer.Option(
            help="Stage whose debates are attacked. Default: the test debates of the judge stage, else those of a "
            "tournament or oversight stage."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Attack at most this many debates, drawn by their names.", min=1)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the search for a suffix; another seed may find another suffix.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Attack a judge on a run's kept debates: suffixes, quotes, forgeries, order, sycophancy; nothing is generated."""
    from debate_rl.judges.attacks.edits import chosen
    from debate_rl.runs.attack import attack_run

    names = chosen(True if attacks == "all" else tuple(name.strip() for name in attacks.split(",")))
    attacked = attack_run(folder, judge, names, stage, limit, seed)
    typer.echo(attacked.model_dump_json(indent=2) if as_json else str(attacked.table))


@judge_app.command("errors")
@at_work("judge errors")
def judge_errors(
    folder: RunFolder,
    rates: Annotated[
        str, typer.Option(help="Shares of verdicts that are made wrong, separated by commas.")
    ] = "0,0.05,0.1,0.2,0.3",
    mix: Annotated[
        bool,
        typer.Option("--mix", help="Mix each verdict with its opposite by the rate, in place of flipping a share."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the errors.")] = 0,
    as_json: Json = False,
) -> None:
    """Put errors into a run's verdicts and score it again: ratings, preference pairs, PGR of the labels."""
    from debate_rl.analysis.judging.judge_errors import judge_errors as score_again

    try:
        wanted = tuple(float(rate) for rate in rates.split(","))
    except ValueError as error:
        raise UserError(f"--rates {rates}: give shares with commas between, such as 0,0.1,0.3") from error
    rescored = score_again(folder, wanted, "mix" if mix else "flip", seed=seed)
    typer.echo(rescored.model_dump_json(indent=2) if as_json else str(rescored))
