"""Rewards that are Python functions, called so that one that fails does not end a training."""

from __future__ import annotations

import math
from typing import Any

from debate_rl.errors import UserError
from debate_rl.judges.callables import function_name, load_function


class Payer:
    """Calls a reward function, and keeps count of the calls that failed.

    A call that raises, or gives no finite number, pays nothing: what it was asked about is not learnt from.

    Args:
        reward: a callable, or `module:function`.

    Raises:
        UserError: there is no such function.
    """

    def __init__(self, reward: Any) -> None:
        self.name = str(function_name(reward)).partition("#")[0]
        self.errors = 0
        """Failed calls since `check`."""
        self._function = load_function(reward)
        self._calls = 0
        self._error = ""

    def __call__(self, *arguments: Any) -> float | None:
        """The reward; None where the call failed."""
        self._calls += 1
        try:
            paid = float(self._function(*arguments))
            problem = "" if math.isfinite(paid) else f"returned {paid}"
        except Exception as error:
            # Whatever a user's function does, a training of hours does not end by one of its calls.
            problem = f"raised {type(error).__name__}: {error}"
        if not problem:
            return paid
        self.errors += 1
        self._error = self._error or " ".join(problem.split())
        return None

    def check(self) -> None:
        """Say in a line that calls failed, once a rollout, and count anew.

        Raises:
            UserError: every call of the rollout failed.
        """
        if self.errors and self.errors == self._calls:
            raise UserError(f"reward {self.name} {self._error}, as in all of its {self._calls} calls in this step")
        if self.errors:
            print(f"reward {self.name} {self._error}; {self.errors} of {self._calls} answers earn nothing", flush=True)
        self._calls = self.errors = 0
        self._error = ""
