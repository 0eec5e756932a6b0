import re

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from debate_rl.trainers.common.warning_signs import one_class_sign
from debate_rl.weak_to_strong.results.predictions import Hits, stacked
from debate_rl.weak_to_strong.results.results import Results, advice, results
from debate_rl.weak_to_strong.results.tables import Column, Table, footnotes
from tests.weak_to_strong.drawn import GOOD, study


@pytest.fixture(scope="module")
def found():
    return results(study(GOOD))


def test_every_model_is_scored_as_scikit_learn_does(found):
    hits = study(GOOD)
    truth = np.array(hits.test_truth)
    assert set(found.scores) == set(hits.test)
    for name, scores in found.scores.items():
        p = np.array(hits.test[name])
        assert scores.accuracy.value == pytest.approx(np.mean((p > 0.5) == truth))
        assert scores.auroc.value == pytest.approx(np.mean([roc_auc_score(truth, row) for row in p]))
        assert scores.brier.value == pytest.approx(np.mean([brier_score_loss(truth, row) for row in p]))
        for one in (scores.accuracy, scores.auroc, scores.brier):
            assert one.low < one.value < one.high and (one.n, one.clusters) == (300, 150)


def test_ends_stand_beside_the_methods(found):
    assert [method.name for method in found.methods] == ["none", "debate"]
    ends = (found.weak, found.untrained, found.strong, found.ceiling)
    assert [end.value for end in ends] == pytest.approx([0.6, 0.6, 0.85, 0.95], abs=0.03)
    debate = found.methods[1]
    assert debate.pgr.pgr.value == pytest.approx(
        (debate.student.value - found.weak.value) / (found.ceiling.value - found.weak.value)
    )
    assert debate.pgr_text == f"{debate.pgr.pgr:.3f}" and found.notes == ()
    assert (found.seeds, found.test_items) == (3, 300)
    assert Results.model_validate_json(found.model_dump_json()) == found


def test_later_methods_are_compared_with_earlier_ones(found):
    (row,) = found.comparisons
    assert (row.first, row.second) == ("debate", "none")
    none, debate = found.methods
    assert row.accuracy.value == pytest.approx(debate.student.value - none.student.value)
    assert row.pgr.value == pytest.approx(debate.pgr.pgr.value - none.pgr.pgr.value) and row.pgr.low > 0
    three = results(study({**GOOD, "more": 0.9}, methods=("none", "debate", "more")))
    pairs = [(one.first, one.second) for one in three.comparisons]
    assert pairs == [("debate", "none"), ("more", "none"), ("more", "debate")]


def test_agreement_is_split_by_whether_the_supervisor_is_right(found):
    hits = study(GOOD)
    taught, learnt = (hits.right(f"debate/{who}") for who in ("supervisor", "student"))
    agreement = found.methods[1].agreement
    assert agreement.right.value == pytest.approx(np.mean(learnt[taught == 1]))
    assert agreement.wrong.value == pytest.approx(np.mean(1 - learnt[taught == 0]))
    assert agreement.right.n == round((taught == 1).sum() / 3) and agreement.wrong.n == round((taught == 0).sum() / 3)
    assert agreement.wrong.low < agreement.wrong.value < agreement.wrong.high


def changed(hits, **test):
    others = {name.replace("_", "/"): rows for name, rows in test.items()}
    return hits.model_copy(update={"test": {**hits.test, **others}})


def test_a_supervisor_without_errors_or_without_test_items():
    hits = study(GOOD)
    truth = tuple(float(one) for one in hits.test_truth)
    agreement = results(changed(hits, debate_supervisor=(truth,) * 3)).methods[1].agreement
    assert agreement.wrong is None and agreement.right is not None
    without = {name: table for name, table in hits.test.items() if name != "none/supervisor"}
    none = results(hits.model_copy(update={"test": without})).methods[0]
    assert none.supervisor is None and none.agreement is None and none.student is not None


def test_a_model_of_one_class_is_warned_of_in_the_table_and_others_are_not(found):
    assert found.warnings == () and 0.4 < found.spreads["weak"].first < 0.6 and found.spreads["weak"].deviation > 0.1
    hits = study(GOOD)
    flat = tuple(tuple(0.5 + p / 1000 for p in row) for row in hits.test["debate/student"])
    collapsed = hits.model_copy(update={"test": {**hits.test, "debate/student": flat}, "warnings": ("a: it fell",)})
    once = results(collapsed)
    names = ", ".join(f"debate/student, seed {seed}" for seed in range(3))
    assert once.warnings == (f"{names}: {one_class_sign(300)}", "a: it fell")
    assert once.spreads["debate/student"].first == 1 and once.spreads["debate/student"].deviation < 0.001
    column = Column(label="c", weak="w", strong="s", results=once)
    assert any(line.startswith("c: warning: debate/student") for line in footnotes(Table(name="t", columns=(column,))))
    assert stacked([collapsed, collapsed]).warnings == ("a: it fell",)


def test_undecided_models_are_half_right():
    hits = study(GOOD)
    found = results(changed(hits, debate_student=((0.5,) * 300,) * 3))
    scores = found.scores["debate/student"]
    assert (scores.accuracy.value, scores.auroc.value, scores.brier.value) == (0.5, 0.5, 0.25)
    assert found.methods[1].agreement.right.value == 0.5


def test_a_test_set_of_one_class_has_no_auroc():
    hits = study(GOOD)
    found = results(Hits.model_validate({**hits.model_dump(), "test_truth": (1,) * 300}))
    assert all(scores.auroc is None for scores in found.scores.values())


@pytest.mark.parametrize(
    ("skills", "lines"),
    [
        ({"ceiling": 0.45}, [r"ceiling is .* points below the weak model, so PGR is undefined.*num_train_epochs"]),
        ({"ceiling": 0.6}, [r"ceiling - weak is .* which may be 0, so PGR is undefined; take a weaker models.weak"]),
        ({"strong": 0.45}, [r"of the same D1 the weak model learns .* exchange models.weak and models.strong"]),
        ({"ceiling": 0.82, "strong": 0.97}, [r"points below the strong model trained on D1, which makes PGR too high"]),
        ({"ceiling": 0.4, "strong": 0.4}, ["so PGR is undefined", "exchange"]),
        ({}, []),
    ],
)
def test_what_makes_a_pgr_meaningless_is_said_with_what_to_change(skills, lines):
    found = results(study({**GOOD, **skills}))
    assert len(found.notes) == len(lines)
    for line, note in zip(lines, found.notes, strict=True):
        assert "\n" not in note
        assert re.search(line, note), note
    undefined = any("undefined" in line for line in lines)
    for method in found.methods:
        assert (method.pgr.pgr is None) == undefined == method.pgr_text.startswith("undefined: the gap")
    assert all((row.pgr is None) == undefined for row in found.comparisons)


def test_a_task_that_the_strong_model_knows_before_is_named():
    (note,) = advice(study(GOOD, untrained=0.99))
    assert "before it learns" in note and "take a task that is new to it" in note
    assert "before it learns" not in " ".join(advice(study({**GOOD, "ceiling": 0.6}, untrained=0.99)))


def test_one_story_has_no_interval_and_no_pgr():
    hits = study(GOOD)
    found = results(hits.model_copy(update={"test_clusters": ("one",) * 300}))
    assert "one cluster" in found.notes[0] and found.methods[0].pgr.pgr is None and found.weak.low is None


def test_a_study_without_strong_or_untrained_models():
    hits = study({name: skill for name, skill in GOOD.items() if name != "strong"})
    found = results(hits.model_copy(update={"test": {n: t for n, t in hits.test.items() if n != "untrained"}}))
    assert found.strong is None and found.untrained is None and advice(hits) == ()
