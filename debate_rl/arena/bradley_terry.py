"""The Bradley-Terry model: P(i beats j) = sigma(theta_i - theta_j + beta . side), fitted to soft outcomes.

The fit minimises, over matches m with outcome y_m in [0, 1] and weight w_m,

    sum_m w_m [log(1 + exp(z_m)) - y_m z_m] + ridge / 2 (|theta|^2 + |beta|^2)

Matches are summed into cells (who met whom on which side) first, so a fit costs the same for any number of matches,
and the refits of a bootstrap are Newton steps on many small systems at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from debate_rl.errors import UserError
from debate_rl.intervals import Floats, clusters, finite, resample

RIDGE = 0.1
"""Default ridge for tournaments (ours): a normal prior of 3.2 units (549 Elo points) on every strength. In a simulated
round robin of 4 players and 10 questions it changes the error of the ratings by 1 % and the coverage not at all."""
DENSE = 100
"""Parameters (players and sides) up to which a Newton step is solved for directly."""
BLOCK = 4_000_000
"""Numbers held at once while refitting; bounds memory at about 100 MB."""


class Outcomes(NamedTuple):
    """The outcomes of n matches, column by column.

    Example:
        Outcomes(left=["sft", "dpo"], right=["dpo", "sft"], score=[0.31, 0.64], labels=["lab-7", "lab-7"],
                 sides={"first": [1, 1], "correct": [1, -1]})
    """

    left: Sequence[str]
    right: Sequence[str]
    score: ArrayLike
    """(n,) share of the match that left won, in [0, 1]: the judge's probability, or 1, 1/2 (tie), 0."""
    labels: Iterable[Hashable] | None = None
    """(n,) clusters for the intervals, normally the story; None takes matches as independent."""
    weights: ArrayLike | None = None
    """(n,) weight of each match; None is 1 each."""
    sides: Mapping[str, ArrayLike] | None = None
    """Name of a side to (n,) values: 1 where left holds it, -1 where right does, 0 where neither."""


class Cells(NamedTuple):
    """Matches summed by who met whom on which side (C cells), and by cluster (k)."""

    players: list[str]
    pairs: NDArray[np.intp]
    """(C, 2) indices of the two players, the smaller first."""
    sides: Floats
    """(C, Q) sides as the first player sees them: 1 where it holds the side, -1 where the second does, 0 where none."""
    names: list[str]
    """The Q names of the sides."""
    played: csr_array
    """(k, C) weight of matches."""
    won: csr_array
    """(k, C) weight of matches that the first player won."""
    matches: NDArray[np.intp]
    """(C,) number of matches."""
    self_play: int
    """Number of matches of a player with itself, which are in no cell."""

    @property
    def sums(self) -> tuple[Floats, Floats]:
        """(C,) weight of matches and (C,) weight that the first player won, over all clusters."""
        return np.asarray(self.played.sum(axis=0)), np.asarray(self.won.sum(axis=0))

    @property
    def design(self) -> csr_array:
        """(C, P + Q) with z = design @ [theta, beta]."""
        columns, values = self._entries()
        rows = np.repeat(np.arange(len(columns)), columns.shape[1])
        return csr_array((values.ravel(), (rows, columns.ravel())), shape=(len(columns), self.size))

    @property
    def outer(self) -> csr_array:
        """(C, (P + Q)^2): the outer product of each cell's design row with itself, flattened."""
        # With it the curvature of many data sets at once is one sparse product (see `_newton`).
        columns, values = self._entries()
        products = (values[:, :, None] * values[:, None, :]).reshape(len(values), -1)
        flat_columns = (columns[:, :, None] * self.size + columns[:, None, :]).reshape(len(values), -1)
        rows = np.repeat(np.arange(len(values)), flat_columns.shape[1])
        return csr_array((products.ravel(), (rows, flat_columns.ravel())), shape=(len(values), self.size**2))

    @property
    def size(self) -> int:
        """P + Q, the number of parameters."""
        return len(self.players) + len(self.names)

    def _entries(self) -> tuple[NDArray[np.intp], Floats]:
        """(C, 2 + Q) columns and values of the design's rows: +1 and -1 for the players, then the sides."""
        side = np.tile(len(self.players) + np.arange(len(self.names)), (len(self.pairs), 1))
        signs = np.tile([1.0, -1.0], (len(self.pairs), 1))
        return np.hstack([self.pairs, side]), np.hstack([signs, self.sides])


def sum_matches(outcomes: Outcomes) -> Cells:
    """Check the matches and sum them into cells.

    Matches of a player with itself are counted and left out; so are matches of weight 0.

    Raises:
        UserError: no match between two players, columns of different lengths, undefined values, scores outside [0, 1].
    """
    score, weights, sides = _columns(outcomes)
    players, ids = np.unique([str(name) for name in (*outcomes.left, *outcomes.right)], return_inverse=True)
    left, right = ids.reshape(2, len(score))
    use = (left != right) & (weights > 0)
    if not use.any():
        raise UserError("no match between two different players; self-play carries no rating information")
    swap = left > right
    score = np.where(swap, 1 - score, score)
    signed = sides * np.where(swap, -1, 1)[:, None]
    keys = np.column_stack([np.minimum(left, right), np.maximum(left, right), signed])[use]
    cells, cell = np.unique(keys, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    # Clusters are coded anew from the matches in use: one without any match would thin out every resample.
    used_clusters, codes = np.unique(clusters(outcomes.labels, len(score))[use], return_inverse=True)
    shape = (len(used_clusters), len(cells))
    return Cells(
        players=players.tolist(),
        pairs=cells[:, :2].astype(np.intp),
        sides=cells[:, 2:],
        names=list(outcomes.sides or {}),
        played=csr_array((weights[use], (codes, cell)), shape=shape),
        won=csr_array(((weights * score)[use], (codes, cell)), shape=shape),
        matches=np.bincount(cell, minlength=len(cells)),
        self_play=int((left == right).sum()),
    )


def _columns(outcomes: Outcomes) -> tuple[Floats, Floats, Floats]:
    """Return (n,) scores, (n,) weights and (n, Q) sides, checked."""
    score = finite(outcomes.score, "scores")
    rows = len(score)
    weights = np.ones(rows) if outcomes.weights is None else finite(outcomes.weights, "weights")
    sides = [finite(values, f"side {name!r}") for name, values in (outcomes.sides or {}).items()]
    lengths = {len(outcomes.left), len(outcomes.right), len(weights), *map(len, sides)}
    if lengths != {rows}:
        raise UserError("left, right, score, weights and sides differ in length; give one entry per match")
    outside = (score < 0) | (score > 1) | (weights < 0)
    if outside.any():
        raise UserError("a match has a score outside [0, 1] or a negative weight; a score is the share left won of it")
    table = np.zeros((rows, len(sides)))
    for column, values in enumerate(sides):
        table[:, column] = values
    return score, weights, table


def check(cells: Cells, ridge: float) -> None:
    """Refuse matches that can not be rated.

    Raises:
        UserError: a negative ridge; a comparison graph that is not connected (names its components); sides that can
            not be told from strength; with ridge 0, players or sides without a finite maximum likelihood.
    """
    if not np.isfinite(ridge) or ridge < 0:
        raise UserError(f"ridge is a number of 0 or more (such as {RIDGE}), not {ridge}")
    _check_connected(cells)
    if ridge == 0:
        _check_undefeated(cells)
    if cells.names:
        _check_sides(cells, ridge)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return "{" + ", ".join(names[:5]) + more + "}"


def _groups(cells: Cells, labels: NDArray[np.integer]) -> list[list[str]]:
    """Names of the players of each component, from (P,) component numbers."""
    groups: list[list[str]] = [[] for _ in range(labels.max() + 1)]
    for player, group in zip(cells.players, labels, strict=True):
        groups[group].append(player)
    return groups


def _check_connected(cells: Cells) -> None:
    count, labels = connected_components(_graph(len(cells.players), cells.pairs), directed=False)
    if count > 1:
        groups = _groups(cells, labels)
        more = f" | and {count - 5:,} more" if count > 5 else ""
        parts = " | ".join(map(_listed, groups[:5])) + more
        raise UserError(f"no common scale: {count} groups never met: {parts}; add matches between them or rate each")


def _check_undefeated(cells: Cells) -> None:
    """Check that maximum likelihood is finite for the players.

    It is if the graph of who took points from whom is strongly connected (Ford 1957, "Solution of a ranking problem").
    """
    played, won = cells.sums
    edges = np.concatenate([cells.pairs[won > 0], cells.pairs[won < played][:, ::-1]])
    count, labels = connected_components(_graph(len(cells.players), edges), connection="strong")
    if count > 1:
        # A component that lost to no other one is an undefeated group: name it.
        winner, loser = labels[edges].T
        beaten = set(loser[winner != loser].tolist())
        best = next(group for label, group in enumerate(_groups(cells, labels)) if label not in beaten)
        raise UserError(
            f"no finite maximum-likelihood rating: {_listed(best)} never lost a point to any other player; "
            f"use a ridge, such as --ridge {RIDGE}"
        )


def _check_sides(cells: Cells, ridge: float) -> None:
    """Check that the effects of sides are determined, and with ridge 0 that they are finite.

    They are determined if no mix of strengths equals a side. They are infinite under separation (Albert and Anderson
    1984): along some direction of the parameters the likelihood of the whole wins rises for ever. A linear programme
    finds such a direction (Konis 2007).
    """
    design = cells.design.toarray()
    # One less than full rank, since adding a constant to all strengths changes nothing.
    if np.linalg.matrix_rank(design) < cells.size - 1:
        raise UserError(
            f"the effect of {_listed(cells.names)} can not be told from the players' strength; "
            "play every pair on both sides or leave the side out"
        )
    if ridge > 0:
        return
    played, won = cells.sums
    sign = (won == played).astype(float) - (won == 0)
    whole = design * sign[:, None]
    mixed = design[sign == 0]
    # Maximise the gain over cells won or lost as a whole; none may get worse, and mixed cells may not move at all.
    separation = linprog(
        -whole.sum(axis=0),
        A_ub=-whole,
        b_ub=np.zeros(len(whole)),
        A_eq=mixed,
        b_eq=np.zeros(len(mixed)),
        bounds=(-1, 1),
    )
    if separation.fun is not None and separation.fun < -1e-9:
        raise UserError(
            f"no finite maximum-likelihood effect of {_listed(cells.names)}: it explains every win of some players; "
            f"use a ridge, such as --ridge {RIDGE}"
        )


def _graph(nodes: int, edges: NDArray[np.intp]) -> csr_array:
    return csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(nodes, nodes))


def fit(cells: Cells, ridge: float) -> Floats:
    """Find the (P + Q,) parameters of the data, strengths with sum 0; L-BFGS comes close, Newton's method finishes."""
    played, won = cells.sums
    design = cells.design

    def loss(theta: Floats) -> tuple[float, Floats]:
        z = design @ theta
        value = (played * np.logaddexp(0, z) - won * z).sum() + ridge / 2 * theta @ theta
        return float(value), design.T @ (played * expit(z) - won) + ridge * theta

    start = minimize(loss, np.zeros(cells.size), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    return _newton(cells, played[None], won[None], ridge, start)[0]


def _newton(cells: Cells, played: Floats, won: Floats, ridge: float, start: Floats) -> Floats:
    """Fit b data sets at once by Newton's method from a common start.

    A step never moves a log-odds by more than 1, which makes every step lower the loss: the curvature of the logistic
    loss changes by at most a factor e meanwhile (Bach 2010, "Self-concordant analysis for logistic regression").

    Args:
        cells: the design.
        played: (b, C) weight of matches.
        won: (b, C) weight that the first player won.
        ridge: weight of the penalty; 0 only where a finite maximum exists.
        start: (P + Q,) parameters.

    Returns:
        (b, P + Q) parameters; strengths sum to 0.
    """
    if cells.size > DENSE:
        return _newton_iterative(cells, played, won, ridge, start)
    design = cells.design
    outer = cells.outer
    size = cells.size
    strengths = len(cells.players)
    theta = np.tile(start, (len(played), 1))
    theta[:, :strengths] -= theta[:, :strengths].mean(axis=1, keepdims=True)
    # The outcomes say nothing about the mean of the strengths: without a term that pins it the curvature is singular.
    fixed = ridge * np.eye(size)
    fixed[:strengths, :strengths] += 1.0
    for _ in range(200):
        chance = expit(theta @ design.T)
        gradient = (played * chance - won) @ design + ridge * theta
        curvature = ((played * chance * (1 - chance)) @ outer).reshape(-1, size, size) + fixed
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        reach = np.abs(step @ design.T).max(axis=1, keepdims=True)
        theta -= step / np.maximum(1, reach)
        if reach.max() < 1e-9:
            return theta
    raise UserError(f"the ratings did not settle; use a larger ridge, such as --ridge {RIDGE}")


def _newton_iterative(cells: Cells, played: Floats, won: Floats, ridge: float, start: Floats) -> Floats:
    """Variant of `_newton` for many players: each step is found by conjugate gradients, without forming the curvature.

    A step costs a few dozen passes over the cells, where solving for it directly would cost the cube of the players.
    """
    design = cells.design
    strengths = len(cells.players)
    squares = design.power(2)
    theta = np.tile(start[:, None], (1, len(played)))
    theta[:strengths] -= theta[:strengths].mean(axis=0)
    played = played.T
    won = won.T
    for _ in range(200):
        chance = expit(design @ theta)
        gradient = design.T @ (played * chance - won) + ridge * theta
        weight = played * chance * (1 - chance)

        def curve(direction: Floats, weight: Floats = weight) -> Floats:
            product = design.T @ (weight * (design @ direction)) + ridge * direction
            product[:strengths] += direction[:strengths].sum(axis=0)  # pins the mean, as in `_newton`
            return product

        diagonal = squares.T @ weight + ridge
        diagonal[:strengths] += 1.0
        step = _conjugate_gradients(curve, gradient, diagonal)
        reach = np.abs(design @ step).max(axis=0)
        theta -= step / np.maximum(1, reach)
        # What is left after a step goes with its square, and with a millionth of it for what the step was short of.
        if reach.max() < 1e-5:
            return np.ascontiguousarray(theta.T)
    raise UserError(f"the ratings did not settle; use a larger ridge, such as --ridge {RIDGE}")


def _conjugate_gradients(curve: Callable[[Floats], Floats], target: Floats, diagonal: Floats) -> Floats:
    """Solve curve(x) = target for each column, preconditioned by the diagonal (Shewchuk 1994).

    Args:
        curve: maps (n, b) directions to (n, b) products with the curvature, positive definite for each column.
        target: (n, b) right-hand sides.
        diagonal: (n, b) diagonals of the curvature.
    """
    solution = np.zeros_like(target)
    residual = target.copy()
    scaled = residual / diagonal
    direction = scaled.copy()
    size = (residual * scaled).sum(axis=0)
    goal = 1e-12 * size  # of squared norms: six digits, and the next Newton step adds as many
    for _ in range(10 * len(target)):
        if (size <= goal).all():
            break
        product = curve(direction)
        along = (direction * product).sum(axis=0)
        # Columns that are solved already have direction 0: a rate of 0 leaves them as they are.
        rate = np.divide(size, along, out=np.zeros_like(size), where=along > 0)
        solution += rate * direction
        residual -= rate * product
        scaled = residual / diagonal
        next_size = (residual * scaled).sum(axis=0)
        direction = scaled + np.divide(next_size, size, out=np.zeros_like(size), where=size > 0) * direction
        size = next_size
    return solution


def refits(cells: Cells, ridge: float, resamples: int, seed: int) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Refit on resampled clusters.

    Yields:
        Blocks of b resamples: (b, P + Q) parameters, NaN where the comparison graph falls apart; (b, C) weight of
        matches; (b, C) weight that the first player won.
    """
    # A resample may leave a player undefeated, whose maximum likelihood is infinite.
    ridge = max(ridge, RIDGE)
    start = fit(cells, ridge)
    # Dense Newton steps hold a (P + Q)^2 curvature per resample, iterative ones only the cells.
    numbers = len(cells.pairs)
    if cells.size <= DENSE:
        numbers = max(numbers, cells.size**2)
    size = max(1, BLOCK // numbers)
    for block in resample(cells.played.shape[0], resamples, seed):
        for first in range(0, len(block), size):
            counts = block[first : first + size]
            played = counts @ cells.played
            won = counts @ cells.won
            theta = _newton(cells, played, won, ridge, start)
            theta[~_connected(cells, played)] = np.nan
            yield theta, played, won


def _connected(cells: Cells, played: Floats) -> NDArray[np.bool_]:
    """(b,) whether each resample's comparison graph is connected."""
    # The b graphs are put side by side as one graph of b * P nodes: one search finds the components of all.
    nodes = len(cells.players)
    resample_index, cell = np.nonzero(played)
    graph = _graph(len(played) * nodes, cells.pairs[cell] + resample_index[:, None] * nodes)
    labels = connected_components(graph, directed=False)[1].reshape(len(played), nodes)
    return (labels == labels[:, :1]).all(axis=1)
