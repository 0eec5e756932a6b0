"""Scoring again: the kept candidates of a stage before another judge, and the choice of N made anew, without new text.

What the first judge chose may please that judge alone. So the table has the gain of its choice over a single draw in
the eyes of both judges, beside the gain that the second judge reaches by choosing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from debate_rl.analysis.judging.rejudge import stages_with
from debate_rl.arena.game_tree import Leaf, Tree, pools_of
from debate_rl.arena.rollout import read_pools
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.intervals import Effect, Estimate, difference, mean
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.players.speak import Pool, grid, make_pool, trials
from debate_rl.records import Record, read_log


class Rescored(Record):
    """Two judges on the same candidates; probabilities are of the speaker's side, intervals over stories.

    Example:
        Rescored(judge="lab-base", pools=600, failed=0, candidates=4, agreement=Estimate(value=0.62, ...), chance=0.31,
                 first=Effect(value=0.11, ...), carried=Effect(value=0.06, ...), second=Effect(value=0.09, ...),
                 again=Effect(value=0.03, ...))
    """

    judge: str
    """The second judge."""
    pools: int
    """Pools that both judges scored."""
    failed: int
    """Pools that the second judge could not score; they count for nothing."""
    candidates: int
    agreement: Estimate
    """How often both choose the same text."""
    chance: float
    """How often a choice at random would be the first judge's text."""
    first: Effect
    """First judge's choice over draw 0, in the eyes of the first judge."""
    carried: Effect
    """First judge's choice over draw 0, in the eyes of the second."""
    second: Effect
    """Second judge's choice over draw 0, in the eyes of the second."""
    again: Effect
    """Second judge's choice over the first's, in the eyes of the second."""

    def __str__(self) -> str:
        """A table of the five numbers."""
        rows = [
            ("the same choice", self.agreement),
            ("first judge's choice over one draw, to the first judge", self.first),
            (f"first judge's choice over one draw, to {self.judge}", self.carried),
            (f"{self.judge}'s choice over one draw, to {self.judge}", self.second),
            (f"{self.judge}'s choice over the first judge's, to {self.judge}", self.again),
        ]
        width = max(len(name) for name, _ in rows)
        head = f"{self.pools} pools of {self.candidates} candidates, {self.failed} more that {self.judge} failed on"
        lines = [f"{name:<{width}}  {value:.3f}" for name, value in rows]
        return "\n".join([head, f"{lines[0]}  (by chance {self.chance:.3f})", *lines[1:]])


def rescore(
    folder: str | Path, judge: AnyJudge, engine: Engine, best_of: int | None = None
) -> tuple[Rescored, list[Pool]]:
    """Have the pools or trees of a finished stage judged again.

    Args:
        folder: a stage's, with `pools.jsonl`, and `trees.jsonl` if it grew trees.
        judge: the second judge.
        engine: asked for verdicts only.
        best_of: choose among the first so many candidates; None takes all.

    Returns:
        The comparison, and the pools with the second judge's scores and choice, without those that failed.

    Raises:
        UserError: the folder has no pools, `best_of` is more than there are candidates, or every pool failed.
    """
    if Path(folder).is_file():
        raise UserError(f"{folder} is a file; give the folder of the stage that it is of: {Path(folder).parent}")
    old = read_pools(Path(folder) / "pools.jsonl")
    grown = read_log(Path(folder) / "trees.jsonl", Tree)
    if not old:
        where = stages_with(Path(folder), "pools.jsonl")
        raise UserError(
            f"no pools in {folder}; give the folder of a finished preferences stage (with pools.jsonl){where}"
        )
    if grown:
        old, new = _trees_again(grown, judge, engine, old[0].aggregate)
    else:
        new = _pools_again(old, judge, engine)
    most = max(len(pool.candidates) for pool in old)
    if best_of is not None and not 2 <= best_of <= most:
        raise UserError(f"best of {best_of}: {folder} holds pools of {most} candidates; choose from 2 to {most}")
    pairs = [(_first(one, best_of), _first(two, best_of)) for one, two in zip(old, new, strict=True) if two]
    if not pairs:
        raise UserError(f"{judge.name} could not judge any pool of {folder}; does the model fit the transcripts?")
    found = _compare(pairs, judge.name, failed=len(old) - len(pairs))
    return found, [two for _, two in pairs]


def _pools_again(pools: Sequence[Pool], judge: AnyJudge, engine: Engine) -> list[Pool | None]:
    """Every candidate with every simulated opponent before another judge, all in one call; None where it failed."""
    tried = [trials(pool.transcript, pool.side, pool.player, pool.candidates, pool.opponents) for pool in pools]
    verdicts = iter(judge_transcripts([game for games in tried for game in games], judge, engine))
    found: list[Pool | None] = []
    for pool in pools:
        p = grid(verdicts, pool.side, len(pool.candidates), max(len(pool.opponents), 1))
        found.append(None if isinstance(p, Failure) else _with(pool, p))
    return found


def _trees_again(
    trees: Sequence[Tree], judge: AnyJudge, engine: Engine, aggregate: Literal["mean", "min"]
) -> tuple[list[Pool], list[Pool | None]]:
    """Every finished game of every tree before another judge; the pools before and after, None where it failed."""
    finished = [[leaf for leaf in tree.leaves if leaf.verdict is not None] for tree in trees]
    games = [tree.leg(leaf).transcript for tree, leaves in zip(trees, finished, strict=True) for leaf in leaves]
    verdicts = iter(judge_transcripts(games, judge, engine))
    before: list[Pool] = []
    after: list[Pool | None] = []
    for tree, leaves in zip(trees, finished, strict=True):
        judged: list[Leaf] = []
        for leaf in leaves:
            verdict = next(verdicts)
            if isinstance(verdict, Verdict):
                judged.append(leaf.model_copy(update={"verdict": verdict}))
        own = pools_of(tree, aggregate)
        before += own
        if len(judged) == len(leaves):
            after += pools_of(tree.model_copy(update={"leaves": tuple(judged)}), aggregate)
        else:  # a tree counts whole or not at all, so that both judges are compared on the same games
            after += [None] * len(own)
    return before, after


def _with(pool: Pool, p: Sequence[Sequence[float]]) -> Pool:
    """A pool with other probabilities, for as many candidates as there are rows."""
    return make_pool(
        pool.transcript, pool.side, pool.turn, pool.player, pool.candidates[: len(p)], pool.opponents, p,
        pool.aggregate,
    )  # fmt: skip


def _first(pool: Pool, count: int | None) -> Pool:
    """A pool of the first candidates only: Best-of-16 holds Best-of-4."""
    return _with(pool, pool.p[:count])


def _compare(pairs: Sequence[tuple[Pool, Pool]], name: str, failed: int) -> Rescored:
    """Both judges' scores and choices, pool by pool."""
    labels = [one.transcript.question.cluster for one, _ in pairs]
    picks = [(one.candidates[one.chosen].text, two.candidates[two.chosen].text) for one, two in pairs]
    shares = [
        sum(speech.text == pick for speech in one.candidates) / len(one.candidates)
        for (one, _), (pick, _) in zip(pairs, picks, strict=True)
    ]
    return Rescored(
        judge=name, pools=len(pairs), failed=failed, candidates=max(len(one.candidates) for one, _ in pairs),
        agreement=mean([float(one == two) for one, two in picks], labels),
        chance=sum(shares) / len(shares),
        first=difference([one.scores[one.chosen] for one, _ in pairs], [one.scores[0] for one, _ in pairs], labels),
        carried=difference([two.scores[one.chosen] for one, two in pairs], [two.scores[0] for _, two in pairs], labels),
        second=difference([two.scores[two.chosen] for _, two in pairs], [two.scores[0] for _, two in pairs], labels),
        again=difference(
            [two.scores[two.chosen] for _, two in pairs], [two.scores[one.chosen] for one, two in pairs], labels
        ),
    )  # fmt: skip
