"""Trees of games: the one rollout behind plain debate, Best-of-N and branching.

A game is a tree without branches. In a branching tree one side, the target, draws several speeches wherever it
branches, the other side one, and every path is a game of its own that is played to its end and judged. A node's pool
(`pools_of`) holds the target's speeches there, each scored by the mean verdict of the finished games through it, and
gives one preference pair.

Arnesen et al. 2024: the target draws 2 speeches at each node, the other side 1, a score is the mean verdict of the
finished transcripts, one pair per node. Two simultaneous turns are 9 speeches, 4 verdicts and 3 pairs, and twice that
with a second tree for the other side. That is `full` here. `half` and `single`, more than 2 branches, the worst case
instead of the mean, and the rule for failures are ours, and so are the names: the authors' code calls branching on
both sides full, on one side half, and on one speech drawn at random single.

Best-of-N is a tree of one turn that is scored at once and cut back to its best speech before the game goes on. Its
opponents never speak in the game and its verdicts are on unfinished games, so it happens inside a turn
(`players.speak`). Both share the code of draws, failures and pools.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from math import comb
from pathlib import Path
from typing import Literal

from pydantic import Field

from debate_rl.arena.resume_log import Log, Progress
from debate_rl.arena.turn_order import call_sides, pick_sides
from debate_rl.engines.request import Engine
from debate_rl.game.protocol import Side, other
from debate_rl.game.transcript import JudgeQuestion, Speech, Transcript
from debate_rl.game.verdict import Failure, JudgedDebate, Verdict
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.judges.questions import ask_questions
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Pool, Scorer, Seat, SpeechResult, make_pool, speak
from debate_rl.records import Record, digest

Kind = Literal["full", "half", "single"]
"""Where a tree branches: in every turn of the target, in one of them drawn by seed, in the first."""

Opponents = Mapping[str, "Debater | Sequence[Debater]"] | Literal["real"] | None
"""Players simulated as the other side of Best-of-N players: for each player's name one opponent or a pool. `real` is
the opponent who sits there. A player without an entry simulates itself."""


class Leaf(Record):
    """One path from a tree's root to its end, or to where it failed.

    Example:
        Leaf(path=(0, 1), speeches=(Speech(side="A", ...), ...), verdict=Verdict(judge="lab-base", p=(0.72, 0.28)))
    """

    path: tuple[int, ...]
    """Branch taken in each turn; 0 where there is only one."""
    speeches: tuple[Speech, ...]
    asked: tuple[JudgeQuestion, ...] = Field(default=(), exclude_if=lambda asked: not asked)
    """Questions of the judge on this path."""
    verdict: Verdict | None = None
    failure: Failure | None = None


class Tree(Record):
    """A game to be branched, and its leaves once it is grown.

    Example:
        Tree(game=Transcript(...), target="A", widths=(2, 2), leaves=(Leaf(path=(0, 0), ...), Leaf(path=(0, 1), ...)))
    """

    game: Transcript
    target: Side | None = None
    """The side that branches; None is a plain game."""
    widths: tuple[int, ...] = ()
    """Speeches that the target draws in each turn; turns beyond the tuple draw 1."""
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
        nodes = 1
        speeches = 0
        pairs = 0
        for turn in range(self.game.protocol.turns):
            side_widths = [self.width(side, turn) for side in self.game.speakers(turn)]
            speeches += nodes * sum(side_widths)
            pairs += nodes * sum(comb(width, 2) for width in side_widths)
            nodes *= max(side_widths, default=1)
        return speeches, nodes, pairs

    def leg(self, leaf: Leaf) -> JudgedDebate:
        """A leaf as a game with its verdict."""
        game = self.game.model_copy(update={"speeches": leaf.speeches, "asked": leaf.asked})
        return JudgedDebate(transcript=game, verdict=leaf.verdict, failure=leaf.failure)


@dataclass(frozen=True)
class _Path:
    """A path of a tree that is being played."""

    tree: int
    """Index of its tree."""
    game: Transcript
    branches: tuple[int, ...] = ()
    """Branch taken in each turn so far."""
    failure: Failure | None = None
    p: float | None = None
    """Judge's probability of answer 0 before the last turn, in protocols where that calls the speakers."""


def widths(game: Transcript, target: Side, kind: Kind, branches: int = 2) -> tuple[int, ...]:
    """Speeches that the target draws in each turn: `branches` where it branches, else 1."""
    turns = range(game.protocol.turns)
    branching = [turn for turn in turns if target in game.speakers(turn)]
    if kind == "single":
        branching = branching[:1]
    if kind == "half" and branching:
        # By question, seed and side, so that a tree keeps its branching turn whatever other trees a run grows.
        draw = int(digest(["branching turn", game.question.id, game.seed, target]), 16)
        branching = [branching[draw % len(branching)]]
    draws = [1] * len(turns)
    for turn in branching:
        draws[turn] = branches
    return tuple(draws)


def grow(
    trees: Sequence[Tree],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: AnyJudge | None,
    opponents: Opponents = None,
    pools: list[Pool] | None = None,
    asker: AnyJudge | None = None,
) -> list[Tree]:
    """Play every path of every tree to its end and judge it.

    Each turn of all trees is one call to the engine, and so are all questions of the judge after a turn, and all
    verdicts.

    Args:
        trees: with games of any protocols and questions; leaves they may have are replaced.
        players: by the names used in the games.
        engine: answers for all models.
        judge: gives the verdicts and chooses for Best-of-N players; None leaves leaves without a verdict.
        opponents: players simulated as the other side of Best-of-N players.
        pools: a list that collects the candidates of Best-of-N players; None collects nothing.
        asker: asks the judge's questions, in protocols with `judge_questions`; None is the judge itself. Without a
            judge nobody asks.

    Returns:
        The trees with their leaves, in order. A speech or verdict that fails ends the paths through it, no others.
    """
    score: Scorer | None = None if judge is None else lambda games: judge_transcripts(games, judge, engine)
    # Sides are picked before the first turn, since the pick decides who speaks in it.
    started = pick_sides([tree.game for tree in trees], players, engine)
    paths = [_advance(_Path(index, trees[index].game), game, None) for index, game in enumerate(started)]
    turns = max((tree.game.protocol.turns for tree in trees), default=0)
    # Lock-step: a turn of all paths of all trees is gathered first and generated in one batch.
    for turn in range(turns):
        paths = _call_speakers(paths, score)
        seats: list[Seat] = []
        seat_paths: list[int] = []  # index of the path that each seat belongs to
        for index, path in enumerate(paths):
            if path.failure is None and turn < path.game.protocol.turns:
                path_seats = _seats(trees[path.tree], path.game, turn, players, opponents)
                seats += path_seats
                seat_paths += [index] * len(path_seats)
        spoken: dict[int, list[tuple[Seat, SpeechResult]]] = defaultdict(list)
        for index, seat, result in zip(seat_paths, seats, speak(seats, engine, score), strict=True):
            spoken[index].append((seat, result))
            if result.pool is not None and pools is not None:
                pools.append(result.pool)
        next_paths = []
        for index, path in enumerate(paths):
            next_paths += _extend(path, trees[path.tree].target, spoken[index])
        paths = _ask(next_paths, turn, asker or judge, engine)
    return _judge(trees, paths, score)


def _call_speakers(paths: Sequence[_Path], score: Scorer | None) -> list[_Path]:
    """Call the next speaker in games where the judge's verdict so far decides who that is."""
    alive = [path for path in paths if path.failure is None]
    games = [path.game for path in alive]
    beliefs = [path.p for path in alive]
    calls = iter(call_sides(games, beliefs, score))
    advanced = []
    for path in paths:
        if path.failure is None:
            game, p = next(calls)
            path = _advance(path, game, p)
        advanced.append(path)
    return advanced


def _ask(paths: list[_Path], turn: int, asker: AnyJudge | None, engine: Engine) -> list[_Path]:
    """Have the judge ask its questions after a turn, in the games of protocols where it may."""
    if asker is None:
        return paths
    asking = [
        index
        for index, path in enumerate(paths)
        if path.failure is None and path.game.speeches and path.game.protocol.asks_after(turn)
    ]
    games = [paths[index].game for index in asking]
    asked = list(paths)
    for index, question in zip(asking, ask_questions(games, turn, asker, engine), strict=True):
        path = paths[index]
        if isinstance(question, Failure):
            asked[index] = replace(path, failure=question)
        else:
            asked[index] = replace(path, game=path.game.ask(question))
    return asked


def _advance(path: _Path, game: Transcript | Failure, p: float | None) -> _Path:
    """Set the game of a path, or the failure that ends it."""
    if isinstance(game, Failure):
        return replace(path, failure=game)
    return replace(path, game=game, p=p)


def _seats(tree: Tree, game: Transcript, turn: int, players: Mapping[str, Debater], opponents: Opponents) -> list[Seat]:
    """List the seats that speak at a node, the target's once per branch. All see the game as it is before the turn."""
    seats = []
    for side in game.speakers(turn):
        player = players[game.players[side]]
        rivals = _rivals(player, players, game, side, opponents)
        for branch in range(tree.width(side, turn)):
            seats.append(Seat(game, side, turn, player, rivals, branch))
    return seats


def _rivals(
    player: Debater, players: Mapping[str, Debater], game: Transcript, side: Side, opponents: Opponents
) -> tuple[Debater, ...]:
    """List the players who may be simulated opposite a player."""
    if opponents == "real":
        opponent_name = game.players.get(other(side))
        return () if opponent_name is None else (players[opponent_name],)
    # Without an entry of its own the player is its own opponent: it argues the other side as it would itself.
    rivals: Debater | Sequence[Debater] = player
    if opponents is not None:
        rivals = opponents.get(player.name, player)
    if isinstance(rivals, Debater):
        return (rivals,)
    return tuple(rivals)


def _extend(path: _Path, target: Side | None, spoken: Sequence[tuple[Seat, SpeechResult]]) -> list[_Path]:
    """Extend a path by a turn: one new path per branch, with the other side's one speech in each of them."""
    if not spoken:
        return [path]
    branches = max(seat.branch for seat, _ in spoken) + 1
    extended = []
    for branch in range(branches):
        speeches = []
        failures = []
        for seat, result in spoken:
            if seat.side == target and seat.branch != branch:
                continue
            if result.speech is not None:
                speeches.append(result.speech)
            if result.failure is not None:
                failures.append(result.failure)
        # A failed path keeps the speeches of its last turn that were made: its record shows how far it came.
        extended.append(
            replace(
                path,
                game=path.game.add(speeches),
                branches=(*path.branches, branch),
                failure=next(iter(failures), None),
            )
        )
    return extended


def _judge(trees: Sequence[Tree], paths: Sequence[_Path], score: Scorer | None) -> list[Tree]:
    """Judge the paths that came to their end, and give each tree its leaves."""
    finished = [path.game for path in paths if path.failure is None]
    verdicts: Iterator[Verdict | Failure | None] = repeat(None)
    if score is not None:
        verdicts = iter(score(finished))
    leaves: list[list[Leaf]] = [[] for _ in trees]
    games = [tree.game for tree in trees]
    for path in paths:
        # Which side was picked or called is part of what was played, so the tree's game has to say it. Games in which
        # the judge calls do not branch: one path decides for the whole tree.
        if path.game.picked is not None or path.game.called:
            games[path.tree] = path.game.model_copy(update={"speeches": games[path.tree].speeches})
        outcome = path.failure or next(verdicts)
        leaves[path.tree].append(
            Leaf(
                path=path.branches,
                speeches=path.game.speeches,
                asked=path.game.asked,
                verdict=outcome if isinstance(outcome, Verdict) else None,
                failure=outcome if isinstance(outcome, Failure) else None,
            )
        )
    grown = []
    for tree, game, tree_leaves in zip(trees, games, leaves, strict=True):
        grown.append(tree.model_copy(update={"game": game, "leaves": tuple(tree_leaves)}))
    return grown


def pools_of(tree: Tree, aggregate: Literal["mean", "min"] = "mean") -> list[Pool]:
    """The pool of every branching node, turn by turn: the target's speeches there, scored by the games through them.

    A speech through which no game was finished and judged is left out.

    Args:
        tree: grown.
        aggregate: over the verdicts; Arnesen et al. 2024 take the mean.
    """
    if tree.target is None:
        return []
    pools = []
    for turn in range(tree.game.protocol.turns):
        if tree.width(tree.target, turn) <= 1:
            continue
        # A node is the path that leads to it; its leaves are grouped by the branch they take there.
        nodes: dict[tuple[int, ...], dict[int, list[Leaf]]] = {}
        for leaf in tree.leaves:
            if leaf.verdict is not None:
                branches = nodes.setdefault(leaf.path[:turn], {})
                branches.setdefault(leaf.path[turn], []).append(leaf)
        pools += [_pool(tree, tree.target, turn, list(node.values()), aggregate) for node in nodes.values()]
    return pools


def _pool(
    tree: Tree, target: Side, turn: int, branches: Sequence[list[Leaf]], aggregate: Literal["mean", "min"]
) -> Pool:
    """The pool of one node, from the leaves behind each of its speeches."""
    # All leaves of a node agree on what was said before it, and on the other side's speech in its turn.
    speeches = branches[0][0].speeches
    before = tuple(speech for speech in speeches if speech.turn < turn)
    asked = tuple(question for question in branches[0][0].asked if question.turn < turn)
    opponents = [speech for speech in speeches if speech.turn == turn and speech.side != target]
    candidates = []
    p = []
    for leaves in branches:
        own = [speech for speech in leaves[0].speeches if speech.side == target and speech.turn == turn]
        candidates.append(own[0])
        p.append([leaf.verdict.p_side(target) for leaf in leaves if leaf.verdict is not None])
    return make_pool(
        tree.game.model_copy(update={"speeches": before, "asked": asked}),
        target,
        turn,
        tree.game.players[target],
        candidates=candidates,
        opponents=opponents,
        p=p,
        aggregate=aggregate,
    )


def grow_to_file(
    trees: Sequence[Tree],
    players: Mapping[str, Debater],
    engine: Engine,
    judge: AnyJudge | None,
    path: Path,
    chunk: int = 64,
    progress: Progress | None = None,
) -> list[Tree]:
    """Grow trees that are not yet in a log, adding each finished chunk to it; a stopped run resumes there.

    Returns:
        The grown trees, in the order of `trees`.
    """
    log = Log[Tree, Tree](
        path,
        Tree,
        lambda tree: tree.id,
        lambda tree: tree.id,
        failed=lambda tree: any(leaf.failure is not None for leaf in tree.leaves),
        again=lambda tree: any(leaf.failure is not None and leaf.failure.passing for leaf in tree.leaves),
    )
    return list(log.work_off(trees, lambda missing: grow(missing, players, engine, judge), chunk, progress))
