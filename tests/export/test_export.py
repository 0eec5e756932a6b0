"""Exports are read back by the tools that they are for, and hold what the run holds."""

import base64
import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from debate_rl.arena.match_record import MatchRecord, match_record
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.tournament import Tournament
from debate_rl.data.models import model_path
from debate_rl.engines.weights import check_adapter, check_sums, fingerprint, write_sums
from debate_rl.export.adapters import public_name
from debate_rl.export.files import frame, write_csv, write_parquet
from debate_rl.export.tables import finished_parts, result_tables
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.scores import JudgeScores
from debate_rl.records import read, read_json, write, write_json
from debate_rl.trainers.common.model_card import write_model_card
from debate_rl.trainers.common.rows import PreferenceRow
from tests import ROOT
from tests.command import mistake
from tests.tiny import tiny_adapter

ROW = PreferenceRow(
    prompt=[{"role": "user", "content": "argue for shed"}],
    chosen="it is shed",
    rejected="shed, perhaps",
    p_chosen=0.7,
    p_rejected=0.4,
    question="q-1",
    group="story-0",
    side="A",
    turn=0,
)


@pytest.fixture(scope="module")
def run(run_folder, tmp_path_factory):
    """A finished run with rows of preferences."""
    copy = tmp_path_factory.mktemp("export") / "made"
    shutil.copytree(run_folder, copy)
    write(copy / "preferences" / "rows.jsonl", [ROW])
    return copy


def test_csv_holds_the_ratings_matches_verdicts_and_debates_of_the_run(run, call, tmp_path):
    code, out, _ = call("export", run, "--to", "csv", "--out", tmp_path)
    assert code == 0
    names = ("ratings", "matches", "verdicts", "debates", "questions")
    assert out.split() == [str(tmp_path / f"{name}.csv") for name in names]
    metrics = read_json(run / "tournament" / "metrics.json")
    ratings = pd.read_csv(tmp_path / "ratings.csv")
    first = metrics["ratings"]["standings"][0]
    assert ratings.player[0] == first["player"]
    assert ratings.elo[0] == pytest.approx(first["rating"]["value"])
    legs = read(run / "tournament" / "debates.jsonl", JudgedDebate)
    verdicts = pd.read_csv(tmp_path / "verdicts.csv")
    of_stage = verdicts[verdicts.stage == "tournament"]
    assert len(of_stage) == len(legs)
    assert of_stage.p_correct.mean() == pytest.approx(
        sum(leg.p_correct for leg in legs if leg.verdict) / sum(leg.verdict is not None for leg in legs)
    )
    failed = of_stage[of_stage.failure == "context"]
    assert len(failed) == 1 and failed.right.isna().all()
    debates = pd.read_csv(tmp_path / "debates.csv")
    texts = [speech["text"] for speech in json.loads(debates.speeches[0])]
    assert texts == [speech.text for speech in legs[0].transcript.speeches]


def test_matches_are_those_that_the_report_counts(run, tmp_path):
    tables = result_tables(finished_parts(run).parts)
    rows = [row for row in tables["matches"] if row["stage"] == "tournament"]
    record = match_record(read(run / "tournament" / "debates.jsonl", JudgedDebate))
    for wins in record.players:
        assert wins.won == sum(row["winner"] == wins.player for row in rows)
    assert sum(row["outcome"] == "unfinished" for row in rows) == record.unfinished == 1


def test_parquet_keeps_lists_and_empty_cells(run, call, tmp_path):
    assert call("export", run, "--to", "parquet", "--out", tmp_path)[0] == 0
    debates = pd.read_parquet(tmp_path / "debates.parquet")
    assert debates.speeches[0][0]["side"] in "AB"
    verdicts = pd.read_parquet(tmp_path / "verdicts.parquet")
    assert verdicts.right.dtype == "boolean" and verdicts.right.isna().sum() >= 1
    assert call("export", run, "--to", "csv")[0] == 0
    assert (run / "export" / "csv" / "ratings.csv").is_file()


def test_a_data_set_loads_with_its_card(run, call, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "set"
    assert call("export", run, "--to", "hf", "--out", out)[0] == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "config_name: preferences" in card and "| `debates` |" in card
    loaded = datasets.load_dataset(str(out), "preferences", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["chosen"] == ROW.chosen and loaded[0]["prompt"] == ROW.prompt
    debates = datasets.load_dataset(str(out), "debates", split="train", cache_dir=str(tmp_path / "cache"))
    assert debates[0]["speeches"][0]["text"]


def test_nothing_is_pushed_unless_asked_and_a_hub_that_is_away_is_one_line(run, call, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    class Away:
        def create_repo(self, *names, **options):
            asked.append((names, options))
            raise huggingface_hub.errors.OfflineModeIsEnabled("no network")

    monkeypatch.setattr(huggingface_hub, "HfApi", Away)
    out = tmp_path / "set"
    assert call("export", run, "--to", "hf", "--out", out)[0] == 0 and asked == []
    said = mistake(call("export", run, "--to", "hf", "--out", out, "--push", "me/debates"))
    assert "not uploaded (no network)" in said and (out / "README.md").is_file()
    assert asked[0][0] == ("me/debates",) and asked[0][1]["private"] is True
    assert "--to hf" in mistake(call("export", run, "--push", "me/debates"))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as uploads need, of data sets and of models."""

    asked: list = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        Hub.asked.append((self.path, self.headers["Authorization"], body))
        name = json.loads(body)["name"] if self.path.endswith("/create") else "debates"
        kind = "datasets/" if "datasets" in self.path or '"dataset"' in body else ""
        address = f"http://{self.headers['Host']}/{kind}me/{name}"
        answer = {"url": address, "id": f"me/{name}", "commitOid": "0" * 40}
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            answer = {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
        elif "/commit/" in self.path:
            answer |= {"commitUrl": answer["url"] + "/commit/" + "0" * 40}
        self.send(answer)

    def do_GET(self):
        self.send({"id": "me/debates", "sha": "0" * 40, "siblings": []})

    def send(self, answer):
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass


def pushed(tmp_path, *words):
    """Run an export with a hub on this machine: (its output, what the hub was asked)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.asked.clear()
    done = subprocess.run(
        [sys.executable, "-m", "debate_rl", "export", *map(str, words)],
        env={
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "hf_secret",
            "HF_HOME": str(tmp_path / "home"),
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    assert {token for _, token, _ in Hub.asked} == {"Bearer hf_secret"}
    return done.stdout, list(Hub.asked)


def uploaded(commit):
    """Files of a commit by path."""
    entries = [json.loads(line) for line in commit.splitlines()]
    files = [entry["value"] for entry in entries if entry["key"] == "file"]
    return {file["path"]: base64.b64decode(file["content"]) for file in files}


@pytest.mark.slow
def test_a_push_uploads_the_folder_as_it_is_to_a_private_data_set(run, tmp_path):
    out = tmp_path / "set"
    _, asked = pushed(tmp_path, run, "--to", "hf", "--out", out, "--push", "me/debates")
    created = json.loads(asked[0][2])
    assert asked[0][0] == "/api/repos/create" and created["type"] == "dataset", created
    assert created.get("private") or created.get("visibility") == "private", created
    files = uploaded(next(body for path, _, body in asked if "/commit/" in path))
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert set(files) == names
    assert files["README.md"] == (out / "README.md").read_bytes()


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """The run with an adapter of a lab model in a debater's and in a judge's stage, as trainings leave them."""
    copy = tmp_path_factory.mktemp("trained") / "made"
    shutil.copytree(run, copy)
    base = model_path("lab-base")
    for stage in ("dpo", "judge"):
        adapter = copy / stage / "adapter"
        tiny_adapter(base, adapter)
        write_json(adapter / "base.json", {"model": base, "fingerprint": fingerprint(base)})
        write_sums(adapter)
        write_model_card(adapter, f"made: {stage}", {"base model": "lab-base"}, {"training loss": 0.6})
    write_json(copy / "judge" / "calibrator.json", {"kind": "temperature"})
    return copy


def test_adapters_are_written_with_their_cards_and_without_paths_and_fit_their_base(trained, call, tmp_path):
    code, out, _ = call("export", trained, "--to", "adapters", "--out", tmp_path)
    assert code == 0 and out.split() == [str(tmp_path / name) for name in ("dpo", "judge")]
    for name in ("dpo", "judge"):
        folder = tmp_path / name
        check_sums(folder)
        check_adapter(model_path("lab-base"), folder)
        assert fingerprint(folder) == fingerprint(trained / name / "adapter")
        card = (folder / "README.md").read_text(encoding="utf-8")
        head = yaml.safe_load(card.split("---")[1])
        assert head["library_name"] == "peft" and "base_model" not in head
        assert f"# made: {name}" in card and "training loss" in card and 'model="lab-base"' in card
        for file in folder.glob("*.json"):
            assert str(ROOT) not in file.read_text(encoding="utf-8")
    assert "dr.Judge" in card and (folder / "calibrator.json").is_file()
    one = tmp_path / "one"
    assert call("export", trained, "--to", "adapters", "--stage", "dpo", "--out", one)[1].split() == [str(one / "dpo")]


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("org/model-8b", "org/model-8b"),
        ("/home/ann/models/smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("/cache/hub/models--org--model-8b/snapshots/0123", "org/model-8b"),
        ("/home/ann/secret/mine", "mine"),
    ],
)
def test_a_base_is_named_as_others_know_it(base, name):
    assert public_name(base) == name


@pytest.mark.slow
def test_adapters_are_pushed_as_private_models_of_their_own(trained, tmp_path):
    out = tmp_path / "adapters"
    said, asked = pushed(tmp_path, trained, "--to", "adapters", "--out", out, "--push", "me/made")
    created = [json.loads(body) for path, _, body in asked if path == "/api/repos/create"]
    assert [body["name"] for body in created] == ["made-dpo", "made-judge"]
    assert all(body.get("private") or body.get("visibility") == "private" for body in created)
    assert all(body.get("type", "model") == "model" for body in created)
    first = uploaded(next(body for path, _, body in asked if "/commit/" in path))
    assert first["README.md"] == (out / "dpo" / "README.md").read_bytes()
    assert first["adapter_model.safetensors"] == (out / "dpo" / "adapter_model.safetensors").read_bytes()
    assert "/me/made-judge" in said


def test_a_push_that_can_not_succeed_is_refused_before_anything_is_written(trained, call, tmp_path, monkeypatch):
    from huggingface_hub import constants

    def refused(name):
        out = tmp_path / "none"
        said = mistake(call("export", trained, "--to", "adapters", "--out", out, "--push", name))
        assert not out.exists()
        return said

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused("me/made")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "hf auth login" in refused("me/made")
    assert "OWNER/NAME" in refused("a name")


def test_mistakes_with_adapters_are_one_line(trained, made, call, tmp_path):
    assert "did you mean 'dpo'" in mistake(call("export", trained, "--to", "adapters", "--stage", "dop"))
    assert "for --to adapters" in mistake(call("export", trained, "--stage", "dpo"))
    empty = made.open_run(tmp_path / "empty")
    made.put(empty, "sft", {"rows": 1})
    assert "no finished stage of this run trained an adapter" in mistake(call("export", empty, "--to", "adapters"))
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    (broken / "dpo" / "adapter" / "adapter_model.safetensors").write_bytes(b"cut")
    assert "is damaged or was changed" in mistake(call("export", broken, "--to", "adapters"))


def test_an_inspect_log_is_read_back_by_inspect(run, call, tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="needs the extra `inspect`")
    code, out, _ = call("export", run, "--to", "inspect", "--out", tmp_path)
    assert code == 0
    path = next(line for line in out.split() if line.endswith("_tournament.eval"))
    read_back = log.read_eval_log(path)
    legs = read(run / "tournament" / "debates.jsonl", JudgedDebate)
    assert len(read_back.samples) == len(legs) and read_back.status == "success"
    assert read_back.stats.started_at < read_back.stats.completed_at
    assert read_back.results.scores[0].metrics["accuracy"].metadata["stories"] == 6
    sample, leg = read_back.samples[0], legs[0]
    assert sample.scores["judge"].value == pytest.approx(leg.p_correct)
    assert leg.transcript.speeches[0].text in sample.messages[1].text
    assert sum(sample.scores is None for sample in read_back.samples) == 1
    assert leg.transcript.question.passage not in read_back.samples[0].model_dump_json()


def test_without_inspect_the_extra_is_named(run, call, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai.log", None)
    assert "debate-rl[inspect]" in mistake(call("export", run, "--to", "inspect"))


def test_a_half_finished_run_exports_what_is_finished(run, call, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(run, half)
    shutil.rmtree(half / "tournament")
    shutil.rmtree(half / "export", ignore_errors=True)
    code, out, err = call("export", half)
    assert code == 0 and "not finished, so left out: tournament" in err
    assert "ratings.csv" not in out and "verdicts.csv" in out


def test_mistakes_are_one_line(made, call, tmp_path, run):
    assert "run not found" in mistake(call("export", tmp_path / "none"))
    assert "no run (no config.yaml)" in mistake(call("export", tmp_path))
    empty = made.open_run(tmp_path / "empty")
    assert "no finished stage to export" in mistake(call("export", empty))
    made.put(empty, "sft", {"rows": 1})
    assert "nothing to export" in mistake(call("export", empty))
    file = tmp_path / "file"
    file.write_text("")
    assert "name a folder" in mistake(call("export", run, "--out", file))


def test_a_study_exports_every_seed(made, run, call, tmp_path):
    study = tmp_path / "study"
    for seed in (0, 1):
        shutil.copytree(run, study / f"seed{seed}")
    (study / "config.yaml").write_text("name: study\nseeds: [0, 1]\n")
    assert call("export", study, "--out", tmp_path / "out")[0] == 0
    ratings = pd.read_csv(tmp_path / "out" / "ratings.csv")
    assert sorted(set(ratings.run)) == ["seed0", "seed1"]


@settings(max_examples=30)
@example(["\r", "a\rb", "\n", "\r\n"])
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), min_size=1, max_size=5))
def test_any_text_comes_back_from_csv_and_parquet(tmp_path_factory, texts):
    out = tmp_path_factory.mktemp("texts")
    rows = [{"text": text, "speeches": [{"text": text}]} for text in texts]
    (path,) = write_csv({"debates": rows}, out)
    with path.open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [cell["text"] for cell in cells] == texts
    assert [json.loads(cell["speeches"])[0]["text"] for cell in cells] == texts
    (path,) = write_parquet({"debates": rows}, out)
    assert list(pd.read_parquet(path).text) == texts


def test_results_become_frames(run):
    metrics = read_json(run / "tournament" / "metrics.json")
    ratings = Ratings.model_validate(metrics["ratings"])
    table = ratings.to_frame()
    assert list(table.player) == [row.player for row in ratings.standings]
    assert table.elo.iloc[0] == ratings.standings[0].rating.value
    record = MatchRecord.model_validate(metrics["matches"])
    matrix = record.to_frame().set_index(["player", "opponent"])
    assert matrix.loc[("dpo", "base"), "won"] == record.cell("dpo", "base").won
    accuracy = {name: JudgeScores.model_validate(value) for name, value in metrics["judge_accuracy"].items()}
    whole = Tournament(ratings=ratings, judge_accuracy=accuracy, legs=(), matches=record).to_frame()
    by_name = whole.set_index("player")
    assert by_name.judge_accuracy["dpo"] == accuracy["dpo"].accuracy.value
    assert by_name.matches_won["dpo"] == record.players[0].share.value or record.players[0].player != "dpo"
    assert frame([{"player_b": None}]).player_b.dtype == "string"
