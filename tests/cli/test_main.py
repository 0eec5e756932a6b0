import json
import subprocess

import pytest
import yaml

from tests import forked
from tests.command import mistake
from tests.tiny import tiny_adapter, tiny_model


def config(tmp_path, **changes):
    """A tournament between two players of tiny models."""
    tree = {
        "name": "t", "runs": str(tmp_path / "runs"), "questions": {"train": 4, "test": 2},
        "protocol": {"prompts": "lab", "max_new_tokens": 8}, "tracking": {"mode": "disabled"},
        "stages": {"tournament": {"players": ["base", "base@2"], "resamples": 20}},
    }  # fmt: skip
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return path


def models(path):
    return {"debater": str(path), "judge": str(path)}


@pytest.mark.parametrize(
    "words",
    [
        "",
        "run",
        "sft",
        "dpo",
        "grpo",
        "plan",
        "judge",
        "judge train",
        "judge evaluate",
        "debate",
        "tournament",
        "weak-to-strong",
        "report",
        "plot",
    ],
)
def test_every_command_has_help(call, words):
    code, out, _ = call(*words.split(), "--help")
    assert code == 0 and "Usage" in out and len(out) > 200


def test_ratings_of_any_csv(call, tmp_path, shared_data):
    code, out, _ = call("ratings", shared_data / "ratings" / "simple.csv", "--json")
    expected = json.loads((shared_data / "ratings" / "expected_derived.json").read_text())["simple"]
    found = json.loads(out)["ratings"]
    assert code == 0 and found == pytest.approx(expected, abs=1e-3)
    (tmp_path / "v.csv").write_text("left,right,winner\na,b,left\na,b,left\n")
    assert "--ridge" in mistake(call("ratings", tmp_path / "v.csv"))
    assert call("ratings", tmp_path / "v.csv", "--ridge", "0.1")[0] == 0
    (tmp_path / "v.csv").write_text("left,right,winner\na,b,won\n")
    assert "v.csv:2" in mistake(call("ratings", tmp_path / "v.csv"))


def test_recorded_judges_match_the_published_table(call, shared_data):
    code, out, _ = call("judge", "evaluate", "--recorded", shared_data / "nyu_2023" / "debates.jsonl", "--json")
    rows = {row["condition"]: row for row in json.loads(out)}
    assert code == 0
    for condition, n, accuracy, reward, brier in (
        ("human debate", 154, 0.844, -0.891, 0.136),
        ("human consultancy", 96, 0.745, -1.235, 0.207),
    ):
        row = rows[condition]
        assert row["n"] == n
        assert [round(row[key], 3) for key in ("accuracy", "mean_reward", "brier")] == [accuracy, reward, brier]


def test_a_dry_run_writes_nothing_and_shows_prompts(call, tmp_path):
    code, out, _ = call("run", config(tmp_path), "--dry-run")
    assert code == 0 and "tournament" in out and "argue for" in out and "the answer is" in out
    assert not (tmp_path / "runs").exists()
    code, out, _ = call("run", config(tmp_path), "judge.readout=answers", "protocol.prompts=small", "--dry-run")
    assert code == 0 and "Reply with the answer alone" in out


@pytest.mark.parametrize("keys", [{"models": {"debater": "a" * 300}}, {"protocol": {"prompts": "a" * 300}}])
def test_a_name_that_is_too_long_for_a_file_is_one_line(call, tmp_path, keys):
    assert "too long" in mistake(call("run", config(tmp_path, **keys), "--dry-run"))


@pytest.mark.parametrize(
    "body",
    [
        '{{ role.__globals__["__builtins__"]["__import__"]("os").popen("touch RAN").read() }}',
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
@pytest.mark.parametrize("seat", ["debater", "judge"])
def test_a_prompt_template_that_runs_a_program_or_never_ends_is_refused_before_anything_is_played(
    call, tmp_path, body, seat
):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for name in ("debater", "judge"):
        text = body.replace("RAN", str(tmp_path / "ran")) if name == seat else ""
        (prompts / f"{name}.j2").write_text('{{ role("user") }} the answer is' + text)
    path = config(tmp_path, protocol={"prompts": str(prompts), "max_new_tokens": 8})
    for words in (("--dry-run",), ()):
        assert f"{seat}: the template reaches too far" in mistake(call("run", path, *words))
    assert not (tmp_path / "ran").exists()


def test_a_study_is_planned_run_and_reported(call, tmp_path):
    path = config(tmp_path, models=models(tiny_model(tmp_path / "model")), seeds=[0, 1])
    code, out, _ = call("run", path, "--dry-run")
    assert code == 0 and "to be run 2 times: seeds 0, 1" in out and not (tmp_path / "runs").exists()
    code, out, _ = call("run", path)
    assert code == 0 and "base@2 over base" in out and "seed 1" in out and "effects.json" in out
    page = tmp_path / "runs" / "t" / "report" / "index.html"
    before = page.read_text()
    page.unlink()
    code, out, _ = call("report", tmp_path / "runs" / "t")
    assert code == 0 and out.strip() == str(page) and page.read_text() == before
    assert "seeds: [0, 1] there, [0, 2] now" in mistake(call("run", path, "seeds=[0, 2]"))
    assert "stands there twice" in mistake(call("run", path, "seeds=[0, 0]"))
    assert call("debate", path)[0] == 0


def test_unknown_keys_and_files(call, tmp_path):
    assert "did you mean 'stages.tournament'" in mistake(call("run", config(tmp_path, stages={"turnament": {}})))
    assert "did you mean 'seed'" in mistake(call("run", config(tmp_path), "sead=1"))
    assert "config not found" in mistake(call("run", tmp_path / "none.yaml"))
    assert "no stage of kind 'sft'" in mistake(call("sft", config(tmp_path)))
    assert "is no run" in mistake(call("report", tmp_path)) or "config.yaml" in mistake(call("report", tmp_path))


def test_questions_that_can_not_be_used(call, tmp_path, question):
    path = tmp_path / "q.jsonl"
    source = {"source": "file", "path": str(path), "train": 2, "test": 2}
    assert "q.jsonl" in mistake(call("run", config(tmp_path, questions=source)))
    path.write_text(question.model_dump_json() + '\n{"id": \n')
    assert "q.jsonl:2" in mistake(call("run", config(tmp_path, questions=source, name="t2")))
    path.write_text(question.model_copy(update={"split": "train"}).model_dump_json() + "\n")
    assert "test" in mistake(call("run", config(tmp_path, questions=source, name="t3")))
    bare = [question.model_copy(update={"id": s, "split": s, "passage": None, "group": s}) for s in ("train", "test")]
    path.write_text("\n".join(one.model_dump_json() for one in bare))
    assert "has no passage" in mistake(call("run", config(tmp_path, questions=source, name="t4")))


def test_models_that_can_not_be_used(call, tmp_path):
    assert "model not found" in mistake(call("run", config(tmp_path, models=models(tmp_path / "none"))))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    assert "weights" in mistake(call("run", config(tmp_path, models=models(empty), name="t2")))
    one, other = tiny_model(tmp_path / "one"), tiny_model(tmp_path / "other", hidden=64)
    stages = {"sft": {"start": None}, "tournament": {"players": ["base", "sft"], "resamples": 20}}
    path = config(tmp_path, models=models(other), stages=stages, name="t3")
    adapter = tmp_path / "runs" / "t3" / "sft"
    call("run", path, "--dry-run")
    from debate_rl.config.tree import load_config
    from debate_rl.records import write_json
    from debate_rl.runs.execute import stage_fingerprints
    from debate_rl.runs.folder import claim_folder

    found = load_config(path)
    claim_folder(found)
    adapter.mkdir()
    tiny_adapter(one, adapter / "adapter")
    made = {"name": "sft", "kind": "sft", "fingerprint": stage_fingerprints(found)["sft"], "files": {}}
    write_json(adapter / "stage.json", made)
    write_json(adapter / "metrics.json", {})
    assert "adapter" in mistake(call("run", path))


def test_a_run_with_another_config_is_refused_and_kept(call, tmp_path):
    model = tiny_model(tmp_path / "model")
    path = config(tmp_path, models=models(model))
    assert call("run", path)[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*.json*")}
    assert "another config (seed: 0 there, 1 now)" in mistake(call("run", path, "seed=1"))
    assert before == {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*.json*")}


def test_wandb_that_is_not_reachable_fails_nothing(call, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    path = config(tmp_path, models=models(tiny_model(tmp_path / "model")), tracking={"mode": "online"})
    code, out, _ = call("run", path)
    assert code == 0 and "kept offline" in out
    assert list((tmp_path / "runs" / "t" / "wandb").glob("offline-run-*"))
    assert "0" * 40 not in "".join(p.read_text(errors="replace") for p in (tmp_path / "runs").rglob("*") if p.is_file())


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_later(tmp_path):
    small, big = tmp_path / "small", tmp_path / "big"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        path = config(tmp_path, models=models(tiny_model(tmp_path / "model")), runs=str(small))
        output = tmp_path / "said.txt"
        done = forked.start("debate_rl", "run", path, output=output)
        done.join()
        lines = [line for line in output.read_text().splitlines() if line.startswith("debate-rl: ")]
        assert done.exitcode == 2 and len(lines) == 1 and "No space left" in lines[0], output.read_text()
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        again = forked.start("debate_rl", "run", path, output=output)
        again.join()
        assert again.exitcode == 0, output.read_text()
        assert json.loads((small / "t" / "metrics.json").read_text())["tournament"]["legs"] == 8
    finally:
        subprocess.run(["umount", str(small)], check=False)
    assert not big.exists()


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("train", "c.yaml"), "sft, dpo, grpo, or judge train"),
        (("rescore", "runs/a", "--judge", "x"), "'rejudge candidates'"),
        (("judge", "compare", "c.yaml"), "'oversight'"),
        (("judge", "rejudge", "runs/a"), "'rejudge games'"),
        (("debate", "--protocol", "consultancy"), "single, double or ensembled"),
    ],
)
def test_a_name_that_a_command_does_not_have_is_answered_with_the_one_that_it_has(call, words, advice):
    assert advice in mistake(call(*words))


def test_a_protocol_of_ones_own_is_played_as_the_guide_shows(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("name: mine\norder: [[A], [B]]\nturns: 3\nmax_words: 100\n", encoding="utf-8")
    code, out, err = call("debate", "--protocol", "mine.yaml")
    assert code == 0, err
    assert [turn for turn in ("A, turn 1", "B, turn 2", "A, turn 3", "B, turn 4") if turn in out] == [
        "A, turn 1",
        "B, turn 2",
        "A, turn 3",
    ]
    # Without a config the first change stands where it would.
    changed = call("debate", "protocol.name=mine.yaml")
    assert changed[0] == 0 and changed[1] == out
    assert "give it as --protocol FILE" in mistake(call("debate", "mine.yaml"))
    assert "did you mean 'protocol.name'" in mistake(call("debate", "protocol.nam=mine.yaml"))


def test_judges_are_scored_only_once_someone_has_judged(call, tmp_path):
    said = mistake(call("judge", "evaluate", "--recorded", tmp_path / "judgements.jsonl"))
    assert "judge serve and judge play write them" in said
