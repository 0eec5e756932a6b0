"""A tiny transformers model behind the server's format gives what it gives in this process."""

import pytest

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Choice, Message, Request, Sampling
from tests.engines.wire import WireServer, server_engine
from tests.tiny import WORDS, tiny_model


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(server engine, the same model in this process)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tiny_model(tmp_path_factory.mktemp("model"), words=[*WORDS, "A", "B"])
    network, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)

    def ids(text_or_messages):
        if isinstance(text_or_messages, str):
            return tokenizer(text_or_messages, add_special_tokens=False)["input_ids"]
        return prompt_ids(tokenizer, [Message(**message) for message in text_or_messages])

    @torch.no_grad()
    def logits(tokens):
        return torch.log_softmax(network(torch.tensor([list(tokens)])).logits[0].double(), -1)

    def scores(messages):
        last = logits(ids(messages))[-1]
        return {tokenizer.decode([token]): float(p) for token, p in enumerate(last)}

    def token_logprobs(tokens):
        found = logits(tokens)
        return [float(found[at - 1, tokens[at]]) for at in range(1, len(tokens))]

    local = TransformersEngine(lambda name: path)
    wire = TransformersEngine(lambda name: path)
    server = WireServer(wire, scores=scores, tokenize=ids, token_logprobs=token_logprobs)
    yield server_engine(server.url), local, server
    server.close()


def messages(number):
    return (Message(role="user", content=f"w{number} w{number + 1} w7"),)


def test_greedy_texts_are_the_same(both):
    remote, local, _ = both
    sampling = Sampling(max_new_tokens=6, temperature=0)
    asked = [Request(messages=messages(n), model="m", sampling=sampling) for n in range(5)]
    assert [one.text for one in remote.generate(asked)] == [one.text for one in local.generate(asked)]


@pytest.mark.parametrize("candidates", [("A", "B"), ("w1 w2", "w3"), ("w5 w6 w7", "w5 w8 w9")])
def test_probabilities_of_one_and_of_many_tokens_are_the_same(both, candidates):
    remote, local, _ = both
    asked = [Choice(messages=messages(n), model="m", candidates=candidates) for n in range(4)]
    for one, other in zip(remote.choose(asked), local.choose(asked), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4) and one.prompt_tokens == other.prompt_tokens


def test_candidates_among_the_likeliest_tokens_need_no_more_than_one_request(both):
    remote, local, server = both
    top = sorted(server.scores([message.model_dump() for message in messages(1)]).items(), key=lambda one: -one[1])
    asked = Choice(messages=messages(1), model="m", candidates=(top[0][0], top[5][0]))
    server.bodies.clear()
    assert remote.choose([asked])[0].logprobs == pytest.approx(local.choose([asked])[0].logprobs, abs=1e-4)
    assert [path for path, _ in server.bodies] == ["/v1/chat/completions"]


def test_a_server_that_does_not_tokenize_is_asked_once(both):
    _, _, server = both
    tokenize, server.tokenize = server.tokenize, None
    engine = server_engine(server.url)
    server.bodies.clear()
    asked = [Choice(messages=messages(n), model="m", candidates=("w1 w2", "w3 w4")) for n in range(4)]
    found = [one for choice in asked for one in engine.choose([choice])]
    server.tokenize = tokenize
    assert {one.kind for one in found} == {"neither"}
    assert sum(path == "/tokenize" for path, _ in server.bodies) == 1
