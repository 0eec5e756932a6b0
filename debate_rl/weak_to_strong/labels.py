"""Makes the student's labels from the supervisor's probabilities on D2.

Burns et al. 2023 (arXiv 2312.09390) train on soft labels. The others are ablations: ground truth, hard labels, only
confident labels, losses weighted by the supervisor's confidence, and errors at a known rate. The confidence of a label
w is |2 w - 1|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from debate_rl.errors import UserError
from debate_rl.intervals import Floats
from debate_rl.judges.errors import Kind, inject
from debate_rl.judges.scores import probabilities
from debate_rl.records import Record


class Labelling(Record):
    """How a supervisor's probabilities become labels.

    Example:
        Labelling(kind="confident", share=0.5)
    """

    kind: Literal["soft", "hard", "confident", "weighted", "truth"] = "soft"
    """soft: the probabilities as they are. hard: 1 or 0; an undecided one stays 1/2. confident: soft labels of
    confident items only. weighted: soft, with each row's loss weighted by its confidence. truth: ground truth."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """For confident: smallest |2 w - 1| of a label."""
    share: float | None = Field(default=None, gt=0, le=1)
    """For confident: share of items to keep, the most confident first; ties by the items' order."""
    errors: float = Field(default=0.0, ge=0, le=1)
    """Error rate injected into the labels, before any are left out."""
    debate: float | None = None
    """Keep only labels whose answer wins a debate of explanations by at least so many log-odds: the strong model
    explains the labelled answer, the weak model the other one, and the judge compares (D, see `debate_function`). 0
    keeps those that the judge favours."""
    error_kind: Kind = "flip"
    """flip: w becomes 1 - w at that rate; mix: every label becomes what flips give on average."""

    @model_validator(mode="after")
    def _one_limit(self) -> Labelling:
        given = (self.threshold is not None) + (self.share is not None)
        if given != (self.kind == "confident"):
            raise ValueError("labels 'confident' need either 'threshold' or 'share'; the others take neither")
        return self


class Labels(Record):
    """Labels of D2.

    Example:
        Labels(kept=(0, 2), targets=(0.91, 0.04), weights=(1.0, 1.0), every=(0.91, 0.52, 0.04),
               counts={"items": 3, "unsure": 1, "kept": 2})
    """

    kept: tuple[int, ...]
    """Indices of the items that the student learns."""
    targets: tuple[float, ...]
    """Target P(answer 0) of each of these items."""
    weights: tuple[float, ...]
    """Weight of each of these items' losses; their mean is 1."""
    every: tuple[float, ...]
    """Labels of all items, before any is left out."""
    counts: dict[str, int]
    """Number of items, of those made wrong by injected flips, of unsure ones left out, and of those kept."""


def label(
    p: Sequence[float] | Floats,
    truth: Sequence[int],
    names: Sequence[str],
    how: Labelling,
    seed: int = 0,
    debate: Sequence[float] | Floats | None = None,
) -> Labels:
    """Make labels from a supervisor's probabilities.

    Args:
        p: (n,) P(answer 0).
        truth: (n,) 1 where answer 0 is correct; only the kind `truth` reads it.
        names: (n,) ids of the items, by which errors are drawn.
        how: kind of labels and errors.
        seed: seed of the errors.
        debate: (n,) log-odds by which each label's answer wins its debate; read where `how.debate` is set.

    Raises:
        UserError: number or shape of the labels does not fit the items, a label is no probability, or none is kept.
    """
    _check_lengths(p, truth, names)
    clean = np.array(truth, dtype=float) if how.kind == "truth" else probabilities(p)
    # Errors come first: the student's side can not tell a wrong label from a right one, so selection and weights must
    # see the wrong one.
    soft = inject(clean, names, how.errors, how.error_kind, seed)
    confidence = np.abs(2 * soft - 1)
    selected = _confident(confidence, how) if how.kind == "confident" else np.arange(len(soft))
    if how.debate is not None and debate is not None:
        wins = np.asarray(debate, dtype=float)[selected] >= how.debate
        if len(selected) and not wins.any():
            raise UserError(f"no label wins its debate by {how.debate:g} log-odds; lower labels.debate")
        selected = selected[wins]
    if not len(selected):
        raise UserError(f"no label is as confident as {how.threshold}; lower labels.threshold or give labels.share")
    targets = np.where(soft == 0.5, 0.5, soft > 0.5) if how.kind == "hard" else soft
    weights = confidence if how.kind == "weighted" else np.ones(len(soft))
    if not weights.any():
        raise UserError("every label is 0.5, so a weight by confidence leaves nothing to learn; take soft labels")
    # Mixing moves every label a little, so only flips can be counted.
    wrong = int((soft != clean).sum()) if how.error_kind == "flip" else 0
    return Labels(
        kept=tuple(selected.tolist()),
        targets=tuple(targets[selected].tolist()),
        weights=tuple((weights[selected] / weights[selected].mean()).tolist()),
        every=tuple(targets.tolist()),
        counts={"items": len(soft), "wrong": wrong, "unsure": len(soft) - len(selected), "kept": len(selected)},
    )


def _check_lengths(p: Sequence[float] | Floats, truth: Sequence[int], names: Sequence[str]) -> None:
    """Refuse labels that are not one number an item."""
    if not len(p) == len(truth) == len(names):
        raise UserError(f"{len(p)} labels for {len(truth)} items of {len(names)} names; give one label an item")
    if np.ndim(p) != 1:
        raise UserError(
            f"labels of shape {np.shape(p)} for {len(truth)} items; give one P(answer 0) an item, not a pair of them"
        )


def _confident(confidence: Floats, how: Labelling) -> np.ndarray:
    """Indices of the labels that are confident enough, in their order."""
    if how.threshold is not None:
        return np.flatnonzero(confidence >= how.threshold)
    count = max(1, round((how.share or 1.0) * len(confidence)))
    return np.sort(np.argsort(-confidence, kind="stable")[:count])
