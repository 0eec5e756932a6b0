import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.tasks.binary_items import BinaryItem, as_question, balance, load
from debate_rl.errors import UserError
from tests import SHARED

DATA = SHARED / "data" / "binary_tasks"


def sciq(number, right="iron", wrong=("Tin", "lead", "zinc")):
    fields = {f"distractor{i + 1}": answer for i, answer in enumerate(wrong)}
    return {"question": f"Which metal is number {number}?", "correct_answer": right, "support": "", **fields}


def boolq(number, value=True, field="answer"):
    return {"question": f"is rule {number} a law", "passage": f"Rule {number} is a law.", field: value, "idx": number}


def cosmos(number, label="1", none=3):
    answers = {f"answer{i}": f"because of {i}" for i in range(4)} | {f"answer{none}": "None of the above choices ."}
    return {"id": f"x{number}", "context": f"Story {number} .", "question": "Why ?", "label": label, **answers}


def hh(number, chosen="Sure.", rejected="No."):
    start = f"\n\nHuman: Question {number}?\n\nAssistant: "
    return {"chosen": start + chosen, "rejected": start + rejected}


ROWS = {"sciq": sciq, "boolq": lambda n: boolq(n, n % 3 > 0), "cosmosqa": cosmos, "hh": hh}


def written(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def items(tmp_path):
    """Items by task, 200 rows each, not balanced."""
    return {
        task: load(task, written(tmp_path, [make(n) for n in range(200)], f"{task}.jsonl"), balanced=False).items
        for task, make in ROWS.items()
    }


def test_texts_are_those_of_the_public_reference_and_labels_are_true(items):
    for item in items["sciq"]:
        question, answer = item.text.removeprefix("Q: ").split(" A: ")
        assert question.startswith("Which metal is number")
        assert item.label == (answer == "iron")
        assert answer in {"iron", "tin", "lead", "zinc"}  # lower case, as the correct answers are
    for item in items["boolq"]:
        number = int(item.text.split()[2])
        assert item.text == f"Passage: Rule {number} is a law.\nQuestion: is rule {number} a law"
        assert item.label == (number % 3 > 0)
    for item in items["cosmosqa"]:
        context, question, answer = item.text.split("\n")
        assert (context.startswith("Context: Story"), question) == (True, "Question: Why ?")
        assert item.label == (answer == "Answer: because of 1")
    for item in items["hh"]:
        assert item.text.startswith("Human: Question")
        assert item.label == item.text.endswith("Sure.")


@pytest.mark.parametrize("task", ["sciq", "cosmosqa", "hh"])
def test_labels_are_drawn_with_equal_chance(items, task):
    assert 70 <= sum(item.label for item in items[task]) <= 130


def test_none_of_the_above_is_never_offered_and_its_rows_give_false_answers(tmp_path):
    rows = [cosmos(n, label="3") for n in range(30)] + [cosmos(n) for n in range(30, 60)]
    made = load("cosmosqa", written(tmp_path, rows), balanced=False).items
    assert not any("None of the above" in item.text for item in made)
    assert {item.label for item in made if int(item.text.split()[2]) < 30} == {0}


def test_the_hubs_names_and_types_give_the_same_items(tmp_path):
    native = [boolq(n, bool(n % 2), field="label") for n in range(9)]
    hub = [{"question": r["question"], "passage": r["passage"], "answer": r["label"]} for r in native]
    assert load("boolq", written(tmp_path, native)).items == load("boolq", written(tmp_path, hub)).items
    strings = [cosmos(n) for n in range(9)]
    numbers = [row | {"label": int(row["label"])} for row in strings]
    assert load("cosmosqa", written(tmp_path, strings)).items == load("cosmosqa", written(tmp_path, numbers)).items


@given(st.randoms(use_true_random=False))
def test_an_item_depends_on_its_row_and_the_seed_not_on_the_order(tmp_path_factory, shuffler):
    rows = [sciq(n) for n in range(20)]
    folder = tmp_path_factory.mktemp("order")
    first = load("sciq", written(folder, rows), balanced=False).items
    shuffler.shuffle(rows)
    assert {item.id: item for item in first} == {
        item.id: item for item in load("sciq", written(folder, rows), balanced=False).items
    }


def test_another_seed_draws_other_labels(tmp_path):
    path = written(tmp_path, [sciq(n) for n in range(50)])
    one, two = ({i.id: i.label for i in load("sciq", path, seed=s, balanced=False).items} for s in (0, 1))
    assert one.keys() == two.keys()
    assert one != two


@given(labels=st.lists(st.sampled_from([0, 1, None]), max_size=40), seed=st.integers(0, 3))
def test_balance_leaves_as_many_of_each_label_and_counts_the_rest(labels, seed):
    made = [BinaryItem(id=f"i{n}", text="t", label=x, group="g", task="hh") for n, x in enumerate(labels)]
    kept, dropped = balance(made, seed)
    counts, before = Counter(item.label for item in kept), Counter(labels)
    assert counts[0] == counts[1] == min(before[0], before[1])
    assert counts[None] == before[None]
    assert dropped == (before[0] - counts[0], before[1] - counts[1])
    assert [item.id for item in kept] == [item.id for item in made if item in kept]


def test_the_account_of_what_was_left_out(tmp_path):
    rows = [boolq(n, n < 8) for n in range(10)] + [boolq(0, True)]
    selection = load("boolq", written(tmp_path, rows))
    assert (selection.read, selection.repeated, selection.unused, selection.dropped) == (11, 1, 0, (0, 6))
    assert str(selection).startswith("4 items (2 with label 0, 2 with label 1) from 11 rows; 1 repeated")
    same = [sciq(n, wrong=("IRON ", "iron", "")) for n in range(2)] + [sciq(n) for n in range(2, 20)]
    assert load("sciq", written(tmp_path, same)).unused == 2


def test_a_limit_keeps_the_balance(tmp_path):
    path = written(tmp_path, [boolq(n, n % 4 > 0) for n in range(80)])
    some = load("boolq", path, limit=10).items
    assert Counter(item.label for item in some) == {0: 5, 1: 5}
    assert {i.id for i in some} <= {i.id for i in load("boolq", path, limit=20).items}
    assert len(load("boolq", path, limit=7, balanced=False).items) == 7


def test_items_share_a_group_where_they_share_their_source(tmp_path):
    rows = [boolq(1), boolq(1, False) | {"question": "is it not"}, boolq(2), boolq(3, False)]
    groups = [item.group for item in load("boolq", written(tmp_path, rows), balanced=False).items]
    assert groups[0] == groups[1] != groups[2]
    pair = load("hh", written(tmp_path, [hh(1), hh(1, "Yes.", "Never.")]), balanced=False).items
    assert pair[0].group == pair[1].group == pair[0].cluster


def test_soft_labels_of_a_weak_model(tmp_path):
    rows = [{"txt": f"Q: {sciq(n)['question']} A: tin", "label": n % 2, "soft_label": [0.3, 0.9]} for n in range(4)]
    made = load("sciq", written(tmp_path, rows)).items
    assert [item.label for item in made] == [0, 1, 0, 1]
    assert made[0].soft_label == pytest.approx(0.75)
    native = load("sciq", written(tmp_path, [sciq(n) for n in range(4)]), balanced=False).items
    assert [item.group for item in made] == [item.group for item in native]


def test_a_claim_to_debate():
    item = BinaryItem(id="i", text="Q: Hot? A: yes", label=0, group="g", task="sciq", prefix="There is a question.")
    claim = as_question(item)
    assert (claim.answers, claim.correct, claim.passage) == (("correct", "incorrect"), 1, None)
    assert claim.text == "There is a question.\nQ: Hot? A: yes"
    assert (claim.id, claim.group, claim.source) == ("i", "g", "sciq")
    assert as_question(item.model_copy(update={"label": None})).correct is None
    assert as_question(item.model_copy(update={"label": 1})).correct == 0


@pytest.mark.parametrize(
    ("task", "row", "complaint"),
    [
        ("sciq", {"question": "Which?"}, r"rows.jsonl:2: sciq: no field 'correct_answer'"),
        (
            "boolq",
            {"question": "is it", "passage": "p", "answer": "yes"},
            r"rows.jsonl:2: boolq: label 'yes' is not 0 or 1",
        ),
        (
            "cosmosqa",
            cosmos(1, label=None),
            r"rows.jsonl:2: cosmosqa: None is not a place from 0 to 3; take a split that has labels",
        ),
        ("hh", {"chosen": "a"}, r"rows.jsonl:2: hh: no field 'rejected'"),
        ("sciq", {"txt": "Q: x A: y", "label": 3}, r"rows.jsonl:2: sciq: label 3 is not 0 or 1"),
        ("sciq", {"txt": "Q: x A: y", "label": 1, "soft_label": [1.2, 0]}, r"soft_label \[1.2, 0\] is not the pair"),
    ],
)
def test_malformed_rows_are_named_by_file_and_line(tmp_path, task, row, complaint):
    with pytest.raises(UserError, match=complaint):
        load(task, written(tmp_path, [ROWS[task](0), row]))


def test_an_unknown_task_and_an_empty_one(tmp_path):
    with pytest.raises(UserError, match="unknown task 'scq'; did you mean 'sciq'"):
        load("scq", tmp_path)
    with pytest.raises(UserError, match=r"boolq: all 3 items of .* have label 1; take a split"):
        load("boolq", written(tmp_path, [boolq(n) for n in range(3)]))
    with pytest.raises(UserError, match=r"no items of sciq in .*: 1 rows, 1 of them unusable"):
        load("sciq", written(tmp_path, [sciq(0, wrong=("iron", "iron", ""))]))


def test_the_hub_is_asked_by_its_own_names(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, config, split, revision):
        asked.append((name, config, split, revision))
        return [boolq(n, n % 2 == 0) for n in range(6)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load("boolq", split="test").items) == 6
    assert asked == [("google/boolq", None, "validation", None)]
    with pytest.raises(UserError, match=r"boolq has no validation split on the hub; "):
        load("boolq", split="validation")


def test_an_unreachable_hub_says_how_to_go_on(monkeypatch):
    import datasets

    def load_dataset(*args, **named):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"cannot load allenai/sciq from the hub \(no route\); give a local file"):
        load("sciq")


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data: binary_tasks")
@pytest.mark.parametrize(
    ("task", "name", "rows"),
    [
        ("sciq", "sciq_test", 1000),
        ("boolq", "boolq_val", 1500),
        ("cosmosqa", "cosmosqa_valid", 1500),
        ("hh", "hh_harmless_test", 600),
        ("sciq", "sciq_weak_labels_naive", 4000),
    ],
)
def test_the_real_files(task, name, rows):
    selection = load(task, DATA / f"{name}.jsonl")
    counts = Counter(item.label for item in selection.items)
    assert selection.read == rows
    assert counts[0] == counts[1]
    assert len(selection.items) + sum(selection.dropped) + selection.repeated + selection.unused == rows
    assert len({item.id for item in selection.items}) == len(selection.items)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data: binary_tasks")
def test_real_sciq_answers_do_not_give_the_label_away_by_their_case():
    answers = [item.text.split(" A: ")[-1] for item in load("sciq", DATA / "sciq_test.jsonl").items]
    assert all(answer == answer.lower() for answer in answers)
    assert len(answers) > 900
