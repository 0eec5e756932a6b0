"""Judges and rewards that are Python functions: passed by a script, or named as `module:function`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainSerializer

from debate_rl.errors import UserError
from debate_rl.records import digest


def function_name(function: Any) -> str | None:
    """Name of a function with a fingerprint of its code, as it stands in a job's note; text is left as it is.

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


NamedFunction = Annotated[Any, PlainSerializer(function_name)]
"""A callable, or `module:function`. Only the latter can be given to processes that a job launches."""


def load_function(function: Any, what: str = "reward") -> Callable[..., Any]:
    """The function itself.

    Args:
        function: a callable, or `module:function`.
        what: what it is for, in the error.

    Raises:
        UserError: there is no such module or function, or what was given can not be called.
    """
    if callable(function):
        return function
    module_name, _, name = str(function).partition(":")
    if not module_name or not name or "#" in name:
        raise UserError(
            f"{what} {function!r} is no function; give module:function, of a module that Python can import here"
        )
    try:
        loaded = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what} {function!r}: {error}; is its folder in PYTHONPATH?") from error
    if not callable(loaded):
        raise UserError(f"{what} {function!r} is no function")
    return loaded


def unnamed_functions(value: Any) -> list[str]:
    """Functions in a dumped record that were passed and not named, which no other process can load."""
    found = []
    if isinstance(value, list):
        for entry in value:
            found += unnamed_functions(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            # `function_name` writes a fingerprint behind the name of a function that was passed.
            if key in ("reward", "function", "decide") and isinstance(entry, str) and "#" in entry:
                found.append(entry.partition("#")[0])
            found += unnamed_functions(entry)
    return found
