import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from debate_rl.errors import UserError
from debate_rl.judges.calibration import Calibrator, fit_calibrator, load_calibrator, logits, split_clusters
from debate_rl.judges.scores import ece, noise_floor
from debate_rl.records import write_json


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def judge(n, slope, shift=0.0, seed=0):
    """A judge whose true log-odds are slope * its own + shift: (p, outcomes, labels)."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 2, n)
    return sigmoid(z), (random.random(n) < sigmoid(slope * z + shift)).astype(float), [f"s{i // 4}" for i in range(n)]


@pytest.mark.parametrize(
    ("kind", "slope", "shift"), [("temperature", 0.4, 0.0), ("temperature", 2.0, 0.0), ("platt", 0.5, -0.8)]
)
def test_the_line_is_recovered(kind, slope, shift):
    p, y, _ = judge(20_000, slope, shift)
    fitted = fit_calibrator(kind, p, y)
    assert fitted.slope == pytest.approx(slope, rel=0.06)
    assert fitted.intercept == pytest.approx(shift, abs=0.06)
    assert (kind == "platt") == (fitted.intercept != 0)


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_fitting_on_some_stories_calibrates_the_others(kind):
    p, y, labels = judge(2000, 0.4, seed=1)
    fit, held = split_clusters(labels, 0.5, seed=3)
    fitted = fit_calibrator(kind, p[fit], y[fit], [labels[i] for i in fit])
    assert fitted.clusters == 250
    after = fitted.apply(p[held])
    assert ece(p[held], y[held]) > 2 * noise_floor(p[held]).high
    assert ece(after, y[held]) < noise_floor(after).high + (0.02 if kind == "isotonic" else 0)
    assert np.mean((after - y[held]) ** 2) < np.mean((p[held] - y[held]) ** 2) - 0.02


def smoothed(z, y, wrong_if_positive, wrong_if_negative, **options):
    """Slope and intercept by scikit-learn, each verdict counted in part for the other outcome."""
    share = np.where(y == 1, wrong_if_positive, wrong_if_negative)
    rows, outcomes = np.concatenate([z, z])[:, None], np.concatenate([y, 1 - y])
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000, **options)
    model.fit(rows, outcomes, sample_weight=np.concatenate([1 - share, share]))
    return model.coef_[0, 0], model.intercept_[0] if options.get("fit_intercept", True) else 0.0


def test_the_fits_agree_with_scikit_learn():
    p, y, _ = judge(800, 0.6, 0.3, seed=2)
    one = fit_calibrator("temperature", p, y)
    assert (one.slope, one.intercept) == pytest.approx(
        smoothed(logits(p), y, 1 / 802, 1 / 802, fit_intercept=False), abs=1e-5
    )
    two = fit_calibrator("platt", p, y)
    expected = smoothed(logits(p), y, 1 / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    assert (two.slope, two.intercept) == pytest.approx(expected, abs=1e-5)
    steps = IsotonicRegression(y_min=1 / 802, y_max=801 / 802, out_of_bounds="clip").fit(p, y)
    grid = np.linspace(0, 1, 101)
    assert fit_calibrator("isotonic", p, y).apply(grid) == pytest.approx(steps.predict(grid))


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
@settings(max_examples=25)
@given(data=st.data())
def test_a_calibrator_keeps_order_and_survives_json(kind, data):
    rows = data.draw(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1)), min_size=2, max_size=30))
    p, y = np.array([*rows, (40, 0), (60, 1)]).T / [[100], [1]]  # both classes, without which there is nothing to fit
    fitted = fit_calibrator(kind, p, y)
    grid = np.linspace(0, 1, 21)
    after = fitted.apply(grid)
    assert (np.diff(after) >= -1e-12).all()
    assert ((after >= 0) & (after <= 1)).all()
    again = Calibrator.model_validate_json(fitted.model_dump_json())
    assert again == fitted
    assert again.apply(grid) == pytest.approx(after)
    assert sigmoid(fitted.apply_logits(logits(grid))) == pytest.approx(after, abs=1e-3)


def test_temperature_does_not_care_which_answer_is_listed_first():
    p, y, _ = judge(300, 0.5)
    one, two = fit_calibrator("temperature", p, y), fit_calibrator("temperature", 1 - p, 1 - y)
    assert one.slope == pytest.approx(two.slope, abs=1e-4)
    assert one.apply([0.5])[0] == 0.5
    assert one.apply(1 - p) == pytest.approx(1 - one.apply(p))


def test_perfect_and_useless_judges_have_finite_fits():
    p = np.array([0.9, 0.8, 0.2, 0.1])
    assert fit_calibrator("temperature", p, [1, 1, 0, 0]).apply([0.85])[0] == pytest.approx(5 / 6, abs=0.02)
    assert 0 < fit_calibrator("platt", p, [1, 1, 0, 0]).slope < 3
    assert fit_calibrator("isotonic", p, [1, 1, 0, 0]).apply([0.0, 1.0]) == pytest.approx([1 / 6, 5 / 6])
    assert fit_calibrator("temperature", p, [0, 0, 1, 1]).slope == pytest.approx(0, abs=1e-9)
    assert np.isfinite(fit_calibrator("temperature", [0.0, 1.0, 1.0], [0, 1, 0]).apply([0.0, 1.0])).all()


def test_soft_labels_are_fitted():
    z = np.random.default_rng(0).normal(0, 2, 200)
    fitted = fit_calibrator("temperature", sigmoid(z), sigmoid(0.3 * z))
    assert fitted.slope == pytest.approx(0.3, abs=0.01)


def test_a_split_never_cuts_a_story():
    labels = [f"s{i % 7}" for i in range(100)]
    fit, held = split_clusters(labels, 0.3, seed=1)
    assert sorted([*fit, *held]) == list(range(100))
    assert not {labels[i] for i in fit} & {labels[i] for i in held}
    assert len({labels[i] for i in fit}) == 2
    assert fit.tolist() == split_clusters(labels, 0.3, seed=1)[0].tolist()
    assert fit.tolist() != split_clusters(labels, 0.3, seed=2)[0].tolist()
    with pytest.raises(UserError, match="one story only; give debates of two stories or more"):
        split_clusters(["a", "a"])
    with pytest.raises(UserError, match="leaves a part empty"):
        split_clusters(["a", "b", "b"], 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_calibrator("temprature", [0.5], [1]), "did you mean 'temperature'"),
        (lambda: fit_calibrator("platt", [0.5, 0.5], [1]), "give one outcome per verdict"),
        (lambda: fit_calibrator("platt", [], []), "no rows"),
        (lambda: fit_calibrator("platt", [1.5], [1]), "between 0 and 1"),
        (lambda: Calibrator(kind="platt", n=1, clusters=1).apply([-3.0]), "apply_logits takes log-odds"),
    ],
)
def test_mistakes_end_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_one_class_tells_nothing_about_places(kind):
    with pytest.raises(UserError, match=f"calibration by {kind}: the correct answer is always the same one"):
        fit_calibrator(kind, [0.7, 0.6, 0.4], [1, 1, 1])
    assert fit_calibrator("temperature", [0.7, 0.6, 0.4], [1, 1, 1]).n == 3


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_probabilities_of_exactly_0_and_1_can_be_calibrated(kind):
    found = fit_calibrator(kind, [0.0, 1.0, 1.0, 0.0], [0, 1, 0, 0])
    assert np.isfinite(found.apply([0.0, 1.0])).all()
    assert ((found.apply([0.0, 1.0]) > 0) & (found.apply([0.0, 1.0]) < 1)).all()


def test_a_kept_calibrator_is_read_with_or_without_that_of_lone_speakers(tmp_path):
    path = tmp_path / "calibrator.json"
    lone = Calibrator(kind="platt", slope=0.6, intercept=-0.4, n=9, clusters=9)
    found = Calibrator(kind="temperature", slope=0.5, n=9, clusters=9, lone=lone)
    write_json(path, found.model_dump(mode="json"))
    assert load_calibrator(path) == found
    path.write_text('{"kind": "temperature", "slope": 0.5, "intercept": 0.0, "knots": [], "n": 9, "clusters": 9}')
    assert load_calibrator(path) == found.model_copy(update={"lone": None})  # as earlier versions wrote it
    path.write_text('{"kind": "temperatur"}')
    with pytest.raises(UserError, match="calibrator.json: not a calibrator .*; run the judge stage anew"):
        load_calibrator(path)
