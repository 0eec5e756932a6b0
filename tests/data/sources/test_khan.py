"""The debates of Khan et al. 2024, in the columns that the authors describe."""

import csv
import io
import json
import zipfile

import pytest

from debate_rl.data.sources import khan, quality
from debate_rl.data.stories import Story
from debate_rl.data.transcripts import load_transcripts
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.trainers.common.rows import sft_rows

TEXT = "The pipe was moved to the shed at dusk. Ines saw it and said nothing to anyone."
STORIES = {"52845_AB": Story(id="52845", title="The Pipe", text=TEXT)}
HEAD = ["debate_id", "judge_id", "experiment_name", "story_title", "debate_method", "debater_config", "dataset_split",
        "transcript"]  # fmt: skip


def round_(correct="It is <quote>moved to the shed</quote>.", incorrect="No: the barn.", type_="sim", judge=None):
    return {"correct": correct, "incorrect": incorrect, "type": type_, "judge": judge, "cross_examiner": None}


def row(rounds=None, swap=False, **cells):
    game = {
        "index": 3, "question": "Where is the pipe?", "question_set_id": "52845_AB", "story": None,
        "story_title": "The Pipe", "answers": {"correct": "Shed", "incorrect": "Barn"},
        "names": {"correct": "Debater A", "incorrect": "Debater B", "judge": None}, "swap": swap,
        "rollout_type": "quality_sim", "rounds": [round_()] if rounds is None else rounds, "responses": [], "extra": {},
    }  # fmt: skip
    game |= cells.pop("game", {})
    cells = {"debate_id": "d1", "judge_id": "4", "experiment_name": "Experiment 8", "story_title": "The Pipe",
             "debate_method": "debate", "debater_config": "gpt4t_bo16", "dataset_split": "train",
             "transcript": json.dumps(game), **cells}  # fmt: skip
    return [cells[name] for name in HEAD]


def archive(folder, *rows, head=HEAD):
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    path = folder / "llm_debate_dataset.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("llm_debate_dataset/judgements.csv", text.getvalue())
        file.writestr("__MACOSX/llm_debate_dataset/._judgements.csv", b"\x00\x05")
        file.writestr("llm_debate_dataset/README.md", "read me")
    return path


def only(folder, *args, **cells):
    (found,), left_out = khan.transcripts(archive(folder, row(*args, **cells)), STORIES)
    assert not left_out
    return found


def test_a_simultaneous_debate(tmp_path):
    game = only(tmp_path, [round_(), round_("Still shed.", "Still barn.", judge="Which quote?")])
    assert (game.protocol.name, game.protocol.order, game.complete) == ("debate", (("A", "B"), ("A", "B")), True)
    assert (game.question.answers, game.question.correct) == (("Shed", "Barn"), 0)
    assert (game.question.group, game.question.passage, game.question.split) == ("52845", TEXT, "train")
    assert game.players == {"A": "gpt4t_bo16", "B": "gpt4t_bo16"}
    assert [(s.side, s.turn, s.text) for s in game.speeches][1:] == [
        ("B", 0, "No: the barn."), ("A", 1, "Still shed."), ("B", 1, "Still barn.")
    ]  # fmt: skip
    assert [q.verdict for q in game.speeches[0].quotes] == ["exact"]


def test_swapped_answers_change_sides_with_their_speeches(tmp_path):
    game = only(tmp_path, swap=True)
    assert (game.question.answers, game.question.correct) == (("Barn", "Shed"), 1)
    assert [(s.side, s.text) for s in game.speeches] == [("A", "No: the barn."), ("B", round_()["correct"])]


@pytest.mark.parametrize("swap", [False, True])
def test_a_sequential_debate_opens_at_once_and_goes_on_in_turn(tmp_path, swap):
    game = only(tmp_path, [round_(), round_("c2", "i2", "seq")], swap=swap)
    assert game.protocol.order == (("A", "B"), ("A",), ("B",))
    assert [s.text for s in game.speeches[2:]] == (["i2", "c2"] if swap else ["c2", "i2"])
    last = sft_rows([game])[-1]
    assert game.speeches[2].text in last.prompt[-1]["content"]


@pytest.mark.parametrize(("swap", "side"), [(False, "B"), (True, "A")])
def test_a_consultancy_has_one_side(tmp_path, swap, side):
    game = only(tmp_path, [round_(None), round_(None, "Yes: the barn.")], swap, debate_method="consultancy")
    assert (game.protocol.name, game.players, game.complete) == ("single", {side: "gpt4t_bo16"}, True)
    assert [(s.side, s.turn) for s in game.speeches] == [(side, 0), (side, 1)]


def test_a_missing_side_is_kept_and_noted(tmp_path):
    path = archive(tmp_path, row([round_(), round_(incorrect=None)]))
    native = tmp_path / "QuALITY.v1.0.1.dev"
    question = {"question": "Where?", "options": ["a", "b"], "gold_label": 1}
    native.write_text(json.dumps({"article_id": "52845", "set_unique_id": "52845_AB", "title": "The Pipe",
                                  "article": TEXT, "questions": [question]}))  # fmt: skip
    corpus = load_transcripts("khan", [], load_protocol("debate"), path=str(path), stories=str(native))
    assert corpus.notes == {"one side is missing in a round": 1}
    assert len(sft_rows(corpus.transcripts)) == 3
    assert corpus.source.licence.startswith("MIT")


def test_what_is_left_out_is_counted(tmp_path):
    rows = [
        row(),
        row(judge_id="5"),
        row([], debate_method="baseline"),
        row([round_("other")], True, experiment_name="Experiment 2"),
        row([round_("it goes on... <TRUNCATED>")]),
        row([round_("x")], game={"question_set_id": "1_X", "story_title": "Unknown"}, story_title="Unknown"),
        row(transcript="Error occurred on debate 7, step 1. Error message: x."),
    ]
    found, left_out = khan.transcripts(archive(tmp_path, *rows), STORIES)
    assert len(found) == 1
    assert left_out == dict.fromkeys(khan.REASONS.values(), 1)


def test_a_round_that_a_full_context_ended_was_not_played(tmp_path):
    ended = "Round ended so no comment made. Judge - do not count this round."
    assert len(only(tmp_path, [round_(), round_(ended, ended)]).speeches) == 2
    for sides in ((ended, None), (None, ended)):
        first = [text and "It is so." for text in sides]
        game = only(tmp_path, [round_(*first), round_(*sides)], debate_method="consultancy")
        assert [(s.turn, s.text) for s in game.speeches] == [(0, "It is so.")] and game.complete


def test_a_round_in_which_nobody_spoke_is_no_turn(tmp_path):
    game = only(tmp_path, [round_(), round_(None, None, judge="Why?"), round_("", None), round_("c", "i")])
    assert (game.protocol.turns, len(game.speeches), game.complete) == (2, 4, True)
    game = only(tmp_path, [round_(None), round_(None, None)], debate_method="consultancy")
    assert (game.protocol.turns, game.complete) == (1, True)


@pytest.mark.parametrize("part", ["cells", "name"])
def test_a_damaged_zip_is_one_line(tmp_path, part):
    text = io.StringIO()
    csv.writer(text).writerows([HEAD, *(row(debate_id=f"d{n}") for n in range(50))])
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("judgements.csv", text.getvalue())
    whole = bytearray(path.read_bytes())
    start = whole.index(b"judgements.csv")
    at = start if part == "name" else start + len("judgements.csv")
    whole[at : at + 8] = b"\xff" * 8
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"damaged.zip.*the zip is damaged .*download") as caught:
        khan.transcripts(path, STORIES)
    assert "\n" not in str(caught.value)


def test_stories_are_found_by_title_and_experiments_have_their_own(tmp_path):
    assert only(tmp_path, game={"question_set_id": None, "story_title": "the  PIPE"}).question.group == "52845"
    head = ["id", "question", "correct answer", "negative answer", "story", "question_set_id", "transcript", "complete"]
    game = {"swap": False, "rounds": [round_()]}
    cells = ["0", "Where is the pipe?", "Shed", "Barn", TEXT, "61007_QQ", json.dumps(game), "True"]
    ((found,), left_out) = khan.transcripts(archive(tmp_path, cells, [*cells[:-1], "False"], head=head), {})
    assert (found.question.group, found.question.passage, found.question.answers) == ("61007", TEXT, ("Shed", "Barn"))
    assert left_out == {khan.REASONS["error"]: 1}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(), row(transcript="{")], r"judgements.csv:3: transcript is not JSON; restore or remove"),
        ([row(transcript="[1]")], r"judgements.csv:2: transcript is not a JSON object"),
        ([row(game={"answers": {"correct": "x"}})], r"judgements.csv:2: transcript.answers.incorrect: Field required"),
        ([row(game={"rounds": [{"type": "other"}]})], r"judgements.csv:2: transcript.rounds.0.type"),
        ([row()[:-2]], r"judgements.csv:2: not as many cells as the header"),
        ([row(game={"question_set_id": "1_X", "story_title": "Y"})], "no story of its 1 games was found; name QuALITY"),
    ],
)
def test_mistakes_name_file_and_row(tmp_path, rows, said):
    with pytest.raises(UserError, match=said) as caught:
        khan.transcripts(archive(tmp_path, *rows), STORIES)
    assert "\n" not in str(caught.value)


def test_what_is_no_such_file(tmp_path):
    with pytest.raises(UserError, match="need a path: download"):
        khan.transcripts(None, STORIES)
    with pytest.raises(UserError, match="not found"):
        khan.transcripts(tmp_path / "x.zip", STORIES)
    (tmp_path / "x.zip").write_text("no zip")
    with pytest.raises(UserError, match="neither a .csv nor a zip"):
        khan.transcripts(tmp_path / "x.zip", STORIES)
    with pytest.raises(UserError, match="no column 'transcript'"):
        khan.transcripts(archive(tmp_path, head=["id"]), STORIES)


def test_a_cell_may_be_larger_than_csv_allows(tmp_path):
    path = archive(tmp_path, row(game={"responses": ["x" * 200_000]}))
    with zipfile.ZipFile(path) as file:
        (tmp_path / "one.csv").write_bytes(file.read("llm_debate_dataset/judgements.csv"))
    assert len(khan.transcripts(path, STORIES)[0]) == len(khan.transcripts(tmp_path / "one.csv", STORIES)[0]) == 1


def test_quality_gives_the_stories(shared_data):
    stories = quality.stories(shared_data / "quality_example.jsonl")
    assert {story.title for story in stories.values()} == {"The Girl in His Mind"}
    assert all(len(story.text) > 20_000 for story in stories.values())
