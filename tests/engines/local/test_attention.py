import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.engines.local import attention
from debate_rl.engines.local.attention import attend, attend_in_pieces, merge, read


def tensors(heads, queries, keys, width=8, batch=1, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(batch, heads, n, width) for n in (queries, keys, keys)]


@pytest.mark.parametrize("kernel", [attend, attend_in_pieces])
@pytest.mark.parametrize("mode", ["all", "causal", "keys hidden", "places hidden"])
def test_outputs_and_sums_are_those_of_one_softmax(kernel, mode, monkeypatch):
    monkeypatch.setattr(attention, "_CHUNK", 100)  # several pieces
    query, key, value = tensors(2, 7, 7, batch=3)
    sees = torch.ones(3, 1, 7, 7, dtype=torch.bool)
    bias = None
    if mode == "causal":
        sees = sees.tril()
    if mode == "keys hidden":
        bias = torch.zeros(3, 1, 1, 7)
        bias[1, :, :, :4] = -torch.inf
        sees = (bias == 0).expand(3, 1, 7, 7)
    if mode == "places hidden":
        sees = sees.tril()
        sees[2, :, 5:, 1:3] = False
        bias = torch.zeros(3, 1, 7, 7).masked_fill(~sees, -torch.inf)
    out, lse = kernel(query, key, value, 0.3, mode == "causal", bias)
    scores = (query @ key.transpose(-1, -2) * 0.3).masked_fill(~sees, -torch.inf)
    assert torch.allclose(out, F.scaled_dot_product_attention(query, key, value, sees, scale=0.3), atol=1e-6)
    assert torch.allclose(lse, scores.logsumexp(-1), atol=1e-5)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 6), st.floats(0.01, 30))
def test_parts_put_together_are_the_whole(parts, queries, scale):
    query, key, value = tensors(2, queries, sum(parts), seed=sum(parts))
    out, lse = None, None
    for keys, values in zip(key.split(parts, 2), value.split(parts, 2), strict=True):
        more, more_lse = attend(query, keys, values, scale)
        if out is None:
            out, lse = more[0].clone(), more_lse[0].clone()
        else:
            merge(out, lse, more[0], more_lse[0])
    assert torch.allclose(out, F.scaled_dot_product_attention(query, key, value, scale=scale)[0], atol=2e-5)


def test_query_heads_read_the_key_head_of_their_group():
    query, key, value = tensors(2, 5, 9)
    query = torch.cat([query, query.flip(2)], 1)  # 4 query heads on 2 key heads
    out, lse = read(query[0], key[0], value[0], 0.3)
    wide, wide_lse = attend(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), 0.3)
    assert torch.allclose(out, wide[0], atol=1e-6) and torch.allclose(lse, wide_lse[0], atol=1e-5)


def test_an_attention_with_extras_is_refused():
    class Anything:
        layer_idx = 0

        def attend(self, *_):
            raise AssertionError("not reached")

    query, key, value = tensors(1, 2, 2)
    with attention._over(Anything()), pytest.raises(ValueError, match="softcap"):
        attention._trie_attention(Anything(), query, key, value, None, softcap=30.0)
