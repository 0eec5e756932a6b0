import math

from debate_rl.report.training_log import MAX_POINTS, logged_series


def test_what_matters_comes_first_and_the_rest_is_named():
    history = [
        {"step": s, "loss": 1 / s, "epoch": s, "grad_norm": s, "zeta": 1.0, "eval_runtime": s} for s in (1, 2, 3)
    ]
    series, left_out = logged_series(history, most=2)
    assert [line.name for line in series] == ["loss", "grad_norm"] and left_out == ["zeta"]
    assert series[0].points == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_values_that_are_no_numbers_are_left_out():
    values = (math.nan, 1.0, "0.5", True, 0.5)
    series, _ = logged_series([{"step": step, "loss": value} for step, value in enumerate(values)])
    assert series[0].points == [(1, 1.0), (4, 0.5)]


def test_long_series_are_means_of_stretches():
    series, _ = logged_series([{"step": s, "loss": float(s % 2)} for s in range(1, 10 * MAX_POINTS + 1)])
    assert len(series[0].points) == MAX_POINTS and {value for _, value in series[0].points} == {0.5}


def test_rows_are_put_in_order_of_steps():
    series, _ = logged_series([{"step": 3, "loss": 1.0}, {"step": 1, "loss": 2.0}])
    assert series[0].points == [(1, 2.0), (3, 1.0)]
    assert logged_series([{"step": 2, "loss": 1.0}, {"step": 2, "loss": 1.5}])[0]
    assert logged_series([]) == ([], [])


def test_what_is_watched_is_left_to_the_figures_that_have_its_intervals():
    history = [{"step": s, "loss": 1.0, "watch/accuracy": 0.5} for s in (1, 2)]
    series, left_out = logged_series(history)
    assert [line.name for line in series] == ["loss"] and left_out == []
