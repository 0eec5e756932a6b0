"""The fields of TRL's and transformers' configs, with their types and choices, read from their source files.

Importing TRL takes seconds, reading its sources some hundredths of one: so a mistyped key of `train` is found when a
config is loaded, before anything else is.
"""

from __future__ import annotations

import ast
import importlib.util
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

from debate_rl.errors import UserError
from debate_rl.trainers.settings import Kind

_CLASS: dict[Kind, tuple[str, str]] = {
    "sft": ("trl/trainer/sft_config.py", "SFTConfig"),
    "dpo": ("trl/trainer/dpo_config.py", "DPOConfig"),
    "grpo": ("trl/trainer/grpo_config.py", "GRPOConfig"),
    "reward": ("trl/trainer/reward_config.py", "RewardConfig"),
    "judge": ("transformers/training_args.py", "TrainingArguments"),
    "classifier": ("transformers/training_args.py", "TrainingArguments"),
}
_SOURCES = (
    "transformers/debug_utils.py",
    "transformers/trainer_utils.py",
    "transformers/training_args.py",
    "trl/trainer/base_config.py",
)
"""Where base classes and enumerations of these classes stand."""


@cache
def config_fields(kind: Kind) -> dict[str, Any]:
    """The fields of a trainer's config and the types of their values; `Any` where a type is none of YAML's.

    Example:
        >>> config_fields("dpo")["beta"], config_fields("dpo")["save_steps"]
        (<class 'float'>, <class 'float'>)

    Raises:
        UserError: the installed TRL or transformers has no such file or class.
    """
    path, name = _CLASS[kind]
    classes = {one.name: one for source in dict.fromkeys((*_SOURCES, path)) for one in _classes(source)}
    if name not in classes:
        raise UserError(f"the installed {path.partition('/')[0]} has no {name}; install the version of constraints.txt")
    return _fields(classes, name)


def _fields(classes: dict[str, ast.ClassDef], name: str) -> dict[str, Any]:
    """The fields of a class, those of its bases first."""
    fields: dict[str, Any] = {}
    for base in classes[name].bases:
        if isinstance(base, ast.Name) and base.id in classes:
            fields |= _fields(classes, base.id)
    for line in classes[name].body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            fields[line.target.id] = _type(line.annotation, classes)
    return fields


@cache
def _classes(source: str) -> tuple[ast.ClassDef, ...]:
    """The classes of a source file of an installed package, which is not imported."""
    package, _, inside = source.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{package} is not installed; run pip install {package}")
    path = Path(next(iter(spec.submodule_search_locations))) / inside
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"can not read {path}; install the versions of constraints.txt") from error
    return tuple(line for line in tree.body if isinstance(line, ast.ClassDef))


def _type(annotation: ast.expr, classes: dict[str, ast.ClassDef]) -> Any:
    """The type that an annotation names; an enumeration is a choice of its values."""
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return None
    if isinstance(annotation, ast.BinOp):
        sides = [side for side in (annotation.left, annotation.right) if not _beside_enum(side, annotation, classes)]
        return Union[tuple(_type(side, classes) for side in sides)]  # noqa: UP007 - as many as there are
    if isinstance(annotation, ast.Name) and annotation.id in classes:
        choices = _choices(classes[annotation.id])
        return Literal[tuple(choices)] if choices else Any
    try:
        return eval(ast.unparse(annotation), {"__builtins__": {}}, _PLAIN)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any


def _beside_enum(side: ast.expr, union: ast.BinOp, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a side is the `str` of `SomeEnum | str`: the text is one of the enumeration's values."""
    others = [one for one in (union.left, union.right) if one is not side]
    enum = any(isinstance(one, ast.Name) and one.id in classes and _choices(classes[one.id]) for one in others)
    return enum and isinstance(side, ast.Name) and side.id == "str"


def _choices(enum: ast.ClassDef) -> list[str]:
    """The values of an enumeration of texts."""
    values = [line.value for line in enum.body if isinstance(line, ast.Assign)]
    return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


_PLAIN = {
    "Any": Any,
    "Literal": Literal,
    "Optional": typing.Optional,
    "Union": Union,
    **{kind.__name__: kind for kind in (bool, dict, float, int, list, str, tuple)},
}
