"""Config files as trees of plain values: YAML, `extends`, and `key.path=value` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from debate_rl.errors import UserError, nearest
from debate_rl.records import read_yaml
from debate_rl.records.yaml_text import parse_yaml

DEEPEST = 32
"""Configs that may extend one another in a row."""


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys and values of a config file with overrides applied, not yet checked.

    A file that has `extends: OTHER` (a path from its own folder) starts from the keys of OTHER: groups of keys are
    merged, anything else is replaced. `without: [STAGE, ...]` beside it leaves out stages of OTHER.

    Raises:
        UserError: a file is missing, is not YAML or extends itself, or an override can not be applied.
    """
    return with_changes(_extended(Path(path), (), Path(path).resolve().parent), overrides)


def with_changes(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A tree after changes of the form `key.path=value`; it is changed in place.

    Raises:
        UserError: an override can not be applied.
    """
    for override in overrides:
        _apply(tree, override)
    return tree


def _extended(path: Path, above: tuple[Path, ...], root: Path) -> dict[str, Any]:
    """A file's tree on top of the one it extends."""
    if path.resolve() in above:
        raise UserError(f"{path}: extends itself; remove one of the extends lines")
    if len(above) >= DEEPEST:
        raise UserError(f"{above[0]}: extends more than {DEEPEST} configs, one on another; put some into one file")
    tree = read_yaml(path, "config")
    if "extends" not in tree:
        return tree
    other = tree.pop("extends")
    if not isinstance(other, str):
        raise UserError(f"{path}: extends: expected the path of a config, found {other!r}")
    below = _extended(_inside(path, other, root), (*above, path.resolve()), root)
    return _merged(_without(below, tree.pop("without", ()), path), tree)


def _inside(path: Path, other: str, root: Path) -> Path:
    """The config that another one extends, which has to be a config of the same tree.

    A config comes from elsewhere at times; it may not have other files of the machine read.

    Raises:
        UserError: it lies elsewhere, or is no YAML file.
    """
    extended = path.parent / other
    try:
        place = extended.resolve()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: extends: not the path of a file (too long, or with a NUL in it)") from error
    named = [folder for folder in (root, *root.parents) if folder.name == "configs"]
    tree = named[0] if named else root
    if place.suffix not in (".yaml", ".yml") or not place.is_relative_to(tree):
        raise UserError(f"{path}: extends: {other!r} is no .yaml file in {tree} or below; copy the config there")
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
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one `key.path=value`. Errors name the key alone: a value may be a secret."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r}: write key.path=value, for example stages.dpo.objective.gamma=10")
    try:
        parsed = parse_yaml(value) if value else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"override {key!r}: the value is not valid YAML; quote it") from error
    set_value(tree, key, parsed, "override")


def set_value(tree: dict[str, Any], key: str, value: Any, what: str) -> None:
    """Set one key of a tree by its path.

    Args:
        tree: is changed.
        key: names with dots between them.
        value: a plain value.
        what: kind of change, for the message.

    Raises:
        UserError: a value stands where the path has a group.
    """
    node = tree
    *parents, last = key.split(".")
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise UserError(f"{what} {key!r}: {part!r} is a value, not a group of keys")
    node[last] = value
