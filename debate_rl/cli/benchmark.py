"""`debate-rl judge benchmark`: any judge on pairs of replies, by JudgeBench's rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from debate_rl.cli.execute import Json, at_work
from debate_rl.errors import UserError

if TYPE_CHECKING:
    from debate_rl.analysis.judging.decisions import BenchmarkRow, Decision
    from debate_rl.judges.settings import JudgeSettings


def judge_benchmark(
    judge: Annotated[
        str | None,
        typer.Option(
            help="Run folder, judge stage in it, YAML config (with its engine, such as a server), or a model: "
            "lab-base, smollm2-135m, a folder, a hub name."
        ),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Pairs of replies in the format of JudgeBench or RewardBench 2, JSON lines.")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="Score these recorded decisions (or JudgeBench's outputs); no judge is asked.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Ask about at most this many pairs, drawn by their names.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep decisions in this file as they are made; the same command goes on there.")
    ] = None,
    kind: Annotated[
        Literal["model", "reasoning", "stated"], typer.Option(help="How a model decides (see `judge.kind`).")
    ] = "model",
    readout: Annotated[
        Literal["letters", "answers", "answers_pmi"], typer.Option(help="Kind model: what its verdict is read from.")
    ] = "letters",
    as_json: Json = False,
) -> None:
    """Score a judge on pairs of replies, both orders: accuracy by JudgeBench's rule, consistency, kappa."""
    from debate_rl.analysis.judging.decisions import formatted, score_decisions

    if (pairs is None) == (decisions is None):
        raise UserError("give either --pairs FILE, with the --judge that is asked, or --decisions FILE")
    if decisions is not None:
        rows = _recorded(decisions, judge, limit, out)
    elif judge is None or pairs is None:
        raise UserError("--pairs needs the judge that is asked: --judge NAME, such as --judge lab-base")
    else:
        from pydantic import ValidationError

        from debate_rl.judges.settings import JudgeSettings
        from debate_rl.records import explain

        try:
            settings = JudgeSettings(kind=kind, model=judge, readout=readout)
        except ValidationError as error:
            raise UserError(f"--judge {judge}: {explain(error)}") from error
        is_plain = settings == JudgeSettings(model=judge)
        with at_work("judge benchmark"):
            rows = score_decisions(_asked(judge, None if is_plain else settings, pairs, limit, out))
    typer.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=2) if as_json else formatted(rows))


def _recorded(path: Path, judge: str | None, limit: int | None, out: Path | None) -> list[BenchmarkRow]:
    """Score a file of decisions."""
    from debate_rl.analysis.judging.decisions import read_decisions, score_decisions
    from debate_rl.errors import nearest

    if limit is not None or out is not None:
        raise UserError("--limit and --out are about --pairs; recorded decisions are scored as they are")
    recorded = read_decisions(path)
    if judge is not None:
        names = {decision.judge for decision in recorded}
        if judge not in names:
            raise UserError(f"no decision of judge {judge!r} in {path}; {nearest(judge, names)}")
        recorded = [decision for decision in recorded if decision.judge == judge]
    return score_decisions(recorded)


def _asked(
    name: str, settings: JudgeSettings | None, path: Path, limit: int | None, out: Path | None
) -> Sequence[Decision]:
    """Ask a judge about the pairs of a file."""
    from debate_rl.analysis.judging.benchmark import decide, pair_protocol
    from debate_rl.analysis.judging.reply_pairs import read_pairs
    from debate_rl.arena.progress import ProgressLine
    from debate_rl.data.splits import sample
    from debate_rl.runs.any_judge import any_judge

    pairs = read_pairs(path)
    chosen = any_judge(name, settings)
    line = ProgressLine("judge benchmark", lambda text: typer.echo(text, err=True), unit="pairs")
    return decide(sample(pairs, limit, 0), chosen.judge, chosen.engine, pair_protocol(chosen.prompts), out, line)
