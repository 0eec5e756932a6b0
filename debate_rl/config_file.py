"""Config files as trees of plain values: YAML, `extends`, and `key.path=value` overrides.

A config may be somebody else's, so it has nothing read but configs of its own tree. The user may have it extend any
other config: `extends=PATH` on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from debate_rl.errors import UserError, nearest
from debate_rl.records import read_yaml

DEEPEST = 32
"""Configs that may extend one another in a row."""
_EXTENDS = "extends="
"""The override that names another config to extend."""


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys and values of a config file with overrides applied, not yet checked.

    A file that has `extends: OTHER` (a path from its own folder) starts from the keys of OTHER: groups of keys are
    merged, anything else is replaced. `without: [STAGE, ...]` beside it leaves out stages of OTHER. The override
    `extends=OTHER` stands in place of the file's own line; it is the user's, so OTHER may lie anywhere.

    Raises:
        UserError: a file is missing, is not YAML or extends itself, or an override can not be applied.
    """
    given = [override.removeprefix(_EXTENDS) for override in overrides if override.startswith(_EXTENDS)]
    tree = _extended(Path(path), (), _tree(Path(path)), given[-1] if given else None)
    for override in overrides:
        if not override.startswith(_EXTENDS):
            _apply(tree, override)
    return tree


def _real(path: Path) -> Path:
    """Where a path leads, links followed; a link to itself leads to itself, where `Path.resolve` raises."""
    return Path(os.path.realpath(path))


def _tree(path: Path) -> Path:
    """The folder whose configs a config may extend: its own, or the folder `configs` that it is in."""
    own = _real(path).parent
    return next((folder for folder in (own, *own.parents) if folder.name == "configs"), own)


def _extended(path: Path, above: tuple[Path, ...], root: Path, given: str | None = None) -> dict[str, Any]:
    """A file's tree on top of the one it extends, `given` by the user or named in it."""
    place = _real(path)
    if place in above:
        raise UserError(f"{path}: extends itself; remove one of the extends lines")
    if len(above) >= DEEPEST:
        raise UserError(f"{above[0]}: extends more than {DEEPEST} configs, one on another; put some into one file")
    tree = read_yaml(path, "config")
    other = tree.pop("extends", None) if given is None else given
    if other is None:
        return tree
    if not isinstance(other, str) or not other or "\0" in other:
        raise UserError(f"{path}: extends: expected the path of a config, found {other!r}")
    if given is None:
        below = _extended(_inside(path, other, root), (*above, place), root)
    else:
        tree.pop("extends", None)
        below = _extended(Path(given), (*above, place), _tree(Path(given)))
    return _merged(_without(below, tree.pop("without", ()), path), tree)


def _inside(path: Path, other: str, root: Path) -> Path:
    """The config that another one extends, which has to be a config of the same tree.

    A config comes from elsewhere at times; it may not have other files of the machine read.

    Raises:
        UserError: it lies elsewhere, or is no YAML file.
    """
    extended = path.parent / other
    place = _real(extended)
    if place.suffix not in (".yaml", ".yml") or not place.is_relative_to(root):
        raise UserError(
            f"{path}: extends: {other!r} is no .yaml file in {root} or below; copy the config there, or name it "
            "yourself: extends=PATH on the command line"
        )
    return extended


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
