"""The account of a study's data: nothing left out uncounted, classes and lengths by part, leaks said."""

import pytest

from debate_rl.data.models import model_path
from debate_rl.data.tasks.binary_items import Selection, load
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.records import read_json
from debate_rl.weak_to_strong.results.split_report import Account, account, write_account
from debate_rl.weak_to_strong.tasks.items import items_of, plain_samples, split_items


@pytest.fixture(scope="module")
def blind():
    return load_protocol("blind", prompts="lab")


def readers(splits, blind):
    return {"strong": (plain_samples(splits.every, blind, True), model_path("lab-base"))}


def of_sciq(shared_data, limit=240):
    return load("sciq", shared_data / "binary_tasks/sciq_weak_labels_naive.jsonl", limit=limit)


def test_every_row_of_the_source_is_somewhere(shared_data, blind, tmp_path):
    read = load("sciq", shared_data / "binary_tasks/sciq_weak_labels_naive.jsonl")
    selection = of_sciq(shared_data)
    splits = split_items(items_of(selection.items), 60, 100, 70)
    found = write_account(tmp_path, splits, readers(splits, blind), selection)
    assert Account.model_validate(read_json(tmp_path / "splits.json")) == found
    assert (
        found.source["read"]
        == 4000
        == len(read.items) + sum(found.source[name] for name in ("repeated", "unused", "dropped"))
    )
    parts = found.parts["strong"]
    assert sum(part.items for part in parts.values()) + found.unused == 240
    for part in parts.values():
        assert (
            sum(part.labels) == part.items and part.tokens[0] <= part.tokens[1] <= part.tokens[2] and not part.too_long
        )
    assert found.leak is not None and found.leak.items == sum(part.items for part in parts.values())


def test_uneven_classes_and_long_texts_are_said(question, blind, monkeypatch):
    asked = [
        question.model_copy(
            update={"id": f"q{i}", "group": f"g{i}", "correct": int(i % 5 == 0), "text": f"where is {i} ?"}
        )
        for i in range(60)
    ]
    splits = split_items(items_of(asked), 20, 20, 20)
    monkeypatch.setattr("debate_rl.weak_to_strong.results.split_report.context_length", lambda model: 10)
    found = account(splits, readers(splits, blind))
    assert found.source is None and found.leak is None
    assert any("balance the task" in note for note in found.notes)
    assert sum("exceed the context and are cut" in note for note in found.notes) == 3


def test_parts_that_share_something_are_refused(shared_data):
    splits = split_items(items_of(of_sciq(shared_data).items), 60, 60, 60)
    both = splits.model_copy(update={"test": (*splits.test, splits.student[0])})
    with pytest.raises(UserError, match="is in 'student' and again in 'test'"):
        account(both, {})


def test_too_few_answers_have_no_leak_to_measure(shared_data):
    selection = of_sciq(shared_data, 60)
    splits = split_items(items_of(selection.items), 20, 20, 20)
    assert account(splits, {}, Selection(**{**selection.model_dump(), "items": selection.items[:3]})).leak is None
