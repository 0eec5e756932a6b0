"""Judge accuracy under every protocol, on the same questions and with the same debaters; a second judge beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.analysis.oversight import oversight
from debate_rl.analysis.played import read_played
from debate_rl.analysis.second import SecondJudge, beside, judge_again
from debate_rl.analysis.slopes import Rated
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.rollout import play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.config_stages import OversightStage, TournamentStage
from debate_rl.errors import UserError
from debate_rl.experiment import Metrics, Run, judge_of_kind
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Leg
from debate_rl.judges.check import check_games, check_one_judge
from debate_rl.judges.judge import AnyJudge, Panel
from debate_rl.records import read_json, write
from debate_rl.stages.kept import judge_of

Key = tuple[str, str]
"""Protocol and player."""


def _keyed(stage: OversightStage, run: Run) -> list[tuple[Key, Transcript]]:
    """Every game with its (protocol, player); a protocol without speeches is asked once, for no player."""
    questions = run.questions("test", stage.questions)
    found = []
    for name in stage.protocols:
        protocol = run.protocol(name)
        for player in stage.players if protocol.turns else ("-",):
            games = self_play([player], questions, protocol, run.config.seed)
            found += [((name, player), game) for game in games]
    return found


def games(stage: OversightStage, run: Run) -> list[Transcript]:
    """Self-play of each player under each protocol."""
    return [game for _, game in _keyed(stage, run)]


def run(stage: OversightStage, run: Run, out: Path) -> Metrics:
    """Play, judge, judge again, compare."""
    keyed = _keyed(stage, run)
    keys = [key for key, _ in keyed]
    check_games([game for _, game in keyed])
    judge, second = run.judge(), second_judge(stage, run)
    if second is not None:
        _check_weights(second, run)
    players = {name: run.debater(name, stage.opponents) for name in stage.players}
    legs = play_to_file(
        [game for _, game in keyed], players, run.engine, judge, out / "legs.jsonl", progress=run.progress(out)
    )
    write(out / "legs.jsonl", legs)
    by_key = _by_key(keys, legs)
    rated_by, rated = _rated(stage, run)
    found = oversight(
        by_key,
        judge.name,
        stage.compared_with,
        rated,
        rated_by,
        unsure=stage.unsure,
        second=None if second is None else _beside(by_key, legs, keys, (judge.name, second), run, out),
    )
    check_one_judge(legs)
    for name, count in found.left_out.items():
        run.say(f"  {name}: no verdict on any of {count} games")
    for row in found.rows:
        run.say(f"  {row.protocol:<12} {row.player:<10} accuracy {row.scores.accuracy}")
    run.log_debates(out.name.lstrip("."), legs)
    return found.model_dump(mode="json")


def second_judge(stage: OversightStage, run: Run) -> AnyJudge | None:
    """The judge beside the run's own.

    Raises:
        UserError: it is the run's judge once more, or a judge stage that is not finished.
    """
    wanted = stage.second
    if wanted is None:
        return None
    found = judge_of(run, wanted) if isinstance(wanted, str) else judge_of_kind(wanted, run.model_judge())
    first = run.judge()
    if found.model_copy(update={"name": first.name}) == first:
        raise UserError(f"second: {found.name!r} is the run's own judge; name another model or judge stage, or `base`")
    return found if found.name != first.name else found.model_copy(update={"name": f"second {found.name}"})


def _check_weights(judge: AnyJudge, run: Run) -> None:
    """Find a judge's weights, so that a wrong name is said before anything is played.

    Raises:
        UserError: there is no such model or adapter.
    """
    if isinstance(judge, Panel):
        for member in judge.members:
            _check_weights(member, run)
    else:
        run.engine.revision(judge.model, judge.adapter)


def _beside(
    by_key: dict[Key, list[Leg]], legs: Sequence[Leg], keys: Sequence[Key], judges: tuple[str, AnyJudge], run: Run,
    out: Path,
) -> SecondJudge:  # fmt: skip
    """The same games before the second judge, whose verdicts go to `second.jsonl`."""
    first, second = judges
    again = judge_again(legs, second, run.engine)
    write(out / "second.jsonl", again)
    found = beside(by_key, _by_key(keys, again), (first, second.name))
    run.say(f"  {second.name}: the same answer {found.same}")
    return found


def _by_key(keys: Sequence[Key], legs: Sequence[Leg]) -> dict[Key, list[Leg]]:
    found: dict[Key, list[Leg]] = {}
    for key, leg in zip(keys, legs, strict=True):
        found.setdefault(key, []).append(leg)
    return found


def _rated(stage: OversightStage, run: Run) -> tuple[str | None, Rated | None]:
    """The last tournament before this stage that rates two of its players, and its games; none where none does."""
    names = list(run.config.stages)
    for name in reversed(names if run.at is None else names[: names.index(run.at)]):
        earlier, path = run.config.stages[name], run.folder / name / "metrics.json"
        rates = isinstance(earlier, TournamentStage) and len(set(earlier.players) & set(stage.players)) > 1
        if rates and path.is_file():
            ridge = Ratings.model_validate(read_json(path)["ratings"]).ridge
            return name, Rated([game.leg for game in read_played(path.with_name("legs.jsonl"))], ridge)
    return None, None
