import gc
import random

import pytest
import torch
from transformers import PreTrainedModel

from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Choice, Message, Request, Sampling
from tests.tiny import tiny_adapter, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def words(count, seed):
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(200)}" for _ in range(count))


def asked(model, text, seed=0, new=4, adapter=None):
    message = Message(role="user", content=text)
    return Request(messages=(message,), model=model, adapter=adapter, sampling=Sampling(max_new_tokens=new), seed=seed)


def choice(request):
    return Choice(messages=request.messages, model=request.model, candidates=("w1", "w2 w3"))


def test_a_later_round_goes_on_from_the_earlier_one(model):
    story, speech = words(200, 1), words(30, 2)
    engine = TransformersEngine()
    engine.generate([asked(model, f"{story} {side}", seed) for side in ("w1", "w2") for seed in range(4)])
    assert engine.usage.encoded_tokens < 215 and engine.usage.reused_tokens == 0
    before = engine.usage.encoded_tokens
    later = [asked(model, f"{story} w1 {speech} {side}", seed) for side in ("w1", "w2") for seed in range(4)]
    answers = engine.generate(later)
    assert engine.usage.encoded_tokens - before < 45 and engine.usage.reused_tokens >= 200
    assert answers == TransformersEngine(cache_tokens=0).generate(later)


def test_only_tokens_that_are_truly_common_are_reused(model):
    story = words(100, 3)
    engine = TransformersEngine()
    engine.generate([asked(model, story)])
    other = asked(model, f"w5 {story}")
    assert engine.generate([other]) == TransformersEngine().generate([other])
    assert engine.usage.reused_tokens <= 2  # the role mark


def test_adapters_do_not_read_one_another_s_memory(model, tmp_path):
    adapters = [None, *(tiny_adapter(model, tmp_path / str(seed), seed) for seed in (1, 2))]
    text = words(80, 4)
    engine = TransformersEngine()
    found = [engine.generate([asked(model, text, adapter=adapter, new=12)])[0] for adapter in adapters]
    assert engine.usage.reused_tokens == 0 and len({answer.text for answer in found}) == 3
    for adapter, answer in zip(adapters, found, strict=True):
        assert TransformersEngine().generate([asked(model, text, adapter=adapter, new=12)]) == [answer]


@pytest.mark.parametrize("kept", [0, 60, 5000])
def test_answers_do_not_depend_on_what_fits(model, kept):
    stories = [words(60, seed) for seed in range(5)]
    requests = [asked(model, f"{story} {words(5, seed)}", seed, 6) for seed in range(3) for story in stories]
    engine = TransformersEngine(batch_tokens=220, cache_tokens=kept)
    free = TransformersEngine()
    for _ in range(2):
        assert engine.generate(requests) == free.generate(requests)
        ours, theirs = engine.choose(list(map(choice, requests))), free.choose(list(map(choice, requests)))
        for a, b in zip(ours, theirs, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert engine.usage.peak_tokens <= 220 + kept
    assert engine._memory._trie.tokens <= kept
    layers, sides, heads, width = 2, 2, 4, 8
    assert engine.usage.peak_bytes == engine.usage.peak_tokens * layers * sides * heads * width * 4


def test_a_story_is_encoded_once_though_its_rows_do_not_fit_in_one_wave(model):
    story = words(150, 7)
    requests = [asked(model, f"{story} {words(4, seed)}", new=2) for seed in range(40)]
    engine = TransformersEngine(batch_tokens=230, cache_tokens=0)
    engine.generate(requests)
    assert engine.usage.encoded_tokens < 160 + 40 * 8


def test_work_larger_than_the_memory_finds_a_part_of_it_again(model):
    stories = [asked(model, words(100, seed), new=1) for seed in range(6)]
    pairs = [request.model_copy(update={"seed": seed}) for request in stories for seed in (0, 1)]
    engine = TransformersEngine(batch_tokens=260, cache_tokens=320)
    engine.generate(pairs)
    engine.generate([request.model_copy(update={"seed": 2}) for request in pairs])
    assert engine.usage.reused_tokens >= 300


def test_released_memory_is_encoded_again(model):
    engine = TransformersEngine()
    request = asked(model, words(50, 8))
    first = engine.generate([request])
    engine.release()
    assert engine._memory._trie.tokens == 0
    assert engine.generate([request]) == first
    assert engine.usage.reused_tokens == 0


def test_an_engine_at_rest_holds_no_models_and_answers_as_before(model):
    def there():
        gc.collect()
        return sum(isinstance(one, PreTrainedModel) for one in gc.get_objects())

    before = there()
    engine = TransformersEngine()
    request = asked(model, words(50, 8))
    first = engine.generate([request])
    assert there() > before
    engine.rest()
    assert there() == before
    assert engine.generate([request]) == first


def test_a_pass_that_fails_leaves_the_memory_sound(model, monkeypatch):
    engine = TransformersEngine()
    request = asked(model, words(50, 9))
    network = engine._networks.load(model).model
    monkeypatch.setattr(network, "forward", lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        engine.generate([request])
    monkeypatch.undo()
    assert engine.generate([request]) == TransformersEngine().generate([request])
