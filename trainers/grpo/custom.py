"""Rewards that are Python functions: named by a script that passes them, or by `module:function` in a config."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainSerializer

from debate_rl.errors import UserError
from debate_rl.records import digest


def function_name(function: Any) -> str | None:
    """Name of a reward function with a fingerprint of its code, as it stands in a job's note; text is left as it is.

    Example:
        >>> function_name("rewards:brief"), function_name(None)
        ('rewards:brief', None)
    """
    if function is None or isinstance(function, str):
        return function
    # A callable object has no name of its own.
    named = function if hasattr(function, "__qualname__") else type(function)
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):
        # Typed in at a prompt: there is no file with its source.
        source = repr(getattr(getattr(named, "__code__", None), "co_code", named.__qualname__))
    return f"{named.__module__}:{named.__qualname__}#{digest(source)}"


RewardFunction = Annotated[Any, PlainSerializer(function_name)]
"""A callable, or `module:function`. Only the latter can be given to processes that a job launches."""


def load_function(reward: Any) -> Callable[..., Any]:
    """The function itself.

    Raises:
        UserError: there is no such module or function, or what was given can not be called.
    """
    if callable(reward):
        return reward
    module_name, _, name = str(reward).partition(":")
    if not module_name or not name or "#" in name:
        raise UserError(
            f"reward {reward!r} is no function; give module:function, of a module that Python can import here"
        )
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"reward {reward!r}: {error}; is its folder in PYTHONPATH?") from error
    if not callable(function):
        raise UserError(f"reward {reward!r} is no function")
    return function


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
