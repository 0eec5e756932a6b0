"""Stories that are the same, whatever they are called; the human debates' are kept out of validation and test."""

import json
import re
from random import Random

import pytest

from debate_rl.data.questions import load_questions
from debate_rl.data.sources import nyu
from debate_rl.data.stories import Story, runs, same_stories
from debate_rl.errors import UserError

WORDS = ["the", "pipe", "shed", "barn", "moved", "dusk", "noon", "saw", "ines", "omar", "and", "was"]


def text(seed, count=400):
    rng = Random(seed)
    return " ".join(f"{rng.choice(WORDS)}{rng.randrange(30)}" for _ in range(count))


def respelt(story):
    """The same words set otherwise: quotes, dashes, case, line breaks, and a note at the head."""
    words = re.sub(r"[^\w\s]", "", story.upper()).split()
    return "[Transcriber's Note: produced from If, 1952.]\n\n" + "--\n".join(words)


def test_a_story_is_known_by_id_title_or_text():
    known = [Story(id="1", title="A Pail of Air", text=text(1)), Story(id="2", text=text(2)), Story(id="3")]
    asked = [
        Story(id="1", text=text(9)),
        Story(id="x", title="a pail of AIR."),
        Story(id="y", text=respelt(text(2))),
        Story(id="part", text=" ".join(text(2).split()[100:300])),
        Story(id="new", title="Another", text=text(4)),
        Story(id="bare"),
    ]
    assert same_stories(asked, known) == {"1": "id", "x": "title", "y": "text", "part": "text"}


def test_short_texts_have_one_run_and_empty_ones_none():
    assert (len(runs("a b c")), len(runs(" -- ")), len(runs("one two three four five six seven eight nine"))) == (
        1,
        0,
        2,
    )


def test_no_two_of_the_debated_stories_are_one(shared_data):
    told = nyu.stories(shared_data / "nyu_2023")
    for place in range(0, 96, 32):
        story = told[place].model_copy(update={"id": "new", "title": ""})
        others = [other for other in told if other.id != told[place].id]
        assert same_stories([story], others) == {}
        assert same_stories([story.model_copy(update={"text": respelt(story.text)})], told) == {"new": "text"}


def quality_of(folder, stories):
    """A QuALITY dev file in the owner's layout."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"article_id": story.id, "title": story.title, "article": story.text, "set_unique_id": f"{story.id}_Q",
         "questions": [{"question": f"Where {n}?", "options": ["here", "there"], "gold_label": 1,
                        "question_unique_id": f"{story.id}_{n}"} for n in range(3)]}
        for story in stories
    ]  # fmt: skip
    for name in ("dev", "train"):
        (folder / f"QuALITY.v1.0.1.htmlstripped.{name}").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_stories_of_the_human_debates_are_kept_out_of_validation_and_test(shared_data, tmp_path):
    """Half of a QuALITY dev file are debated stories: under their ids, retitled, or under new ids and titles."""
    human = shared_data / "nyu_2023"
    debated = nyu.stories(human)[:30]
    disguised = [debated[:10], [s.model_copy(update={"id": f"9{s.id}", "text": ""}) for s in debated[10:20]],
                 [Story(id=f"8{s.id}", text=respelt(s.text)) for s in debated[20:]]]  # fmt: skip
    fresh = [Story(id=f"new-{n}", title=f"Fresh {n}", text=text(n)) for n in range(30)]
    path = quality_of(tmp_path / "quality", [s for part in disguised for s in part] + fresh)
    leaks = {s.id for part in disguised for s in part}

    for split in ("validation", "test"):
        plain = {q.group for q in load_questions("quality", path, split)}
        kept = {q.group for q in load_questions("quality", path, split, human=human)}
        assert plain & leaks, "the file must hold what is to be left out"
        assert kept == plain - leaks
        stories = {
            q.group: Story(id=q.group, text=q.passage) for q in load_questions("quality", path, split, human=human)
        }
        assert same_stories(stories.values(), nyu.stories(human)) == {}
    train = {q.group for q in load_questions("quality", path, "train", human=human)}
    assert leaks <= train, "training may use them"


def test_other_sources_keep_them_out_as_well(shared_data, tmp_path):
    human = shared_data / "nyu_2023"
    with pytest.raises(UserError, match="no questions"):
        load_questions("nyu", human, "test", human=human)
    told = nyu.stories(human)[0]
    lines = [
        {"id": f"q{n}", "text": "?", "answers": ["a", "b"], "correct": 0, "passage": passage, "split": "test"}
        for n, passage in enumerate([respelt(told.text), text(5)])
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [q.id for q in load_questions("file", tmp_path / "q.jsonl", "test", human=human)] == ["q1"]
    assert len(load_questions("lab", split="test", limit=5, human=human)) == 5


def test_the_shipped_example_of_quality_shares_no_story(shared_data):
    found = load_questions("quality", shared_data / "quality_example.jsonl")
    stories = [Story(id=q.group, text=q.passage) for q in found]
    assert same_stories(stories, nyu.stories(shared_data / "nyu_2023")) == {}
