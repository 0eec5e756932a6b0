"""What a run would refuse later is refused at once, and by a dry run."""

import dataclasses
import json

import pytest
import yaml

from debate_rl.trainers.arguments import _KIND
from debate_rl.trainers.fields import config_fields
from tests.command import mistake
from tests.tiny import tiny_model


def config(folder, stages=None, **changes):
    """A tournament of untrained players on the lab's questions, or other stages."""
    tree = {
        "name": "t",
        "runs": str(folder / "runs"),
        "questions": {"train": 4, "test": 2},
        "protocol": {"prompts": "lab", "max_new_tokens": 8},
        "tracking": {"mode": "disabled"},
        "stages": stages or {"tournament": {"players": ["base", "base@2"], "resamples": 20}},
    }
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return path


def test_fields_read_from_the_sources_are_those_of_the_libraries():
    import transformers
    import trl

    classes = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "grpo": trl.GRPOConfig, "reward": trl.RewardConfig}
    for kind in _KIND:
        library = dataclasses.fields(classes.get(kind, transformers.TrainingArguments))
        assert set(config_fields(kind)) == {field.name for field in library}


@pytest.mark.parametrize(
    ("stage", "train", "complaint"),
    [
        ("sft", {"learning_rat": 1}, "unknown key 'stages.x.train.learning_rat'; did you mean 'learning_rate'?"),
        ("sft", {"learning_rate": "fast"}, "stages.x.train.learning_rate: Input should be a valid number"),
        ("sft", {"learning_rate": float("nan")}, "stages.x.train.learning_rate is nan"),
        ("judge", {"lr_scheduler_type": "cosin"}, "stages.x.train.lr_scheduler_type: did you mean 'cosine'?"),
        ("judge", {"beta": 0.1}, "unknown key 'stages.x.train.beta'"),
        ("grpo", {"num_generations": "many"}, "stages.x.train.num_generations"),
        ("weak_to_strong", {"per_device_train_batch_size": 0}, "stages.x.train.per_device_train_batch_size is 0"),
    ],
)
def test_arguments_of_trainings_are_checked_when_a_config_is_loaded(call, tmp_path, stage, train, complaint):
    path = config(tmp_path, {"x": {"kind": stage, "train": train, **({"start": "base"} if stage == "grpo" else {})}})
    for words in (("run", path), ("run", path, "--dry-run"), ("plan", path)):
        assert complaint in mistake(call(*words))
    assert not (tmp_path / "runs").exists()


def test_arguments_of_a_reward_model_and_of_iterations_are_checked_too(call, tmp_path):
    reward = {"kind": "weak_to_strong", "readout": "reward", "task": "pairs", "train": {"center_reward": 1}}
    assert "did you mean 'center_rewards_coefficient'" in mistake(call("run", config(tmp_path, {"x": reward})))
    rounds = {"kind": "iterations", "start": "base", "dpo": {"train": {"warm_steps": 3}}}
    assert "did you mean 'warmup_steps'" in mistake(call("run", config(tmp_path, {"x": rounds})))


def test_arguments_that_do_not_go_together_are_found_before_the_first_game(call, tmp_path):
    train = {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "steps"}
    path = config(tmp_path, {"judge": {"players": ["base"], "train": train}})
    for words in (("run", path), ("run", path, "--dry-run")):
        assert "stages.judge.train" in mistake(call(*words))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"models": {"debater": "./nowhere"}}, "model not found: models.debater './nowhere'"),
        ({"models": {"judge": "lab-bsae"}}, "did you mean 'lab-base'?"),
        ({"protocol": {"prompts": "nowhere"}}, "no prompt set 'nowhere'"),
        ({"protocol": {"name": "nowhere.yaml"}}, "protocol file not found: nowhere.yaml"),
        ({"questions": {"source": "file", "path": "nowhere.jsonl"}}, "nowhere.jsonl"),
        ({"questions": {"human": "nowhere"}}, "questions.human not found: nowhere"),
        ({"judge": {"kind": "probe", "path": "nowhere.json"}}, "nowhere.json"),
        ({"judge": {"model": "lab-small", "adapter": "nowhere"}}, "judge adapter not found: nowhere"),
        ({"stages": {"reading": {"models": ["lab-base", "no/such/model"]}}}, "stages.reading.models 'no/such/model'"),
        ({"stages": {"sft": {"transcripts": ["nowhere.jsonl"]}}}, "nowhere.jsonl"),
        ({"stages": {"sft": {"launch": "nowhere.yaml"}}}, "accelerate config not found: nowhere.yaml"),
        ({"stages": {"tournament": {"players": ["base", "base@2"], "protocol": "nowhere.yaml"}}}, "nowhere.yaml"),
        (
            {"stages": {"weak_to_strong": {"context": ["none"], "task": "sciq", "path": "nowhere"}}},
            "the task's path not found: nowhere",
        ),
    ],
)
def test_what_is_missing_is_named_before_anything_is_run(call, tmp_path, changes, complaint):
    path = config(tmp_path, **changes)
    for words in (("run", path), ("run", path, "--dry-run")):
        assert complaint in mistake(call(*words))
    assert not (tmp_path / "runs").exists()


def test_a_hub_model_that_is_not_here_is_refused_by_a_run_and_noted_by_a_dry_run(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = config(tmp_path, models={"debater": "nobody/nothing"})
    complaint = mistake(call("run", path))
    assert "models.debater 'nobody/nothing'" in complaint and "HF_HUB_OFFLINE" in complaint
    code, _, err = call("run", path, "--dry-run")
    assert code == 0 and "note: models.debater 'nobody/nothing' is no folder" in err


def test_a_question_that_is_longer_than_a_model_reads_is_named(call, tmp_path, question):
    small = tiny_model(tmp_path / "model", positions=256)
    long = " ".join(["the pipe was moved to the barn ."] * 60)
    splits = ["train", *["test"] * 29]
    rows = [question.model_copy(update={"id": f"q{at}", "split": s, "group": f"s{at}"}) for at, s in enumerate(splits)]
    rows[17] = rows[17].model_copy(update={"passage": long})
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(row.model_dump_json() for row in rows))
    source = {"source": "file", "path": str(path), "train": 2, "test": 30}
    written = config(tmp_path, questions=source, models={"debater": small, "judge": small})
    for words in (("run", written), ("run", written, "--dry-run")):
        complaint = mistake(call(*words))
        assert "question 'q17'" in complaint and "256" in complaint and "debater" in complaint
    assert not (tmp_path / "runs").exists()


def test_speeches_that_may_outgrow_a_context_are_noted(call, tmp_path):
    small = tiny_model(tmp_path / "model", positions=512)
    protocol = {"prompts": "lab", "max_new_tokens": 40, "turns": 30}
    path = config(tmp_path, protocol=protocol, models={"debater": small, "judge": small})
    code, _, err = call("run", path, "--dry-run")
    assert code == 0 and "note: stage 'tournament'" in err and "more than the 512" in err


def test_items_of_weak_to_strong_that_are_too_long_are_refused_at_once(call, tmp_path):
    small = tiny_model(tmp_path / "model", positions=64)
    stage = {"context": ["none"], "supervisor": 4, "student": 4, "test": 4}
    path = config(tmp_path, {"weak_to_strong": stage}, models={"weak": small, "strong": small})
    for words in (("run", path), ("run", path, "--dry-run")):
        assert "longer than the 64 tokens" in mistake(call(*words))
    assert not (tmp_path / "runs").exists()


def test_a_launch_that_names_no_number_of_processes_is_one_line(call, tmp_path):
    (tmp_path / "a.yaml").write_text("num_processes: two")
    path = config(tmp_path, {"sft": {"launch": str(tmp_path / "a.yaml")}})
    assert "num_processes is 'two'" in mistake(call("run", path))


def test_a_finished_run_is_not_checked_again(call, tmp_path, question):
    small = tiny_model(tmp_path / "model")
    rows = [question.model_copy(update={"id": s, "split": s, "group": s}) for s in ("train", "test")]
    (tmp_path / "q.jsonl").write_text("\n".join(row.model_dump_json() for row in rows))
    source = {"source": "file", "path": str(tmp_path / "q.jsonl"), "train": 1, "test": 1}
    path = config(tmp_path, questions=source, models={"debater": small, "judge": small})
    assert call("run", path)[0] == 0
    assert json.loads((tmp_path / "runs" / "t" / "tournament" / "stage.json").read_text())["name"] == "tournament"
    code, out, _ = call("run", path)
    assert code == 0 and "[1/1] tournament: done before" in out
