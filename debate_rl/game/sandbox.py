"""The Jinja2 environment of templates that users give: prompts and tasks, which may be another person's files.

A template reads the values that it is given and nothing behind them. It also ends: its loops, its numbers and what it
writes have limits far beyond those of any prompt.
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
"""Turns of loops and calls of macros of one rendering."""
LARGEST = 20_000_000
"""Characters that a template may write, or make of a text."""
_LARGEST_NUMBER = 1_000_000
"""For the arguments of functions and filters, such as the width of `center`."""
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*\d{6}|:[^{}]*\d{6}[^{}]*\}")
"""A format that makes a huge text of a small one: `%999999999d`, `{:>999999999}`."""
_LIMITED = "_limited"


class _Counter(threading.local):
    """Steps of the rendering under way in this thread."""

    steps = 0


_counter = _Counter()


class Sandbox(ImmutableSandboxedEnvironment):
    """A sandboxed environment whose templates end. Arguments are those of `jinja2.Environment`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.globals["lipsum"]  # writes as much nonsense as it is asked for
        self.filters = {name: _with_limits(function) for name, function in self.filters.items()}
        self.filters["format"] = _format
        self.filters[_LIMITED] = _sized

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        # Limits that Jinja2's own sandbox has no hook for are written into the parsed template.
        tree: nodes.Template = _Limits().visit(super()._parse(source, name, filename))
        return tree

    def count_step(self) -> str:
        """Count one turn of a loop or one call of a macro; writes nothing."""
        _counter.steps += 1
        if _counter.steps > STEPS:
            raise SecurityError(f"more than {STEPS:,} turns of its loops")
        return ""

    def joined(self, *values: Any) -> str:
        """What Jinja2's `~` makes."""
        texts = [str(value) for value in values]
        _check_size(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse a result that would be too large to hold, before it is made."""
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _check_size(len(left) + len(right))
        if operator == "%" and isinstance(left, str):
            _check_format(left)
            _check_arguments(left, *(right if isinstance(right, tuple) else (right,)))
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if hasattr(one, "__len__") and isinstance(other, int):
                    _check_size(len(one) * other)
        if operator in ("*", "**") and (_exceeds(left, 10**100) or _exceeds(right, 10**100)):
            raise SecurityError("a number is too large")
        if operator == "**" and _exceeds(right, 1000):
            raise SecurityError("a power is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *values: Any, **named: Any) -> Any:
        """Call a function or method whose arguments and result are not too large."""
        owner = getattr(function, "__self__", None)
        if owner is self:  # what `_Limits` wrote
            return function(*values)
        _check_arguments(owner, *values, *named.values())
        return _sized(super().call(context, function, *values, **named))

    def wrap_str_format(self, value: Any) -> Any:
        """The method `format` of a text, which the sandbox replaces."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped


class _Limits(NodeTransformer):
    """Has a parsed template count its steps and measure what it joins."""

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
        # Of the environment, not by a name that the template could give to something else.
        function = nodes.EnvironmentAttribute(method, lineno=line)
        return nodes.Call(function, values, [], None, None, lineno=line)


def fill(template: jinja2.Template, values: dict[str, Any]) -> str:
    """The text that a template of a `Sandbox` makes of values.

    Raises:
        Exception: a `jinja2.TemplateError`, or whatever its expressions raise; `template_fault` puts it into words.
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
    """What is wrong with a template, in one line, from what compiling or filling it raised."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SecurityError):
        return f"the template reaches too far ({said}); use only the values that it is given, in moderate loops"
    if isinstance(error, RecursionError):
        return "the template includes or calls itself without end"
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.name or 'line'}:{error.lineno}: {said}"
    return f"the template fails: {said}"


def _format(text: Any, *values: Any, **named: Any) -> Any:
    _check_format(str(text))
    return _with_limits(do_format)(text, *values, **named)


def _with_limits(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments and result are not too large."""

    @functools.wraps(function)
    def limited(*values: Any, **named: Any) -> Any:
        _check_arguments(*values, *named.values())
        return _sized(function(*values, **named))

    return limited


def _check_arguments(*values: Any) -> None:
    """Refuse what would have a function make a huge text: large numbers, or two long texts."""
    lengths = [1, 1]
    for value in values:
        if _exceeds(value, _LARGEST_NUMBER):
            raise SecurityError(f"a number is larger than {_LARGEST_NUMBER:,}")
        if isinstance(value, str):
            lengths.append(len(value))
    lengths.sort()
    if lengths[-1] * lengths[-2] > 50 * LARGEST:  # every letter of one may become the other
        raise SecurityError("two long texts meet in one function")


def _check_format(text: str) -> None:
    if _WIDE_FORMAT.search(text):
        raise SecurityError("a format is too wide")


def _exceeds(value: Any, limit: int) -> bool:
    """Whether a value is a whole number beyond a limit."""
    return isinstance(value, int) and abs(value) > limit


def _sized(value: Any) -> Any:
    """A value that is not a huge text."""
    if isinstance(value, str):
        _check_size(len(value))
    return value


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise SecurityError(f"it makes a text or list of more than {LARGEST:,} parts")
