import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.config.tree import load_config
from debate_rl.data.tasks.binary_items import load
from debate_rl.data.tasks.task import Maker, load_task, shipped_tasks
from debate_rl.errors import UserError
from tests import ROOT

SUITE = ROOT / "configs/tasks"
CHOICES = {"text": ["ice", "steam", "sand"], "label": ["A", "B", "C"]}
ROWS = {
    "amazon_polarity": {"title": "Good", "content": "I like it", "label": 1},
    "dream": {"dialogue": ["W: hi", "M: ho"], "question": "Who?", "choice": ["W", "M"], "answer": "M"},
    "ethics_justice": {"scenario": "I deserve it as I worked", "label": 1},
    "ethics_deontology": {"scenario": "Could you go?", "excuse": "No, I am ill", "label": 1},
    "ethics_virtue": {"scenario": "She gave all. [SEP] generous", "label": 1},
    "ethics_utilitarianism": {"baseline": "I slept", "less_pleasant": "I fell"},
    "anli_r2": {"premise": "It rains", "hypothesis": "It is wet", "label": 0},
    "cola": {"sentence": "He sleeps", "label": 1},
    "sst2": {"sentence": "a joy", "label": 1},
    "hellaswag": {"ctx": "He runs", "endings": ["fast", "blue"], "label": "1"},
    "mctaco": {"sentence": "He slept", "question": "How long?", "answer": "8 hours", "label": 1},
    "openbookqa": {"question_stem": "What is cold?", "choices": CHOICES, "answerKey": "A"},
    "paws": {"sentence1": "a b", "sentence2": "b a", "label": 1},
    "quail": {"context": "c", "question": "q", "answers": ["x", "y"], "correct_answer_id": 1},
    "quartz": {"para": "Ice is colder than steam.", "question": "Which is cold?", "choices": CHOICES, "answerKey": "A"},
    "piqa": {"goal": "open it", "sol1": "turn", "sol2": "sing", "label": 0},
    "social_iqa": {"context": "c", "question": "q", "answerA": "a", "answerB": "b", "answerC": "c", "label": "2"},
    "multirc": {"paragraph": "p", "question": "q", "answer": "a", "label": 1},
    "wic": {"word": "bed", "sentence1": "in bed", "sentence2": "a river bed", "label": 1},
    "twitter_sentiment": {"text": "yes!", "label": 2},
}
RIGHT = {
    "dream": "M", "hellaswag": "blue", "openbookqa": "ice", "quartz": "ice", "quail": "y", "piqa": "turn",
    "social_iqa": "b", "ethics_utilitarianism": "I slept",
}  # fmt: skip
PAIR = """
text: "First: {{ one }} Second: {{ two }}"
label: same
group: "{{ one }}"
prefix: The claim is that both mean the same.
"""


def task(folder, text, name="pair.yaml"):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_the_suite_is_of_22_tasks_and_each_file_has_a_row_here():
    files = {path.stem for path in SUITE.glob("*.yaml")}
    assert files == ROWS.keys() and not files & shipped_tasks().keys()
    suite = (files | {"sciq", "boolq", "cosmosqa"}) - {"amazon_polarity"}  # which is not of Burns et al.
    assert len(suite) == 22
    # The table over tasks has a column for each.
    stages = load_config(ROOT / "configs/tables/suite.yaml").stages
    columns = [stage.task for stage in stages.values() if getattr(stage, "table", None) == "nlp"]
    assert {Path(task).stem for task in columns} == suite and len(columns) == 22
    assert {stage.table for stage in stages.values() if stage.kind == "weak_to_strong"} == {
        "nlp", "pairs", "chess", "chess-debated"}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_each_task_of_the_suite_makes_true_labels(name):
    maker = Maker(load_task(str(SUITE / f"{name}.yaml")))
    made = [maker.draw(ROWS[name], random.Random(seed)) for seed in range(20)]
    assert maker.task.prefix and maker.task.splits.keys() >= {"train", "test"}
    assert len({one.shared for one in made}) == 1
    if name in RIGHT:
        assert {one.label for one in made} == {0, 1}
        assert all(one.label == (one.answer == RIGHT[name]) for one in made)
        assert all(one.answer in one.text for one in made)
    else:
        assert {one.label for one in made} == {1}


def test_a_file_of_any_kind_gives_the_same_items(tmp_path):
    rows = [{"one": f"w{n}", "two": f"v, {n}", "same": n % 2} for n in range(8)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.json").write_text(json.dumps(rows))
    (tmp_path / "r.csv").write_text("one,two,same\n" + "".join(f'{r["one"]},"{r["two"]}",{r["same"]}\n' for r in rows))
    (tmp_path / "r.tsv").write_text(
        "one\ttwo\tsame\n" + "".join(f"{r['one']}\t{r['two']}\t{r['same']}\n" for r in rows)
    )
    found = [load(task(tmp_path, PAIR), tmp_path / f"r{kind}").items for kind in (".jsonl", ".json", ".csv", ".tsv")]
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][1].text == "First: w1 Second: v, 1" and found[0][1].label == 1
    assert found[0][0].task == "pair" and found[0][0].prefix == "The claim is that both mean the same."


def test_a_path_in_the_yaml_is_beside_the_yaml(tmp_path):
    (tmp_path / "r.csv").write_text("one,two,same\na,b,1\nc,d,0\n")
    assert len(load(task(tmp_path, f"path: r.csv{PAIR}")).items) == 2


@given(labels=st.lists(st.sampled_from([0, 1, "0", "1", True, False]), min_size=1, max_size=9))
def test_labels_of_every_kind_are_read_as_0_or_1(labels):
    maker = Maker(load_task("boolq"))
    row = {"passage": "p", "question": "q"}
    found = [maker.draw(row | {"label": label}, random.Random(0)).label for label in labels]
    assert found == [int(label) for label in labels]
    assert maker.draw(row | {"label": -1}, random.Random(0)).label is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("txt: a" + PAIR, "unknown key 'txt' in .*; did you mean 'text'"),
        ("text: a", "give 'label', or 'right' with 'answers'"),
        ("text: a\nright: b", "give 'label', or 'right' with 'answers'"),
        ("text: '{{ a'\nlabel: b", "is not readable"),
        ("text: a\nlabel: b +", "is not readable"),
        ("text: a\nlabel: b\nfinished: 'x'", "needs a group in brackets"),
        ("text: a\nlabel: b\nfinished: '('", "pair.yaml"),
        ("hub: a\npath: b" + PAIR, "'hub' or 'path', not both"),
        ("- a", "expected keys and values"),
        ("text: [", "not valid YAML"),
        ("label: b", "text: Field required"),
    ],
)
def test_a_malformed_task_says_what_to_change(tmp_path, text, complaint):
    with pytest.raises(UserError, match=complaint) as found:
        load_task(task(tmp_path, text))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ("a,b,2", r"r.csv:3: pair: label '2' is not 0 or 1"),
        ("a,b", "r.csv:3: a row with another number of cells"),
        ("a,b,0", "all 2 items of .* have label 0; take a split with labels of both classes"),
    ],
)
def test_malformed_rows_are_named(tmp_path, cells, complaint):
    (tmp_path / "r.csv").write_text(f"one,two,same\nc,d,0\n{cells}\n")
    with pytest.raises(UserError, match=complaint):
        load(task(tmp_path, PAIR), tmp_path / "r.csv")


def test_a_template_can_not_reach_into_python(tmp_path):
    (tmp_path / "r.csv").write_text("one,two,same\nc,d,0\n")
    with pytest.raises(UserError, match="r.csv:2: pair: .*unsafe"):
        load(task(tmp_path, "text: '{{ one.__class__.__mro__ }}'\nlabel: same"), tmp_path / "r.csv")


def test_files_and_sources_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="task file not found"):
        load("nowhere.yaml")
    with pytest.raises(UserError, match="names no source; give 'hub' or 'path'"):
        load(task(tmp_path, PAIR))
    with pytest.raises(UserError, match="unknown kind of file '.parquet'; choose one of: .jsonl"):
        load(task(tmp_path, PAIR), tmp_path / "r.parquet")
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(UserError, match="expected a list of objects"):
        load(task(tmp_path, PAIR), tmp_path / "r.json")
