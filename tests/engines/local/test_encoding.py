import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from debate_rl.engines.local import decode, encoding, prefix, windows
from debate_rl.engines.local.models import Networks
from debate_rl.engines.local.prefix import Row, Trie
from tests.tiny import tiny_gemma, tiny_model

PIECE = st.lists(st.integers(6, 9), min_size=1, max_size=9)
ROWS = st.lists(
    st.builds(lambda pieces, keep: Row(tuple(itertools.chain([6], *pieces)), keep),
              st.lists(PIECE, min_size=1, max_size=4), st.integers(1, 2)), min_size=1, max_size=12,
)  # fmt: skip
SEVERAL = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)


@pytest.fixture(scope="module", params=["all before it", "windows"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    path = tiny_model(folder, kv_heads=2) if request.param == "all before it" else tiny_gemma(folder)
    loaded = Networks(str, torch.device("cpu"), "float32", None).load(path)
    assert loaded.shares
    return loaded.model


@pytest.fixture(params=[(1, 1), (6, 4), (10_000, 10_000)], ids=["in place", "both", "copied"])
def sizes(request, monkeypatch):
    """Every way of reading: each node by itself, small subtrees masked and the rest by itself, all in one."""
    monkeypatch.setattr(encoding, "BLOCK", request.param[0])
    monkeypatch.setattr(decode, "APART", request.param[1])
    monkeypatch.setattr(windows, "PIECE", request.param[0])


@torch.inference_mode()
def plain(model, row):
    return model(torch.tensor([row.tokens])).logits[0, -row.keep :]


def wave_of(trie, rows, extra=0):
    ends = [trie.add("base", row) for row in rows]
    (wave,) = prefix.waves(ends, [extra] * len(rows), 1 << 30, decode.APART)
    return wave


def check(model, trie, rows):
    """Encode rows in one wave, compare each with a plain pass, and return how many tokens were encoded."""
    wave = wave_of(trie, rows)
    logits, tokens = encoding.encode(model, trie, rows, wave)
    for index, found in zip(wave.members, logits, strict=True):
        assert torch.allclose(found, plain(model, rows[index]), atol=1e-5)
    return tokens


def distinct(rows):
    return {row.tokens[:size] for row in rows for size in range(1, len(row.tokens) + 1)}


@SEVERAL
@given(first=ROWS, later=ROWS)
def test_any_rows_get_the_logits_of_plain_passes_and_each_prefix_is_encoded_once(model, sizes, first, later):
    trie = Trie()
    assert check(model, trie, first) == len(distinct(first))
    # What a later call shares with the first is read from memory; only the places of wanted logits are encoded again.
    tails = {row.tokens[: len(row.tokens) - back] for row in later for back in range(row.keep)}
    assert check(model, trie, later) == len((distinct(later) - distinct(first)) | tails)


@SEVERAL
@given(first=ROWS, limit=st.integers(0, 30), later=ROWS)
def test_logits_are_the_same_after_some_of_the_memory_was_let_go(model, sizes, first, limit, later):
    trie = Trie()
    check(model, trie, first)
    trie.evict(limit)
    trie.prune()
    check(model, trie, later)


@SEVERAL
@given(rows=ROWS, seed=st.integers(0, 5))
def test_rows_go_on_with_the_logits_of_plain_passes(model, sizes, rows, seed):
    rows = [Row(row.tokens, 1) for row in rows]
    trie = Trie()
    wave = wave_of(trie, rows, extra=5)
    logits, _ = encoding.encode(model, trie, rows, wave)
    going = decode.Rows(model, wave, torch.cat(logits), room=4)
    texts = [rows[index].tokens for index in wave.members]
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(4):
        keep = torch.randperm(len(texts), generator=drawn)[: max(1, len(texts) - 1)].sort().values
        new = torch.randint(6, 200, (len(keep),), generator=drawn)
        texts = [(*texts[at], token) for at, token in zip(keep.tolist(), new.tolist(), strict=True)]
        going.step(new, None if len(keep) == len(going.logits) else keep)
        for text, found in zip(texts, going.logits, strict=True):
            assert torch.allclose(found, plain(model, Row(text, 1))[0], atol=1e-5)
