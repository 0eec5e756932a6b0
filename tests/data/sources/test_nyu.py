import copy
import json
import time

import pytest

from debate_rl.data.sources import nyu, nyu_rooms
from debate_rl.errors import UserError
from tests import SHARED

DATA = SHARED / "data" / "nyu_2023"

real = pytest.mark.skipif(not DATA.exists(), reason="needs the shared data: nyu_2023")

STORY = ("``", "Do", "n't", "touch", "it", ",", "''", "said", "Ola", ".", "\n", "\n", "The", "lamp", "-LRB-", "Ola",
         "'s", "-RRB-", "was", "moved", "to", "the", "tower", "--", "twice", ".")  # fmt: skip
WRITTEN = "\"Don't touch it,\" said Ola.\n\nThe lamp (Ola's) was moved to the tower -- twice."


def speech(speaker, *content):
    return {"speaker": speaker, "timestamp": 5, "content": list(content)}


def text(words):
    return {"Text": {"text": words}}


def quote(first, last):
    return {"Quote": {"span": [first, last]}}


def feedback(judge, first, end=False, words=""):
    return {"distribution": [first, 1 - first], "feedback": speech(judge, text(words)), "endDebate": end}


def room(debaters=("Ada", "Ben")):
    """A debate in the web app's form: one simultaneous round, one sequential, three judgements, two offline judges."""
    first = {"0": speech(debaters[0], text("It was moved: "), quote(18, 23)), "1": speech(debaters[1], text("No."))}
    second = {"0": speech(debaters[0], text("See above.")), "1": speech(debaters[1], text("Look: "), quote(0, 7))}
    offline = {
        "Eli": {
            "mode": "stepped",
            "judgments": [feedback("Eli", 0.5), feedback("Eli", 0.6), feedback("Eli", 0.7, True)],
        },
        "Flo": {"mode": "timed", "judgments": [feedback("Flo", 0.2, True)]},
    }
    return {
        "setup": {
            "rules": {},
            "sourceMaterial": {
                "QuALITYSourceMaterial": {"articleId": "123", "title": "The Lamp", "contents": list(STORY)}
            },
            "question": "Where was the lamp moved?\n",
            "answers": ["To the tower", "Nowhere\u00a0"],
            "correctAnswerIndex": 0,
            "roles": {"Debater A": debaters[0], "Debater B": debaters[1], "Judge": "Dot"},
        },
        "rounds": [
            {"JudgeFeedback": feedback("Dot", 0.5)},
            {"SimultaneousSpeeches": {"speeches": first}},
            {"JudgeFeedback": feedback("Dot", 0.6, words="Why?")},
            {"SequentialSpeeches": {"speeches": second}},
            {"JudgeFeedback": feedback("Dot", 0.9, end=True)},
            {"OfflineJudgments": {"judgments": offline}},
        ],
        "feedback": {},
    }


def consultancy():
    """One side alone, in two rounds."""
    value = room(("GPT-4", "GPT-4"))
    del value["setup"]["roles"]["Debater A"]
    for round_ in value["rounds"]:
        for kind in ("SimultaneousSpeeches", "SequentialSpeeches"):
            if kind in round_:
                spoken = round_.pop(kind)["speeches"]
                round_["SequentialSpeeches"] = {"speeches": {"1": spoken["1"]}}
    return value


def saved(folder, rooms, metadata=None):
    official = folder / "debates" / "official"
    official.mkdir(parents=True)
    for name, value in rooms.items():
        (official / f"{name}.json").write_text(json.dumps(value))
    if metadata:
        rows = [{"name": name, "includedInPaper": included} for name, included in metadata.items()]
        (folder / "debates-metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def as_lines(folder, rooms):
    """The same games as debates.jsonl and stories.jsonl."""
    rows = []
    for name, value in rooms.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
        line, story = nyu_rooms.read_room(folder / f"{name}.json")
        rows.append(line | {"setting": {"isHuman": True}, "feedback": {}, "includedInPaper": True})
        (folder / f"{name}.json").unlink()
    (folder / "debates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "stories.jsonl").write_text(
        json.dumps({"storyId": "123", "storyTitle": "The Lamp", "story": story}) + "\n"
    )
    return folder


def test_tokens_become_text_and_quotes_stand_in_it():
    written, spans = nyu_rooms.join_tokens(STORY)
    assert written == WRITTEN
    assert [written[slice(*span)] for span in spans[:3]] == ['"', "Do", "n't"]


def test_a_room_gives_question_speeches_and_judgements(tmp_path):
    (session,) = nyu.sessions(saved(tmp_path, {"the-lamp-0": room()}, {"the-lamp-0": True}))
    assert (session.room, session.condition, session.finished, session.in_paper) == (
        "the-lamp-0",
        "human debate",
        True,
        True,
    )
    question = session.question
    assert (question.text, question.answers) == ("Where was the lamp moved?", ("To the tower", "Nowhere"))
    assert (question.correct, question.group, question.passage) == (0, "123", WRITTEN)
    assert session.order == (("A", "B"), ("A",), ("B",))
    assert [(s.side, s.turn, s.speaker) for s in session.said] == [
        ("A", 0, "Ada"), ("B", 0, "Ben"), ("A", 1, "Ada"), ("B", 2, "Ben")]  # fmt: skip
    assert session.said[0].text == "It was moved: <quote>was moved to the tower</quote>"
    assert session.said[3].text == 'Look: <quote>"Don\'t touch it,"</quote>'
    live = [j for j in session.judgements if j.mode == "live"]
    assert [(j.turns, j.probabilities[0], j.final) for j in live] == [(0, 0.5, False), (1, 0.6, False), (3, 0.9, True)]
    assert live[1].text == "Why?"
    assert (session.verdict, session.continues) == (live[2], 2)


def test_offline_judges_are_placed_by_what_they_had_read(tmp_path):
    (session,) = nyu.sessions(saved(tmp_path, {"a": room()}))
    offline = [(j.judge, j.mode, j.turns, j.final) for j in session.judgements if j.mode != "live"]
    assert offline == [("Eli", "stepped", 0, False), ("Eli", "stepped", 1, False), ("Eli", "stepped", 3, True),
                       ("Flo", "timed", 3, True)]  # fmt: skip


def test_both_forms_give_the_same_records(tmp_path):
    rooms = {"a": room(), "b": consultancy(), "c": room(("GPT-4", "GPT-4"))}
    first = nyu.sessions(saved(tmp_path / "pub", rooms, dict.fromkeys(rooms, True)))
    (tmp_path / "lines").mkdir()
    second = nyu.sessions(as_lines(tmp_path / "lines", rooms))
    assert first == second
    assert [s.condition for s in first] == ["human debate", "GPT-4 consultancy", "GPT-4 debate"]


def test_every_way_to_name_the_rooms(tmp_path):
    pub = saved(tmp_path / "repository" / "pub", {"a": room()})
    official = pub / "debates" / "official"
    for path in (tmp_path / "repository", pub, official.parent, official, official / "a.json"):
        assert [s.room for s in nyu.sessions(path)] == ["a"]
    assert nyu.sessions(official)[0].in_paper is None


def test_a_transcript_of_a_debate_and_of_a_consultancy(tmp_path):
    rooms = {"a": room(), "b": consultancy(), "c": room()}
    debate, alone, again = (nyu.transcript(s) for s in nyu.sessions(saved(tmp_path, rooms)))
    assert debate.players == {"A": "human", "B": "human"}
    assert debate.complete
    assert [s.turn for s in debate.speeches] == [0, 0, 1, 2]
    (found,) = debate.speeches[0].quotes
    assert (found.verdict, WRITTEN[found.passage_start : found.passage_end]) == ("exact", "was moved to the tower")
    assert (alone.players, alone.protocol.name, alone.protocol.turns) == ({"B": "GPT-4"}, "single", 2)
    assert alone.complete
    assert {s.origin.model for s in alone.speeches} == {"gpt-4"}
    assert debate.id != again.id  # two games on one question


def test_an_unfinished_game_is_kept_apart(tmp_path):
    value = room()
    value["rounds"] = value["rounds"][:2]
    del value["rounds"][1]["SimultaneousSpeeches"]["speeches"]["0"]
    path = saved(tmp_path, {"a": value, "b": room()})
    begun, _ = nyu.sessions(path)
    assert (begun.finished, begun.verdict, begun.order) == (False, None, (("A", "B"),))
    assert not nyu.transcript(begun).complete
    assert len(nyu.transcripts(path)) == 1
    assert nyu.transcripts(path, ["GPT-4 debate"]) == []


@pytest.mark.parametrize(
    ("votes", "finished"), [({"0": True, "1": True}, True), ({"0": True, "1": False}, False), ({}, False)]
)
def test_a_game_ends_when_both_debaters_vote_so(tmp_path, votes, finished):
    value = room()
    value["rounds"] = [value["rounds"][1], {"NegotiateEnd": {"votes": votes}}]
    assert nyu.sessions(saved(tmp_path, {"a": value}))[0].finished is finished


def test_questions_are_distinct_and_turned_by_seed(tmp_path):
    rooms = {}
    for number in range(40):
        value = room()
        value["setup"]["question"] = f"Question {number}?"
        value["setup"]["sourceMaterial"]["QuALITYSourceMaterial"]["articleId"] = str(number)
        other = copy.deepcopy(value)
        other["setup"]["answers"].reverse()
        other["setup"]["correctAnswerIndex"] = 1
        rooms |= {f"r{number}-0": value, f"r{number}-1": other}
    path = saved(tmp_path, rooms)
    questions = nyu.questions(path)
    assert len(questions) == 40
    assert all(q.answers[q.correct] == "To the tower" for q in questions)
    assert 8 <= sum(q.correct for q in questions) <= 32
    assert [q.correct for q in nyu.questions(path, seed=1)] != [q.correct for q in questions]
    assert [len(nyu.questions(path, split=s)) for s in ("train", "validation", "test")] == [28, 6, 6]
    assert {story.id for story in nyu.stories(path)} == {str(n) for n in range(40)}
    for split in ("train", "test"):
        played = {game.question.group for game in nyu.transcripts(path, split=split)}
        assert played == {q.group for q in nyu.questions(path, split=split)}


def test_a_list_of_questions_names_them_as_the_debates_do(tmp_path):
    as_lines(tmp_path, {"a": room()})
    row = {
        "storyId": "123",
        "question": "Where was the lamp moved?",
        "correct": "To the tower",
        "distractor": "Nowhere",
    }
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    assert nyu.questions(tmp_path / "questions.jsonl") == nyu.questions(tmp_path)
    (tmp_path / "questions.jsonl").write_text(json.dumps(row | {"correct": 3}) + "\n")
    with pytest.raises(UserError, match=r"questions.jsonl:1: needs the texts"):
        nyu.questions(tmp_path / "questions.jsonl")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v: v["setup"].pop("answers"), r"a.json: setup.answers: Field required"),
        (lambda v: v["setup"]["sourceMaterial"].clear(), r"a.json: setup.sourceMaterial: holds no story"),
        (lambda v: v["rounds"][1]["SimultaneousSpeeches"]["speeches"]["0"]["content"].append(quote(20, 99)),
         r"a.json: quote span \[20, 99\] is outside the story of 26 tokens"),
        (lambda v: v["rounds"][0]["JudgeFeedback"].update(distribution=[0.9, 0.9]), r"turns.0: .*two shares of 1"),
    ],
)  # fmt: skip
def test_a_malformed_room_is_named(tmp_path, change, complaint):
    value = room()
    change(value)
    with pytest.raises(UserError, match=complaint):
        nyu.sessions(saved(tmp_path, {"a": value}))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"correctAnswerIndex": 2}, r"debates.jsonl:2: correctAnswerIndex"),
        ({"turns": [{"role": "Debater", "text": "x"}]}, r"debates.jsonl:2: turns.0: .*needs 'index' and 'round'"),
        ({"turns": [{"role": "Judge", "text": "x"}]}, r"debates.jsonl:2: turns.0: .*needs 'probabilities'"),
        ({"answers": ["one"]}, r"debates.jsonl:2: answers"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, change, complaint):
    as_lines(tmp_path, {"a": room(), "b": room()})
    rows = [json.loads(line) for line in (tmp_path / "debates.jsonl").read_text().splitlines()]
    rows[1] |= change
    (tmp_path / "debates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=complaint):
        nyu.sessions(tmp_path)


def test_missing_files_are_said(tmp_path):
    with pytest.raises(UserError, match=r"needs a path: clone https://github.com/julianmichael/debate"):
        nyu.sessions(None)
    with pytest.raises(UserError, match="no debates in"):
        nyu.sessions(tmp_path)
    (as_lines(tmp_path, {"a": room()}) / "stories.jsonl").unlink()
    with pytest.raises(UserError, match=r"a: no story '123'; put stories.jsonl beside debates.jsonl"):
        nyu.transcripts(tmp_path)


@real
def test_the_real_debates():
    sessions = nyu.sessions(DATA)
    assert len(sessions) == 631
    rows = [json.loads(line) for line in (DATA / "debates.jsonl").read_text().splitlines()]
    for session, row in zip(sessions, rows, strict=True):
        if row["finalJudgement"]:
            assert session.verdict.probabilities == tuple(row["finalJudgement"])
            assert session.continues == row["numContinues"]
        assert (session.verdict is None) == (row["finalJudgement"] is None)
        assert len(session.said) == sum(turn["role"] == "Debater" for turn in row["turns"])
        assert [s.text for s in session.said] == [turn["text"] for turn in row["turns"] if turn["role"] == "Debater"]
    assert nyu.questions(DATA) == nyu.questions(DATA / "debates.jsonl")
    assert {q.id: q for q in nyu.questions(DATA)} == {q.id: q for q in nyu.questions(DATA / "questions.jsonl")}
    assert (len(nyu.questions(DATA)), len(nyu.stories(DATA))) == (342, 96)


@real
def test_human_quotes_stand_in_the_real_stories():
    games = [nyu.transcript(s) for s in nyu.sessions(DATA)[:60] if s.finished and s.condition.startswith("human")]
    quotes = [quote.verdict for game in games for said in game.speeches for quote in said.quotes]
    assert len(quotes) > 300
    assert quotes.count("exact") / len(quotes) > 0.98


@real
def test_reading_takes_little_longer_than_parsing_json():
    start = time.process_time()
    lines = (DATA / "debates.jsonl").read_text().splitlines() + (DATA / "stories.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 631 + 96
    parsed = time.process_time()
    nyu.sessions(DATA)
    assert time.process_time() - parsed < (parsed - start) + 1
