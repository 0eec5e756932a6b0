"""Sweeps: every combination of some values as a run of its own, in one table, here or by W&B's agents."""

import csv
import json

import pytest
import yaml

from debate_rl.config.grid import grid
from debate_rl.config.tree import cells, load_config, parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.records import digest
from debate_rl.runs.run import Run
from debate_rl.runs.study import seed_configs
from debate_rl.runs.sweep import cell_of, run_sweep
from tests.command import mistake

OVERSIGHT = {"oversight": {"players": ["base"], "protocols": ["debate", "single", "blind"]}}
SWEEP = {"engine.temperature": [0.5, 1.0], "stages.oversight.unsure_margin": [0.1, 0.2]}


def tree(folder, **changes):
    return {
        "name": "swept",
        "runs": str(folder),
        "questions": {"train": 4, "test": 4},
        "protocol": {"prompts": "lab"},
        "tracking": {"mode": "disabled"},
        "stages": OVERSIGHT,
        "sweep": SWEEP,
        **changes,
    }


def scripted():
    """A judge whose taste depends on the speeches."""
    return ScriptedEngine(
        score=lambda choice: [-int(digest([choice.model_dump(mode="json"), a]), 16) / 2**62 for a in choice.candidates]
    )


def done(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("stage.json")}


def test_every_combination_is_a_run_and_all_stand_in_one_table(tmp_path):
    said = []
    results = run_sweep(parse_config(tree(tmp_path)), engine=scripted(), say=said.append)
    folder = tmp_path / "swept"
    names = [f"temperature-{t}_unsure_margin-{m}" for t in (0.5, 1.0) for m in (0.1, 0.2)]
    assert [result.name for result in results] == names
    for name, result in zip(names, results, strict=True):
        held = load_config(folder / name / "config.yaml")
        assert held.engine.temperature == result.values["engine.temperature"] and not held.sweep
        assert held.tracking.group == "swept" and result.rows
    lines = list(csv.DictReader((folder / "sweep.csv").open()))
    assert {line["cell"] for line in lines} == set(names) and set(SWEEP) <= set(lines[0])
    assert len(lines) == sum(len(result.rows) for result in results)
    assert [cell["name"] for cell in json.loads((folder / "sweep.json").read_text())["cells"]] == names


def test_a_sweep_goes_on_and_grows(tmp_path):
    run_sweep(parse_config(tree(tmp_path)), engine=scripted(), say=lambda line: None)
    folder = tmp_path / "swept"
    before = done(folder)
    larger = {**SWEEP, "engine.temperature": [0.5, 1.0, 1.5]}
    (folder / "temperature-1.0_unsure_margin-0.2" / "oversight" / "stage.json").unlink()  # as a killed run leaves it
    results = run_sweep(parse_config(tree(tmp_path, sweep=larger)), engine=scripted(), say=lambda line: None)
    after = done(folder)
    again = {path for path, changed in after.items() if before.get(path) != changed}
    assert len(results) == 6
    assert again == {
        "temperature-1.0_unsure_margin-0.2/oversight/stage.json",
        "temperature-1.5_unsure_margin-0.1/oversight/stage.json",
        "temperature-1.5_unsure_margin-0.2/oversight/stage.json",
    }


def test_with_seeds_each_cell_is_a_study(tmp_path):
    config = parse_config(tree(tmp_path, seeds=[3, 4], sweep={"engine.temperature": [0.5, 1.0]}))
    results = run_sweep(config, engine=scripted(), say=lambda line: None)
    folder = tmp_path / "swept"
    assert {path.parent.parent.name for path in folder.glob("*/*/oversight")} == {"temperature-0.5", "temperature-1.0"}
    assert {path.parent.name for path in folder.glob("*/*/oversight")} == {"seed3", "seed4"}
    labels = set()
    for _, own in cells(config):
        labels |= {Run(one).label for one in seed_configs(own)}
    assert len(labels) == 4 and "swept-temperature-1.0-seed3" in labels  # as W&B's artifacts are named
    assert all(len(row.seeds) == 2 for result in results for row in result.rows)
    assert (folder / "temperature-0.5" / "report" / "index.html").is_file()


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        ({"stages.oversigt.players": [["base"]]}, "unknown key 'stages.oversigt'; did you mean 'stages.oversight'"),
        ({"engine.temprature": [1]}, "unknown key 'engine.temprature'; did you mean 'engine.temperature'"),
        ({"stages.oversight.player": [["base"]]}, "did you mean 'stages.oversight.players'"),
        ({"engine.temperature.high": [1]}, "sweep 'engine.temperature.high': 'temperature' is a value"),
        ({"engine.temperature": [0.5, -1]}, "engine.temperature"),
        ({"engine.temperature": []}, "'engine.temperature' has no values"),
        ({"engine.temperature": [1, 2, 1]}, "'engine.temperature' has 1 twice"),
        ({"seed": [0, 1]}, "give seeds beside it, such as seeds"),
        ({"name": ["a", "b"]}, "'name' says where or how a run works"),
        ({"engine.temperature": 0.5}, "sweep.engine.temperature"),
        ({"engine.temperature": list(range(99)), "questions.test": list(range(1, 99))}, "9,702 combinations"),
    ],
)
def test_a_grid_that_can_not_run_is_refused_in_one_line_as_the_config_is_read(tmp_path, sweep, complaint):
    with pytest.raises(UserError) as caught:
        parse_config(tree(tmp_path, sweep=sweep))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "swept").exists()


def test_names_of_cells_are_folders_and_tell_cells_apart():
    keys = {"stages.sft.lora.r": [4, 8], "stages.dpo.lora.r": [4], "stages.x.players": [["a/b"], ["a.b"], None]}
    names = [cell.name for cell in grid(keys)]
    assert len(set(names)) == 6
    assert all(name == name.strip(".") and "/" not in name and len(name) <= 64 for name in names)


def test_wandb_is_handed_the_same_grid_and_its_agents_run_the_same_cells(call, tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    path, out = tmp_path / "config.yaml", tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(tree(tmp_path, seeds=[0, 1])))
    code, said, _ = call("sweep", path, "--wandb", out, "questions.test=3")
    assert code == 0 and f"start it with: wandb sweep {out}" in said
    handed = yaml.safe_load(out.read_text())
    assert handed["method"] == "grid" and handed["parameters"]["seed"] == {"values": [0, 1]}
    assert handed["parameters"]["engine.temperature"] == {"values": [0.5, 1.0]}
    # As an agent puts its command together.
    values = {"engine.temperature": 1.0, "stages.oversight.unsure_margin": 0.2, "seed": 1}
    arguments = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    words = []
    for word in create_sweep_command(handed["command"]):
        words += arguments["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
    assert words[:3] == ["debate-rl", "sweep", str(path)] and "--cell" in words
    texts = dict(word.split("=", 1) for word in arguments["args_no_hyphens"])
    _, one = cell_of(load_config(path, ["questions.test=3"]), texts)
    assert (one.seed, one.engine.temperature, one.questions.test) == (1, 1.0, 3)
    assert one.runs == str(tmp_path / "swept" / "temperature-1.0_unsure_margin-0.2") and one.name == "seed1"


@pytest.mark.slow
def test_a_cell_that_an_agent_ran_is_done_for_the_sweep(call, tmp_path):
    stages = {"oversight": {"players": ["base"], "protocols": ["debate", "blind"], "questions": 2}}
    changes = {"stages": stages, "sweep": {"engine.temperature": [0.5, 1.0]}, "seeds": [0]}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree(tmp_path, protocol={"prompts": "lab", "max_new_tokens": 8}, **changes)))
    code, said, err = call("sweep", path, "--cell", "engine.temperature=1.0", "seed=0")
    folder = tmp_path / "swept" / "temperature-1.0" / "seed0"
    assert code == 0 and f"run: {folder}" in said, err
    before = done(folder)
    code, said, err = call("sweep", path)
    assert code == 0 and done(folder) == before and len(done(tmp_path / "swept")) == 2, err
    assert "temperature-0.5" in said and "sweep.csv" in said
    assert "no cell with {'engine.temperature': '3'" in mistake(call("sweep", path, "--cell", "engine.temperature=3"))


def test_a_config_without_a_sweep_is_told_what_to_write(call, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree(tmp_path, sweep={})))
    assert "has no sweep; write sweep: {stages.dpo.objective.gamma: [3.5, 7]}" in mistake(call("sweep", path))


def test_a_plan_is_of_the_first_cell_and_says_how_many_there_are(call, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree(tmp_path)))
    code, said, _ = call("sweep", path, "--dry-run")
    plan = "the plan of the first cell of 4: engine.temperature, stages.oversight.unsure_margin"
    assert code == 0 and plan in " ".join(said.split())
    (first,) = seed_configs(parse_config(tree(tmp_path)))
    assert first.name == next(iter(cells(parse_config(tree(tmp_path)))))[0].name
    assert not (tmp_path / "swept").exists()
