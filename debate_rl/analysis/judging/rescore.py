"""Judge the saved candidates of a stage again with another judge and repeat the best-of-N choice, without new text.

A choice of the first judge may please that judge alone. The table therefore shows the gain of its choice over a single
draw as both judges score it, beside the gain that the second judge reaches with its own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from debate_rl.analysis.judging.rejudge import stages_with
from debate_rl.arena.game_tree import Tree, pools_of
from debate_rl.arena.rollout import read_pools
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game import run_files
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
    """Name of the second judge."""
    pools: int
    """Pools that both judges scored."""
    failed: int
    """Pools that the second judge could not score; all other fields leave them out."""
    candidates: int
    """Candidates of the largest pool."""
    agreement: Estimate
    """Share of pools in which both judges choose the same text."""
    chance: float
    """Probability that a random choice is the first judge's text."""
    first: Effect
    """Gain of the first judge's choice over draw 0, scored by the first judge."""
    carried: Effect
    """Gain of the first judge's choice over draw 0, scored by the second judge."""
    second: Effect
    """Gain of the second judge's choice over draw 0, scored by the second judge."""
    again: Effect
    """Gain of the second judge's choice over the first judge's, scored by the second judge."""

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
        folder: folder of the stage, with `pools.jsonl`, and `trees.jsonl` if it grew trees.
        judge: the second judge.
        engine: answers the judge's requests; no text is generated.
        best_of: choose among this many first candidates; None takes all.

    Returns:
        The comparison, and the pools with the second judge's scores and choice, without those that failed.

    Raises:
        UserError: the folder has no pools, `best_of` is more than there are candidates, or every pool failed.
    """
    if Path(folder).is_file():
        raise UserError(f"{folder} is a file; give the folder of the stage that it is of: {Path(folder).parent}")
    old_pools = read_pools(Path(folder) / run_files.POOLS)
    trees = read_log(Path(folder) / "trees.jsonl", Tree)
    if not old_pools:
        stages = stages_with(Path(folder), run_files.POOLS)
        raise UserError(
            f"no pools in {folder}; give the folder of a finished preferences stage (with pools.jsonl){stages}"
        )
    if trees:
        old_pools, new_pools = _rescore_trees(trees, judge, engine, old_pools[0].aggregate)
    else:
        new_pools = _rescore_pools(old_pools, judge, engine)
    most = max(len(pool.candidates) for pool in old_pools)
    if best_of is not None and not 2 <= best_of <= most:
        raise UserError(f"best of {best_of}: {folder} holds pools of {most} candidates; choose from 2 to {most}")
    pairs = []
    for old, new in zip(old_pools, new_pools, strict=True):
        if new is not None:
            # Candidates are independent draws, so the first four of Best-of-16 are a Best-of-4.
            pairs.append((_with_scores(old, old.p[:best_of]), _with_scores(new, new.p[:best_of])))
    if not pairs:
        raise UserError(f"{judge.name} could not judge any pool of {folder}; does the model fit the transcripts?")
    summary = _compare(pairs, judge.name, failed=len(old_pools) - len(pairs))
    return summary, [new for _, new in pairs]


def _rescore_pools(pools: Sequence[Pool], judge: AnyJudge, engine: Engine) -> list[Pool | None]:
    """Judge every candidate against every simulated opponent; None for a pool with a failed verdict."""
    games = []
    for pool in pools:
        games += trials(pool.transcript, pool.side, pool.player, pool.candidates, pool.opponents)
    # One call for all pools, so that the engine can batch; `grid` then takes each pool's verdicts in turn.
    verdicts = iter(judge_transcripts(games, judge, engine))
    rescored: list[Pool | None] = []
    for pool in pools:
        p = grid(verdicts, pool.side, len(pool.candidates), max(len(pool.opponents), 1))
        rescored.append(None if isinstance(p, Failure) else _with_scores(pool, p))
    return rescored


def _rescore_trees(
    trees: Sequence[Tree], judge: AnyJudge, engine: Engine, aggregate: Literal["mean", "min"]
) -> tuple[list[Pool], list[Pool | None]]:
    """Judge every finished game of every tree.

    Returns:
        The pools by the first judge, and the same by the second; None for pools of a tree with a failed verdict.
    """
    finished = []
    games = []
    for tree in trees:
        leaves = [leaf for leaf in tree.leaves if leaf.verdict is not None]
        finished.append(leaves)
        games += [tree.leg(leaf).transcript for leaf in leaves]
    verdicts = iter(judge_transcripts(games, judge, engine))
    old_pools: list[Pool] = []
    new_pools: list[Pool | None] = []
    for tree, leaves in zip(trees, finished, strict=True):
        rejudged = []
        for leaf in leaves:
            verdict = next(verdicts)
            if isinstance(verdict, Verdict):
                rejudged.append(leaf.model_copy(update={"verdict": verdict}))
        tree_pools = pools_of(tree, aggregate)
        old_pools += tree_pools
        # A tree counts whole or not at all, so that both judges are compared on the same games.
        if len(rejudged) == len(leaves):
            new_pools += pools_of(tree.model_copy(update={"leaves": tuple(rejudged)}), aggregate)
        else:
            new_pools += [None] * len(tree_pools)
    return old_pools, new_pools


def _with_scores(pool: Pool, p: Sequence[Sequence[float]]) -> Pool:
    """A pool with other probabilities, and only as many candidates as these have rows."""
    candidates = pool.candidates[: len(p)]
    return make_pool(pool.transcript, pool.side, pool.turn, pool.player, candidates, pool.opponents, p, pool.aggregate)


def _compare(pairs: Sequence[tuple[Pool, Pool]], name: str, failed: int) -> Rescored:
    """Compare both judges' scores and choices, pool by pool."""
    clusters = []
    same_choice = []
    chances = []
    old_by_old = []
    old_by_new = []
    new_by_new = []
    draw_by_old = []
    draw_by_new = []
    for old, new in pairs:
        clusters.append(old.transcript.question.cluster)
        # By text, not by index: two equal candidates are the same choice.
        old_text = old.candidates[old.chosen].text
        same_choice.append(float(old_text == new.candidates[new.chosen].text))
        copies = sum(speech.text == old_text for speech in old.candidates)
        chances.append(copies / len(old.candidates))
        # Scores of CHOICE by JUDGE; draw 0 is what a single draw would have given.
        old_by_old.append(old.scores[old.chosen])
        old_by_new.append(new.scores[old.chosen])
        new_by_new.append(new.scores[new.chosen])
        draw_by_old.append(old.scores[0])
        draw_by_new.append(new.scores[0])
    return Rescored(
        judge=name,
        pools=len(pairs),
        failed=failed,
        candidates=max(len(old.candidates) for old, _ in pairs),
        agreement=mean(same_choice, clusters),
        chance=sum(chances) / len(chances),
        first=difference(old_by_old, draw_by_old, clusters),
        carried=difference(old_by_new, draw_by_new, clusters),
        second=difference(new_by_new, draw_by_new, clusters),
        again=difference(new_by_new, old_by_new, clusters),
    )
