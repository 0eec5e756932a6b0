"""What a run would refuse later is refused at once, and by a dry run; nothing is written."""

import re

import pytest
import yaml

from tests.cli.test_main import config, models
from tests.command import mistake
from tests.tiny import tiny_model


def refused(call, path):
    """The line in which a run and its dry run are refused alike."""
    said = {mistake(call("run", path)), mistake(call("run", path, "--dry-run"))}
    assert len(said) == 1
    return said.pop()


@pytest.mark.parametrize(
    ("stage", "train", "said"),
    [
        ("sft", {"learning_rat": 1}, "unknown key 'train.learning_rat'; did you mean 'learning_rate'?"),
        ("sft", {"learning_rate": "fast"}, "train.learning_rate: Input should be a valid number"),
        ("dpo", {"num_epochs": 2}, "unknown key 'train.num_epochs'; did you mean 'num_train_epochs'?"),
        ("judge", {"beta": 0.1}, "unknown key 'train.beta'"),
        ("grpo", {"num_generations": "many"}, "train.num_generations: Input should be a valid integer"),
        ("weak_to_strong", {"per_device_train_batch_size": 0}, "train.per_device_train_batch_size is 0"),
        ("weak_to_strong", {"warmup_step": 3}, "unknown key 'train.warmup_step'; did you mean 'warmup_steps'?"),
    ],
)
def test_a_mistyped_key_of_a_training_is_refused_before_anything_is_played(call, tmp_path, stage, train, said):
    builds_on = {"dpo": {"start": "base"}, "grpo": {"start": "base"}, "judge": {"players": ["base"]}}
    start = {"weak_to_strong": {"debater": "base"}, **builds_on}.get(stage, {})
    stages = {"preferences": {"player": "base"}} if stage == "dpo" else {}
    path = config(tmp_path, stages={**stages, "x": {"kind": stage, "train": train, **start}})
    assert said in (line := refused(call, path)) and "stages.x" in line
    assert not (tmp_path / "runs").exists()


def test_a_mistyped_key_of_the_trainings_of_iterations_is_refused(call, tmp_path):
    rounds = {"kind": "iterations", "start": "base", "dpo": {"train": {"warm_steps": 3}}}
    assert "unknown key 'train.warm_steps'" in refused(call, config(tmp_path, stages={"x": rounds}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": {"debater": "./nowhere"}}, "models.debater: model not found: './nowhere'"),
        ({"models": {"judge": "lab-bsae"}}, "did you mean 'lab-base'?"),
        ({"judge": {"model": "lab-bsae"}}, "judge.model: model not found"),
        ({"protocol": {"prompts": "nowhere"}}, "nowhere"),
        ({"protocol": {"name": "nowhere.yaml"}}, "protocol file not found: nowhere.yaml"),
        ({"questions": {"source": "file", "path": "nowhere.jsonl"}}, "nowhere.jsonl"),
        ({"questions": {"human": "nowhere"}}, "nowhere"),
        ({"judge": {"kind": "probe", "path": "nowhere.json"}}, "judge.path not found: nowhere.json"),
        ({"judge": {"model": "lab-small", "adapter": "nowhere"}}, "judge.adapter not found: nowhere"),
        ({"stages": {"reading": {"models": ["lab-base", "lab-smal"]}}}, "did you mean 'lab-small'?"),
        ({"stages": {"sft": {"transcripts": ["nowhere.jsonl"]}}}, "nowhere.jsonl"),
        ({"stages": {"sft": {"launch": "nowhere.yaml"}}}, "stages.sft.launch not found: nowhere.yaml"),
        ({"stages": {"tournament": {"players": ["base", "base@2"], "protocol": "single"}}}, "has no opponent in it"),
        ({"stages": {"tournament": {"players": ["base", "base@2"], "protocol": "blind"}}}, "has no opponent in it"),
        ({"reuse": "runs/nowhere"}, "reuse not found: runs/nowhere"),
        ({"runs": __file__}, "is a file, not the folder of a run"),
        ({"stages": {"tournament": {"players": ["base", "base@2"], "protocol": "nowhere.yaml"}}}, "nowhere.yaml"),
        ({"stages": {"weak_to_strong": {"context": ["none"], "task": "sciq", "path": "nowhere"}}}, "nowhere"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_played(call, tmp_path, changes, said):
    assert said in refused(call, config(tmp_path, **changes))
    assert not (tmp_path / "runs").exists()


def questions_file(tmp_path, question, long):
    """A file of thirty questions; those of the given places have a passage of 480 words."""
    passage = " ".join(["the pipe was moved to the barn ."] * 60)
    rows = []
    for place in range(30):
        changes = {"id": f"q{place}", "split": "train" if place < 10 else "test", "group": f"s{place}"}
        rows.append(question.model_copy(update=changes | ({"passage": passage} if place in long else {})))
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(row.model_dump_json() for row in rows))
    return {"source": "file", "path": str(path), "train": 10, "test": 20}


def test_prompts_that_are_all_longer_than_the_model_reads_are_refused(call, tmp_path, question):
    short = models(tiny_model(tmp_path / "model", positions=256))
    path = config(tmp_path, questions=questions_file(tmp_path, question, range(30)), models=short)
    line = refused(call, path)
    assert "30 of 30 questions" in line and "exceed the 256" in line and "longer context" in line
    assert not (tmp_path / "runs").exists()


def test_a_question_that_stands_in_two_stories_is_refused_where_its_games_are_compared(call, tmp_path, question):
    same = [question.model_copy(update={"id": f"q{i}", "group": f"g{i}"}) for i in range(30)]
    (tmp_path / "q.jsonl").write_text("\n".join(one.model_dump_json() for one in same))
    asked = {"source": "file", "path": str(tmp_path / "q.jsonl")}
    path = config(tmp_path, questions=asked, stages={"oversight": {"players": ["base"], "protocols": ["debate"]}})
    assert "stands in two stories" in refused(call, path)
    assert not (tmp_path / "runs").exists()


def test_some_questions_longer_than_the_model_reads_are_counted(call, tmp_path, question):
    short = models(tiny_model(tmp_path / "model", positions=256))
    path = config(tmp_path, questions=questions_file(tmp_path, question, (3, 17)), models=short)
    code, out, _ = call("run", path, "--dry-run")
    assert code == 0 and "2 of 30 questions" in out and "their debates will fail" in out
    path = config(tmp_path, questions=questions_file(tmp_path, question, ()), models=short)
    code, out, _ = call("run", path, "--dry-run")
    assert code == 0 and "questions:" not in out


def test_passages_shown_in_part_fit_and_the_run_says_so(call, tmp_path, question):
    short = models(tiny_model(tmp_path / "model", positions=256))
    asked = questions_file(tmp_path, question, range(30))
    line = refused(call, config(tmp_path, questions=asked, models=short))
    (advised,) = re.findall(r"set protocol\.passage_tokens=(\d+)", line)
    path = config(tmp_path, questions=asked, models=short)
    code, out, _ = call("run", path, f"protocol.passage_tokens={advised}", "--dry-run")
    assert code == 0 and "exceed" not in out
    assert f"30 of 30 questions: prompts show {advised} tokens of the passage" in out


def test_each_model_that_reads_the_passage_is_counted(call, tmp_path, question):
    short = str(tiny_model(tmp_path / "model", positions=256))
    stages = {"reading": {"models": ["lab-base", short]}}
    path = config(tmp_path, questions=questions_file(tmp_path, question, (3, 17)), stages=stages)
    code, out, _ = call("run", path, "--dry-run")
    lines = [line for line in out.splitlines() if "2 of 30 questions" in line]
    assert code == 0 and len(lines) == 2
    assert any("512 that lab-base" in line and "their debates will fail" in line for line in lines)
    assert any(f"256 that {short}" in line and "their open_book verdicts will fail" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty"),
        (b"# a comment\n", "is empty"),
        (b"word", "expected keys and values"),
        (b"- a\n- b\n", "expected keys and values"),
        (b"3", "expected keys and values"),
        (b"2024-13-45", "not valid YAML"),
        (b"a: [", "not valid YAML"),
        (b"[" * 1200, "nested too deeply"),
        (b"\x00\x01\xff\xfe", "UTF-8"),
        (b"1: 2", "the key 1 is no text"),
        (b"? [a, b]\n: c", "YAML"),
        (b"a: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_a_file_that_holds_no_config_or_protocol_is_one_line(call, tmp_path, text, said):
    path = tmp_path / "x.yaml"
    path.write_bytes(text)
    for words in (("run", path), ("plan", path), ("run", path, "--dry-run"), ("debate", path)):
        line = mistake(call(*words))
        assert said in line and len(line) < 600, line
    for key in ("protocol.name", "stages.tournament.protocol"):
        assert said in mistake(call("run", config(tmp_path), f"{key}={path}"))
    assert not (tmp_path / "runs").exists()


def test_a_config_without_stages_is_one_line(call, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "runs": str(tmp_path / "runs")}))
    assert "stages" in mistake(call("run", path))


@pytest.mark.parametrize(
    "words",
    [
        ("seed",),
        ("=1",),
        (".seed=1",),
        ("questions..train=1",),
        ("seed=[",),
        ("seed=2024-99-99",),
        ("seed.x=1",),
        ("stages=3",),
        ("stages.tournament=3",),
        ("stages.tournament.players=base",),
        ("[red]x=1",),
    ],
)
def test_changes_that_are_none_are_one_line(call, tmp_path, words):
    assert len(mistake(call("run", config(tmp_path), *words))) < 600
    assert not (tmp_path / "runs").exists()


def test_paths_that_are_no_files_are_one_line(call, tmp_path):
    for path in (tmp_path, "x" * 5000, "a/" * 3000, tmp_path / "c.yaml" / "x", "[/red]"):
        mistake(call("run", path))
        mistake(call("run", config(tmp_path), f"protocol.name={path}.yaml"))
