import numpy as np
import pytest
from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.weak_to_strong.results.predictions import Hits, right, stacked
from tests.weak_to_strong.drawn import GOOD, study


def test_right_wrong_and_undecided():
    assert right([0.9, 0.2, 0.5, 0.51, 0.1], [1, 1, 1, 0, 0]).tolist() == [1, 0, 0.5, 0, 1]
    found = study(GOOD)
    assert found.right("weak").mean() == pytest.approx(0.6, abs=0.05)
    assert found.labels_right("debate").shape == (3, 300) and found.right("untrained").shape == (1, 300)
    assert (found.methods, found.seeds) == (("none", "debate"), 3)
    assert Hits.model_validate_json(found.model_dump_json()) == found


def test_runs_are_stacked_by_seed():
    runs = [study(GOOD, seed=seed).model_copy(update={"label_counts": {"none": ({"kept": seed},)}}) for seed in (0, 1)]
    both = stacked(runs)
    assert both.seeds == 6 and np.allclose(both.right("debate/student")[3:], runs[1].right("debate/student"))
    assert both.right("untrained").shape == (1, 300) and Hits.model_validate(both.model_dump()) == both
    assert both.label_counts["none"] == ({"kept": 0}, {"kept": 1})


def test_stacking_keeps_what_all_runs_have():
    one, other = study(GOOD), study({k: v for k, v in GOOD.items() if k != "strong"}, methods=("debate",))
    both = stacked([one, other])
    assert both.methods == ("debate",) and "strong" not in both.test and "none/student" not in both.test
    with pytest.raises(UserError, match=r"questions\.seed"):
        stacked([one, study(GOOD, name="u")])
    with pytest.raises(UserError, match="run one first"):
        stacked([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree["test"]["weak"][0].pop(), "test.weak: shape uneven, not 3 seeds x 300 items"),
        (lambda tree: tree["test"]["ceiling"].pop(), r"test.ceiling: shape \(2, 300\), not 3 seeds x 300 items"),
        (lambda tree: tree["labels"]["none"].pop(), "labels.none: shape"),
        (lambda tree: tree["test"]["weak"][0].__setitem__(0, 1.2), "test.weak: not all are probabilities"),
        (lambda tree: tree["test"]["weak"][0].__setitem__(0, float("nan")), "test.weak: not all are probabilities"),
        (lambda tree: tree["test_truth"].pop(), "test: 300 items, 300 clusters, 299 truths"),
        (lambda tree: tree["test_truth"].__setitem__(0, 2), "test_truth"),
    ],
)
def test_tables_of_the_wrong_shape_are_refused(change, message):
    tree = study(GOOD).model_dump(mode="json")
    change(tree)
    with pytest.raises(ValidationError, match=message):
        Hits.model_validate(tree)
