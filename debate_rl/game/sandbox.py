"""The Jinja2 environment for templates from users: prompts and tasks, which may be another person's files.

A template can read the values that it is given and nothing behind them. It always ends: its loops, its numbers and its
output have limits far beyond the needs of any prompt.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.filters import do_format, do_tojson
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

STEPS = 200_000
"""Maximum loop iterations and macro calls of one rendering."""
LARGEST = 20_000_000
"""Maximum size of a template's output, or of a text or list that it makes on the way (see `_size`)."""
_MOST_WORK = 5 * LARGEST
"""Maximum size of all texts and lists together that one rendering makes or writes."""
_ITEM = 32
"""Size of an item of a list, in characters, beside what it holds."""
_LARGEST_NUMBER = 1_000_000
"""Maximum number in the arguments of functions and filters, such as the width of `center`."""
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\d{6}|\*)|:[^{}]*(?:\d{6}[^{}]*\}|\{)")
"""A format that makes a huge text from a small one: `%999999999d`, `{:>999999999}`, and widths that are arguments."""
_LIMITED = "_limited"
"""Name of the filter that `_Limits` puts on `{% set %}` blocks."""


_CONTAINERS = (list, tuple, dict, set, frozenset)


class _Counter(threading.local):
    """Steps and work of the rendering in progress in this thread."""

    steps = 0
    work = 0

    def add(self, size: int) -> None:
        """Count a text or list that is made or written."""
        _check_size(size)
        self.work += size
        if self.work > _MOST_WORK:
            raise SecurityError(f"its texts and lists have more than {_MOST_WORK:,} parts together")


_counter = _Counter()


class Sandbox(ImmutableSandboxedEnvironment):
    """A sandboxed environment whose templates always end. Arguments are those of `jinja2.Environment`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        finalize = options.pop("finalize", None) or str
        super().__init__(finalize=lambda value: finalize(_sized(value)), **options)
        del self.globals["lipsum"]  # writes as much nonsense as it is asked for
        self.filters = {name: _with_limits(function) for name, function in self.filters.items()}
        self.filters["format"] = _format
        self.filters["tojson"] = _tojson
        self.filters[_LIMITED] = _sized

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        # Jinja2's sandbox has no hook for loops, macros and joined texts: their limits go into the parsed template.
        tree: nodes.Template = _Limits().visit(super()._parse(source, name, filename))
        return tree

    def count_step(self, written: int) -> str:
        """Count one loop iteration or macro call and the text that it writes; adds nothing to the output."""
        _counter.steps += 1
        _counter.add(written)
        if _counter.steps > STEPS:
            raise SecurityError(f"more than {STEPS:,} turns of its loops")
        return ""

    def joined(self, *values: Any) -> str:
        """Join values as Jinja2's `~` does."""
        texts = [str(value) for value in values]
        _counter.add(sum(map(len, texts)))
        return "".join(texts)

    def held(self, value: Any) -> Any:
        """Return a list or group that the template writes out."""
        return _sized(value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse a result that would be too large to hold, before it is made."""
        checks = {"+": _check_sum, "%": _check_percent_format, "*": _check_product, "**": _check_power}
        checks[operator](left, right)
        return _sized(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, /, *values: Any, **named: Any) -> Any:
        """Call a function or method, and refuse arguments and results that are too large."""
        owner = getattr(function, "__self__", None)
        if owner is self:  # put there by `_Limits`: they check themselves
            return function(*values)
        if getattr(function, "__name__", "") == "expandtabs":
            raise SecurityError("expandtabs makes a huge text from a small one")
        _check_arguments(owner, *values, *named.values())
        return _sized(super().call(context, function, *values, **named))

    def wrap_str_format(self, value: Any) -> Any:
        """Check the format before `str.format`, which the base class wraps."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        _check_format(value.__self__)

        @functools.wraps(wrapped)
        def checked(*values: Any, **named: Any) -> Any:
            _check_arguments(value.__self__, *values, *named.values())
            return wrapped(*values, **named)

        return checked


class _Limits(NodeTransformer):
    """Rewrites a parsed template so that it counts its steps and measures the texts it joins."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counted(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._call("joined", node.nodes, node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._call("held", [node], node.lineno)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._call("held", [node], node.lineno)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        # The names on the left of `{% set a, b = ... %}` are a tuple as well.
        return self._call("held", [node], node.lineno) if node.ctx == "load" else node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = nodes.Filter(node.filter, _LIMITED, [], [], None, None, lineno=node.lineno)
        return node

    def _counted(self, node: nodes.For | nodes.Macro) -> nodes.Node:
        # Texts of loops inside count for each turn of this one as well: more than they are, and far from the limit.
        written = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        written += sum(len(text.value) for text in node.find_all(nodes.Const) if isinstance(text.value, str))
        self.generic_visit(node)
        step = self._call("count_step", [nodes.Const(written, lineno=node.lineno)], node.lineno)
        node.body.insert(0, nodes.Output([step], lineno=node.lineno))
        return node

    def _call(self, method: str, values: Sequence[nodes.Expr], line: int) -> nodes.Call:
        # An attribute of the environment, not a name that the template could rebind with `{% set %}`.
        function = nodes.EnvironmentAttribute(method, lineno=line)
        return nodes.Call(function, list(values), [], None, None, lineno=line)


def fill(template: jinja2.Template, values: dict[str, Any]) -> str:
    """Render a template of a `Sandbox`.

    Raises:
        Exception: a `jinja2.TemplateError`, or whatever its expressions raise; `template_fault` describes it.
    """
    _counter.steps = 0
    _counter.work = 0
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


def _tojson(context: Any, value: Any, indent: int | None = None) -> Any:
    if indent is not None and not 0 <= indent <= 16:
        raise SecurityError("an indent is too wide")
    return _with_limits(do_tojson)(context, value, indent)


_tojson.jinja_pass_arg = do_tojson.jinja_pass_arg  # type: ignore[attr-defined]


def _with_limits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that it refuses arguments and results that are too large."""

    @functools.wraps(function)
    def limited(*values: Any, **named: Any) -> Any:
        _check_arguments(*values, *named.values())
        return _sized(function(*values, **named))

    return limited


def _check_arguments(*values: Any) -> None:
    """Refuse arguments from which a function could make a huge text: large numbers, or two that are long."""
    lengths = [1, 1]
    for value in values:
        if _exceeds(value, _LARGEST_NUMBER):
            raise SecurityError(f"a number is larger than {_LARGEST_NUMBER:,}")
        if isinstance(value, (str, *_CONTAINERS)):
            lengths.append(_size(value))
    lengths.sort()
    # In `replace` every letter of one text may become the other text: the product of their lengths.
    if lengths[-1] * lengths[-2] > 50 * LARGEST:
        raise SecurityError("two long texts meet in one function")


def _check_sum(left: Any, right: Any) -> None:
    """Refuse two texts or lists that are too long together."""
    _check_size(_size(left) + _size(right))


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
            _check_size(max(_size(sequence), 1) * count)
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
    if _WIDE_FORMAT.search(text) or sum(map(int, re.findall(r"(?a:\d){1,6}", text))) > LARGEST:
        raise SecurityError("a format is too wide")


def _exceeds(value: Any, limit: int) -> bool:
    """Whether a value is a whole number beyond a limit."""
    return isinstance(value, int) and abs(value) > limit


def _sized(value: Any) -> Any:
    """Return a value unless it is a huge text or list, and count it."""
    _counter.add(_size(value))
    return value


def _size(value: Any, sizes: dict[int, int] | None = None) -> int:
    """Characters of a value when it is written out: what a list holds twice counts twice.

    Args:
        value: anything; what is no text or container has none.
        sizes: of the containers that were measured before, by id.
    """
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, _CONTAINERS):
        return 0
    sizes = {} if sizes is None else sizes
    if id(value) not in sizes:
        items = [*value, *value.values()] if isinstance(value, dict) else value
        _check_size(_ITEM * len(items))
        size = sum((_size(item, sizes) for item in items), _ITEM * len(items))
        sizes[id(value)] = size
    return sizes[id(value)]


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise SecurityError(f"it makes a text or list of more than {LARGEST:,} parts")
