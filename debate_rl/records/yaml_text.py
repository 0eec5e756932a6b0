"""YAML as people write it: nothing in it is lost in silence, and no small text stands for a huge value."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from debate_rl.records.text import clean_text

LARGEST_VALUE = 200_000
"""Maximum parts of a value: scalars, lists and groups, with those that aliases repeat."""


class _Loader(yaml.SafeLoader):
    """The safe loader; a key that stands twice in a group is an error, and texts are clean."""

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        return clean_text(value) if isinstance(value, str) else value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        # Before the base class merges the groups under `<<`, whose keys may be given anew.
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, "a key stands twice in one group", key.start_mark)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Read a YAML text.

    Raises:
        YAMLError: it is not YAML, a key stands twice in one group, or its aliases make a huge value of it.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: Any, counts: dict[int, int | None]) -> int:
    """Count the parts of a node, each as often as it is repeated.

    Args:
        node: of the parsed text.
        counts: of the nodes that were counted before; None for those that are being counted.
    """
    known = counts.get(id(node), 0)
    if known is None:
        raise yaml.constructor.ConstructorError(None, None, "an alias stands within what it names", node.start_mark)
    if known:
        return known
    counts[id(node)] = None
    count = 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            count += _count(key, counts) + _count(value, counts)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            count += _count(value, counts)
    if count > LARGEST_VALUE:
        raise yaml.constructor.ConstructorError(None, None, "aliases repeat too much of it", node.start_mark)
    counts[id(node)] = count
    return count
