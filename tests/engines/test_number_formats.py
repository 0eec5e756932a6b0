"""Number formats: texts in the fastest one, probabilities in float32, and what of them is said."""

from types import SimpleNamespace

import pytest
import torch

from debate_rl.config.tree import parse_config
from debate_rl.engines import number_formats
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Choice, Message, Request
from debate_rl.engines.weights import fingerprint
from debate_rl.plan.cost import playing_memory
from debate_rl.plan.plan import Share
from debate_rl.runs.run import Run
from debate_rl.trainers.common.load import load_model
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def large(monkeypatch):
    """Every model counts as large, on a CPU that has bfloat16."""
    monkeypatch.setattr(number_formats, "LARGE", 1)
    monkeypatch.setattr(number_formats, "cpu_has_bfloat16", lambda: True)


def choices(model, count=40):
    numbers = range(count)
    return [
        Choice(messages=(Message(role="user", content=f"w{n} w{2 * n}"),), model=model, candidates=("w1", "w2"))
        for n in numbers
    ]


def gaps(engine, model):
    return [scores.logprobs[0] - scores.logprobs[1] for scores in engine.choose(choices(model))]


def test_a_small_model_is_float32_anywhere_and_a_large_one_writes_in_16_bits_where_that_is_fast(model, monkeypatch):
    monkeypatch.setattr(number_formats, "cpu_has_bfloat16", lambda: True)
    assert number_formats.text_format(model, "cpu") == "float32"
    monkeypatch.setattr(number_formats, "LARGE", 1)
    assert number_formats.text_format(model, "cpu") == "bfloat16"
    monkeypatch.setattr(number_formats, "cpu_has_bfloat16", lambda: False)
    assert number_formats.text_format(model, "cpu") == "float32"
    assert number_formats.named_format("auto", model) == "float32"


def test_a_model_that_writes_in_16_bits_is_read_in_float32_by_a_copy_of_its_own(model, large):
    engine, plain = TransformersEngine(device="cpu"), TransformersEngine(device="cpu", dtype="float32")
    request = Request(messages=(Message(role="user", content="w3 w4"),), model=model, seed=1)
    assert engine.generate([request])[0].text
    assert gaps(engine, model) == gaps(plain, model)
    assert {one.model.dtype for one in engine._networks.loaded.values()} == {torch.bfloat16, torch.float32}
    plain.generate([request])
    assert len(plain._networks.loaded) == 1


def test_answers_in_another_format_are_not_those_of_the_store(model, large):
    formats = [(None, "float32"), ("float32", "float32"), ("float32", "bfloat16"), ("auto", "auto")]
    engines = [TransformersEngine(device="cpu", dtype=one, judge_dtype=two) for one, two in formats]
    revisions = [engine.revision(model, None) for engine in engines]
    assert revisions[1] == revisions[3] == fingerprint(model) and len(set(revisions)) == 3


def test_a_judge_in_16_bits_has_a_head_in_float32(model):
    half = TransformersEngine(device="cpu", judge_dtype="bfloat16")
    found = gaps(half, model)
    network = half._networks.load(model, reads=True).model
    assert network.dtype == torch.bfloat16
    # Without the head the logits are numbers of 8 bits, and so are most of their differences.
    assert sum(gap == float(torch.tensor(gap).bfloat16()) for gap in found) <= 4
    assert found == pytest.approx(gaps(TransformersEngine(device="cpu"), model), abs=0.2)
    assert "forward" not in vars(network.get_output_embeddings())


@pytest.mark.parametrize("kind", ["classifier", "reward"])
def test_heads_of_classifiers_are_float32_on_any_base_and_under_autocast(model, kind, tmp_path):
    network = load_model(model, kind, dtype="bfloat16")
    ids = torch.tensor([[5, 6, 7]])
    with torch.autocast("cpu", torch.bfloat16):
        assert network(input_ids=ids).logits.dtype == torch.float32
    assert network.model.dtype == torch.bfloat16 and network.score.weight.dtype == torch.float32
    network.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), kind, dtype="bfloat16")
    assert torch.equal(loaded.score.weight, network.score.weight)


def test_formats_are_said_once_and_only_where_they_are_not_float32(large):
    said = []
    tree = {"models": {"debater": "lab-small", "judge": "lab-small"}, "engine": {"device": "cpu"}}
    run = Run(parse_config(tree), say=said.append)
    assert run.engine is run.engine
    (line,) = [one for one in said if one.startswith("number formats")]
    assert "texts are written in bfloat16 (lab-small, lab-base), probabilities are read in float32" in line


def test_nothing_is_said_of_lab_models():
    said = []
    run = Run(parse_config({"engine": {"device": "cpu"}}), say=said.append)
    assert run.engine and not said


def test_a_model_in_two_formats_is_in_memory_twice_and_the_plan_says_so(large):
    shares = [SimpleNamespace(**Share(model="lab-base", texts=4, verdicts=4, read_tokens=9, new_tokens=9).model_dump())]
    run = Run(parse_config({"engine": {"device": "cpu"}}))
    twice = playing_memory(run, shares, on_card=False)
    assert twice["weights read by judges"] == 2 * twice["weights"]
    once = playing_memory(Run(parse_config({"engine": {"dtype": "float32"}})), shares, on_card=False)
    assert once["weights"] == twice["weights read by judges"] and "weights read by judges" not in once
