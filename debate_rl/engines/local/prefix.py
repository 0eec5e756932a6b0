"""Who shares what: a trie of token rows, whose nodes keep the keys and values of what was encoded.

One trie serves two ends. Inside a call every piece that rows share is one node, so it is encoded once. Between calls
the nodes stay, so a prompt that continues an earlier one is encoded from where the two part. (SGLang's radix attention
keeps its cache in this form: Zheng et al. 2023, arXiv 2312.07104, section 3.)
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """Token ids to encode, of which the logits at the last `keep` positions are wanted.

    Example:
        Row(tokens=(1, 17, 42, 9), keep=1)
    """

    tokens: tuple[int, ...]
    keep: int


@dataclass(eq=False)
class Node:
    """A piece of tokens that its rows share, after those of its ancestors.

    Example:
        Node(tokens=(17, 42), start=1, parent=Node(tokens=(1,), ...))
    """

    tokens: tuple[int, ...] = ()
    start: int = 0
    """Position of its first token."""
    parent: Node | None = None
    children: dict[int, Node] = field(default_factory=dict)
    kv: Any = None
    """Tensor of keys and values, (layers, 2, key-value heads, tokens, width); None before they are encoded."""
    used: int = 0
    """The last call that read it."""
    rows: int = 0
    """Rows of that call that read it."""

    @property
    def path(self) -> list[Node]:
        """Nodes from the first to this one, without the root."""
        found = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    @property
    def held(self) -> bool:
        """Whether its keys and values are in memory."""
        return self.kv is not None


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens that two rows share."""
    length = min(len(a), len(b))
    low, high = 0, length
    while low < high:  # slices compare in C, so bisecting beats a loop over thousands of tokens
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Trie:
    """Rows of several models in one memory: a root for each model with its adapter."""

    def __init__(self) -> None:
        self._roots: dict[Hashable, Node] = {}
        self._held: dict[Node, None] = {}

    def add(self, weights: Hashable, row: Row) -> Node:
        """Find or make the nodes of a row, with a boundary before the tokens whose logits are wanted.

        Returns:
            The node with which the row ends. Later rows may split it; it stays the last one of this row.

        Raises:
            ValueError: the row has fewer tokens than logits are wanted.
        """
        if not 0 < row.keep <= len(row.tokens):
            raise ValueError("a row needs a token at every position whose logits are wanted")
        node = self._roots.setdefault(weights, Node())
        at, cut = 0, len(row.tokens) - row.keep
        while at < len(row.tokens):
            child = node.children.get(row.tokens[at])
            if child is None:
                child = Node(row.tokens[at : cut if at < cut else None], at, node)
                node.children[child.tokens[0]] = child
            same = common(child.tokens, row.tokens[at : at + len(child.tokens)])
            if at < cut < at + same:
                same = cut - at
            node = child if same == len(child.tokens) else self._split(child, same)
            at += same
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two before its token `at`; the given node becomes the second part.

        Keys and values are copied, so that either part is freed when it is let go.

        Returns:
            The first part.
        """
        assert node.parent is not None
        head = Node(node.tokens[:at], node.start, node.parent, used=node.used, rows=node.rows)
        node.parent.children[head.tokens[0]] = head
        if node.kv is not None:
            head.kv, node.kv = node.kv[..., :at, :].clone(), node.kv[..., at:, :].clone()
            self._held[head] = None
        node.tokens, node.start, node.parent = node.tokens[at:], node.start + at, head
        head.children = {node.tokens[0]: node}
        return head

    def hold(self, node: Node, kv: Any) -> None:
        """Keep a node's keys and values; its ancestors' are held already."""
        node.kv = kv
        self._held[node] = None

    def forget(self, weights: Hashable) -> None:
        """Let go of everything of some weights."""
        stack = [self._roots.pop(weights, Node())]
        while stack:
            node = stack.pop()
            self._held.pop(node, None)
            stack.extend(node.children.values())

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values are in memory."""
        return sum(len(node.tokens) for node in self._held)

    def evict(self, limit: int, spared: Collection[Node] = ()) -> None:
        """Let go of keys and values until at most `limit` tokens are held besides those of the spared nodes.

        What only one row read goes first: nothing was shared there. Then what was read longest ago goes. A node goes
        after all that continue it.
        """
        spare = set(spared)
        held = [node for node in self._held if node not in spare]
        tokens = sum(len(node.tokens) for node in held)
        if tokens <= limit:
            return
        living = {node: sum(child.held for child in node.children.values()) for node in held}
        queue = [(_worth(node), number) for number, node in enumerate(held) if not living[node]]
        number_of = {node: number for number, node in enumerate(held)}
        heapq.heapify(queue)
        while tokens > limit and queue:
            node = held[heapq.heappop(queue)[1]]
            node.kv = None
            del self._held[node]
            tokens -= len(node.tokens)
            above = node.parent
            if above in living:
                living[above] -= 1
                if not living[above]:
                    heapq.heappush(queue, (_worth(above), number_of[above]))

    def prune(self) -> None:
        """Forget the nodes that hold nothing."""
        stack = list(self._roots.values())
        while stack:
            node = stack.pop()
            node.children = {token: child for token, child in node.children.items() if child.held}
            stack.extend(node.children.values())


def _worth(node: Node) -> tuple[bool, int]:
    """Key by which nodes are let go, least first."""
    return node.rows > 1, node.used


@dataclass(frozen=True)
class Wave:
    """Rows that are in memory together.

    Example:
        Wave(members=(4, 5, 0), ends=(Node(...), Node(...), Node(...)))
    """

    members: tuple[int, ...]
    """Indexes of rows, in the order of a walk through the trie: rows below one node stand together."""
    ends: tuple[Node, ...]
    """The node with which each of them ends."""

    def nodes(self) -> list[Node]:
        """Every node on the way to its rows, parents before children, a node's descendants right behind it."""
        return list(dict.fromkeys(node for end in self.ends for node in end.path))


def walk(ends: Sequence[Node]) -> list[int]:
    """Indexes of rows in the order of a walk through the trie, branches that are in memory first.

    So of work that is larger than the memory, done again and again, what is still there is used before it is let go.
    """

    def place(index: int) -> list[tuple[bool, int]]:
        return [(not node.held, node.tokens[0]) for node in ends[index].path]

    return sorted(range(len(ends)), key=place)


def waves(ends: Sequence[Node], extra: Sequence[int], budget: int, apart: int) -> Iterator[Wave]:
    """Deal rows into waves that stay within a budget.

    Args:
        ends: the node with which each row ends.
        extra: tokens that will be added to each row; 0 where it is only read.
        budget: tokens in memory at once: the nodes, and for rows that are continued a copy of their short nodes and
            the new tokens, padded to the longest; a wave holds at least one row.
        apart: nodes from so many tokens up are not copied.
    """
    members: list[int] = []
    seen: set[int] = set()
    nodes, widest = 0, 0
    for index in walk(ends):
        path = ends[index].path
        copied = sum(len(node.tokens) for node in path if len(node.tokens) < apart) if extra[index] else 0
        new = sum(len(node.tokens) for node in path if id(node) not in seen)
        wide = max(widest, copied + extra[index])
        if members and nodes + new + (len(members) + 1) * wide > budget:
            yield _wave(members, ends)
            members, seen = [], set()
            nodes, new, wide = 0, sum(len(node.tokens) for node in path), copied + extra[index]
        members.append(index)
        seen.update(id(node) for node in path)
        nodes, widest = nodes + new, wide
    if members:
        yield _wave(members, ends)


def _wave(members: Sequence[int], ends: Sequence[Node]) -> Wave:
    return Wave(tuple(members), tuple(ends[index] for index in members))


def touch(ends: Iterable[Node], call: int) -> None:
    """Note on every node of a call's rows that this call read it, and for how many rows."""
    for end in ends:
        for node in end.path:
            node.rows = node.rows + 1 if node.used == call else 1
            node.used = call
