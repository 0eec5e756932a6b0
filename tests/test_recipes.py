"""Every config that ships can be read, and every recipe fits the machine that it names."""

import pytest

from debate_rl.config.tree import load_config
from debate_rl.errors import UserError
from debate_rl.plan import training_cost
from debate_rl.runs.run import Run
from debate_rl.stages import judge, preferences, sft
from debate_rl.stages.workload import Rows
from debate_rl.trainers.common.memory import Training, card_of, memory
from tests import ROOT

CONFIGS = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs/recipes").glob("*.yaml")])
RECIPES = [path for path in CONFIGS if path.parent.name == "recipes" and path.stem != "quality"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_can_be_read(path):
    config = load_config(path)
    assert config.name == path.stem
    assert config.stages


@pytest.fixture
def published(monkeypatch):
    """Rows of the published numbers and of QuALITY's length in place of data that is not here."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sft, "training_rows", lambda stage, run: Rows(4290, 4290 * 5000, 10000, 500))
    monkeypatch.setattr(preferences, "pair_rows", lambda stage, run: Rows(7512, 7512 * 14600, 10000, 300))
    monkeypatch.setattr(judge, "_training_games", lambda stage, run: [])
    monkeypatch.setattr(judge, "learnt_and_held_out", lambda stage, run, games: (games, games))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_fits_the_cards_it_names(path, published):
    found = {row.stage: row for row in training_cost.estimates(Run(load_config(path)))}
    assert list(found) == ["sft", "judge", "dpo"]
    assert all(row.processes == (8 if path.stem.endswith("_zero3") else 1) for row in found.values())
    assert 5 < found["sft"].gib < 75
    assert 0.1 < found["dpo"].hours < 10


def test_a_card_that_is_too_small_is_refused_in_one_line(published):
    recipe = ROOT / "configs/recipes/mixtral_8x7b.yaml"
    with pytest.raises(UserError, match=r"stages.sft: needs about \d+ GiB .*more than 24 GiB has to give; ") as error:
        training_cost.estimates(Run(load_config(recipe, ["hardware.card=24"])))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="set quantize nf4$"):
        training_cost.estimates(Run(load_config(recipe, ["stages.sft.quantize=null"])))
    assert [row.stage for row in training_cost.estimates(Run(load_config(recipe)), {"dpo"})] == ["dpo"]


def test_steps_epochs_and_shared_prompts_decide_what_is_read(published):
    recipe = ROOT / "configs/recipes/qwen3_8b.yaml"

    def tokens(*overrides):
        return {row.stage: row.tokens for row in training_cost.estimates(Run(load_config(recipe, overrides)))}

    assert tokens()["sft"] == 2 * 4290 * 5000
    assert tokens("stages.sft.train.max_steps=10")["sft"] == 10 * 16 * 5000
    apart = tokens("stages.dpo.share_prompt=false")["dpo"]
    assert tokens()["dpo"] == pytest.approx(apart * 10600 / 20600)


def test_a_config_for_gpus_is_refused_where_there_is_none(published, monkeypatch):
    import torch

    run = Run(load_config(ROOT / "configs/recipes/qwen3_8b.yaml"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="for h100-80gb, and there is no GPU here; .*hardware=null"):
        training_cost.check_hardware(run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    training_cost.check_hardware(run)


def test_the_longest_row_decides():
    shape = training_cost.shape_of("Qwen/Qwen3-8B")
    short, long = (memory(Training(kind="sft", shape=shape, prompt=n, speech=300, lora=8)).total for n in (1000, 9000))
    assert short < long < card_of("h100-80gb").gib * 2**30
