"""Packing inside a batch: every row once, within the budget; rows in a line have the outputs and gradients they have
alone, in every family, whatever they share."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.trainers.common import packing
from debate_rl.trainers.common.packing import (
    FORWARD,
    Line,
    back_in_order,
    deal,
    lines,
    make_line,
    pack,
    packable,
    read_line,
)


@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=40), budget=st.sampled_from([1, 64, 500, 2048]))
def test_every_row_is_packed_once_within_the_budget(lengths, budget):
    chunks = pack(lengths, budget)
    flat = [row for chunk in chunks for row in chunk]
    assert sorted(flat) == list(range(len(lengths)))
    assert [flat[place] for place in back_in_order(chunks).tolist()] == list(range(len(lengths)))
    for chunk in chunks:
        assert len(chunk) == 1 or len(chunk) * max(lengths[row] for row in chunk) <= budget
    assert [lengths[row] for row in flat] == sorted(lengths)


def test_a_long_row_stands_alone_and_equal_ones_together():
    assert pack([10, 500, 10, 10], 2048) == [[0, 2, 3], [1]]
    assert pack([20] * 32, 2048) == [list(range(32))]
    assert pack([5, 6], None) == [[0, 1]]
    assert pack([1, 2 + FORWARD], 2048) == [[0], [1]] and len(pack([1, FORWARD], 2048)) == 1


@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=40), budget=st.sampled_from([1, 64, 500, 2048]))
def test_lines_hold_every_row_once_within_the_budget(lengths, budget):
    found = lines(lengths, budget)
    assert sorted(row for line in found for row in line) == list(range(len(lengths)))
    assert all(len(line) == 1 or sum(lengths[row] for row in line) <= budget for line in found)
    assert deal(lengths, budget, True) == found and deal(lengths, budget, False) == pack(lengths, budget)


def test_a_line_pads_within_groups_and_counts_positions_from_each_row_s_start(monkeypatch):
    monkeypatch.setattr(packing, "SHARED", 2)
    line = make_line([[5, 7, 8], [5, 7, 9, 6], [5, 7, 9, 1]])
    assert line.shared == 2 and line.groups == ((3, 2),)
    assert line.input_ids.tolist() == [[5, 7, 8, 8, 9, 6, 9, 1]]
    assert line.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 2, 3]]
    assert line.wanted.tolist() == [2, 5, 7]


def test_what_is_read_is_never_shared(monkeypatch):
    monkeypatch.setattr(packing, "SHARED", 1)
    same = make_line([[5, 7, 8], [5, 7, 8], [5, 7, 8, 8]], read=2)
    assert same.shared == 1 and len(same.wanted) == 6
    assert make_line([[5], [6, 7]], read=3).wanted.tolist() == [0, 0, 0, 2, 2, 3]


def network(family, heads=4, **options):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(
        family, vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, num_labels=2, pad_token_id=0,
        initializer_range=0.3, **{"sliding_window": None, "use_sliding_window": False, **options},
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config)


def alone(model, rows, read):
    """(rows x read, hidden) outputs of one row at a time."""
    states = [model.model(torch.tensor([row])).last_hidden_state[0] for row in rows]
    return torch.cat([state[[max(len(state) - back, 0) for back in range(read, 0, -1)]] for state in states])


def gradients(model, outputs):
    model.zero_grad()
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", packing.FAMILIES)
@pytest.mark.parametrize(("start", "read"), [(0, 1), (9, 1), (9, 3), (0, 5)])
def test_a_line_gives_what_each_row_gives_alone(family, start, read, monkeypatch):
    monkeypatch.setattr(packing, "SHARED", 8)
    model = network(family)
    assert packable(model)
    drawn = torch.Generator().manual_seed(1)
    begin = list(range(1, 1 + start))
    lengths = [3, 3, 4, 5, 9, 20, 41]
    rows = [begin + torch.randint(10, 60, (length,), generator=drawn).tolist() for length in lengths]
    wanted = alone(model, rows, read)
    expected = gradients(model, wanted)
    line = make_line(rows, read)
    assert line.shared == start and len(line.groups) > 1
    found = read_line(model.model, line)
    assert torch.allclose(found, wanted, atol=1e-5)
    got = gradients(model, found)
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        assert torch.allclose(gradient, expected[name], atol=2e-4, rtol=1e-3), name
    # The model reads plain batches as before.
    assert torch.allclose(alone(model, rows, read), wanted, atol=1e-5)


@settings(max_examples=12)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_lines_of_any_lengths(lengths):
    model = network("llama")
    rows = sorted(([7] * length for length in lengths), key=len)
    with torch.no_grad():
        assert torch.allclose(read_line(model.model, make_line(rows)), alone(model, rows, 1), atol=1e-5)


def test_models_of_another_kind_are_not_packed():
    assert not packable(network("mistral", sliding_window=16))
    eager = network("llama")
    eager.set_attn_implementation("eager")
    assert not packable(eager)


def test_lines_are_for_one_process_on_cpu_with_and_without_checkpointing(tmp_path):
    from debate_rl.trainers.common.arguments import training_arguments
    from debate_rl.trainers.common.binary_trainer import in_lines

    rows = [[5, 6, 7], [9, 8, 7, 6]]
    for checkpointing in (False, True):
        options = {"use_cpu": True, "gradient_checkpointing": checkpointing}
        config = training_arguments("classifier", options, tmp_path, seed=0)
        model = network("llama")
        assert in_lines(model, config)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        assert torch.allclose(read_line(model.model, make_line(rows)), alone(model, rows, 1), atol=1e-5)
    assert isinstance(make_line([[1, 2]]), Line)
