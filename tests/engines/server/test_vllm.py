"""vLLM itself, started as `debate-rl serve` says, with SmolLM2 on real stories; compared with the engine here."""

import pytest

from debate_rl.data.models import model_path
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Completion, Message, Request, Sampling
from debate_rl.game.quote_grammar import QuoteRules
from debate_rl.records import read_json
from tests.engines.server.real import (
    NAME,
    Played,
    choices,
    config_file,
    debates,
    gap,
    model_folder,
    player,
    running_vllm,
    stories,
)
from tests.engines.wire import server_engine
from tests.tiny import tiny_adapter

pytestmark = pytest.mark.slow
LETTERS = ("A", "B")
GRPO = {
    "start": "base",
    "questions": 2,
    "lora": {"r": 8, "alpha": 8},
    "rewards": {"truncated": "keep"},
    "watch": None,
    "train": {
        "max_steps": 2,
        "num_generations": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = running_vllm(tmp_path_factory.mktemp("vllm")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def engine(server):
    return server_engine(server.url, software="vllm", load_adapters=True, timeout=300.0, concurrency=4)


@pytest.fixture(scope="module")
def here():
    return TransformersEngine(model_path, dtype="float32", judge_dtype="float32")


@pytest.fixture
def read(shared_data):
    return stories(shared_data, 2)


@pytest.fixture(scope="module")
def adapter(server, tmp_path_factory):
    """A random adapter, small enough for the model to go on speaking."""
    return tiny_adapter(model_folder(), tmp_path_factory.mktemp("adapter"), spread=0.1)


def greedy(questions, adapter=None):
    sampling = Sampling(max_new_tokens=12, temperature=0)
    said = [(Message(role="user", content=f"{one.passage}\n\n{one.text}"),) for one in questions]
    return [Request(messages=text, model=NAME, adapter=adapter, sampling=sampling) for text in said]


class TestPlayed(Played):
    software = "vllm"


@pytest.mark.parametrize("with_adapter", [False, True])
@pytest.mark.parametrize("candidates", [LETTERS, None])
def test_judges_give_the_probabilities_of_the_engine_here(engine, here, read, adapter, candidates, with_adapter):
    """Whole answers as well, with an adapter loaded: their `echo` ends vLLM on a CPU."""
    plain, adapted = (choices(read, NAME, candidates, name) for name in (None, adapter))
    asked = adapted if with_adapter else plain
    found = engine.choose(asked)
    difference = gap(found, here.choose(asked))
    print(f"probabilities differ by {difference:.1e} at most")
    assert difference < 1e-3
    if with_adapter:
        assert gap(found, here.choose(plain)) > 1e-2  # it does something


def test_an_adapter_is_loaded_by_its_name_and_answers(engine, here, read, adapter):
    plain, adapted = (engine.generate(greedy(read, one)) for one in (None, adapter))
    assert all(isinstance(one, Completion) for one in (*plain, *adapted))
    assert [one.text for one in plain] != [one.text for one in adapted]
    assert [one.text for one in adapted] == [one.text for one in here.generate(greedy(read, adapter))]


def test_quotes_by_construction_are_exact(engine, read):
    opening = "The answer is {answer}. The text says: <quote>"
    quoting = player(opening=opening, quotes=QuoteRules(constrained=True, min_words=3, max_words=8))
    speeches = [speech for leg in debates(read[:2], engine, quoting, new=40) for speech in leg.transcript.speeches]
    assert all(speech.quotes for speech in speeches)
    assert {quote.verdict for speech in speeches for quote in speech.quotes} == {"exact"}


def test_online_training_swaps_the_policy_at_every_step(call, server, tmp_path, shared_data):
    path = config_file(tmp_path, server, {"grpo": GRPO}, software="vllm", load_adapters=True, temperature=1.0)
    code, _, err = call("run", path)
    assert code == 0, err
    found = read_json(tmp_path / "runs/real/grpo/metrics.json")
    assert found["steps"] == 2 and found["retokenized"] == 0 and found["skipped"]["failed_games"] == 0
    said = server.log.read_text(errors="replace")
    assert all(f"policy-step{step}-" in said for step in range(2))
    served = server_engine(server.url)._endpoint.models()
    assert not any(name.startswith("policy") for name in served)
