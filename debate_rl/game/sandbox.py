"""The Jinja2 environment for templates from users: prompts and tasks, which may be another person's files.

A template can read the values that it is given and nothing behind them. It always ends: its loops, its numbers and its
output have limits far beyond the needs of any prompt.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.filters import do_format
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

STEPS = 200_000
"""Maximum loop iterations and macro calls of one rendering."""
LARGEST = 20_000_000
"""Maximum characters of a template's output, or of a text that it makes on the way."""
_LARGEST_NUMBER = 1_000_000
"""Maximum number in the arguments of functions and filters, such as the width of `center`."""
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*\d{6}|:[^{}]*\d{6}[^{}]*\}")
"""A format that makes a huge text from a small one: `%999999999d`, `{:>999999999}`."""
_LIMITED = "_limited"
"""Name of the filter that `_Limits` puts on `{% set %}` blocks."""


class _Counter(threading.local):
    """Steps of the rendering in progress in this thread."""

    steps = 0


_counter = _Counter()


class Sandbox(ImmutableSandboxedEnvironment):
    """A sandboxed environment whose templates always end. Arguments are those of `jinja2.Environment`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.globals["lipsum"]  # writes as much nonsense as it is asked for
        self.filters = {name: _with_limits(function) for name, function in self.filters.items()}
        self.filters["format"] = _format
        self.filters[_LIMITED] = _sized

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        # Jinja2's sandbox has no hook for loops, macros and joined texts: their limits go into the parsed template.
        tree: nodes.Template = _Limits().visit(super()._parse(source, name, filename))
        return tree

    def count_step(self) -> str:
        """Count one loop iteration or macro call; adds nothing to the output."""
        _counter.steps += 1
        if _counter.steps > STEPS:
            raise SecurityError(f"more than {STEPS:,} turns of its loops")
        return ""

    def joined(self, *values: Any) -> str:
        """Join values as Jinja2's `~` does."""
        texts = [str(value) for value in values]
        _check_size(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse a result that would be too large to hold, before it is made."""
        checks = {"+": _check_sum, "%": _check_percent_format, "*": _check_product, "**": _check_power}
        checks[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *values: Any, **named: Any) -> Any:
        """Call a function or method, and refuse arguments and results that are too large."""
        owner = getattr(function, "__self__", None)
        if owner is self:  # `count_step` or `joined`, put there by `_Limits`: they check themselves
            return function(*values)
        _check_arguments(owner, *values, *named.values())
        return _sized(super().call(context, function, *values, **named))

    def wrap_str_format(self, value: Any) -> Any:
        """Check the format before `str.format`, which the base class wraps."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped


class _Limits(NodeTransformer):
    """Rewrites a parsed template so that it counts its steps and measures the texts it joins."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counted(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._call("joined", node.nodes, node.lineno)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = nodes.Filter(node.filter, _LIMITED, [], [], None, None, lineno=node.lineno)
        return node

    def _counted(self, node: nodes.For | nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([self._call("count_step", [], node.lineno)], lineno=node.lineno))
        return node

    def _call(self, method: str, values: list[nodes.Expr], line: int) -> nodes.Call:
        # An attribute of the environment, not a name that the template could rebind with `{% set %}`.
        function = nodes.EnvironmentAttribute(method, lineno=line)
        return nodes.Call(function, values, [], None, None, lineno=line)


def fill(template: jinja2.Template, values: dict[str, Any]) -> str:
    """Render a template of a `Sandbox`.

    Raises:
        Exception: a `jinja2.TemplateError`, or whatever its expressions raise; `template_fault` describes it.
    """
    _counter.steps = 0
    pieces = []
    size = 0
    for piece in template.generate(values):
        size += len(piece)
        _check_size(size)
        pieces.append(piece)
    return "".join(pieces)


def template_fault(error: Exception) -> str:
    """Describe in one line what is wrong with a template, from the error of compiling or rendering it."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SecurityError):
        return f"the template reaches too far ({message}); use only the values that it is given, in moderate loops"
    if isinstance(error, RecursionError):
        return "the template includes or calls itself without end"
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.name or 'line'}:{error.lineno}: {message}"
    return f"the template fails: {message}"


def _format(text: Any, *values: Any, **named: Any) -> Any:
    _check_format(str(text))
    return _with_limits(do_format)(text, *values, **named)


def _with_limits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that it refuses arguments and results that are too large."""

    @functools.wraps(function)
    def limited(*values: Any, **named: Any) -> Any:
        _check_arguments(*values, *named.values())
        return _sized(function(*values, **named))

    return limited


def _check_arguments(*values: Any) -> None:
    """Refuse arguments from which a function could make a huge text: large numbers, or two long texts."""
    lengths = [1, 1]
    for value in values:
        if _exceeds(value, _LARGEST_NUMBER):
            raise SecurityError(f"a number is larger than {_LARGEST_NUMBER:,}")
        if isinstance(value, str):
            lengths.append(len(value))
    lengths.sort()
    # In `replace` every letter of one text may become the other text: the product of their lengths.
    if lengths[-1] * lengths[-2] > 50 * LARGEST:
        raise SecurityError("two long texts meet in one function")


def _check_sum(left: Any, right: Any) -> None:
    """Refuse two texts or lists that are too long together."""
    if hasattr(left, "__len__") and hasattr(right, "__len__"):
        _check_size(len(left) + len(right))


def _check_percent_format(left: Any, right: Any) -> None:
    """Refuse a wide format; `%` of numbers is a remainder, which is small."""
    if not isinstance(left, str):
        return
    _check_format(left)
    values = right if isinstance(right, tuple) else (right,)
    _check_arguments(left, *values)


def _check_product(left: Any, right: Any) -> None:
    """Refuse long repetitions (a text or list stands on either side of the sign) and huge numbers."""
    for sequence, count in ((left, right), (right, left)):
        if hasattr(sequence, "__len__") and isinstance(count, int):
            _check_size(len(sequence) * count)
    _check_factors(left, right)


def _check_power(left: Any, right: Any) -> None:
    """Refuse huge bases and exponents."""
    _check_factors(left, right)
    if _exceeds(right, 1000):
        raise SecurityError("a power is too large")


def _check_factors(left: Any, right: Any) -> None:
    # A number that is multiplied with itself in a loop doubles its digits each time.
    if _exceeds(left, 10**100) or _exceeds(right, 10**100):
        raise SecurityError("a number is too large")


def _check_format(text: str) -> None:
    if _WIDE_FORMAT.search(text):
        raise SecurityError("a format is too wide")


def _exceeds(value: Any, limit: int) -> bool:
    """Whether a value is a whole number beyond a limit."""
    return isinstance(value, int) and abs(value) > limit


def _sized(value: Any) -> Any:
    """Return a value unless it is a huge text."""
    if isinstance(value, str):
        _check_size(len(value))
    return value


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise SecurityError(f"it makes a text or list of more than {LARGEST:,} parts")
