"""Prefix sharing: a trie of token rows whose nodes hold the keys and values of encoded tokens.

The trie serves two ends. Within a call every piece that rows share is one node, so it is encoded once. Between calls
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
    """Token ids to encode, and the number of last positions whose logits are requested.

    Example:
        Row(tokens=(1, 17, 42, 9), keep=1)
    """

    tokens: tuple[int, ...]
    keep: int


@dataclass(eq=False)
class Node:
    """Consecutive tokens that rows share, after the tokens of its ancestors.

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
    """Number of the last call that read it."""
    rows: int = 0
    """Number of rows in that call that read it."""

    @property
    def path(self) -> list[Node]:
        """Nodes from the first to this one, without the root, which has no tokens."""
        nodes = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def held(self) -> bool:
        """Whether its keys and values are in memory."""
        return self.kv is not None


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens that two rows share."""
    low = 0
    high = min(len(a), len(b))
    while low < high:  # slices compare in C, so bisecting beats a loop over thousands of tokens
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Trie:
    """Tries of several models in one memory: a root per model and adapter."""

    def __init__(self) -> None:
        self._roots: dict[Hashable, Node] = {}
        self._held: dict[Node, None] = {}

    def add(self, weights: Hashable, row: Row) -> Node:
        """Find or create the nodes of a row, with a boundary before the tokens whose logits are requested.

        Returns:
            The node with which the row ends. Later rows may split it; it stays the last one of this row.

        Raises:
            ValueError: more logits are requested than the row has tokens.
        """
        if not 0 < row.keep <= len(row.tokens):
            raise ValueError("a row needs a token at every position whose logits are wanted")
        node = self._roots.setdefault(weights, Node())
        # The tail is encoded on every call, since logits are not kept. As a node of its own it can be encoded alone.
        tail = len(row.tokens) - row.keep
        position = 0
        while position < len(row.tokens):
            child = node.children.get(row.tokens[position])
            if child is None:
                end = tail if position < tail else None
                child = Node(row.tokens[position:end], position, node)
                node.children[child.tokens[0]] = child
            same = common(child.tokens, row.tokens[position : position + len(child.tokens)])
            if position < tail < position + same:
                same = tail - position
            node = child if same == len(child.tokens) else self._split(child, same)
            position += same
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two before its token `at`; the given node becomes the second part.

        Returns:
            The first part.
        """
        assert node.parent is not None
        head = Node(node.tokens[:at], node.start, node.parent, used=node.used, rows=node.rows)
        node.parent.children[head.tokens[0]] = head
        if node.kv is not None:
            # Copies, not views: a view would keep the memory of both parts until both are evicted.
            head.kv = node.kv[..., :at, :].clone()
            node.kv = node.kv[..., at:, :].clone()
            self._held[head] = None
        node.tokens = node.tokens[at:]
        node.start += at
        node.parent = head
        head.children = {node.tokens[0]: node}
        return head

    def hold(self, node: Node, kv: Any) -> None:
        """Store a node's keys and values; those of its ancestors are held already."""
        node.kv = kv
        self._held[node] = None

    def forget(self, weights: Hashable) -> None:
        """Free everything that belongs to some weights."""
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
        """Free keys and values until at most `limit` tokens are held besides those of the spared nodes.

        Nodes that a single row read go first, because nothing was shared there; then the least recently used. A node
        goes after all nodes that continue it.
        """
        spared_nodes = set(spared)
        held = [node for node in self._held if node not in spared_nodes]
        tokens = sum(len(node.tokens) for node in held)
        if tokens <= limit:
            return
        held_children: dict[Node, int] = {}
        for node in held:
            held_children[node] = sum(child.held for child in node.children.values())
        number_of = {node: number for number, node in enumerate(held)}
        # The number breaks ties, since nodes can not be compared.
        queue = [(_worth(node), number_of[node]) for node in held if not held_children[node]]
        heapq.heapify(queue)
        while tokens > limit and queue:
            _, number = heapq.heappop(queue)
            node = held[number]
            node.kv = None
            del self._held[node]
            tokens -= len(node.tokens)
            parent = node.parent
            if parent in held_children:
                held_children[parent] -= 1
                if not held_children[parent]:
                    heapq.heappush(queue, (_worth(parent), number_of[parent]))

    def prune(self) -> None:
        """Forget the nodes that hold nothing."""
        stack = list(self._roots.values())
        while stack:
            node = stack.pop()
            node.children = {token: child for token, child in node.children.items() if child.held}
            stack.extend(node.children.values())


def _worth(node: Node) -> tuple[bool, int]:
    """Sort key for eviction; the smallest goes first."""
    return node.rows > 1, node.used


@dataclass(frozen=True)
class Wave:
    """Rows that are in memory at the same time.

    Example:
        Wave(members=(4, 5, 0), ends=(Node(...), Node(...), Node(...)))
    """

    members: tuple[int, ...]
    """Indexes of rows, in the order of a walk through the trie: rows below one node are neighbours."""
    ends: tuple[Node, ...]
    """The last node of each of these rows."""

    def nodes(self) -> list[Node]:
        """All nodes of its rows, parents before children, a node's descendants right behind it."""
        nodes: dict[Node, None] = {}
        for end in self.ends:
            nodes.update(dict.fromkeys(end.path))
        return list(nodes)


def walk(ends: Sequence[Node]) -> list[int]:
    """Indexes of rows in the order of a walk through the trie, branches that are in memory first."""

    # Held branches first: if the same work is larger than the memory and repeats, what is left is used, then evicted.
    def path_key(index: int) -> list[tuple[bool, int]]:
        return [(not node.held, node.tokens[0]) for node in ends[index].path]

    return sorted(range(len(ends)), key=path_key)


def waves(ends: Sequence[Node], extra: Sequence[int], budget: int, apart: int) -> Iterator[Wave]:
    """Divide rows into waves that stay within a budget.

    Args:
        ends: the last node of each row.
        extra: tokens that will be added to each row; 0 if it is only read.
        budget: tokens in memory at once: the nodes, and for rows that are continued a copy of their short nodes and
            the new tokens, padded to the longest. A wave holds at least one row.
        apart: nodes from this many tokens up are not copied.
    """
    members: list[int] = []
    seen: set[Node] = set()
    node_tokens = 0
    widest = 0
    for index in walk(ends):
        path = ends[index].path
        copied = 0
        if extra[index]:
            copied = sum(len(node.tokens) for node in path if len(node.tokens) < apart)
        width = copied + extra[index]
        new_tokens = sum(len(node.tokens) for node in path if node not in seen)
        padded = (len(members) + 1) * max(widest, width)
        if members and node_tokens + new_tokens + padded > budget:
            yield Wave(tuple(members), tuple(ends[member] for member in members))
            members = []
            seen = set()
            node_tokens = 0
            widest = 0
            new_tokens = sum(len(node.tokens) for node in path)
        members.append(index)
        seen.update(path)
        node_tokens += new_tokens
        widest = max(widest, width)
    if members:
        yield Wave(tuple(members), tuple(ends[member] for member in members))


def touch(ends: Iterable[Node], call: int) -> None:
    """Record on every node of a call's rows that this call read it, and for how many rows."""
    for end in ends:
        for node in end.path:
            node.rows = node.rows + 1 if node.used == call else 1
            node.used = call
