"""Long passages stand once beside the records that name them."""

import json
import os
import shutil

import pytest

from debate_rl.analysis.behaviour.game_features import read_played
from debate_rl.analysis.judging.rejudge import saved_legs
from debate_rl.arena.resume_log import LoggedRecords
from debate_rl.arena.rollout import LogOptions, play_to_file, read_pools
from debate_rl.arena.schedule import round_robin
from debate_rl.config.tree import parse_config
from debate_rl.data.sources import nyu
from debate_rl.data.transcripts import load_transcripts
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.records import append, digest, read, read_log, write
from debate_rl.records.passages import KEY
from debate_rl.records.passages import NAME as PASSAGES
from debate_rl.report.debates import read_legs
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from tests.command import mistake
from tests.report.figure_data import unpacked

DEBATE = load_protocol("debate")
STORY = "the pipe was moved to the barn at noon and {} saw. "


def story(name):
    return STORY.format(name) * 40


@pytest.fixture
def questions(question):
    """Four questions on two long stories."""
    made = []
    for index in range(4):
        name = "ines" if index < 2 else "omar"
        changes = {"id": f"q{index}", "group": name, "passage": story(name), "excerpt": story(name)[:1500]}
        made.append(question.model_copy(update=changes))
    return made


def legs_on(questions):
    legs = []
    for question in questions:
        game = open_transcript(question, DEBATE, {"A": "x", "B": "y"})
        speech = "<quote>moved to the barn at noon</quote>"
        game = game.add([read_speech(speech, game, side, 0, Origin(player="x")) for side in ("A", "B")])
        legs.append(JudgedDebate(transcript=game, verdict=Verdict(judge="m", p=(0.7, 0.3))))
    return legs


def test_every_reader_gives_the_whole_question_back(tmp_path, questions):
    legs = legs_on(questions)
    path = tmp_path / run_files.DEBATES
    write(path, legs[:2])
    append(path, legs[2:])
    assert path.read_text().count(KEY) == 8 and story("ines") not in path.read_text()
    assert len((tmp_path / PASSAGES).read_text().splitlines()) == 4  # two stories and their excerpts
    assert read(path, JudgedDebate) == read_log(path, JudgedDebate) == saved_legs([path]) == legs
    assert [game.question for game in load_transcripts(str(path), [], DEBATE).transcripts] == questions
    assert read_legs("tournament", path, 4).played == len(read_played(path)) == 4


def test_short_passages_and_files_of_earlier_versions_stay_as_they_are(tmp_path, question, questions):
    path = tmp_path / run_files.DEBATES
    write(path, legs_on([question]))
    assert question.passage in path.read_text() and not (tmp_path / PASSAGES).exists()
    whole = "".join(leg.model_dump_json() + "\n" for leg in legs_on(questions))
    path.write_text(whole)
    assert read(path, JudgedDebate) == legs_on(questions)
    write(tmp_path / "alone.jsonl", legs_on(questions), inline=True)
    assert (tmp_path / "alone.jsonl").read_text() == whole


def test_names_of_games_do_not_depend_on_where_the_passage_stands(tmp_path, questions):
    path = tmp_path / "questions.jsonl"
    write(path, questions)
    assert [digest(question) for question in read(path, Question)] == [digest(question) for question in questions]
    assert questions[0].model_dump(mode="json")["passage"] == story("ines")


def test_a_line_without_its_passage_is_refused_in_one_line(tmp_path, questions):
    path = tmp_path / run_files.DEBATES
    write(path, legs_on(questions))
    (tmp_path / PASSAGES).unlink()
    readers = (read, read_log)
    for reader in readers:
        with pytest.raises(
            UserError, match=r"debates\.jsonl.* names passage .*passages\.jsonl does not hold"
        ) as caught:
            reader(path, JudgedDebate)
        assert "\n" not in str(caught.value)


def test_a_damaged_passage_is_refused_and_a_torn_one_is_written_again(tmp_path, questions):
    path, passages = tmp_path / run_files.DEBATES, tmp_path / PASSAGES
    write(path, legs_on(questions))
    whole = passages.read_text()
    passages.write_text(whole.replace("noon", "dusk", 1))
    with pytest.raises(UserError, match=r"passages\.jsonl:1: a damaged passage"):
        read(path, JudgedDebate)
    # Killed while it wrote the last passage: no line names it yet.
    passages.write_text(whole[:-40])
    write(path, legs_on(questions[:2]))
    append(path, legs_on(questions[2:]))
    assert read(path, JudgedDebate) == legs_on(questions)
    assert passages.read_text() == whole


def test_passages_are_on_disk_before_the_lines_that_name_them(tmp_path, questions, monkeypatch):
    path = tmp_path / run_files.DEBATES
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), real(file)))
    append(path, legs_on(questions))
    assert [name.rpartition("/")[2] for name in synced] == [PASSAGES, run_files.DEBATES]


def test_records_of_a_log_are_read_after_its_folder_was_renamed_and_its_passages_are_gone(tmp_path, questions):
    working = tmp_path / ".stage"
    judge, players = Judge(model="m"), {name: Debater(name=name, model=name, best_of=2) for name in ("x", "y")}
    options = LogOptions(pool_path=working / run_files.POOLS)
    games = round_robin(["x", "y"], questions, DEBATE)
    legs = play_to_file(games, players, ScriptedEngine(), judge, working / run_files.DEBATES, options=options)
    assert isinstance(legs, LoggedRecords)
    pools = read_pools(working / run_files.POOLS)
    assert {pool.transcript.question.passage for pool in pools} == {story("ines"), story("omar")}
    working.rename(tmp_path / "stage")
    (tmp_path / "stage" / PASSAGES).unlink()
    assert [leg.transcript.question for leg in legs] == [game.question for game in games]


def test_ten_thousand_debates_on_real_stories_take_less_than_thirty_megabytes(tmp_path, shared_data):
    sessions = nyu.games(str(shared_data / "nyu_2023/debates.jsonl"), nyu.CONDITIONS)
    questions = [nyu.transcript(session).question for session in sessions[:500] if session.said]
    legs = []
    for seed in range(500):
        question = questions[seed % len(questions)]
        game = open_transcript(question, DEBATE, {"A": "dpo", "B": "sft"}, seed)
        origin = Origin(
            player="dpo", model="smollm2-135m", adapter="runs/quickstart/dpo/adapter", revision="9f86d081884c7d65",
            seed=seed, temperature=0.7, top_p=1.0, max_new_tokens=80, prompt_tokens=7000, new_tokens=70,
        )  # fmt: skip
        start = 37 * seed % (len(question.passage) - 400)
        words = f"{question.passage[start : start + 200]} <quote>{question.passage[start : start + 80]}</quote>"
        game = game.add([read_speech(words, game, side, 0, origin) for side in ("A", "B")])
        legs.append(JudgedDebate(transcript=game, verdict=Verdict(judge="lab-base", p=(0.72, 0.28))))
    path = tmp_path / run_files.DEBATES
    write(path, legs)
    size = path.stat().st_size * 20 + (tmp_path / PASSAGES).stat().st_size
    print(f"10,000 debates on {len({leg.transcript.question.passage for leg in legs})} stories: {size / 1e6:.1f} MB")
    assert size < 30e6
    assert read(path, JudgedDebate) == legs


def config(tmp_path, name="a", **changes):
    tree = {
        "name": name,
        "runs": str(tmp_path),
        "questions": {"source": "file", "path": str(tmp_path / "questions.jsonl"), "train": 8, "test": 6},
        "tracking": {"mode": "disabled"},
        "stages": {
            "tournament": {"players": ["base", "base@2"], "resamples": 20},
            "oversight": {"players": ["base"], "protocols": ["debate", "blind"]},
            "report": {},
        },
    }
    return parse_config({**tree, **changes})


def test_a_run_on_long_stories_is_checked_reused_and_reported(tmp_path, question, call):
    made = []
    for index in range(40):
        made.append(question.model_copy(update={"id": f"q{index}", "group": f"g{index}", "passage": story(index)}))
    write(tmp_path / "questions.jsonl", made, inline=True)
    run_stages(Run(config(tmp_path), ScriptedEngine(), say=lambda line: None))
    stage = tmp_path / "a" / "tournament"
    assert PASSAGES in json.loads((stage / run_files.STAGE).read_text())["files"]
    legs = read(stage / run_files.DEBATES, JudgedDebate)
    passages = {question.id: question.passage for question in made}
    assert all(leg.transcript.question.passage == passages[leg.transcript.question.id] for leg in legs)
    assert story(0)[:200] not in (stage / run_files.DEBATES).read_text()
    stories = []
    for part in (tmp_path / "a" / "report" / "debates").glob("story-*.js"):
        stories += unpacked(part)
    assert set(stories) == {leg.transcript.question.passage for leg in legs}
    said = []
    run_stages(Run(config(tmp_path, "b", reuse=str(tmp_path / "a")), ScriptedEngine(), say=said.append))
    assert any(line.startswith("tournament: taken from ") for line in said)
    assert read(tmp_path / "b" / "tournament" / run_files.DEBATES, JudgedDebate) == legs
    # A stage whose passages were changed is refused like one whose debates were.
    shutil.copy(tmp_path / "questions.jsonl", stage / PASSAGES)
    with pytest.raises(UserError, match=r"passages\.jsonl is damaged or was changed"):
        run_stages(Run(config(tmp_path), ScriptedEngine(), say=lambda line: None))
    # So is a file of debates that was taken out of its folder.
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "b" / "tournament" / run_files.DEBATES, tmp_path / "alone")
    alone = tmp_path / "alone" / run_files.DEBATES
    assert "names passage" in mistake(call("judge", "evaluate", "--recorded", alone))
