"""The judge stage with a scripted engine; the training itself is tested in tests/stages/test_recorded_judge.py."""

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.judges.calibration import load_calibrator
from debate_rl.runs.run import Run
from debate_rl.stages import judge
from tests.judges.attacks.test_robustness import JUDGE, debates

TRAINED = {"rows": 0, "left_out": {}, "too_long": 0, "steps": 0, "train_loss": 0.0}
"""What a training leaves that does nothing."""


def ran(tmp_path, monkeypatch, write, score, **changes):
    """Metrics of a judge stage whose training does nothing, and what was said."""
    monkeypatch.setattr(judge, "train", lambda *_: TRAINED)
    tree = {"name": "r", "runs": str(tmp_path), "protocol": {"prompts": "lab"}, "tracking": {"mode": "disabled"}}
    questions = {"source": "lab", "train": 16, "test": 8}
    stage = {"players": ["base"], "protocols": ["debate"], "questions": 16, "lora": None, **changes}
    config = parse_config({**tree, "questions": questions, "stages": {"judge": stage}})
    said = []
    run = Run(config, ScriptedEngine(write, score), say=said.append)
    return config.stages["judge"].execute(run, tmp_path / "out").model_dump(mode="json"), said


def test_nothing_fails_and_nothing_is_said(tmp_path, monkeypatch):
    metrics, said = ran(tmp_path, monkeypatch, lambda request: "it was so", lambda choice: [0.0, 1.0])
    assert (metrics["failed_games"], metrics["failed_verdicts"]) == (0, 0) and metrics["after"]["n"] == 8
    assert not any("count for nothing" in line for line in said)


def test_failed_games_and_verdicts_are_counted(tmp_path, monkeypatch):
    spoken, asked = [], []

    def write(request):
        spoken.append(request)
        if len(spoken) == 1:
            raise RuntimeError("gone")
        return "it was so"

    def score(choice):
        asked.append(choice)
        if len(asked) == 1:  # one order of one held-out debate
            raise RuntimeError("gone")
        return [0.0, 1.0]

    metrics, said = ran(tmp_path, monkeypatch, write, score)
    assert (metrics["failed_games"], metrics["failed_verdicts"]) == (1, 1)
    assert any("1 games and 1 verdicts failed" in line for line in said)


def test_where_every_debate_fails_the_first_reason_is_given(tmp_path, monkeypatch):
    def write(request):
        raise RuntimeError("the server is gone")

    with pytest.raises(UserError, match="all 24 debates failed, the first with: .*the server is gone"):
        ran(tmp_path, monkeypatch, write, lambda choice: [0.0, 1.0])


@pytest.mark.parametrize(
    ("protocols", "count"),
    [(["debate"], 8), (["debate", "single"], 4), (["single"], 4), (["debate", "open_single"], 8)],
)
def test_lone_speakers_are_calibrated_on_consultancies_else_on_each_side_of_the_debates(
    tmp_path, monkeypatch, protocols, count
):
    seen = []

    def score(choice):
        seen.append(choice)
        return [0.0, 1.0]

    _, said = ran(tmp_path, monkeypatch, lambda request: "it was so", score, protocols=protocols)
    found = load_calibrator(tmp_path / "out" / "calibrator.json")
    assert found.n == 4 and found.kind == "temperature"  # a quarter of 16 questions, and never both kinds of game
    assert found.lone.kind == "platt" and found.lone.n == count and not any("lone speakers" in line for line in said)


def test_one_map_serves_all_protocols_where_lone_speakers_are_not_taken_apart(tmp_path):
    run = Run(parse_config({"name": "r", "runs": str(tmp_path)}), ScriptedEngine(), say=print)
    games = [*debates(4, "single"), *debates(4, "debate")]
    apart, one = (judge._calibrator("temperature", games, JUDGE, run, how)[0] for how in (True, False))
    assert one.lone is None and one.n > apart.n and apart.lone is not None


def test_without_lone_speakers_of_both_kinds_there_is_no_calibration_of_them(tmp_path):
    said = []
    run = Run(parse_config({"name": "r", "runs": str(tmp_path)}), ScriptedEngine(), say=said.append)
    right = [game for game in debates(8, "single") if game.question.correct == "AB".index(game.present[0])]
    found, failed = judge._calibrator("temperature", right, JUDGE, run)
    assert found.lone is None and failed == 0 and "no lone speakers for both right and wrong answers" in said[0]


def test_games_are_shown_with_as_many_attacks_as_wished(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(judge, "judge_rows", lambda games, readout: shown.append(len(games)) or [])
    for copies in (1, 2):
        ran(tmp_path / str(copies), monkeypatch, lambda request: "it was so", lambda choice: [0.0, 1.0],
            train_attacks=["suffix_random", "suffix_sure"], train_copies=copies)  # fmt: skip
    assert shown == [24, 36]  # of 12 games


def test_the_result_is_read_from_its_file_as_it_was_written(tmp_path, monkeypatch):
    metrics, _ = ran(tmp_path, monkeypatch, lambda request: "it was so", lambda choice: [0.0, 1.0],
                     attacks=["suffix_sure"], attack_games=4)  # fmt: skip
    result = judge.JudgeResult.model_validate(metrics)
    assert result.model_dump(mode="json") == metrics
    assert metrics["attack_suffix_sure_after"]["value"] == result.attacks.after.rows[0].accuracy.value
    assert "humans" not in metrics and "adversarial" not in metrics  # other kinds of judge stages have these
