"""A stage's adapter merged into its base: later stages train new adapters on it, with settings of their own."""

import json
import shutil
from pathlib import Path

import pytest

from debate_rl.engines.weights import fingerprint
from debate_rl.errors import UserError
from debate_rl.plan.plan import plan
from debate_rl.runs.execute import needed, stage_fingerprints
from debate_rl.runs.run import Run
from tests.runs.test_run import FAST, results, run, small, start, wait_for
from tests.tiny import tiny_adapter, tiny_model

SMALL = {"r": 4, "alpha": 8}
OWN = {
    "sft": {"limit": 12, "lora": SMALL, "train": FAST},
    "sft_merged": {"kind": "merge", "start": "sft"},
    "preferences": {"player": "sft_merged", "best_of": 2, "opponents": 1, "questions": 8},
    "dpo": {"start": "sft_merged", "lora": {"r": 8, "alpha": 2}, "train": FAST},
}
LATER = {
    "grpo": {
        "start": "dpo",
        "lora": {"r": 8, "alpha": 2},
        "questions": 6,
        "watch": None,
        "train": {**FAST, "num_generations": 2, "gradient_accumulation_steps": 1, "max_steps": 2},
    },
    "tournament": {"players": ["base", "sft", "sft_merged", "dpo@2", "grpo"], "resamples": 50, "evidence_probes": 0},
    "report": {},
}


def logits(model, adapter=None):
    """What a model with an adapter says after a fixed text."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, adapter)
    with torch.inference_mode():
        return network.eval()(input_ids=torch.arange(3, 40)[None]).logits


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose DPO has an adapter of its own on merged SFT, with what builds on it."""
    folder = tmp_path_factory.mktemp("merged")
    config = small(folder, own={**OWN, **LATER})
    return Run(config, say=lambda line: None), run(config)


def test_the_merged_model_says_what_base_and_adapter_say(finished):
    opened, metrics = finished
    base = opened.resolve("lab-base")
    merged = opened.resolve("sft_merged/model")
    with_adapter = logits(base, opened.resolve("sft/adapter"))
    assert float((logits(merged) - with_adapter).abs().max()) < 1e-4 * float(with_adapter.abs().max())
    assert float((logits(base) - with_adapter).abs().max()) > 0.01  # the adapter does something
    told = metrics["sft_merged"]
    assert (told["base"], told["fingerprint"], told["number_format"]) == (
        fingerprint(base),
        fingerprint(merged),
        "float32",
    )


def test_the_sum_is_rounded_once_to_the_format_of_the_base(tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from debate_rl.trainers.common.merge import merge_adapter

    base = tiny_model(tmp_path / "whole")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    for file in Path(base).glob("token*.json"):
        shutil.copy(file, tmp_path / "half")
    shutil.copy(Path(base) / "chat_template.jinja", tmp_path / "half")
    adapter = tiny_adapter(str(tmp_path / "half"), tmp_path / "adapter")
    merged = merge_adapter(str(tmp_path / "half"), adapter, tmp_path / "merged")
    assert merged.number_format == "bfloat16"
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    name = "model.layers.0.mlp.up_proj"
    parts = load_file(tmp_path / "adapter/adapter_model.safetensors")
    a, b = (parts[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
    old = load_file(tmp_path / "half/model.safetensors")[f"{name}.weight"].float()
    exact = (old + b @ a * (config["lora_alpha"] / config["r"])).bfloat16().float()
    new = load_file(tmp_path / "merged/model.safetensors")[f"{name}.weight"].float()
    # Equal but where two float32 sums fall on either side of the middle between two bfloat16 numbers.
    assert float((new != exact).float().mean()) < 0.01


def test_dpo_trains_an_adapter_of_its_own_whose_reference_is_the_merged_model(finished):
    opened, _ = finished
    adapter = json.loads((opened.folder / "dpo/adapter/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (8, 2)
    history = json.loads((opened.folder / "dpo/history.json").read_text())
    # A new adapter changes nothing before its first step, so policy and reference are one: loss ln 2 for P = 1/2 and
    # P = 1 alike, and reward margins of exactly 0.
    assert history[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)
    base = json.loads((opened.folder / "dpo/adapter/base.json").read_text())
    assert base["fingerprint"] == fingerprint(opened.resolve("sft_merged/model"))
    assert Path(adapter["base_model_name_or_path"]).is_dir()  # the merged model lies where other tools look for it
    assert opened.weights("dpo", "lab-base") == ("sft_merged/model", "dpo/adapter")
    card = (opened.folder / "dpo/adapter/README.md").read_text()
    assert "| base model | sft_merged/model |" in card and "| reference | sft_merged |" in card


def test_what_builds_on_it_plays_and_trains_on_the_merged_base(finished):
    opened, metrics = finished
    assert opened.weights("grpo", "lab-base") == ("sft_merged/model", "grpo/adapter")
    base = json.loads((opened.folder / "grpo/adapter/base.json").read_text())
    assert base["fingerprint"] == fingerprint(opened.resolve("sft_merged/model"))
    rated = {row["player"] for row in metrics["tournament"]["ratings"]["standings"]}
    assert rated == {"base", "sft", "sft_merged", "dpo@2", "grpo"} and metrics["tournament"]["failed"] == 0
    player = opened.debater("dpo@2")
    assert (player.model, player.adapter, player.best_of) == ("sft_merged/model", "dpo/adapter", 2)
    assert needed(opened.config, "dpo") == {"sft", "sft_merged", "preferences", "dpo"}


def test_another_run_finds_the_merged_base_of_a_player_that_it_names_by_its_folder(finished, tmp_path):
    opened, _ = finished
    moved = tmp_path / "moved"
    shutil.copytree(opened.folder, moved)
    for path in (moved / "dpo", moved / "dpo" / "adapter", moved / "grpo"):
        player = Run(small(tmp_path, "other", own={"tournament": {"players": ["base", str(path)]}})).debater(str(path))
        assert player.model == str(moved / "sft_merged" / "model")
        assert str(player.adapter) == str(path if path.name == "adapter" else path / "adapter")


def test_a_server_is_started_with_the_merged_base_and_its_own_adapters(finished):
    from debate_rl.cli.serve import _deployments
    from debate_rl.config.tree import parse_config

    opened, _ = finished
    tree = opened.config.model_dump(mode="json", by_alias=True)
    tree["engine"] |= {"kind": "server", "url": "http://localhost:8000/v1"}
    by_name = {one.name: one for one in _deployments(Run(parse_config(tree), say=lambda line: None))}
    assert set(by_name) == {"lab-base", "sft_merged/model"}
    assert {name.partition("-")[0] for name in by_name["sft_merged/model"].adapters} == {"dpo", "grpo"}
    assert {name.partition("-")[0] for name in by_name["lab-base"].adapters} == {"sft"}
    assert by_name["sft_merged/model"].path == str(opened.folder / "sft_merged/model")


def test_a_plan_knows_the_merged_model_before_it_is_made(tmp_path):
    opened = Run(small(tmp_path, own={**OWN, "tournament": LATER["tournament"] | {"players": ["base", "dpo"]}}))
    planned = {one.stage: one for one in plan(opened)}
    assert planned["sft_merged"].note == "merges weights"
    shares = {(share.model, share.adapter): share for share in planned["tournament"].shares}
    assert shares["sft_merged/model", "dpo/adapter"].longest == pytest.approx(shares["lab-base", None].longest, rel=0.5)


def test_what_was_merged_is_part_of_what_later_stages_are_made_from(tmp_path):
    before = stage_fingerprints(small(tmp_path, own=OWN))
    changed = {**OWN, "sft": {**OWN["sft"], "limit": 11}}
    after = stage_fingerprints(small(tmp_path, own=changed))
    assert all(before[name] != after[name] for name in ("sft_merged", "dpo"))


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ({"sft_merged": {"kind": "merge", "start": "base"}}, "sft_merged: 'base' has no adapter to merge"),
        ({"merge": {"start": "sft"}}, "stage 'merge' builds on 'sft', which is not there"),
        ({"merge": {"start": "base", "lora": {}}}, "unknown key 'stages.merge.lora'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, stages, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        run(small(tmp_path, own=stages))
    assert "\n" not in str(caught.value)


def test_an_adapter_with_values_that_are_no_numbers_is_refused(tmp_path):
    from debate_rl.trainers.common.merge import merge_adapter

    base = tiny_model(tmp_path / "base")
    adapter = tiny_adapter(base, tmp_path / "adapter", spread=float("inf"))
    with pytest.raises(UserError, match="weights that are no numbers; train it again"):
        merge_adapter(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
def test_a_run_killed_while_it_trains_on_merged_weights_ends_the_same(tmp_path):
    whole = small(tmp_path / "a", own=OWN)
    run(whole)
    config = small(tmp_path / "b", own=OWN)
    folder = tmp_path / "b" / "small"
    for moment in ("sft_merged", "dpo/checkpoints", "dpo/job.json"):
        stage, _, part = moment.partition("/")
        process = start(config, tmp_path / "config.yaml")
        begun = folder / f".{stage}" / part
        wait_for(lambda begun=begun, stage=stage: begun.exists() or (folder / stage).exists(), process)
        process.kill()
        process.join()
    run(config)
    assert results(tmp_path / "a" / "small") == results(folder)
    weights = [fingerprint(path / "small" / "dpo" / "adapter") for path in (tmp_path / "a", tmp_path / "b")]
    assert weights[0] == weights[1]
