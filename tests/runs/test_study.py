import json
import os
import signal
from html.parser import HTMLParser
from pathlib import Path

import pytest

from debate_rl.analysis.effects.table import effects, read_effects
from debate_rl.config.kinds import STAGES
from debate_rl.config.tree import load_config, parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.records import digest, read_json
from debate_rl.report.study_page import study_seeds, write_study_page
from debate_rl.runs.execute import run_stages
from debate_rl.runs.folder import claim_folder
from debate_rl.runs.run import Run
from debate_rl.runs.study import run_study, seed_configs
from debate_rl.stages import weak_to_strong
from tests.tiny import tiny_model


@pytest.fixture
def config(tmp_path, question):
    """A study of two seeds, without training, on questions of a file."""
    told = [" ".join(f"s{i // 2}w{word}" for word in range(60)) for i in range(200)]  # stories are not alike
    changes = [
        {"id": f"q{i}", "group": f"g{i // 2}", "correct": i % 2, "passage": f"{question.passage} {told[i]}"}
        for i in range(200)
    ]
    lines = [question.model_copy(update=change).model_dump_json() for change in changes]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    return parse_config(
        {
            "name": "s", "runs": str(tmp_path / "runs"), "seeds": [0, 3], "tracking": {"mode": "disabled"},
            "questions": {"source": "file", "path": str(tmp_path / "q.jsonl"), "train": 6, "test": 8},
            "stages": {
                "reading": {"models": ["big"]},
                "tournament": {"players": ["base", "base@2"], "resamples": 20},
                "oversight": {"players": ["base"], "protocols": ["debate", "single"]},
                "report": {"transcripts": 1},
            },
        }
    )  # fmt: skip


def engine():
    """Speeches differ by seed, and the judge's taste by speech."""
    return ScriptedEngine(
        score=lambda choice: [-int(digest([choice.model_dump(mode="json"), a]), 16) / 2**62 for a in choice.candidates]
    )


def study(config, said=None):
    return run_study(config, engine=engine(), say=(said if said is not None else []).append)


def files(folder):
    """What a study found, without times, places and stores."""
    names = ("debates.jsonl", "metrics.json", "effects.json")
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.json*") if path.name in names}


def test_seeds_share_the_test_questions_and_nothing_else(config):
    copies = seed_configs(config)
    assert [(one.seed, one.seeds, one.name, one.questions.seed) for one in copies] == [
        (0, (), "seed0", 0), (3, (), "seed3", 0),
    ]  # fmt: skip
    runs = [Run(one) for one in copies]
    tests, trains = ([[q.id for q in run.questions(split)] for run in runs] for split in ("test", "train"))
    assert tests[0] == tests[1] and trains[0] != trains[1]
    stage = parse_config({"stages": {"weak_to_strong": {"supervisor": 4, "student": 4, "test": 4, "debater": "base"}}})
    stage = stage.stages["weak_to_strong"]
    parts = [weak_to_strong.splits(stage, run) for run in runs]
    assert parts[0] == parts[1]
    games = [{game.id for game in stage.games(run)} for run in runs]
    assert not games[0] & games[1]


def test_the_seed_of_the_test_questions_can_be_given(config):
    given = config.model_copy(update={"seed": 4, "questions": config.questions.model_copy(update={"seed": 9})})
    assert {one.questions.seed for one in seed_configs(given)} == {9}
    assert {one.questions.seed for one in seed_configs(config.model_copy(update={"seed": 4}))} == {4}
    alone = config.model_copy(update={"seeds": ()})
    assert seed_configs(alone) == [alone] and alone.question_seed == alone.seed


def test_a_study_joins_its_seeds(config):
    said = []
    rows = study(config, said=said)
    folder = Path(config.runs) / "s"
    assert rows == read_effects(folder / "effects.json") == effects([folder / "seed0", folder / "seed3"])
    assert read_json(folder / "effects.json")["seeds"] == [0, 3] == study_seeds(folder)
    skill = next(row for row in rows if row.group == "best-of-n")
    single = read_effects(folder / "seed0" / "report" / "effects.json")
    alone = next(row for row in single if row.name == skill.name)
    assert skill.seeds[0] == pytest.approx(alone.estimate.value) and skill.seeds[0] != skill.seeds[1]
    assert skill.estimate.n == 2 * alone.estimate.n and skill.estimate.clusters == alone.estimate.clusters
    assert load_config(folder / "seed3" / "config.yaml").seed == 3 and [s for s in said if s.startswith("seed ")]
    assert run_stages(Run(seed_configs(config)[1], say=said.append), {"tournament"})


class Links(HTMLParser):
    """Addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if key == "href"]


def test_the_page_of_a_study_leads_to_the_pages_of_its_seeds(config, tmp_path):
    study(config)
    folder = Path(config.runs) / "s"
    html = (folder / "report" / "index.html").read_text()
    # Points of figures lead to the debates in a seed's page.
    links = {link.partition("#")[0] for link in Links(html).found if link.startswith("..")}
    assert len(links) == 2 and all((folder / "report" / link).resolve().is_file() for link in links)
    assert "<script" not in html and "base@2 over base, Elo" in html and "study over 2 seeds" in html
    seconds = [
        json.loads(path.read_text())
        for path in folder.glob("seed*/*/timing.json")
        if path.parent.name != "report"  # the page leaves its own out
    ]
    assert len(seconds) == 6
    peak = max(timing["peak_memory_mib"] for timing in seconds)
    assert f"{peak:,}".replace(",", "\u202f") in html
    assert "shown" in (folder / "seed0" / "report" / "index.html").read_text()
    with pytest.raises(UserError, match="is no study"):
        write_study_page(folder / "seed0", tmp_path, [])


@pytest.mark.parametrize("moment", [("seed0", "oversight"), ("seed3", "reading"), ("seed3", "tournament")])
def test_a_study_stopped_between_or_inside_seeds_ends_like_one_that_was_not(config, tmp_path, moment, monkeypatch):
    whole = config.model_copy(update={"runs": str(tmp_path / "whole")})
    study(whole)

    work = STAGES[moment[1]].execute

    def stop(stage, run, out):
        if run.folder.name == moment[0]:
            raise KeyboardInterrupt
        return work(stage, run, out)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(STAGES[moment[1]], "execute", stop)
        study(config)
    folder = Path(config.runs) / "s"
    assert not (folder / "effects.json").exists() and not (folder / moment[0] / moment[1]).exists()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("seed0/*/debates.jsonl")}
    study(config)
    assert kept and all(path.stat().st_mtime_ns == made for path, made in kept.items())
    assert files(folder) == files(tmp_path / "whole" / "s")


def test_a_folder_of_another_study_or_run_is_refused(config):
    study(config)
    with pytest.raises(UserError, match=r"another config \(seeds: \[0, 3\] there, \[0, 1\] now\)"):
        study(config.model_copy(update={"seeds": (0, 1)}))
    alone = config.model_copy(update={"seeds": ()})
    with pytest.raises(UserError, match="seeds"):
        run_stages(Run(alone, engine()))
    once = alone.model_copy(update={"name": "once"})
    run_stages(Run(once, engine(), say=lambda line: None))
    with pytest.raises(UserError, match=r"seeds: \[\] there"):
        study(config.model_copy(update={"name": "once"}))
    assert not (Path(config.runs) / "s" / "seed1").exists()


def test_seeds_can_change_while_nothing_is_finished(config):
    claim_folder(config)
    assert study(config.model_copy(update={"seeds": (1, 2)}))[0].seeds[1] is not None


def test_an_ordinary_run_has_the_same_table_on_its_page(config):
    alone = config.model_copy(update={"seeds": (), "name": "once"})
    run_stages(Run(alone, engine(), say=lambda line: None))
    folder = Path(config.runs) / "once"
    rows = read_effects(folder / "report" / "effects.json")
    assert rows == effects([folder]) and all(len(row.seeds) == 1 for row in rows)
    html = (folder / "report" / "index.html").read_text()
    assert html.index('id="summary"') < html.index('id="ratings"') < html.index('id="effects"')


def test_seeds_that_run_side_by_side_find_the_same(config, tmp_path):
    """Real processes, each with its own engine."""
    models = {kind: str(tiny_model(tmp_path / "tiny")) for kind in ("debater", "judge")}
    stages = {name: config.stages[name] for name in ("tournament", "report")}
    small = {**config.model_dump(by_alias=True), "stages": {n: s.model_dump() for n, s in stages.items()}}
    small["questions"] = {**small["questions"], "test": 3}
    small["protocol"] = {"max_new_tokens": 6}
    small["models"] = models
    found = []
    for processes in (1, 2):
        one = parse_config({**small, "name": f"p{processes}", "processes": processes})
        run_study(one)
        found.append(files(tmp_path / "runs" / f"p{processes}"))
    assert found[0] == found[1] and len(found[0]) > 5
    bad = parse_config(
        {**small, "name": "bad", "seeds": [0], "processes": 2, "models": {"debater": "nowhere", "judge": "nowhere"}}
    )
    with pytest.raises(UserError, match="nowhere"):
        run_study(bad)


def killed(config, only):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_said_in_a_line(tmp_path, monkeypatch):
    one = parse_config({"name": "k", "runs": str(tmp_path), "seeds": [0], "processes": 2, "stages": {"report": {}}})
    monkeypatch.setattr("debate_rl.runs.study._run_alone", killed)
    with pytest.raises(UserError, match="was killed, .*goes on where it was"):
        run_study(one)
