"""Signs that a training taught nothing: a loss that never fell, a head that started far off, one class throughout.

A model that collapsed still gives numbers, and tables of them look like any other. So these are said aloud by whatever
trains: stages, supervisors, students, ceilings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from debate_rl.intervals import Floats
from debate_rl.trainers.common.settings import Kind

BINARY: tuple[Kind, ...] = ("judge", "classifier", "reward")
"""Kinds of training whose loss is the cross entropy of two outcomes: ln 2 for a model that knows nothing."""
KNOWS_NOTHING = math.log(2)
FAR_OFF = 2 * KNOWS_NOTHING
FELL = 0.95
"""Share of the loss of the first quarter of steps below which that of the last has fallen."""
FEWEST_STEPS, FEWEST_LOGS = 12, 4
"""A shorter course says nothing."""
FEWEST_ITEMS = 10
_MOST_NAMED = 4


def loss_signs(history: Sequence[Mapping[str, Any]], kind: Kind) -> tuple[str, ...]:
    """Signs in the losses of a training with two outcomes.

    Args:
        history: logged entries, in order of steps.
        kind: of the training; others than `BINARY` have losses without a common scale, and no signs.
    """
    logged = [(int(entry["step"]), float(entry["loss"])) for entry in history if "loss" in entry]
    if kind not in BINARY or not logged:
        return ()
    signs = []
    # The first step is logged alone.
    if logged[0][1] > FAR_OFF:
        signs.append(
            "its loss starts far above ln 2 = 0.69, that of a model that knows nothing: its first answers are sure and "
            "wrong; lower train.learning_rate, or add warm-up (train.warmup_steps)"
        )
    steps: list[float] = []
    for step, loss in logged:
        # A log is the mean of the steps since the last one.
        steps += [loss] * (step - len(steps))
    quarter = len(steps) // 4
    if len(steps) >= FEWEST_STEPS and len(logged) >= FEWEST_LOGS:
        first = float(np.mean(steps[:quarter]))
        last = float(np.mean(steps[-quarter:]))
        # A loss that is low from the start has nothing to fall to.
        if last > FELL * first and last > KNOWS_NOTHING / 2:
            signs.append(
                "its loss never fell; change train.learning_rate, raise train.num_train_epochs, or give it more rows"
            )
    return tuple(signs)


def is_one_class(p: Sequence[float] | Floats, truth: Sequence[int]) -> bool:
    """Whether a model gives one answer throughout to items whose true answers differ; ties are no answer.

    Args:
        p: (n,) P(answer 0) of the items.
        truth: (n,) 1 where answer 0 is correct.
    """
    answers = np.sign(np.round(np.asarray(p, dtype=float) - 0.5, 9))
    return len(answers) >= FEWEST_ITEMS and len(set(truth)) == 2 and len(set(answers.tolist())) == 1


def one_class_sign(count: int) -> str:
    """What is said of a model that `is_one_class`."""
    return f"it gives the same answer to all {count} items, whatever they are: it has collapsed to one class"


def said(signs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """One line a sign, with the models that show it.

    Args:
        signs: those of each model, by its name.

    Example:
        >>> said({"seed0/ceiling": ["its loss never fell"], "seed1/ceiling": ["its loss never fell"]})
        ('seed0/ceiling, seed1/ceiling: its loss never fell',)
    """
    names_by_sign: dict[str, list[str]] = {}
    for name, own in signs.items():
        for sign in own:
            names_by_sign.setdefault(sign, []).append(name)
    lines = []
    for sign, names in names_by_sign.items():
        named = ", ".join(names[:_MOST_NAMED])
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        lines.append(f"{named}{more}: {sign}")
    return tuple(lines)
