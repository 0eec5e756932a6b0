"""Figures of the code base: size, rooms, density. Print them with `python -m tests.house`.

Product code is everything imported as `debate_rl`, tests and configs aside.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests import ROOT

ROOMS_AT_ROOT = ("trainers", "judges", "data")
"""Folders at the root that are imported as `debate_rl.NAME`."""
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.comprehension, ast.match_case)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class House:
    """What was counted over all product files."""

    files: int = 0
    lines: int = 0
    code_lines: int = 0
    comment_lines: int = 0
    nested_comprehensions: int = 0
    fmt_skips: int = 0
    stage_checks: int = 0
    function_lengths: list[int] = field(default_factory=list)
    branch_shares: list[float] = field(default_factory=list)
    long_functions: list[str] = field(default_factory=list)
    wide_functions: list[str] = field(default_factory=list)
    long_files: list[str] = field(default_factory=list)
    imports: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def product_files() -> list[Path]:
    """Every Python file of the product, each once."""
    folders = [ROOT / "debate_rl", *(ROOT / room for room in ROOMS_AT_ROOT)]
    return sorted(path for folder in folders for path in folder.rglob("*.py") if not path.is_symlink())


def room_of(path: Path) -> str:
    """The top-level room or loose module of `debate_rl` that a file belongs to."""
    parts = path.relative_to(ROOT).parts
    if parts[0] in ROOMS_AT_ROOT:
        return parts[0]
    return parts[1].removesuffix(".py")


def branches_in(function: ast.AST) -> int:
    """Decision points of a function, those of functions inside it included."""
    count = 0
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            count += 1
        if isinstance(node, ast.comprehension):
            count += len(node.ifs)
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    if not body:
        return 0
    return body[-1].end_lineno - body[0].lineno + 1


def count_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters of a function, `self` and `cls` aside."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in arguments)


def is_nested(node: ast.AST) -> bool:
    """Whether a comprehension loops twice or holds another comprehension."""
    if not isinstance(node, COMPREHENSIONS):
        return False
    if len(node.generators) > 1:
        return True
    return any(isinstance(inner, COMPREHENSIONS) for inner in ast.walk(node) if inner is not node)


def count_function(house: House, name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Add one function to the figures."""
    length = function.end_lineno - function.lineno + 1
    house.function_lengths.append(length)
    inside = body_lines(function)
    if inside >= 5:  # the share of a two-line function says nothing
        house.branch_shares.append(branches_in(function) / inside)
    if length > 80:
        house.long_functions.append(f"{name}:{function.lineno} {function.name} ({length})")
    arguments = count_arguments(function)
    if arguments > 8:
        house.wide_functions.append(f"{name}:{function.lineno} {function.name} ({arguments})")


def count_imports(house: House, room: str, tree: ast.AST) -> None:
    """Add what a file imports from other rooms; imports for type checkers alone do not count."""
    for_types: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for_types.update(node.body)
    for node in ast.walk(tree):
        if node in for_types:
            continue
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "debate_rl":
            modules = [f"debate_rl.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "debate_rl" and len(parts) > 1 and parts[1] != room:
                house.imports[room].add(parts[1])


def count_file(house: House, path: Path) -> None:
    """Add one file to the figures."""
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(ROOT))
    tree = ast.parse(text)
    count = text.count("\n")
    house.files += 1
    house.lines += count
    if count > 600:
        house.long_files.append(f"{name} ({count})")
    house.code_lines += sum(1 for line in text.splitlines() if line.strip())
    house.fmt_skips += len(re.findall(r"# fmt: (?:skip|off)", text))
    if "stages" not in path.relative_to(ROOT).parts:
        house.stage_checks += len(re.findall(r"isinstance\(stage\b|isinstance\(\w+, \w*Stage\b", text))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and "fmt:" not in token.string and "noqa" not in token.string:
            house.comment_lines += 1
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count_function(house, name, node)
        if is_nested(node):
            house.nested_comprehensions += 1
    count_imports(house, room_of(path), tree)


def measure() -> House:
    """Count every product file."""
    house = House()
    for path in product_files():
        count_file(house, path)
    return house


def floors(imports: dict[str, set[str]]) -> int:
    """Rooms on the longest chain of imports."""

    @cache
    def depth(room: str) -> int:
        return 1 + max((depth(below) for below in imports.get(room, ()) if below in rooms), default=0)

    rooms = set(imports) - {"__init__", "__main__"}
    return max(depth(room) for room in rooms)


def loose_modules() -> list[str]:
    """Modules that stand at the top of the package."""
    return sorted(path.stem for path in (ROOT / "debate_rl").glob("*.py"))


def table() -> list[tuple[str, str]]:
    """The figures, by name."""
    house = measure()
    loose = loose_modules()
    rooms = {room_of(path) for path in product_files()}
    lengths = sorted(house.function_lengths)
    middle, ninth = lengths[len(lengths) // 2], lengths[9 * len(lengths) // 10]
    per_hundred = 100 * house.comment_lines / house.code_lines
    return [
        ("product files", f"{house.files}"),
        ("product lines", f"{house.lines:,}"),
        ("rooms and loose modules at the top", f"{len(rooms)}"),
        ("floors", f"{floors(house.imports)}"),
        ("loose modules", f"{len(loose)}: {', '.join(loose)}"),
        ("function lines, median / p90 / max", f"{middle} / {ninth} / {lengths[-1]}"),
        ("branches per body line, median", f"{statistics.median(house.branch_shares):.2f}"),
        ("nested comprehensions per 1,000 lines", f"{1000 * house.nested_comprehensions / house.lines:.1f}"),
        ("comments per 100 lines", f"{per_hundred:.1f}"),
        ("fmt: skip", f"{house.fmt_skips}"),
        ("isinstance of a stage outside stages/", f"{house.stage_checks}"),
        ("files over 600 lines", f"{len(house.long_files)} {' '.join(house.long_files)}"),
        ("functions over 80 lines", f"{len(house.long_functions)} {' '.join(house.long_functions)}"),
        ("functions of more than 8 arguments", f"{len(house.wide_functions)} {' '.join(house.wide_functions)}"),
    ]


if __name__ == "__main__":
    for name, value in table():
        print(f"{name:42}{value}")
