"""Config files as trees of plain values: YAML, `extends`, and `key.path=value` overrides.

A config may be somebody else's, so it reads no files but configs of its own tree: what lies below the folder of the
config that the user named, below a folder `configs` that this is in, or below the working folder where it is in that.
Any other file has to be named by the user: `extends=PATH` on the command line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from debate_rl.errors import UserError, existing, nearest

LONGEST_CHAIN = 20
"""Files that extend one another; more is a mistake."""
LARGEST = 1 << 20
"""Bytes of a config file; the largest that ships has 4 kB."""
MOST_VALUES = 100_000
"""Of one file, those that an alias repeats counted each time: ten lines of aliases can stand for billions."""


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys and values of a config file with overrides applied, not yet checked.

    A file that has `extends: OTHER` (a path from its own folder) starts from the keys of OTHER: groups of keys are
    merged, anything else is replaced. `without: [STAGE, ...]` beside it leaves out stages of OTHER.

    Raises:
        UserError: a file is missing, is not YAML, extends itself or what lies elsewhere, or an override can not be
            applied.
    """
    named = [override.partition("=")[2] for override in overrides if override.startswith("extends=")]
    tree = _extended(Path(path), (), _own_tree(Path(path)), named[-1] if named else None)
    for override in overrides:
        if not override.startswith("extends="):
            _apply(tree, override)
    return tree


def _own_tree(path: Path) -> list[Path]:
    """The folders whose files a config may extend."""
    folder = _real(path.parent)
    shared = [one for one in (folder, *folder.parents) if one.name == "configs"]
    here = Path.cwd()
    project = [here] if here != Path(here.anchor) and folder.is_relative_to(here) else []
    return [folder, *shared[:1], *project]


def _real(path: Path) -> Path:
    """Where a path leads, links followed; a link to itself leads to itself, where `Path.resolve` raises."""
    return Path(os.path.realpath(path))


def _extended(path: Path, above: tuple[Path, ...], own: list[Path], named: str | None = None) -> dict[str, Any]:
    """A file's tree on top of the one it extends.

    Args:
        path: the file.
        above: the files that extend it.
        own: folders whose files may be extended.
        named: what the user has it extend, in place of what it says itself.
    """
    place = _real(path)
    if place in above:
        raise UserError(f"{path}: extends itself; remove one of the extends lines")
    if len(above) >= LONGEST_CHAIN:
        raise UserError(f"{path}: the last of {len(above) + 1} configs that extend one another; put some together")
    tree = _read(path)
    other = tree.pop("extends", None) if named is None else named
    if other is None:
        return tree
    if not isinstance(other, str) or not other or "\0" in other:
        raise UserError(f"{path}: extends: expected the path of a config, found {other!r}")
    target = path.parent / other
    if named is not None:
        tree.pop("extends", None)
        target = Path(named)
        own = [*own, *_own_tree(target)]
    elif not any(_real(target).is_relative_to(folder) for folder in own):
        raise UserError(
            f"{path}: extends: {other!r} lies outside {own[0]}, where this config may read; copy it there, or name it "
            "yourself: extends=PATH on the command line"
        )
    below = _extended(target, (*above, place), own)
    return _merged(_without(below, tree.pop("without", ()), path), tree)


def _read(path: Path) -> dict[str, Any]:
    """The keys and values of one file.

    Errors repeat nothing of what the file holds.

    Raises:
        UserError: it is missing, no regular file, too large or not YAML.
    """
    try:
        data = _bytes(existing(path, "config"))
        tree = yaml.safe_load(data.decode()) or {}
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}: not a YAML file{where}; see there for a quote, bracket or indent") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file: it holds characters that are no text in UTF-8") from error
    except (RecursionError, ValueError) as error:
        # Brackets in brackets a thousand deep; or a date such as 2001-99-99.
        raise UserError(f"{path}: not a YAML file that can be read: a value is nested too deep or no date") from error
    except OSError as error:
        raise UserError(f"{path}: can not be read ({error.strerror}); give the path of a config") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values, found {type(tree).__name__}")
    _count(tree, path)
    return tree


def _bytes(path: Path) -> bytes:
    """What a regular file holds. A pipe would wait for a writer and a device never end, so they are not even opened."""
    if path.is_dir():
        raise UserError(f"{path}: not a YAML file but a folder; give the config in it")
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path}: not a YAML file but a device or pipe; write the config into a file")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UserError(f"{path}: not a YAML file of keys: it has more than {LARGEST >> 20} MiB")
    return data


def _count(tree: dict[str, Any], path: Path) -> None:
    """Refuse a tree that is far larger than its file, or has no end.

    Raises:
        UserError: it has too many values.
    """
    count = 0
    rest: list[Any] = [tree]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, list | tuple | set):
            rest += value
        count += 1
        if count > MOST_VALUES:
            raise UserError(f"{path}: its aliases make more than {MOST_VALUES:,} values of it; write them out")


def _without(tree: dict[str, Any], left_out: Any, path: Path) -> dict[str, Any]:
    """A tree without some of its stages."""
    stages = tree.get("stages") or {}
    if not isinstance(left_out, list | tuple):
        raise UserError(f"{path}: without: expected a list of stages, found {left_out!r}")
    for name in left_out:
        if name not in stages:
            raise UserError(f"{path}: without: no stage {name!r} in what it extends; {nearest(str(name), stages)}")
    return {**tree, "stages": {name: stage for name, stage in stages.items() if name not in left_out}}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two trees in one: keys stay in the order of the lower one, the upper one's values count."""
    found = dict(below)
    for key, value in above.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one `key.path=value`. Errors name the key alone: a value may be a secret."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r}: write key.path=value, for example stages.dpo.objective.gamma=10")
    node = tree
    *parents, last = key.split(".")
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise UserError(f"override {key!r}: {part!r} is a value, not a group of keys")
    try:
        node[last] = yaml.safe_load(value) if value else None
    except yaml.YAMLError as error:
        raise UserError(f"override {key!r}: the value is not valid YAML; quote it") from error
