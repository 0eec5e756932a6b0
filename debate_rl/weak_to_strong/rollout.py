"""Rollouts for supervisors: the games of contexts, played in the arena once, and what is read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from debate_rl.arena.resume_log import Progress
from debate_rl.arena.rollout import play_to_file
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Protocol, Side, drawn_side, other
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.game.verdict import Leg
from debate_rl.judges.judge import AnyJudge
from debate_rl.players.debater import Debater
from debate_rl.records import digest
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.tasks.items import Item, Sample, sample_of


@dataclass(frozen=True)
class Told:
    """What a game needs of the models trained so far.

    Example:
        Told(student=Weights(model="trainings/5f1d7a84db00d2fc/model"), p={"lab-7-2": 0.81, ...})
    """

    student: Weights | None = None
    """Sits where a context says `student`."""
    p: Mapping[str, float] | None = None
    """P(answer 0) of the naive weak model by item: market-making argues against what it picked."""
    sides: Mapping[str, Side] | None = None
    """Side of the debater by item, where it is not drawn."""


NOTHING = Told()


@dataclass(frozen=True)
class Rollout:
    """Plays the games of contexts; a game that was played once, under any name, is not played again.

    Args:
        engine: answers for all players and the judge, with its store in front.
        player: the player of a name.
        rules: the protocol of a context.
        judge: calls the sides of market-making after the first, chooses for Best-of-N players, and judges where asked.
        folder: of the games' logs, shared by all tables of a run.
        seed: of the first member's games; each member has the next.
    """

    engine: Engine
    player: Callable[[str], Debater]
    rules: Callable[[Context], Protocol]
    judge: Callable[[], AnyJudge]
    folder: Path
    seed: int = 0
    debater: str = "base"
    """Who speaks where a context names nobody."""
    progress: Progress | None = None
    show: Callable[[Transcript, bool], Sample] = sample_of
    """What is read of a game, with the passage or without."""
    played: dict[str, list[Leg]] = field(default_factory=dict)
    """Legs by the digest of what was asked."""
    shown: dict[tuple[str, bool], dict[str, Sample]] = field(default_factory=dict)
    """What is read of them, without the passage and with it."""

    def games(self, context: Context, items: Sequence[Item], draw: int, told: Told = NOTHING) -> list[Transcript]:
        """The games of one member, opened: one an item, by the member's seed."""
        return open_games(context, self.rules(context), items, self.seed + draw, self.debater, told)

    def legs(
        self, context: Context, items: Sequence[Item], draw: int, told: Told = NOTHING, judged: bool = False
    ) -> list[Leg]:
        """Play one member's games; with `judged` the judge gives its verdict on each.

        Raises:
            UserError: a game failed, so that a supervisor would read an item without help.
        """
        return self.played[self._play(context, items, draw, told, judged)]

    def _play(self, context: Context, items: Sequence[Item], draw: int, told: Told, judged: bool = False) -> str:
        """Play what is not played yet, and name it."""
        games = self.games(context, items, draw, told)
        names = {name for game in games for name in game.players.values()}
        players = {name: self._player(name, told, context.temperature) for name in names}
        judge = self.judge() if judged or _needs_judge(games, players.values()) else None
        asked = [
            [[game.id, game.called] for game in games],
            sorted(
                [name, self.engine.revision(one.model, one.adapter), one.temperature] for name, one in players.items()
            ),
            None if judge is None else judge.model_dump(mode="json"),
        ]
        name = digest(asked)
        if name not in self.played:
            path = self.folder / f"{name}.jsonl"
            legs = list(play_to_file(games, players, self.engine, judge, path, progress=self.progress))
            failed = [leg.failure for leg in legs if leg.failure is not None]
            if failed:
                path.unlink()  # tried again by the next run; speeches that were made are in the store
                raise UserError(
                    f"weak_to_strong: {len(failed)} of {len(legs)} games failed, the first with: {failed[0].message}; "
                    "shorten the items or the speeches (protocol.max_new_tokens), or take another debater"
                )
            self.played[name] = legs
        return name

    def samples(
        self, context: Context, items: Sequence[Item], draw: int, reads_passage: bool, told: Told = NOTHING
    ) -> dict[str, Sample]:
        """What a model reads of each item with a member's games, by item.

        Raises:
            UserError: see `legs`.
        """
        key = (self._play(context, items, draw, told), reads_passage)
        if key not in self.shown:
            games = [leg.transcript for leg in self.played[key[0]]]
            self.shown[key] = {
                game.question.id: self.show(game, reads_passage and bool(game.question.passage)) for game in games
            }
        return self.shown[key]

    def _player(self, name: str, told: Told, temperature: float | None) -> Debater:
        """The player of a name, or the student, at a context's temperature."""
        if name == "student" and told.student is None:
            raise UserError("context debater 'student' is the student of the round before; set transfer.rounds to 2")
        changes: dict[str, object] = {} if temperature is None else {"temperature": temperature}
        if name != "student" or told.student is None:
            return self.player(name).model_copy(update=changes)
        student = {"name": name, "model": told.student.model, "adapter": told.student.adapter}
        return self.player("strong").model_copy(update={**student, **changes})


def open_games(
    context: Context, rules: Protocol, items: Sequence[Item], seed: int, debater: str, told: Told = NOTHING
) -> list[Transcript]:
    """Begin a context's game on each item.

    Args:
        context: who speaks.
        rules: its protocol.
        items: a game each.
        seed: of the draws of sides and of what is said.
        debater: who speaks where the context names nobody.
        told: what is known of the models so far.
    """
    first = context.debater or debater
    games = []
    for item in items:
        side = (told.sides or {}).get(item.id) or drawn_side(f"seat {item.id}", seed)
        taken = {side: first, other(side): context.opponent or first}
        seats: dict[Side, str] = {at: taken[at] for at in SIDES}
        game = open_transcript(item.question, rules, seats, seed)
        if rules.calls == "rejected" and told.p is not None:  # a tie calls B
            game = game.model_copy(update={"called": ("B" if told.p[item.id] >= 0.5 else "A",)})
        games.append(game)
    return games


def _needs_judge(games: Sequence[Transcript], players: Iterable[Debater]) -> bool:
    """Whether somebody has to be called by the judge, or chosen for."""
    called = any(game.protocol.calls == "rejected" and len(game.called) < game.protocol.turns for game in games)
    return called or any(player.best_of > 1 for player in players)
