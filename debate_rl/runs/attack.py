"""Attacks on any judge over the debates that a run kept (`debate-rl judge attack`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.analysis.judging.rejudge import stages_with
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.transcript import Transcript
from debate_rl.judges.attacks.robustness import Attacked, attack_judge
from debate_rl.judges.attacks.suffix_search import Search
from debate_rl.judges.human import saved_games
from debate_rl.runs.reopen import kept_run
from debate_rl.runs.run import Run
from debate_rl.stages.attacks import draw


def attack_run(
    folder: str | Path,
    judge: str,
    names: bool | tuple[str, ...] = True,
    stage: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Attacked:
    """Attack a judge on the debates that a run kept; nothing is generated, and nothing is written into the run.

    Args:
        folder: runs/NAME, of a study runs/NAME/seed0.
        judge: a judge stage of the run, `base` for its judge model, or another model.
        names: attacks, or True for all.
        stage: whose debates; None takes the test debates of the run's judge stage, else those of the first tournament
            or oversight stage. Of a stage with several protocols, those of the run's own.
        limit: at most so many debates, drawn by name.
        seed: of the search for a suffix.

    Raises:
        UserError: the folder is no run, has no such stage, or kept no debates.
    """
    run = kept_run(folder)
    source, games = _kept(run, stage)
    attacked = attack_judge(draw(games, limit), run.judge_named(judge), run.open_engine(), names, Search(seed=seed))
    table = attacked.table.model_copy(update={"source": source})
    return attacked.model_copy(update={"table": table})


def _kept(run: Run, stage: str | None) -> tuple[str, list[Transcript]]:
    """Debates of one stage under one protocol, each once, and which they are, in words.

    Raises:
        UserError: no stage is named and none has test debates of the run's protocol; or the named one has no debates,
            or several protocols without the run's own.
    """
    own = run.protocol().name
    if stage is not None:
        return _of_protocol(stage, saved_games(run.folder, stage), own)
    for name, made in run.config.stages.items():
        path = run.folder / name / run_files.TEST_DEBATES
        if made.trains_judge and path.is_file():
            return _of_protocol(f"test debates of {name}", saved_games(path), own)
    for name, made in run.config.stages.items():
        path = run.folder / name / run_files.DEBATES
        if made.kind in ("tournament", "oversight") and path.is_file():
            games = saved_games(path)
            if any(game.protocol.name == own for game in games):
                return _of_protocol(f"test debates of {name}", games, own)
    raise UserError(
        f"{run.folder} kept no test debates of protocol {own!r}; name a stage with --stage{stages_with(run.folder)}"
    )


def _of_protocol(source: str, games: Sequence[Transcript], own: str) -> tuple[str, list[Transcript]]:
    """The games of the run's own protocol; of another one where all are of that."""
    by_protocol: dict[str, list[Transcript]] = {}
    for game in games:
        by_protocol.setdefault(game.protocol.name, []).append(game)
    protocol = own
    if own not in by_protocol:
        protocol, *others = sorted(by_protocol)
        if others:
            names = ", ".join([protocol, *others])
            raise UserError(f"{source}: no debate of protocol {own!r}, but of {names}; name another stage")
    chosen = by_protocol[protocol]
    words = f"{source}, protocol {protocol}"
    if len(chosen) < len(games):
        words += f"; {len(games) - len(chosen)} of other protocols left out"
    return words, chosen
