import errno
import json
import os
import signal
import time

import pytest
import yaml

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.plan.plan import plan
from debate_rl.runs.execute import needed, run_stages
from debate_rl.runs.folder import alone, claim_folder, input_files
from debate_rl.runs.run import Run
from debate_rl.runs.study import run_study
from debate_rl.stages.habits import first_prompts
from tests import forked
from tests.command import mistake

COMPARED = ("debates.jsonl", "pools.jsonl", "rows.jsonl", "test_debates.jsonl", "metrics.json", "calibrator.json")
FAST = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_steps": 6, "save_steps": 2}


PIPELINE = ("sft", "judge", "preferences", "dpo", "tournament", "oversight")


def small(tmp_path, name="small", stages=PIPELINE, own=None, **changes):
    """A config of the whole pipeline that takes seconds, of some of its stages, or of stages of its own."""
    lora = {"r": 4, "alpha": 8}
    every = {
        "sft": {"limit": 12, "lora": lora, "train": FAST},
        "judge": {
            "questions": 12,
            "players": ["base"],
            "protocols": ["debate"],
            "calibrate": "none",
            "lora": lora,
            "train": FAST,
        },
        "preferences": {"best_of": 2, "opponents": 1, "questions": 8},
        "dpo": {"lora": lora, "train": FAST},
        "grpo": {
            "start": "sft",
            "lora": lora,
            "questions": 6,
            "watch": {"every": 2, "questions": 4},
            "train": {**FAST, "num_generations": 2, "gradient_accumulation_steps": 1},
        },
        "tournament": {"players": ["base", "sft", "dpo"] if "dpo" in stages else ["base", "base@2"], "resamples": 50},
        "oversight": {"players": ["dpo"], "protocols": ["debate", "single", "blind"]},
        "weak_to_strong": {
            "ensemble": 1,
            "seeds": 1,
            "supervisor": 12,
            "student": 12,
            "test": 10,
            "lora": lora,
            "train": FAST,
            "debater": "dpo",
        },
        "report": {},
    }
    tree = {
        "name": name,
        "runs": str(tmp_path),
        "questions": {"train": 24, "test": 6},
        "protocol": {"prompts": "lab", "max_new_tokens": 24},
        "tracking": {"mode": "disabled"},
        # What was asked before a kill can not show in the last bits, nor can the threads of the process that tests.
        "engine": {"cache_tokens": 0, "threads": 1},
        "models": {"weak": "lab-base"},
        "stages": own or {stage: every[stage] for stage in stages},
    }
    return parse_config({**tree, **changes})


def run(config, **options):
    return run_stages(Run(config, say=lambda line: None, **options))


def results(folder):
    """Everything that a run is about, without times and weights."""
    found = {}
    for path in sorted(folder.rglob("*.json*")):
        relative = path.relative_to(folder)
        finished = not relative.parts[0].startswith(".") and "trainings" not in relative.parts
        if path.name in COMPARED and finished:
            found[str(relative)] = path.read_text()
    return found


def test_the_whole_pipeline_runs_and_a_second_run_does_nothing(tmp_path):
    stages = ("sft", "judge", "preferences", "dpo", "tournament", "oversight", "weak_to_strong", "report")
    config = small(tmp_path, stages=stages)
    metrics = run(config)
    folder = tmp_path / "small"
    assert set(metrics) == set(stages) == {p.parent.name for p in folder.glob("*/stage.json")}
    assert len(metrics["tournament"]["ratings"]["standings"]) == 3
    assert {row["protocol"] for row in metrics["oversight"]["rows"]} == {"debate", "single", "blind"}
    assert (folder / "dpo/adapter/adapter_model.safetensors").is_file() and (folder / "report/index.html").is_file()
    assert json.loads((folder / "metrics.json").read_text())["preferences"]["pairs"] > 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("debates.jsonl")}
    said = []
    run_stages(Run(config, say=said.append))
    assert sum("done before" in line for line in said) == 7
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("debates.jsonl")}


def start(config, path):
    """A run in a process of its own, whose output stands beside its config."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False))
    return forked.start("debate_rl", "run", path, output=path.with_suffix(".txt"))


def wait_for(condition, process, seconds=120):
    """Wait until a condition holds or the process ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.is_alive():
        if condition():
            return
        time.sleep(0.02)


def test_a_run_killed_at_several_moments_ends_like_one_that_was_not(tmp_path):
    whole = small(tmp_path / "a")
    run(whole)
    killed = small(tmp_path / "b")
    folder = tmp_path / "b" / "small"
    moments = [
        lambda: (folder / ".sft" / "checkpoints" / "checkpoint-2").is_dir(),
        lambda: any((folder / "store").glob("*.jsonl")) and (folder / ".judge").is_dir(),
        lambda: (folder / ".judge" / "checkpoints" / "checkpoint-2").is_dir(),
        lambda: (folder / ".preferences").is_dir(),
        lambda: (folder / ".dpo" / "checkpoints" / "checkpoint-4").is_dir(),
        lambda: (folder / ".tournament" / "debates.jsonl").is_file(),
    ]
    output = tmp_path / "b.txt"
    for moment in moments:
        process = start(killed, tmp_path / "b.yaml")
        wait_for(moment, process)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, output.read_text()[-2000:]
    process = start(killed, tmp_path / "b.yaml")
    process.join(240)
    assert process.exitcode == 0, output.read_text()
    expected, found = results(tmp_path / "a" / "small"), results(folder)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    engine = ScriptedEngine()
    config = small(tmp_path, stages=("tournament",))
    run(config, engine=engine)
    with pytest.raises(UserError, match=r"another config \(seed: 0 there, 1 now\)"):
        run(config.model_copy(update={"seed": 1}), engine=engine)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("x")
    with pytest.raises(UserError, match="is not a run"):
        run(config.model_copy(update={"name": "other"}), engine=engine)
    assert (tmp_path / "other" / "precious.txt").read_text() == "x"


def test_a_mistake_found_before_anything_is_finished_does_not_spend_the_name(tmp_path):
    config = small(tmp_path, stages=("sft", "tournament"))
    wrong = config.model_copy(
        update={
            "stages": {**config.stages, "sft": config.stages["sft"].model_copy(update={"train": {"lerning_rate": 1}})}
        }
    )
    with pytest.raises(UserError, match="learning_rate"):
        run(wrong)
    assert set(run(config)) == {"sft", "tournament"}


def test_folders_that_a_config_names_are_inputs(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "debater.j2").write_text("one")
    before = input_files({"protocol": {"prompts": str(folder)}})
    (folder / "debater.j2").write_text("two")
    assert before and before != input_files({"protocol": {"prompts": str(folder)}})


def test_a_byte_of_large_weights_is_an_input(tmp_path):
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(3 << 20))
    before = input_files({"models": {"debater": str(weights.parent)}})
    weights.write_bytes(bytes(2 << 20) + b"x" + bytes((1 << 20) - 1))
    assert before != input_files({"models": {"debater": str(weights.parent)}})


def test_input_files_that_change_are_noticed(tmp_path, question):
    path = tmp_path / "q.jsonl"
    lines = [question.model_copy(update={"id": f"q{i}", "group": f"g{i}"}).model_dump_json() for i in range(40)]
    path.write_text("\n".join(lines))
    config = small(
        tmp_path, stages=("tournament",), questions={"source": "file", "path": str(path), "train": 5, "test": 3}
    )
    run(config, engine=ScriptedEngine())
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match="have changed since"):
        run(config, engine=ScriptedEngine())


def test_two_processes_do_not_share_a_folder(tmp_path):
    import fcntl

    config = small(tmp_path, stages=("tournament",))
    (tmp_path / "small").mkdir()
    claim_folder(config)
    with (tmp_path / "small" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is at work"):
            run(config, engine=ScriptedEngine())


def contents(folder):
    """Every file of a folder with what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_command_with_another_config_leaves_a_run_at_work_as_it_is(tmp_path):
    config = small(tmp_path, stages=("tournament",))
    other = config.model_copy(update={"seed": 1, "stages": {}})
    folder = tmp_path / "small"
    with alone(folder):
        claim_folder(config)
        (folder / ".tournament").mkdir()
        (folder / ".tournament" / ".debates.jsonl.77.partial").write_text("being written")
        before = contents(folder)
        with pytest.raises(UserError, match="another process is at work"):
            run(other, engine=ScriptedEngine())
        with pytest.raises(UserError, match="another process is at work"):
            run_study(other.model_copy(update={"seeds": (0, 1)}), engine=ScriptedEngine())
        assert contents(folder) == before


SERVED = {"kind": "server", "url": "http://127.0.0.1:9/v1"}  # no model is loaded to see whether prompts fit


def test_a_second_process_with_another_config_leaves_a_run_at_work_as_it_is(tmp_path):
    config = small(tmp_path, stages=("tournament",), engine=SERVED)
    folder = tmp_path / "small"
    with alone(folder):
        claim_folder(config)
        before = contents(folder)
        other = start(config.model_copy(update={"seed": 1}), tmp_path / "other.yaml")
        other.join(240)
        said = (tmp_path / "other.txt").read_text()
        assert other.exitcode == 2 and "another process is at work" in said and "Traceback" not in said
        assert contents(folder) == before


@pytest.mark.parametrize(
    "left",
    [
        [],
        [".lock"],
        [".lock", ".code.json.77.partial"],
        [".lock", "code.json"],
        [".lock", "code.json", ".config.yaml.77.partial"],
    ],
)
def test_a_run_killed_during_its_first_write_starts_again_and_leaves_no_parts(tmp_path, left):
    (tmp_path / "small").mkdir()
    for name in left:
        (tmp_path / "small" / name).write_text('{"date": "20')
    run(small(tmp_path, stages=("tournament",)), engine=ScriptedEngine())
    names = {".lock", "code.json", "config.yaml", "metrics.json", "store", "tournament"}
    assert {path.name for path in (tmp_path / "small").iterdir()} == names
    assert json.loads((tmp_path / "small" / "code.json").read_text())["versions"]


def test_parts_of_files_that_killed_processes_left_are_swept(tmp_path):
    config = small(tmp_path, stages=("tournament",))
    run(config, engine=ScriptedEngine())
    folder = tmp_path / "small"
    for place in (folder, folder / "store", folder / "tournament"):
        (place / ".x.json.77.partial").write_text("half")
    run(config, engine=ScriptedEngine())
    assert not list(folder.rglob("*.partial"))


def test_nothing_is_written_into_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.txt").write_text("x")
    config = small(tmp_path, stages=("tournament",))
    for refused in (lambda: run(config), lambda: run_study(config.model_copy(update={"seeds": (0,)}))):
        with pytest.raises(UserError, match="is not a run"):
            refused()
    assert {path.name for path in (tmp_path / "small").iterdir()} <= {"thesis.txt", ".lock"}


def no_locks(number):
    """A `flock` of a file system that has none."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_said_with_what_to_do(tmp_path, monkeypatch, number):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", no_locks(number))
    with pytest.raises(UserError, match="file system without locks.*runs=FOLDER") as found:
        run(small(tmp_path, stages=("tournament",)), engine=ScriptedEngine())
    assert "another process" not in str(found.value) and not (tmp_path / "small" / "config.yaml").exists()


def test_a_command_on_a_file_system_without_locks_ends_in_one_line(tmp_path, monkeypatch, call):
    import fcntl

    config = small(tmp_path, stages=("tournament",), engine=SERVED)
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False))
    monkeypatch.setattr(fcntl, "flock", no_locks(errno.ENOLCK))
    line = mistake(call("run", path))
    assert "file system without locks" in line and "runs=FOLDER" in line
    assert not (tmp_path / "small" / "config.yaml").exists()


def test_a_plan_counts_debates_and_shows_every_seat(tmp_path):
    config = small(tmp_path, stages=("sft", "judge", "preferences", "dpo", "tournament", "oversight", "report"))
    found = {row.stage: row for row in plan(Run(config))}
    assert found["tournament"].debates == 6 * (3 * 2 + 3)
    assert found["judge"].speeches == (12 + 6) * 2
    # Each player's two sides, once, whoever sits opposite; the base model's are those that the judge was tested on.
    assert found["tournament"].speeches == 6 * 2 * 2
    assert found["preferences"].speeches == 8 * 2 * (2 + 1)
    assert found["oversight"].debates == 18 and found["sft"].note == "trains"
    assert [seat for seat, _ in first_prompts(Run(config))] == ["debater A, turn 1", "debater B, turn 1", "judge"]
    assert not (tmp_path / "small").exists()


def test_what_a_stage_builds_on(tmp_path):
    config = small(tmp_path)
    assert needed(config, "sft") == {"sft"}
    assert needed(config, "dpo") == {"sft", "judge", "preferences", "dpo"}
    assert needed(config, "tournament") == {"sft", "judge", "preferences", "dpo", "tournament"}
    with pytest.raises(UserError, match="no stage of kind 'weak_to_strong'"):
        needed(config, "weak_to_strong")


def test_players_by_name(tmp_path):
    one = Run(small(tmp_path))
    assert one.debater("base").adapter is None and one.debater("dpo@4").best_of == 4
    assert one.debater("dpo@4").adapter == "dpo/adapter"
    with pytest.raises(UserError, match="did you mean 'dpo'"):
        one.debater("dop")
    refined = one.debater("dpo@4c2")
    assert (refined.best_of, refined.refine, refined.adapter) == (4, 2, "dpo/adapter")
    for wrong in ("dpo@x", "dpo@0", "dpo@4c", "dpo@4c0", "dpo@c1"):
        with pytest.raises(UserError, match="whole number"):
            one.debater(wrong)
