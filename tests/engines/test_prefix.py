import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.engines.prefix import Row, common, groups, waves

ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=3, max_size=12), st.integers(1, 2)), min_size=1, max_size=30
)


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_counts_shared_leading_tokens(a, b):
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common(a, b) == expected


@given(ROWS)
def test_groups_hold_every_row_once_and_share_what_they_say(drawn):
    rows = [Row(tuple(tokens), keep) for tokens, keep in drawn]
    found = groups(rows)
    assert sorted(index for group in found for index in group.members) == list(range(len(rows)))
    for group in found:
        heads = {rows[index].tokens[: group.shared] for index in group.members}
        assert len(heads) == 1 and group.shared >= 1
        assert all(len(rows[index].tokens) - group.shared >= rows[index].keep for index in group.members)


@given(ROWS, st.integers(1, 60))
def test_waves_hold_every_row_once_within_the_budget(drawn, budget):
    rows = [Row(tuple(tokens), keep) for tokens, keep in drawn]
    dealt = list(waves(rows, [2] * len(rows), budget))
    assert sorted(i for wave in dealt for group in wave for i in group.members) == list(range(len(rows)))
    for wave in dealt:
        shared = max(group.shared for group in wave)
        rest = max(len(rows[i].tokens) - group.shared + 2 for group in wave for i in group.members)
        count = sum(len(group.members) for group in wave)
        assert count == 1 or count * (shared + rest) <= budget


def test_two_sides_of_a_story_are_one_group_and_other_stories_are_not():
    story, other = tuple(range(100)), tuple(range(200, 300))
    rows = [Row((*story, 1), 1), Row((*other, 1), 1), Row((*story, 2), 1)]
    assert sorted((group.shared, group.members) for group in groups(rows)) == [(100, (0, 2)), (100, (1,))]


def test_a_row_without_context_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        groups([Row((1,), 1)])
