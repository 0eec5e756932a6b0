import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.engines.local.prefix import Row, Trie, common, touch, waves

TOKENS = st.lists(st.integers(0, 2), min_size=2, max_size=12).map(tuple)
ROWS = st.lists(st.builds(Row, TOKENS, st.integers(1, 2)), min_size=1, max_size=25)


def filled(rows, kv=True):
    """A trie of rows in which every node holds as many keys as it has tokens."""
    trie = Trie()
    ends = [trie.add("base", row) for row in rows]
    for end in ends:
        for node in end.path:
            if kv and not node.held:
                trie.hold(node, torch.arange(node.start, node.start + len(node.tokens)).reshape(1, 1, 1, -1, 1))
    return trie, ends


def spelled(end):
    return tuple(token for node in end.path for token in node.tokens)


def prefixes(rows):
    return {row.tokens[:size] for row in rows for size in range(1, len(row.tokens) + 1)}


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_counts_shared_leading_tokens(a, b):
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common(a, b) == expected


@given(ROWS)
def test_every_row_is_a_path_and_every_prefix_is_held_once(rows):
    trie, ends = filled(rows)
    assert [spelled(end) for end in ends] == [row.tokens for row in rows]
    assert trie.tokens == len(prefixes(rows))
    for row, end in zip(rows, ends, strict=True):
        assert len(row.tokens) - row.keep in {0, *(node.start for node in end.path)}
        assert all(node.parent.children[node.tokens[0]] is node for node in end.path)


@given(ROWS, ROWS)
def test_nodes_that_are_split_keep_their_keys(first, later):
    trie, ends = filled(first)
    for row in later:
        trie.add("base", row)
    for end in ends:
        keys = torch.cat([node.kv for node in end.path], 3).flatten()
        assert keys.tolist() == list(range(len(spelled(end))))
    assert trie.tokens == len(prefixes(first))


def test_models_share_nothing():
    trie = Trie()
    row = Row((1, 2, 3), 1)
    assert trie.add("base", row) is not trie.add("adapter", row)
    assert trie.add("base", row) is trie.add("base", row)


@given(ROWS, st.integers(1, 80), st.integers(2, 5))
def test_waves_hold_every_row_once_within_the_budget(rows, budget, apart):
    _, ends = filled(rows, kv=False)
    dealt = list(waves(ends, [2] * len(rows), budget, apart))
    assert sorted(index for wave in dealt for index in wave.members) == list(range(len(rows)))
    for wave in dealt:
        assert [ends[index] for index in wave.members] == list(wave.ends)
        copied = [sum(len(n.tokens) for n in end.path if len(n.tokens) < apart) + 2 for end in wave.ends]
        size = sum(len(node.tokens) for node in wave.nodes()) + len(copied) * max(copied)
        assert len(wave.members) == 1 or size <= budget


@given(ROWS)
def test_what_is_below_a_node_stands_together(rows):
    _, ends = filled(rows, kv=False)
    (wave,) = waves(ends, [0] * len(rows), 10_000, 4)
    nodes = wave.nodes()
    for node in nodes:
        below = [at for at, other in enumerate(nodes) if node in other.path]
        assert below == list(range(below[0], below[0] + len(below))) and nodes[below[0]] is node
        readers = [at for at, end in enumerate(wave.ends) if node in end.path]
        assert readers == list(range(readers[0], readers[0] + len(readers)))


@given(ROWS, st.integers(0, 40), st.integers(0, 24))
def test_eviction_keeps_to_its_limit_and_never_cuts_a_path(rows, limit, spared):
    trie, ends = filled(rows)
    kept = ends[spared % len(ends)].path
    trie.evict(limit, kept)
    assert trie.tokens <= limit + sum(len(node.tokens) for node in kept)
    assert all(node.held for node in kept)
    for node in itertools.chain.from_iterable(end.path for end in ends):
        assert not node.held or node.parent.parent is None or node.parent.held
    trie.evict(0)
    trie.prune()
    assert trie.tokens == 0 and not trie._roots["base"].children


def test_what_one_row_read_goes_before_what_rows_shared_and_old_before_new():
    rows = [Row((1, 1, 5), 1), Row((1, 1, 6), 1), Row((2, 2, 5), 1), Row((2, 2, 6), 1), Row((3, 3, 3), 1)]
    trie, ends = filled(rows)
    touch(ends[:2], 1)
    touch(ends[2:], 2)
    trie.evict(4)
    assert {node.tokens for end in ends for node in end.path if node.held} == {(1, 1), (2, 2)}
    trie.evict(3)
    assert {node.tokens for end in ends for node in end.path if node.held} == {(2, 2)}


def test_forgetting_one_model_leaves_the_others():
    trie, _ = filled([Row((1, 2, 3), 1)])
    other = trie.add("adapter", Row((1, 2), 1))
    trie.hold(other.path[0], torch.zeros(1))
    trie.forget("base")
    assert trie.tokens == 1
    trie.forget("base")


@pytest.mark.parametrize("row", [Row((1,), 2), Row((), 1), Row((1, 2), 0)])
def test_a_row_without_the_wanted_places_is_refused(row):
    with pytest.raises(ValueError, match="a token at every position"):
        Trie().add("base", row)
