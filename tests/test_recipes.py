"""Every config that ships can be read, and every recipe fits the machine that it names."""

import pytest

from debate_rl.config.tree import load_config, parse_config
from debate_rl.errors import UserError
from debate_rl.plan import training_cost
from debate_rl.runs.run import Run
from debate_rl.stages import preferences, recorded_judge, sft
from debate_rl.stages.iterations import dpo_of
from debate_rl.stages.weak_to_strong import WeakToStrongStage
from debate_rl.stages.workload import Rows
from debate_rl.trainers.common.memory import Training, card_of, memory
from tests import ROOT
from tests.recipe_data import overrides

CONFIGS = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs/recipes").glob("*.yaml")])
RECIPES = [path for path in CONFIGS if path.parent.name == "recipes" and path.stem != "gpt4_transcripts"]


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
    monkeypatch.setattr(recorded_judge, "divided", lambda stage, run, share: ([], []))
    monkeypatch.setattr(WeakToStrongStage, "training_load", lambda stage, run, name, like: None)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_fits_the_cards_it_names(path, published):
    found = {row.stage: row for row in training_cost.estimates(Run(load_config(path)))}
    assert list(found)[:4] == ["sft", "judge", "debater", "consultant"]
    assert all(row.processes == (8 if path.stem.endswith("_zero3") else 1) for row in found.values())
    assert 5 < found["sft"].gib < 75
    assert 0.1 < found["debater"].hours < 20
    assert found["debater"].gib < 75


def test_a_card_that_is_too_small_is_refused_in_one_line(published):
    recipe = ROOT / "configs/recipes/mixtral_8x7b.yaml"
    with pytest.raises(UserError, match=r"stages.sft: needs about \d+ GiB .*more than 24 GiB has to give; ") as error:
        training_cost.estimates(Run(load_config(recipe, ["hardware.card=24"])))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="set quantize nf4$"):
        training_cost.estimates(Run(load_config(recipe, ["stages.sft.quantize=null"])))
    assert [row.stage for row in training_cost.estimates(Run(load_config(recipe)), {"debater"})] == ["debater"]


def test_steps_epochs_and_shared_prompts_decide_what_is_read(published):
    recipe = ROOT / "configs/recipes/qwen3_8b.yaml"

    def tokens(*overrides):
        return {row.stage: row.tokens for row in training_cost.estimates(Run(load_config(recipe, overrides)))}

    assert tokens()["sft"] == 2 * 4290 * 5000
    assert tokens("stages.sft.train.max_steps=10")["sft"] == 10 * 16 * 5000
    apart = tokens("stages.debater.dpo.share_prompt=false")["debater"]
    assert tokens()["debater"] == pytest.approx(apart * 10600 / 20600)


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


def test_the_paper_is_written_as_published():
    config = load_config(ROOT / "configs/recipes/arnesen2024.yaml")
    stages = config.stages
    assert (config.protocol.turns, config.questions.test, config.questions.train) == (2, 433, 2 * 1252)
    assert stages["judge"].from_ == "recorded"
    for name, gamma, protocol in (("debater", 7, None), ("consultant", 10, "single")):
        stage = stages[name]
        assert (stage.start, stage.iterations, stage.preferences.protocol) == ("sft_merged", 2, protocol)
        assert (stage.preferences.method, stage.preferences.questions) == ("full", 1252)
        assert (stage.dpo.lora.r, stage.dpo.lora.alpha, stage.dpo.objective.gamma) == (128, 16, gamma)
        rates = [dpo_of(stage, name, number).train["learning_rate"] for number in (1, 2)]
        assert rates == pytest.approx([1e-4, 5e-5])
    models = {player.partition("@")[0] for player in stages["tournament"].players}
    numbers = {player.partition("@")[2] or "1" for player in stages["tournament"].players}
    assert len(models) == 4 and numbers == {"1", "4", "8", "16"} and len(stages["tournament"].players) == 16
    assert list(stages)[-2:] == ["weak_to_strong", "report"]
    writeup = load_config(ROOT / "configs/recipes/writeup.yaml")
    assert (writeup.engine.dtype, writeup.stages["debater"].dpo.quantize) == ("nf4", "nf4")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["arnesen2024", "writeup"])
def test_a_dry_run_passes_on_the_real_debates(call, shared_data, tmp_path, recipe):
    changes = [*overrides(shared_data, tmp_path, recipe), f"runs={tmp_path / 'runs'}"]
    code, out, err = call("run", ROOT / f"configs/recipes/{recipe}.yaml", "--dry-run", *changes)
    assert code == 0, err
    assert "13,312" in out  # debates of 16 players: 240 pairs in order and 16 alone, on 52 test questions
    assert not (tmp_path / "runs").exists()


def test_the_judge_learns_from_people_while_others_questions_are_debated(shared_data, tmp_path):
    human = shared_data / "nyu_2023"
    tree = {
        "questions": {"source": "quality", "path": str(shared_data / "quality_example.jsonl"), "human": str(human)},
        "stages": {"judge": {"from": "recorded", "path": str(human), "questions": 20}},
    }
    run = Run(parse_config(tree))
    taught, held_out = recorded_judge.divided(run.config.stages["judge"], run, 0.25)
    stories = [{leg.transcript.question.cluster for leg in legs} for legs in (taught, held_out)]
    assert len(taught) + len(held_out) == 20 and not stories[0] & stories[1]
    tree["questions"]["human"] = None
    apart = Run(parse_config(tree))
    with pytest.raises(UserError, match=r"stories may be those of the test questions; set questions.human=.*nyu_2023"):
        recorded_judge.divided(apart.config.stages["judge"], apart, 0.25)
    tree["stages"]["judge"] = {"from": "self_play", "players": ["base"], "path": str(human)}
    with pytest.raises(UserError, match="path is for from: recorded"):
        parse_config(tree)
