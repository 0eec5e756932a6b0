"""llama.cpp's server itself, with SmolLM2 in float32 on real stories; compared with the engine here."""

import pytest

from debate_rl.data.models import model_path
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Message, Request, Sampling
from debate_rl.errors import UserError
from debate_rl.game.quote_grammar import QuoteRules
from tests.engines.server.real import (
    NAME,
    Played,
    choices,
    debates,
    gap,
    model_folder,
    player,
    running_llama,
    stories,
)
from tests.engines.wire import server_engine
from tests.tiny import tiny_adapter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = running_llama(tmp_path_factory.mktemp("llama")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def engine(server):
    return server_engine(server.url, software="llama.cpp", timeout=300.0, concurrency=4)


@pytest.fixture
def read(shared_data):
    return stories(shared_data, 2)


class TestPlayed(Played):
    software = "llama.cpp"


def test_judges_give_the_probabilities_of_the_engine_here(engine, read):
    here = TransformersEngine(model_path, dtype="float32", judge_dtype="float32")
    asked = choices(read, NAME, ("A", "B"))
    difference = gap(engine.choose(asked), here.choose(asked))
    print(f"probabilities differ by {difference:.1e} at most")
    assert difference < 1e-3


def test_draws_are_the_models_own_and_all_of_them_are_counted(engine):
    """By itself llama.cpp would draw from the likeliest tokens alone, at any temperature."""
    hot = Sampling(max_new_tokens=8, temperature=5.0)
    said = (Message(role="user", content="hi"),)
    asked = [Request(messages=said, model=NAME, sampling=hot, seed=seed) for seed in range(4)]
    found = engine.generate(asked)
    usual = engine.generate([one.model_copy(update={"sampling": Sampling(max_new_tokens=8)}) for one in asked])
    assert not {one.text.split()[0] for one in found} & {one.text.split()[0] for one in usual}
    assert sum(one.new_tokens for one in found) > 2 * hot.max_new_tokens


def test_an_adapter_of_ours_is_refused_by_its_name(engine, tmp_path, read):
    adapter = tiny_adapter(model_folder(), tmp_path)
    with pytest.raises(UserError, match=f"does not serve '.*', it serves {NAME}"):
        engine.choose(choices(read[:1], NAME, ("A", "B"), adapter))


def test_quotes_by_construction_are_refused_in_a_line_and_the_server_lives_on(engine, read):
    """This build has no llguidance: it would end at the first grammar."""
    quoting = player(quotes=QuoteRules(constrained=True))
    with pytest.raises(UserError, match="does not show that it takes a grammar; build llama.cpp with") as error:
        debates(read[:1], engine, quoting)
    assert "\n" not in str(error.value)
    debates(read[:1], engine, player())
