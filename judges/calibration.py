"""Calibration: maps from a judge's probability to how often it is right; fitted on some clusters, used on others.

Every map takes p = P(answer A), the answer listed first, or any other probability of an event.
- temperature: logit' = slope logit. One number; swapping the answers changes nothing but the sign (Guo et al. 2017).
- platt: logit' = slope logit + intercept. The intercept mends a judge that favours one place (Platt 1999).
- isotonic: a rising step function, joined by straight lines (Zadrozny and Elkan 2002). It needs hundreds of verdicts.

A calibration belongs to a kind of game. Debates are symmetric between the sides; where a side speaks alone, a judge may
lean towards whoever speaks, which a map fitted on debates neither shows nor mends. So a calibrator may carry a second
one, `lone`, for the probability of a lone speaker (see `judges.attacks.sycophancy`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debate_rl.errors import UserError, nearest
from debate_rl.intervals import Floats, clusters, finite
from debate_rl.records import Record, read_kept

Kind = Literal["temperature", "platt", "isotonic"]

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken (13.8)."""


class Calibrator(Record):
    """A fitted map of probabilities.

    Example:
        Calibrator(kind="temperature", slope=0.62, n=433, clusters=96)   # temperature 1 / 0.62: the judge was too sure
    """

    kind: Kind
    slope: float = 1.0
    """Slope of the log-odds; below 1 for a judge that is too sure."""
    intercept: float = 0.0
    """Intercept in log-odds; 0 for temperature."""
    knots: tuple[tuple[float, float], ...] = ()
    """Isotonic: (p, calibrated p), rising; straight lines between, flat outside."""
    n: int
    """Verdicts it was fitted on."""
    clusters: int
    lone: Calibrator | None = None
    """Maps the judge's probability of a side that it reads alone. None (as in files of earlier versions) applies
    this map, of answer A, to lone speakers too."""

    def apply(self, p: ArrayLike) -> Floats:
        """Calibrate (n,) probabilities.

        Raises:
            UserError: undefined probabilities, or some outside [0, 1].
        """
        if self.kind == "isotonic":
            places, values = np.transpose(self.knots)
            return np.interp(_checked(p), places, values)
        return _sigmoid(self.apply_logits(logits(p)))

    def apply_logits(self, log_odds: ArrayLike) -> Floats:
        """Calibrate (n,) log-odds; gives log-odds."""
        z = np.asarray(log_odds, dtype=float)
        if self.kind == "isotonic":
            return logits(self.apply(_sigmoid(z)))
        return self.slope * z + self.intercept


def load_calibrator(path: str | Path) -> Calibrator:
    """Read the calibrator that was saved with a judge; one of an earlier version has no map for lone speakers.

    Raises:
        UserError: the file is missing or holds no calibrator.
    """
    return read_kept(path, Calibrator, "run the judge stage anew")


def logits(p: ArrayLike) -> Floats:
    """Log-odds of (n,) probabilities, clipped to [LEAST, 1 - LEAST].

    Raises:
        UserError: undefined probabilities, or some outside [0, 1].
    """
    clipped = np.clip(_checked(p), LEAST, 1 - LEAST)
    return np.log(clipped) - np.log1p(-clipped)


def split_clusters(
    labels: Sequence[Hashable], share: float = 0.5, seed: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows in two so that no cluster (story) is cut.

    Args:
        labels: (n,) clusters.
        share: share of the clusters that goes to the first part.
        seed: seed of the shuffle.

    Returns:
        Indices of the rows to fit on, and of the rows to apply to.

    Raises:
        UserError: fewer than two clusters, or a share that leaves a part empty.
    """
    codes = clusters(labels, len(labels))
    count = int(codes.max()) + 1
    if count < 2:
        raise UserError("one story only; give debates of two stories or more")
    size = round(share * count)
    if not 0 < size < count:
        raise UserError(
            f"a share of {share} of {count} clusters leaves a part empty; give more questions or a share nearer .5"
        )
    chosen = np.random.default_rng(seed).permutation(count)[:size]
    inside = np.isin(codes, chosen)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def fit_calibrator(
    kind: Kind, p: ArrayLike, outcomes: ArrayLike, labels: Sequence[Hashable] | None = None
) -> Calibrator:
    """Fit a calibration map by log loss (isotonic: by squares).

    Args:
        kind: kind of map.
        p: (n,) the judge's P(answer A).
        outcomes: (n,) 1 where A is correct, 0 where it is not; soft labels are allowed.
        labels: (n,) clusters, counted only; split by them first (`split_clusters`).

    Raises:
        UserError: no rows, lengths that differ, values outside [0, 1], an unknown kind, or, where places are told apart
            (platt, isotonic), outcomes that are all the same.
    """
    predicted = _checked(p)
    y = _checked(outcomes)
    if len(predicted) != len(y):
        raise UserError(f"{len(predicted)} probabilities and {len(y)} outcomes; give one outcome per verdict")
    count = int(clusters(labels, len(y)).max()) + 1
    if kind in ("platt", "isotonic") and (y.max() <= 0.5 or y.min() >= 0.5):
        # Any intercept fits one class: the map would say that answer whatever the judge says.
        raise UserError(
            f"calibration by {kind}: the correct answer is always the same one of the two in these {len(y)} verdicts; "
            "give more questions, swap the answers of some, or calibrate by temperature"
        )
    if kind == "isotonic":
        return Calibrator(kind=kind, knots=_steps(predicted, y), n=len(y), clusters=count)
    if kind not in ("temperature", "platt"):
        raise UserError(f"no calibration named {kind!r}; {nearest(kind, ['temperature', 'platt', 'isotonic'])}")
    slope, intercept = _line(logits(predicted), y, with_intercept=kind == "platt")
    return Calibrator(kind=kind, slope=slope, intercept=intercept, n=len(y), clusters=count)


def _line(z: Floats, y: Floats, *, with_intercept: bool) -> tuple[float, float]:
    """Slope and intercept of the log-odds with the least log loss; the slope is at least 0, the judge knows nothing.

    Targets are moved by one made-up verdict each way, as in Platt 1999, section 2.2: if all verdicts are correct, there
    is no finite best slope otherwise. For temperature this is symmetric, so that the order of the answers does not
    matter.
    """
    from scipy.optimize import Bounds, minimize

    positive = negative = len(y)
    if with_intercept:
        positive, negative = y.sum(), (1 - y).sum()
    targets = y * (positive + 1) / (positive + 2) + (1 - y) / (negative + 2)

    def loss(line: Floats) -> tuple[float, Floats]:
        logit = line[0] * z + line[1]
        error = _sigmoid(logit) - targets
        return float(np.mean(np.logaddexp(0, logit) - targets * logit)), np.array([np.mean(error * z), np.mean(error)])

    reach = np.inf if with_intercept else 0.0
    bounds = Bounds(np.array([0.0, -reach]), np.array([np.inf, reach]))
    tight: Any = {"ftol": 1e-15, "gtol": 1e-10}
    fitted = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds, options=tight)
    return float(fitted.x[0]), float(fitted.x[1])


def _steps(p: Floats, y: Floats) -> tuple[tuple[float, float], ...]:
    """Knots of the isotonic fit; an event that never happened in n verdicts gets 1 / (n + 2), not 0."""
    from sklearn.isotonic import IsotonicRegression  # here: it takes more than a second, which most commands save

    least = 1 / (len(p) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(p, y)
    return tuple(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True))


def _checked(p: ArrayLike) -> Floats:
    """Return (n,) values in [0, 1]."""
    array = finite(p, "probabilities")
    if ((array < 0) | (array > 1)).any():
        raise UserError("probabilities and outcomes to calibrate are between 0 and 1; apply_logits takes log-odds")
    return array


def _sigmoid(z: Floats) -> Floats:
    """The logistic function; by tanh it does not overflow."""
    return 0.5 * (1 + np.tanh(z / 2))
