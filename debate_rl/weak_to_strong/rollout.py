"""Rollouts for supervisors: plays the games of contexts, each once, and gives what is read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from debate_rl.arena.resume_log import Progress
from debate_rl.arena.rollout import play_to_file
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game.protocol import Protocol, Side, drawn_side
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge
from debate_rl.players.debater import Debater, PlayerSettings
from debate_rl.records import digest
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.tasks.items import Item, Sample, sample_of
from debate_rl.weak_to_strong.worsen import worsen


@dataclass(frozen=True)
class SupervisorBelief:
    """What a game depends on beside its context: models trained so far, and what they believe.

    Example:
        SupervisorBelief(student=Weights(model="trainings/5f1d7a84db00d2fc/model"), p={"lab-7-2": 0.81, ...})
    """

    student: Weights | None = None
    """Speaks where a context says `student`."""
    p: Mapping[str, float] | None = None
    """P(answer 0) of the naive weak model by item; market-making argues against its pick."""
    sides: Mapping[str, Side] | None = None
    """Side of the debater by item; None draws it."""


NOTHING = SupervisorBelief()


@dataclass(frozen=True)
class Rollout:
    """Plays the games of contexts; a game that was played once, under any name, is not played again.

    Args:
        engine: answers for all players and the judge, with its store in front.
        player: gives the player of a name.
        rules: gives the protocol of a context.
        judge: calls the sides of market-making after the first, chooses for Best-of-N players, and judges where asked.
        folder: holds the games' logs, shared by all tables of a run.
        seed: seed of the first member's games; each further member has the next.
    """

    engine: Engine
    player: Callable[[str], Debater]
    rules: Callable[[Context], Protocol]
    judge: Callable[[], AnyJudge]
    folder: Path
    seed: int = 0
    debater: str = "base"
    """Speaks where a context names nobody."""
    progress: Progress | None = None
    show: Callable[[Transcript, bool], Sample] = sample_of
    """Gives what is read of a game, with the passage or without."""
    played: dict[str, list[JudgedDebate]] = field(default_factory=dict)
    """Legs by digest of games, players and judge."""
    shown: dict[tuple[str, bool, float], dict[str, Sample]] = field(default_factory=dict)
    """Samples of these legs by the same digest, whether the passage is read, and the share of exchanged speeches."""

    def games(
        self, context: Context, items: Sequence[Item], draw: int, belief: SupervisorBelief = NOTHING
    ) -> list[Transcript]:
        """Open the games of one member by its seed, one an item."""
        return open_games(context, self.rules(context), items, self.seed + draw, self.debater, belief)

    def legs(
        self,
        context: Context,
        items: Sequence[Item],
        draw: int,
        belief: SupervisorBelief = NOTHING,
        judged: bool = False,
    ) -> list[JudgedDebate]:
        """Play one member's games; with `judged` the judge gives its verdict on each.

        Raises:
            UserError: a game failed, so that a supervisor would read an item without help.
        """
        return self.played[self._play(context, items, draw, belief, judged)]

    def _play(
        self, context: Context, items: Sequence[Item], draw: int, belief: SupervisorBelief, judged: bool = False
    ) -> str:
        """Play the games unless they were played before, and return their digest."""
        games = self.games(context, items, draw, belief)
        names = set()
        for game in games:
            names |= set(game.players.values())
        players = {name: self._player(name, belief, context.temperature) for name in names}
        judge = self.judge() if judged or _needs_judge(games, players.values()) else None
        # Weights by content, not by path: a student trained anew under the same path plays new games.
        revisions = []
        for name, player in players.items():
            identity = [name, self.engine.revision(player.model, player.adapter), player.temperature]
            if player.manner != PlayerSettings():
                identity.append(player.manner.model_dump(mode="json"))
            revisions.append(identity)
        key = [
            [[game.id, game.called] for game in games],
            sorted(revisions, key=lambda identity: str(identity[0])),  # the names come from a set
            None if judge is None else judge.model_dump(mode="json"),
        ]
        name = digest(key)
        if name not in self.played:
            path = self.folder / f"{name}.jsonl"
            legs = list(play_to_file(games, players, self.engine, judge, path, progress=self.progress))
            failures = [leg.failure for leg in legs if leg.failure is not None]
            # All or nothing: an item without help among others with it would bias the supervisor.
            if failures:
                path.unlink()  # tried again by the next run; speeches that were made are in the store
                raise UserError(
                    f"weak_to_strong: {len(failures)} of {len(legs)} games failed, the first with: "
                    f"{failures[0].message}; shorten the items or the speeches (protocol.max_new_tokens), or take "
                    "another debater"
                )
            self.played[name] = legs
        return name

    def samples(
        self,
        context: Context,
        items: Sequence[Item],
        draw: int,
        reads_passage: bool,
        belief: SupervisorBelief = NOTHING,
    ) -> dict[str, Sample]:
        """Give what a model reads of each item with a member's games, by item id.

        Raises:
            UserError: see `legs`.
        """
        name = self._play(context, items, draw, belief)
        # The same object each time: `Trainings.check_readable` recognises samples that it has checked by identity.
        key = (name, reads_passage, context.worsened)
        if key not in self.shown:
            games = [leg.transcript for leg in self.played[name]]
            if context.worsened:
                games = worsen(games, context.worsened, self.seed + draw)
            self.shown[key] = {
                game.question.id: self.show(game, reads_passage and bool(game.question.passage)) for game in games
            }
        return self.shown[key]

    def _player(self, name: str, belief: SupervisorBelief, temperature: float | None) -> Debater:
        """The player of a name, or the student, at a context's temperature."""
        changes: dict[str, object] = {} if temperature is None else {"temperature": temperature}
        if name != "student":
            return self.player(name).model_copy(update=changes)
        if belief.student is None:
            raise UserError("context debater 'student' is the student of the round before; set transfer.rounds to 2")
        # The strong model's sampling settings with the student's weights.
        student = {"name": name, "model": belief.student.model, "adapter": belief.student.adapter}
        return self.player("strong").model_copy(update={**student, **changes})


def open_games(
    context: Context,
    rules: Protocol,
    items: Sequence[Item],
    seed: int,
    debater: str,
    belief: SupervisorBelief = NOTHING,
) -> list[Transcript]:
    """Open a context's game on each item.

    Args:
        context: names the speakers.
        rules: the context's protocol.
        items: one game each.
        seed: seed of the draws of sides and of speeches.
        debater: speaks where the context names nobody.
        belief: what is known of the models so far.
    """
    first = context.debater or debater
    second = context.opponent or first
    sides = belief.sides or {}
    games = []
    for item in items:
        side = sides.get(item.id) or drawn_side(f"seat {item.id}", seed)
        # In the order of the sides, since the order is part of the game's record.
        players: dict[Side, str] = {"A": first, "B": second}
        if side == "B":
            players = {"A": second, "B": first}
        game = open_transcript(item.question, rules, players, seed)
        if rules.calls == "rejected" and belief.p is not None:
            # The debater is called for the answer that the weak model rejects; a tie calls B.
            called = "B" if belief.p[item.id] >= 0.5 else "A"
            game = game.model_copy(update={"called": (called,)})
        games.append(game)
    return games


def _needs_judge(games: Sequence[Transcript], players: Iterable[Debater]) -> bool:
    """Whether the judge has to call a side or choose a speech."""
    # The weak model's belief gives the first call of market-making; the judge gives those of the turns after it.
    called = any(game.protocol.calls == "rejected" and len(game.called) < game.protocol.turns for game in games)
    return called or any(player.best_of > 1 for player in players)
