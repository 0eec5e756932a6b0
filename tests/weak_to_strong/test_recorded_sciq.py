"""Real SciQ rows with the soft labels of a real Qwen-1.8B-chat: the quality of the labels, and a student of them."""

import numpy as np
import pytest

from debate_rl.data.tasks.binary_items import load
from debate_rl.intervals import mean
from debate_rl.records import read_json

PUBLISHED = {"naive": 0.729, "with_support": 0.761}
"""Share of right hard labels over the full 10,000 rows (the data's README); 4,000 of them are here."""


@pytest.fixture
def labelled(shared_data):
    def read(name):
        return load("sciq", shared_data / f"binary_tasks/sciq_weak_labels_{name}.jsonl", balanced=False).items

    return read


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_quality_of_the_labels_is_the_published_one(labelled, name):
    items = labelled(name)
    right = np.array([(item.soft_label > 0.5) == item.label for item in items], dtype=float)
    found = mean(right, [item.cluster for item in items])
    assert len(items) == 3998  # two rows stand twice
    assert found.low < PUBLISHED[name] < found.high and found.value == pytest.approx(PUBLISHED[name], abs=0.005)


def test_the_passage_makes_the_labels_better(labelled):
    both = {name: {item.id: item for item in labelled(name)} for name in PUBLISHED}
    ids = [name for name in both["naive"] if name in both["with_support"]]
    right = {
        name: np.array([(items[one].soft_label > 0.5) == items[one].label for one in ids])
        for name, items in both.items()
    }
    gain = mean(right["with_support"].astype(float) - right["naive"], [both["naive"][one].cluster for one in ids])
    assert gain.low > 0.01 and len(ids) == 3998


def test_a_student_learns_them_end_to_end(call, shared_data, tmp_path):
    """The shipped config with few items: recorded labels in, students trained, every number with its interval."""
    stage, rows = "stages.weak_to_strong", shared_data / "binary_tasks"
    code, _, err = call(
        "run", "configs/sciq_recorded.yaml", f"runs={tmp_path}", "tracking.mode=disabled", f"{stage}.supervisor=20",
        f"{stage}.student=64", f"{stage}.test=40", f"{stage}.seeds=1", f"{stage}.train.num_train_epochs=1",
        f"{stage}.path={rows}/sciq_weak_labels_naive.jsonl",
        f"{stage}.contexts.alone.path={rows}/sciq_weak_labels_naive.jsonl",
        f"{stage}.contexts.with_support.path={rows}/sciq_weak_labels_with_support.jsonl",
    )  # fmt: skip
    assert code == 0, err
    found = read_json(tmp_path / "sciq_recorded/weak_to_strong/metrics.json")
    assert [method["name"] for method in found["methods"]] == ["alone", "with_support"]
    assert found["test_items"] == 40
    hits = read_json(tmp_path / "sciq_recorded/weak_to_strong/trainings/hits.json")
    # The label of an item is the file's soft label, as it is there.
    files = {name: {item.id: item for item in load("sciq", rows / f"sciq_weak_labels_{file}.jsonl").items}
             for name, file in (("alone", "naive"), ("with_support", "with_support"))}  # fmt: skip
    for name, items in files.items():
        assert hits["labels"][name][0] == pytest.approx([items[one].soft_label for one in hits["label_items"]])
