"""`debate-rl lab`: make the lab's models, score them, and show what a debate in the lab looks like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from debate_rl.errors import UserError, nearest

if TYPE_CHECKING:
    from debate_rl.game.question import Question
    from debate_rl.game.verdict import JudgedDebate

lab_app = typer.Typer(
    no_args_is_help=True, help="The lab: generated stories and the small models that read them (data/lab/README.md)."
)


@lab_app.command("build")
def lab_build(
    model: Annotated[
        str | None, typer.Option(help="lab-base or lab-small; both without this option.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that will hold a folder for each model.")] = Path("data/models"),
    tokens: Annotated[
        int | None, typer.Option(help="Tokens to train on instead of each model's own budget.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and documents.", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1...")] = "cpu",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile first; needs a C++ compiler.")] = False,
) -> None:
    """Train the lab's models from nothing and write their cards; a build that was stopped goes on where it was."""
    from debate_rl.data.lab import build, score

    names = list(build.SHAPES) if model is None else [model]
    for name in missing(names, out, seed, tokens):
        shape = build.SHAPES[name]
        budget = tokens or shape.tokens
        typer.echo(
            f"{name}: {budget:,} tokens into {out / name}, "
            f"about {budget / shape.speed / 60:.0f} minutes on one CPU thread; then its model card"
        )
        if not (out / name / build.RECORD).exists():
            build.build(name, out / name, tokens, seed, threads, device=device, compiled=compiled)
        scores = score.score(out / name, score.N, score.SEED)
        typer.echo(score.write_card(out / name, scores, score.N, score.SEED))


def missing(names: list[str], out: Path, seed: int, tokens: int | None) -> list[str]:
    """The models among `names` that are not finished with their cards.

    Raises:
        UserError: no such model; a folder holds a finished model of another build; or all are finished.
    """
    from debate_rl.data.lab.build import RECORD, SHAPES
    from debate_rl.records import read_json

    for name in names:
        if name not in SHAPES:
            raise UserError(f"no lab model {name!r}; {nearest(name, SHAPES)}")
        record = out / name / RECORD
        wanted = {"seed": seed, "budget": tokens or SHAPES[name].tokens}
        held = read_json(record) if record.exists() else wanted
        if any(held.get(key) != value for key, value in wanted.items()):
            raise UserError(f"{out / name} holds a finished model of another build; choose another folder with --out")
    left = [name for name in names if not ((out / name / RECORD).exists() and (out / name / "README.md").exists())]
    if not left:
        raise UserError(f"{out} holds finished {' and '.join(names)}; choose another folder with --out")
    return left


@lab_app.command("score")
def lab_score(
    model: Annotated[str, typer.Argument(help="lab-base, lab-small or a folder.", show_default=False)],
    card: Annotated[bool, typer.Option("--card", help="Also write the model card, README.md in its folder.")] = False,
    n: Annotated[int, typer.Option(help="Number of test questions.", min=1)] = 400,
    seed: Annotated[int, typer.Option(help="Seed of stories and speeches.", min=0)] = 1,
) -> None:
    """Score a model on held-out stories: does it read, does it quote, can it answer without reading?"""
    from debate_rl.data.lab import score
    from debate_rl.data.models import model_path

    scores = score.score(model_path(model), n, seed)
    width = max(map(len, scores))
    for name, value in scores.items():
        typer.echo(f"{name:<{width}} {value:.3f}")
    if card:
        typer.echo(score.write_card(model_path(model), scores, n, seed))


@lab_app.command("show")
def lab_show(
    seed: Annotated[int, typer.Option(help="Seed of the story.", min=0)] = 0,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    model: Annotated[
        str, typer.Option(help="Model of debaters and judge: a lab model, a folder or a hub name.")
    ] = "lab-base",
    adapter: Annotated[
        Path | None,
        typer.Option(help="Adapter of both debaters, for example runs/quickstart/sft/adapter.", show_default=False),
    ] = None,
) -> None:
    """Print a story, a question, a debate between two models, the judge's verdict and the right answer."""
    from debate_rl.cli.show import show_leg
    from debate_rl.data.lab.world import questions
    from debate_rl.errors import existing

    (question,) = questions("whereabouts", split, 1, seed, per_story=1)  # type: ignore[arg-type]
    show_leg(_debate(question, seed, model, None if adapter is None else str(existing(adapter, "adapter"))))


def _debate(question: Question, seed: int, model: str, adapter: str | None) -> JudgedDebate:
    """The leg of one simultaneous debate in the lab's words, both sides and the judge by one model."""
    from debate_rl.arena.rollout import play
    from debate_rl.data.models import model_path
    from debate_rl.engines.local.engine import TransformersEngine
    from debate_rl.game.protocol import load_protocol
    from debate_rl.game.transcript import open_transcript
    from debate_rl.judges.judge import Judge
    from debate_rl.players.debater import Debater

    debater = Debater(name=model if adapter is None else f"{model} with {adapter}", model=model, adapter=adapter)
    rules = load_protocol("debate", prompts="lab", max_new_tokens=90)
    game = open_transcript(question, rules, {"A": debater.name, "B": debater.name}, seed)
    judge = Judge(name=f"{model} as judge", model=model)
    return play([game], {debater.name: debater}, TransformersEngine(model_path), judge)[0]
