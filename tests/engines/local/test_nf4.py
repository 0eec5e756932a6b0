"""Weights in 4 bits at play: the numbers of transformers' own 4-bit models, adapters trained on them, what is said."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from debate_rl.config.tree import parse_config
from debate_rl.engines import quantized
from debate_rl.engines.chat import candidate_ids, prompt_ids
from debate_rl.engines.load import load_tokenizer
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.number_formats import formats_line
from debate_rl.engines.request import Choice, Message, Request, Sampling
from debate_rl.engines.server.commands import Deployment, vllm_command
from debate_rl.errors import UserError
from debate_rl.plan.check import check_run
from debate_rl.plan.cost import playing_memory
from debate_rl.plan.plan import Share
from debate_rl.runs.run import Run
from tests.runs.test_run import FAST, run, small
from tests.tiny import tiny_adapter, tiny_model

pytest.importorskip("bitsandbytes", reason="weights in 4 bits need bitsandbytes")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model and an adapter of it."""
    folder = tmp_path_factory.mktemp("weights")
    base = tiny_model(folder / "base", hidden=64)
    return base, tiny_adapter(base, folder / "adapter")


def nf4_engine(**options):
    return TransformersEngine(device="cpu", dtype="nf4", judge_dtype="nf4", **options)


def choices(model, adapter, count=12):
    asked = []
    for number in range(count):
        message = Message(role="user", content=" ".join(f"w{(number * step) % 200}" for step in range(1, 9)))
        asked.append(Choice(messages=(message,), model=model, adapter=adapter, candidates=("w1", "w2 w3")))
    return asked


def own_network(choice):
    """The model of a choice as transformers and peft load it in 4 bits, without anything of ours."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    config.bnb_4bit_compute_dtype = torch.float32
    network = AutoModelForCausalLM.from_pretrained(
        choice.model, dtype=torch.float32, quantization_config=config, device_map={"": "cpu"}
    )
    for module in network.modules():
        module.support_avx512bf16_for_cpu = False  # else bitsandbytes computes in bfloat16 where the CPU can
    if choice.adapter is not None:
        network = PeftModel.from_pretrained(network, choice.adapter)
    return network.eval()


@pytest.mark.parametrize("adapted", [False, True])
def test_probabilities_are_those_of_transformers_own_4_bit_model(weights, adapted):
    base, adapter = weights
    asked = choices(base, adapter if adapted else None)
    network, tokenizer = own_network(asked[0]), load_tokenizer(base)
    answers = nf4_engine().choose(asked)
    whole = TransformersEngine(device="cpu").choose(asked)
    differences, quantized_by = [], []
    for choice, scores, unquantized in zip(asked, answers, whole, strict=True):
        prompt = prompt_ids(tokenizer, choice.messages)
        for index, candidate in enumerate(choice.candidates):
            ids = candidate_ids(tokenizer, candidate)
            with torch.inference_mode():
                logits = network(input_ids=torch.tensor([[*prompt, *ids]])).logits[0]
            logs = logits[len(prompt) - 1 : -1].log_softmax(-1)
            expected = float(sum(logs[place, token] for place, token in enumerate(ids)))
            differences.append(abs(scores.logprobs[index] - expected))
            quantized_by.append(abs(scores.logprobs[index] - unquantized.logprobs[index]))
    assert max(differences) < 1e-4
    assert max(quantized_by) > 1e-3  # the weights really are in 4 bits


def test_layers_are_held_in_4_bits_once_for_writing_and_reading(weights):
    base, adapter = weights
    engine, whole = nf4_engine(), TransformersEngine(device="cpu")
    request = Request(
        messages=(Message(role="user", content="w3 w4"),),
        model=base,
        adapter=adapter,
        seed=1,
        sampling=Sampling(max_new_tokens=12),
    )
    texts = {engine.generate([request.model_copy(update={"seed": seed})])[0].text for seed in range(6)}
    assert len(texts) > 1  # sampled
    engine.choose(choices(base, adapter))
    whole.choose(choices(base, None))
    (loaded,) = engine._networks.loaded.values()
    (plain,) = whole._networks.loaded.values()
    assert loaded.number_format == "nf4 float32" and loaded.shares  # prompts are shared as at full precision
    layer, full = (
        one.model.get_submodule(name).weight
        for one, name in (
            (loaded, "base_model.model.model.layers.0.mlp.up_proj.base_layer"),
            (plain, "model.layers.0.mlp.up_proj"),
        )
    )
    assert layer.dtype == torch.uint8 and layer.nbytes * 8 == full.nbytes


def test_answers_in_4_bits_are_not_those_of_the_store(weights):
    base, _ = weights
    revisions = {TransformersEngine(device="cpu", dtype=dtype).revision(base, None) for dtype in ("float32", "nf4")}
    assert len(revisions) == 2


def test_a_mixture_plays_with_its_experts_in_4_bits(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    from tests.tiny import tiny_tokenizer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    shape = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=256, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    MixtralForCausalLM(shape).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = nf4_engine()
    in_4_bits = engine.choose(choices(str(tmp_path), None, 3))
    whole = TransformersEngine(device="cpu").choose(choices(str(tmp_path), None, 3))
    for one, other in zip(in_4_bits, whole, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1.0) and one.logprobs != other.logprobs
    network = next(iter(engine._networks.loaded.values())).model
    assert {stored.dtype for name, stored in network.named_parameters() if "experts" in name} == {torch.uint8}


def test_what_trained_in_4_bits_plays_in_4_bits(tmp_path):
    own = {
        "sft": {"limit": 8, "quantize": "nf4", "lora": {"r": 4, "alpha": 8}, "train": {**FAST, "max_steps": 2}},
        "tournament": {"players": ["base", "sft"], "questions": 2, "resamples": 20, "evidence_probes": 0},
    }
    config = small(tmp_path, own=own, engine={"dtype": "nf4", "judge_dtype": "nf4", "device": "cpu"})
    said = []
    opened = Run(config, say=said.append)
    assert not any("4 bits" in line for line in check_run(opened))
    metrics = run(config)["tournament"]
    assert metrics["failed"] == 0 and len(metrics["ratings"]["standings"]) == 2
    elsewhere = small(tmp_path, "whole", own=own)
    line = next(line for line in check_run(Run(elsewhere)) if "4 bits" in line)
    assert line == "sft: trained on weights in 4 bits, played on whole ones; engine.dtype=nf4 plays on 4 bits"


def test_the_format_is_said_and_planned():
    from debate_rl.data.models import model_path

    line = formats_line({"lab-base": model_path("lab-base")}, "cpu", "nf4", "float32")
    assert line is not None and "texts are written in nf4 float32 (lab-base), probabilities are read in float32" in line
    shares = [SimpleNamespace(**Share(model="lab-base", texts=4, verdicts=4, read_tokens=9, new_tokens=9).model_dump())]
    memory = {}
    for dtype, judge_dtype in (("float32", "float32"), ("nf4", "nf4"), ("nf4", "float32")):
        tree = {"engine": {"device": "cpu", "dtype": dtype, "judge_dtype": judge_dtype}}
        memory[dtype, judge_dtype] = playing_memory(Run(parse_config(tree)), shares, on_card=False)
    assert memory["nf4", "nf4"]["weights"] < 0.6 * memory["float32", "float32"]["weights"]
    assert "weights read by judges" not in memory["nf4", "nf4"]
    mixed = memory["nf4", "float32"]
    assert mixed["weights read by judges"] == memory["float32", "float32"]["weights"] > mixed["weights"]


def test_a_server_is_asked_to_hold_its_weights_in_4_bits():
    words = vllm_command(Deployment(name="m", path="m", longest=10, dtype="nf4")).words
    assert words[words.index("--quantization") + 1] == "bitsandbytes" and "--dtype" not in words


@pytest.mark.parametrize("engine", [{"dtype": "nf4"}, {"judge_dtype": "nf4"}])
def test_without_bitsandbytes_there_is_one_line_before_anything_runs(tmp_path, weights, monkeypatch, engine):
    found = importlib.util.find_spec
    monkeypatch.setattr(quantized, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    config = small(tmp_path, own={"tournament": {"players": ["base", "base@2"]}}, engine=engine)
    needs = "nf4 needs bitsandbytes, which is not installed: pip install bitsandbytes"
    with pytest.raises(UserError, match=f"engine.dtype: {needs}"):
        check_run(Run(config))
    with pytest.raises(UserError, match=needs):
        nf4_engine().choose(choices(weights[0], None, 1))
    with pytest.raises(UserError, match=f"stages.sft.quantize: {needs}"):
        check_run(Run(small(tmp_path, own={"sft": {"quantize": "nf4"}})))
