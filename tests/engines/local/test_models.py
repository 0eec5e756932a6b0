import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers

from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.local.models import can_share
from debate_rl.engines.request import Choice, Message, Request, Sampling
from debate_rl.trainers.common.load import load_model
from tests.engines.local.test_engine import brute_force
from tests.tiny import tiny_model, tiny_tokenizer

# Name in transformers, what its config needs beyond the common sizes, and whether its rows can share.
KINDS = {
    "grouped heads": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}, True),
    "learned positions": ("GPT2", {}, True),
    "half of the width is rotated": ("GPTNeoX", {}, True),
    "experts": ("Mixtral", {"num_key_value_heads": 2, "num_local_experts": 4, "sliding_window": None}, True),
    "sliding window": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 8}, True),
    "windows and full attention in turn": (
        "Gemma3Text",
        {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "sliding_window": 8,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        True,
    ),
    "soft caps and windows": ("Gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}, False),
    "positions that depend on the length": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
        False,
    ),
    "convolutions between": ("Lfm2", {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}, False),
    "biases on distances": ("Bloom", {}, False),
}


def network(kind):
    import transformers

    name, extra, _ = KINDS[kind]
    config_class = getattr(transformers, f"{name}Config")
    sizes = {
        "vocab_size": len(tiny_tokenizer()), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.2,
        "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config_class(**{**sizes, **extra})).eval()


def ask(text):
    return (Message(role="user", content=text),)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_answers_as_it_does_alone(kind, tmp_path):
    model = network(kind)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    head = " ".join(f"w{(i * i) % 200}" for i in range(40))
    texts = [
        f"{head} {' '.join(f'w{(i * k) % 200}' for i in range(n))}" for k, n in ((3, 20), (7, 9), (7, 12), (5, 31))
    ]
    choices = [Choice(messages=ask(text), model=str(tmp_path), candidates=("w1", "w2 w3")) for text in texts]
    engine = TransformersEngine()
    for _ in range(2):  # the second time from memory
        for choice, scores in zip(choices, engine.choose(choices), strict=True):
            assert scores.logprobs == pytest.approx(brute_force(str(tmp_path), choice), abs=1e-5)
    sampling = Sampling(max_new_tokens=12, temperature=0)
    requests = [Request(messages=ask(text), model=str(tmp_path), sampling=sampling) for text in texts]
    together = engine.generate(requests)
    assert together == [TransformersEngine().generate([request])[0] for request in requests]
    assert (engine.usage.reused_tokens > 0) == KINDS[kind][2]


@pytest.mark.parametrize("kind", KINDS)
def test_several_draws_of_one_prompt_read_it_once_and_are_those_of_single_calls(kind, tmp_path):
    model = network(kind)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    prompt = ask(" ".join(f"w{(i * i) % 200}" for i in range(40)))
    requests = []
    for seed in range(6):
        # Rows end at different steps, so some go on without the others.
        sampling = Sampling(max_new_tokens=4 + 3 * seed, temperature=1.0)
        requests.append(Request(messages=prompt, model=str(tmp_path), sampling=sampling, seed=seed))
    engine = TransformersEngine()
    together = engine.generate(requests)
    assert engine.usage.encoded_tokens == together[0].prompt_tokens
    assert together == [TransformersEngine().generate([request])[0] for request in requests]


def test_a_window_is_that_of_the_model_after_the_trial(tmp_path):
    model = network("windows and full attention in turn")
    before = model(torch.arange(6, 40)[None]).logits
    assert can_share(model) and model.config.sliding_window == 8
    assert [layer.self_attn.sliding_window for layer in model.model.layers] == [8, None]
    assert torch.allclose(model(torch.arange(6, 40)[None]).logits, before, atol=1e-6)


def test_a_model_that_reads_positions_its_own_way_is_found_out():
    model = network("grouped heads")
    plain = model.forward

    def own_positions(*args, position_ids=None, **kwargs):
        return plain(*args, **kwargs)

    own_positions.__signature__ = inspect.signature(plain)
    model.forward = own_positions
    assert not can_share(model) and model.config._attn_implementation == "sdpa"
    model.forward = plain
    assert can_share(model)


def test_the_shared_attention_leaves_plain_calls_as_they_are():
    model = network("grouped heads")
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [0, 0, 7, 8, 9, 11]])
    mask = (ids != 0).long()
    before = model(ids, attention_mask=mask).logits
    assert can_share(model)
    assert torch.equal(model(ids, attention_mask=mask).logits, before)


def test_models_that_are_loaded_in_several_threads_stay_tied(tmp_path):
    path, ties = tiny_model(tmp_path), transformers.PreTrainedModel.tie_weights

    def load(number):
        one = load_model(path, "causal") if number % 2 else TransformersEngine()._networks.load(path).model
        return one.get_output_embeddings().weight is one.get_input_embeddings().weight

    tied = transformers.AutoConfig.from_pretrained(path)
    tied.tie_word_embeddings = True
    transformers.AutoModelForCausalLM.from_config(tied).save_pretrained(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(load, range(40)))
    assert transformers.PreTrainedModel.tie_weights is ties
