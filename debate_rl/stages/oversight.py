"""Judge accuracy under every protocol, on the same questions and with the same debaters; a second judge beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from debate_rl.analysis.behaviour.game_features import read_played
from debate_rl.analysis.judging.second_judge import beside, judge_again
from debate_rl.analysis.oversight import Oversight, oversight
from debate_rl.analysis.slopes import Rated
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.rollout import play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.game import run_files
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.check import check_games, check_one_judge
from debate_rl.judges.judge import AnyJudge, Panel
from debate_rl.judges.settings import JudgeSettings
from debate_rl.records import read_json, write
from debate_rl.stages.base import Stage
from debate_rl.stages.workload import Rehearsed

if TYPE_CHECKING:
    from debate_rl.config.settings import Models
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

Key = tuple[str, str]
"""Protocol and player."""


class OversightStage(Stage):
    """Judge accuracy under each protocol on the same questions and debaters."""

    kind: Literal["oversight"] = "oversight"
    protocols: tuple[str, ...] = Field(
        default=(
            "debate",
            "sequential",
            "open_debate",
            "double",
            "ensembled",
            "single",
            "open_single",
            "market_making",
            "blind",
            "open_book",
        ),
        min_length=1,
    )
    """Protocols that are compared, on the same questions."""
    reference: str | None = None
    """The protocol that every other one is compared with; empty is debate, else the first."""
    players: tuple[str, ...] = Field(default=("dpo",), min_length=1)
    """Players whose debates and consultancies are judged; each plays both sides."""
    questions: int | None = Field(default=None, ge=1)
    """Test questions; empty takes all."""
    opponents: int = Field(default=2, ge=0)
    """Simulated opponents of Best-of-N players."""
    second: str | JudgeSettings | None = None
    """An independent judge that is shown every finished game as well: a judge stage, `base` for the judge model as it
    is, another model, or settings as of `judge`."""
    unsure_margin: float = Field(default=0.1, ge=0, lt=0.5)
    """Distance from one half below which a blind verdict counts as neither right nor wrong, in the split by what the
    judge knows beforehand."""

    @model_validator(mode="after")
    def _each_once(self) -> OversightStage:
        for key, names in (("protocols", self.protocols), ("players", self.players)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{key} has {twice!r} twice; give each once")
        if self.reference is not None and self.reference not in self.protocols:
            raise ValueError(f"reference {self.reference!r} is not among protocols: {', '.join(self.protocols)}")
        return self

    @property
    def compared_with(self) -> str:
        """The reference."""
        return self.reference or ("debate" if "debate" in self.protocols else self.protocols[0])

    def references(self) -> set[str]:
        """The players."""
        return set(self.players)

    @property
    def asks_judge(self) -> bool:
        """Every game is judged."""
        return True

    def is_rated_by(self, other: Stage) -> bool:
        """Whether a stage rates two of its debaters against one another."""
        return len(set(other.rated_players) & set(self.players)) > 1

    def builds_on(self, name: str, other: Stage) -> bool:
        """It also reads the ratings of its debaters."""
        return super().builds_on(name, other) or self.is_rated_by(other)

    def models_used(self, models: Models) -> Iterator[tuple[str, str]]:
        """The config's, and the second judge's."""
        yield from super().models_used(models)
        if isinstance(self.second, JudgeSettings) and self.second.model:
            yield "second.model", self.second.model

    def check_playable(self, run: Run) -> None:
        """Each game once, of questions whose answers are known and that stand in one story."""
        check_games(self.games(run))

    def games(self, run: Run) -> list[Transcript]:
        """Self-play of each player under each protocol."""
        return [game for _, game in _keyed(self, run)]

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Play and judge some games, once more for the second judge."""
        legs, debates, scale = self.play_some(run, name, engine)
        if self.second is not None:
            judge_again(legs, run.judge_to_be(self.second), engine)
        return Rehearsed(debates, scale, engine.asked)

    def execute(self, run: Run, out: Path) -> Oversight:
        """Play, judge, judge again, compare."""
        return _execute(self, run, out)


def _keyed(stage: OversightStage, run: Run) -> list[tuple[Key, Transcript]]:
    """Every game with its (protocol, player); a protocol without speeches is played once, for no player."""
    questions = run.questions("test", stage.questions)
    keyed: list[tuple[Key, Transcript]] = []
    for name in stage.protocols:
        protocol = run.protocol(name)
        players = stage.players if protocol.turns else ("-",)
        for player in players:
            games = self_play([player], questions, protocol, run.config.seed)
            keyed += [((name, player), game) for game in games]
    return keyed


def _execute(stage: OversightStage, run: Run, out: Path) -> Oversight:
    """Play, judge, judge again, compare."""
    keyed = _keyed(stage, run)
    keys = [key for key, _ in keyed]
    check_games([game for _, game in keyed])
    judge, second = run.judge(), second_judge(stage, run)
    if second is not None:
        _check_weights(second, run)
    players = {name: stage.speaker(run, name) for name in stage.players}
    legs = play_to_file(
        [game for _, game in keyed], players, run.engine, judge, out / run_files.DEBATES, progress=run.progress(out)
    )
    # In the order of the games: the log has them as they were finished, which differs from run to run.
    write(out / run_files.DEBATES, legs)
    by_key = _by_key(keys, legs)
    compared = None
    if second is not None:
        judged_again = judge_again(legs, second, run.engine)
        write(out / "second.jsonl", judged_again)
        compared = beside(by_key, _by_key(keys, judged_again), (judge.name, second.name))
        run.say(f"  {second.name}: the same answer {compared.same}")
    rated_by, rated = _rated(stage, run)
    compared_protocols = oversight(
        by_key,
        judge.name,
        stage.compared_with,
        rated,
        rated_by,
        unsure=stage.unsure_margin,
        second=compared,
    )
    # A stage that was stopped may go on with other weights behind the same name, as of a server.
    check_one_judge(legs)
    for name, count in compared_protocols.left_out.items():
        run.say(f"  {name}: no verdict on any of {count} games")
    for row in compared_protocols.rows:
        run.say(f"  {row.protocol:<12} {row.player:<10} accuracy {row.scores.accuracy}")
    run.log_debates(out.name.lstrip("."), legs)
    return compared_protocols


def second_judge(stage: OversightStage, run: Run) -> AnyJudge | None:
    """The judge beside the run's own.

    Raises:
        UserError: it is the run's judge once more, or a judge stage that is not finished.
    """
    second = stage.second
    if second is None:
        return None
    advice = "the run's own judge; name another model or judge stage, or `base`"
    judge = run.second_judge(second, "second", advice)
    # Tables show both side by side by their names.
    if judge.name == run.judge().name:
        return judge.model_copy(update={"name": f"second {judge.name}"})
    return judge


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


def _by_key(keys: Sequence[Key], legs: Sequence[JudgedDebate]) -> dict[Key, list[JudgedDebate]]:
    """Legs by protocol and player, in the order of the games."""
    by_key: dict[Key, list[JudgedDebate]] = {}
    for key, leg in zip(keys, legs, strict=True):
        by_key.setdefault(key, []).append(leg)
    return by_key


def _rated(stage: OversightStage, run: Run) -> tuple[str | None, Rated | None]:
    """The last tournament before this stage that rates two of its players, and its games; none where none does."""
    names = list(run.config.stages)
    for name in reversed(names if run.at is None else names[: names.index(run.at)]):
        earlier, path = run.config.stages[name], run.folder / name / run_files.METRICS
        if stage.is_rated_by(earlier) and path.is_file():
            ridge = Ratings.model_validate(read_json(path)["ratings"]).ridge
            return name, Rated([game.leg for game in read_played(path.with_name(run_files.DEBATES))], ridge)
    return None, None
