"""Trees of games: the one rollout behind plain debate, Best-of-N and branching.

A game is a tree without branches. In a branching tree one side, the target, draws several speeches wherever it
branches, the other side one, and every path is a game of its own that is played to its end and judged. A node's pool
(`pools_of`) holds the target's speeches there, each scored by the mean verdict of the finished games through it, and
gives one preference pair.

Arnesen et al. 2024: the target draws 2 speeches at each node, the other side 1, a score is the mean verdict of the
finished transcripts, one pair a node. Two simultaneous turns are 9 speeches, 4 verdicts and 3 pairs, and twice that
with a second tree for the other side. That is `full` here. `half` and `single`, more than 2 branches, the worst case
instead of the mean, and the rule for failures are ours, and so are the names: the authors' code calls branching on
both sides full, on one side half, and on one speech drawn at random single.

Best-of-N is a tree of one turn that is scored at once and cut back to its best speech before the game goes on. It has
opponents that never speak in the game and verdicts on unfinished games, so it happens inside a turn (players.speak);
what both have in common, draws, failures and pools, is the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path
from typing import Literal

from debate_rl.arena.resume_log import Log, Progress
from debate_rl.arena.turn_order import call_sides, pick_sides
from debate_rl.engines.request import Engine
from debate_rl.game.protocol import Side, other
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import Failure, Leg, Verdict
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Pool, Scorer, Seat, Spoken, make_pool, speak
from debate_rl.records import Record, digest

Kind = Literal["full", "half", "single"]
"""Where a tree branches: in every turn of the target, in one of them drawn by seed, in the first."""

Opponents = Mapping[str, "Debater | Sequence[Debater]"] | Literal["real"] | None
"""Who is simulated as the other side of a Best-of-N player: by its name one player or a pool; `real`, who sits there;
a player without an entry simulates itself."""


class Leaf(Record):
    """One path from a tree's root to its end, or to where it failed.

    Example:
        Leaf(path=(0, 1), speeches=(Speech(side="A", ...), ...), verdict=Verdict(judge="lab-base", p=(0.72, 0.28)))
    """

    path: tuple[int, ...]
    """Branch taken in each turn; 0 where there is one only."""
    speeches: tuple[Speech, ...]
    verdict: Verdict | None = None
    failure: Failure | None = None


class Tree(Record):
    """A game to be branched, and once grown its leaves.

    Example:
        Tree(game=Transcript(...), target="A", widths=(2, 2), leaves=(Leaf(path=(0, 0), ...), Leaf(path=(0, 1), ...)))
    """

    game: Transcript
    target: Side | None = None
    """The side that branches; None is a plain game."""
    widths: tuple[int, ...] = ()
    """Speeches that the target draws in each turn; 1 where none is given."""
    leaves: tuple[Leaf, ...] = ()

    @property
    def id(self) -> str:
        """Name of the tree: the same game, target and widths give the same name."""
        return digest([self.game.id, self.target, self.widths])

    def width(self, side: Side, turn: int) -> int:
        """Speeches that a side draws at each node of a turn."""
        return self.widths[turn] if side == self.target and turn < len(self.widths) else 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Speeches, verdicts and pairs of siblings, when nothing fails."""
        nodes, speeches, pairs = 1, 0, 0
        for turn in range(self.game.protocol.turns):
            drawn = [self.width(side, turn) for side in self.game.speakers(turn)]
            speeches += nodes * sum(drawn)
            pairs += nodes * sum(comb(width, 2) for width in drawn)
            nodes *= max(drawn, default=1)
        return speeches, nodes, pairs

    def leg(self, leaf: Leaf) -> Leg:
        """A leaf as a game with its verdict."""
        game = self.game.model_copy(update={"speeches": leaf.speeches})
        return Leg(transcript=game, verdict=leaf.verdict, failure=leaf.failure)


@dataclass(frozen=True)
class _Shoot:
    """A path that is still growing."""

    tree: int
    game: Transcript
    path: tuple[int, ...] = ()
    failure: Failure | None = None
    p: float | None = None
    """Judge's probability of answer 0 before the last turn, where that calls the speakers."""


def widths(game: Transcript, target: Side, kind: Kind, branches: int = 2) -> tuple[int, ...]:
    """Speeches that the target draws in each turn, of which it speaks in some."""
    own = [turn for turn in range(game.protocol.turns) if target in game.speakers(turn)]
    if kind == "single":
        own = own[:1]
    if kind == "half" and own:
        drawn = digest(["branching turn", game.question.id, game.seed, target])
        own = [own[int(drawn, 16) % len(own)]]
    return tuple(branches if turn in own else 1 for turn in range(game.protocol.turns))


def grow(
    trees: Sequence[Tree],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: AnyJudge | None,
    opponents: Opponents = None,
    pools: list[Pool] | None = None,
) -> list[Tree]:
    """Play every path of every tree to its end and judge it.

    Each turn of all trees is one call to the engine, and so are all verdicts.

    Args:
        trees: with games of any protocols and questions; leaves they may have are replaced.
        players: by the names used in the games.
        engine: answers for all models.
        judge: gives the verdicts and chooses for Best-of-N players; None leaves leaves without a verdict.
        opponents: who is simulated as the other side of Best-of-N players.
        pools: collects the candidates of Best-of-N players, where wanted.

    Returns:
        The trees with their leaves, in order. A speech or verdict that fails ends the paths through it, no others.
    """
    score: Scorer | None = None if judge is None else lambda games: judge_transcripts(games, judge, engine)
    opened = pick_sides([tree.game for tree in trees], players, engine)
    shoots = [_seated(_Shoot(at, trees[at].game), game, None) for at, game in enumerate(opened)]
    for turn in range(max((tree.game.protocol.turns for tree in trees), default=0)):
        shoots = _call(shoots, score)
        seats: list[Seat] = []
        owners: list[int] = []
        for number, shoot in enumerate(shoots):
            if shoot.failure is None and turn < shoot.game.protocol.turns:
                taken = _seats(trees[shoot.tree], shoot.game, turn, players, opponents)
                seats += taken
                owners += [number] * len(taken)
        said: dict[int, list[tuple[Seat, Spoken]]] = {}
        for number, seat, spoken in zip(owners, seats, speak(seats, engine, score), strict=True):
            said.setdefault(number, []).append((seat, spoken))
            if spoken.pool is not None and pools is not None:
                pools.append(spoken.pool)
        shoots = [new for number, shoot in enumerate(shoots) for new in _shoots(shoot, trees, said.get(number, []))]
    return _judged(trees, shoots, score)


def _call(shoots: Sequence[_Shoot], score: Scorer | None) -> list[_Shoot]:
    """Have the next speaker called in games where the judge's mind decides who that is."""
    alive = [at for at, shoot in enumerate(shoots) if shoot.failure is None]
    answers = call_sides([shoots[at].game for at in alive], [shoots[at].p for at in alive], score)
    called = dict(zip(alive, answers, strict=True))
    return [_seated(shoot, *called[at]) if at in called else shoot for at, shoot in enumerate(shoots)]


def _seated(shoot: _Shoot, game: Transcript | Failure, p: float | None) -> _Shoot:
    """A path with the game as it goes on, or with why it can not."""
    if isinstance(game, Failure):
        return replace(shoot, failure=game)
    return replace(shoot, game=game, p=p)


def _seats(tree: Tree, game: Transcript, turn: int, players: Mapping[str, Debater], opponents: Opponents) -> list[Seat]:
    """Everyone who speaks at a node, the target once for each branch. All see the game as it stands before the turn."""
    seats = []
    for side in game.speakers(turn):
        player = players[game.players[side]]
        rivals = _rivals(player, players, game, side, opponents)
        seats += [Seat(game, side, turn, player, rivals, branch) for branch in range(tree.width(side, turn))]
    return seats


def _rivals(
    player: Debater, players: Mapping[str, Debater], game: Transcript, side: Side, opponents: Opponents
) -> tuple[Debater, ...]:
    """Who may be simulated opposite a player."""
    if opponents == "real":
        there = game.players.get(other(side))
        return () if there is None else (players[there],)
    found = (opponents or {}).get(player.name, player)
    return (found,) if isinstance(found, Debater) else tuple(found)


def _shoots(shoot: _Shoot, trees: Sequence[Tree], said: Sequence[tuple[Seat, Spoken]]) -> list[_Shoot]:
    """A path after a turn: one for each branch, with what the other side said in all of them."""
    if not said:
        return [shoot]
    target = trees[shoot.tree].target
    branches = max(seat.branch for seat, _ in said) + 1
    found = []
    for branch in range(branches):
        heard = [spoken for seat, spoken in said if seat.branch == branch or seat.side != target]
        failures = [spoken.failure for spoken in heard if spoken.failure is not None]
        game = shoot.game.add(spoken.speech for spoken in heard if spoken.speech is not None)
        path = (*shoot.path, branch)
        found.append(replace(shoot, game=game, path=path, failure=failures[0] if failures else None))
    return found


def _judged(trees: Sequence[Tree], shoots: Sequence[_Shoot], score: Scorer | None) -> list[Tree]:
    """Judge the paths that came to their end, and give each tree its leaves."""
    whole = [shoot for shoot in shoots if shoot.failure is None]
    verdicts = iter([None] * len(whole) if score is None else score([shoot.game for shoot in whole]))
    leaves: list[list[Leaf]] = [[] for _ in trees]
    games = [tree.game for tree in trees]
    for shoot in shoots:
        # Who was called is part of what was played; games in which somebody is called do not branch.
        if shoot.game.picked is not None or shoot.game.called:
            games[shoot.tree] = shoot.game.model_copy(update={"speeches": games[shoot.tree].speeches})
        found = next(verdicts) if shoot.failure is None else shoot.failure
        leaves[shoot.tree].append(
            Leaf(
                path=shoot.path,
                speeches=shoot.game.speeches,
                verdict=found if isinstance(found, Verdict) else None,
                failure=found if isinstance(found, Failure) else None,
            )
        )
    return [
        tree.model_copy(update={"game": game, "leaves": tuple(own)})
        for tree, game, own in zip(trees, games, leaves, strict=True)
    ]


def pools_of(tree: Tree, aggregate: Literal["mean", "min"] = "mean") -> list[Pool]:
    """The pool of every branching node, turn by turn: the target's speeches there, scored by the games through them.

    A speech through which no game was finished and judged is left out.

    Args:
        tree: grown.
        aggregate: over the verdicts; the mean is the source's.
    """
    if tree.target is None:
        return []
    found = []
    for turn in range(tree.game.protocol.turns):
        nodes: dict[tuple[int, ...], dict[int, list[Leaf]]] = {}
        if tree.width(tree.target, turn) > 1:
            for leaf in tree.leaves:
                if leaf.verdict is not None:
                    nodes.setdefault(leaf.path[:turn], {}).setdefault(leaf.path[turn], []).append(leaf)
        found += [_pool(tree, tree.target, turn, list(node.values()), aggregate) for node in nodes.values()]
    return found


def _pool(
    tree: Tree, target: Side, turn: int, branches: Sequence[list[Leaf]], aggregate: Literal["mean", "min"]
) -> Pool:
    """The pool of one node, of the leaves behind each of its speeches."""
    speeches = branches[0][0].speeches
    before = tuple(speech for speech in speeches if speech.turn < turn)
    return make_pool(
        tree.game.model_copy(update={"speeches": before}), target, turn, tree.game.players[target],
        candidates=[_said(leaves[0], target, turn) for leaves in branches],
        opponents=[speech for speech in speeches if speech.turn == turn and speech.side != target],
        p=[[leaf.verdict.p_side(target) for leaf in leaves if leaf.verdict is not None] for leaves in branches],
        aggregate=aggregate,
    )  # fmt: skip


def _said(leaf: Leaf, side: Side, turn: int) -> Speech:
    """What a side said in a turn on the way to a leaf."""
    return next(speech for speech in leaf.speeches if speech.side == side and speech.turn == turn)


def grow_to_file(
    trees: Sequence[Tree],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: AnyJudge | None,
    path: Path,
    chunk: int = 64,
    progress: Progress | None = None,
) -> list[Tree]:
    """Grow trees that are not yet in a log, adding each finished chunk to it; a stopped run goes on where it was.

    Returns:
        The grown trees, in the order of `trees`.
    """
    log = Log[Tree, Tree](
        path, Tree, lambda tree: tree.id, lambda tree: tree.id,
        failed=lambda tree: any(leaf.failure is not None for leaf in tree.leaves),
        again=lambda tree: any(leaf.failure is not None and leaf.failure.passing for leaf in tree.leaves),
    )  # fmt: skip
    return list(log.work_off(trees, lambda missing: grow(missing, players, engine, judge), chunk, progress))
