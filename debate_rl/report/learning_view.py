"""Judges that learn online, judges compared, and debaters and judge in turns, ready to show."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from debate_rl.game import run_files
from debate_rl.intervals import Estimate
from debate_rl.judges.attacks.robustness import AttackRow
from debate_rl.report import figures
from debate_rl.report.chart import Figure, Labelled, Measure
from debate_rl.report.run_folder import Stage
from debate_rl.report.wording import debates_link
from debate_rl.stages.cotraining import CotrainingResult
from debate_rl.stages.judge_grpo import JudgeGrpoResult
from debate_rl.stages.judges import JudgesResult
from debate_rl.trainers.grpo.judge_metrics import JudgePoint

SHARE = Measure("%", 100, 1, (0, 100))


class JudgeOnlineView(NamedTuple):
    """A judge that learnt by reinforcement."""

    stage: str
    result: JudgeGrpoResult
    curve: Figure | None
    """Accuracy, consistency and statements over steps."""
    brier: Figure | None
    calibration: Figure | None
    """Before and after the training; None where one of them gave no verdict."""
    alarms: tuple[tuple[int, str], ...]


class JudgesView(NamedTuple):
    """Judges on the same games."""

    stage: str
    result: JudgesResult
    accuracy: Figure | None
    calibration: Figure | None
    attacks: Figure | None
    """Mean change of accuracy over the games when the wrong side attacks, by attack and judge."""
    attacked: tuple[tuple[str, str, AttackRow], ...]
    """Attack, judge and what it did."""


class TurnsView(NamedTuple):
    """Debaters and judge in turns."""

    stage: str
    result: CotrainingResult
    curve: Figure | None
    """Valid quotes, win rate and three judges' accuracy over turns."""


def judged_sets(stage: Stage) -> list[tuple[str, Path]]:
    """The files of a stage that hold its games with verdicts of several judges, and what the page calls each."""
    sets = []
    if stage.kind in ("judge", "judge_grpo"):
        training = "finetuning" if stage.kind == "judge" else "training"
        for when, file in (("before", run_files.BASE_DEBATES), ("after", run_files.TEST_DEBATES)):
            sets.append((f"{stage.name}, {when} {training}", stage.folder / file))
    if stage.kind == "judges":
        for row in stage.metrics.get("rows", ()):
            sets.append((judged_by(stage.name, row["judge"]), stage.folder / run_files.verdicts_of(row["judge"])))
    if stage.kind == "cotraining":
        for turn in stage.metrics.get("turns", ()):
            sets.append((f"{stage.name}, turn {turn['turn']}", stage.folder / f"judged{turn['turn']}.jsonl"))
    return [(name, path) for name, path in sets if path.is_file()]


def judge_online_view(stage: Stage) -> JudgeOnlineView:
    """Draw the curve of a judge's online training, and its calibration before and after."""
    result = stage.read(JudgeGrpoResult)
    fields = {"accuracy": "right", "consistent": "same in both orders", "stated": "states"}
    lines = {}
    for field, name in fields.items():
        rows = _over_steps(result.curve, field)
        if len(rows) > 1:
            lines[name] = rows
    brier = _over_steps(result.curve, "brier")
    scores = {}
    for name, measured in (("before", result.before), ("after", result.after)):
        if measured.scores is not None:
            scores[name] = (measured.scores, debates_link(f"{stage.name}, {name} training"))
    alarms = []
    for point in result.curve:
        alarms += [(point.step, alarm) for alarm in point.alarms]
    title = "The judge over training steps"
    brier_figure, calibration = None, None
    if len(brier) > 1:
        brier_figure = figures.over_steps("Brier score over training steps", Measure("Brier", 1, 3), brier)
    if len(scores) == 2:
        calibration = figures.calibration_change("Calibration before and after online training", scores)
    return JudgeOnlineView(
        stage=stage.name,
        result=result,
        curve=figures.series_over_steps(title, SHARE, lines) if lines else None,
        brier=brier_figure,
        calibration=calibration,
        alarms=tuple(alarms),
    )


def _over_steps(points: tuple[JudgePoint, ...], field: str) -> list[tuple[int, Estimate]]:
    """A field of the points that have it, with their steps."""
    measured = [(point.step, getattr(point, field)) for point in points]
    return [(step, estimate) for step, estimate in measured if estimate is not None]


def judges_view(stage: Stage) -> JudgesView:
    """Draw the accuracy, the calibration and the robustness of judges side by side."""
    result = stage.read(JudgesResult)
    rows, scores = [], {}
    for row in result.rows:
        if row.scores is not None:
            rows.append(Labelled(row.judge, row.scores.accuracy, link=debates_link(judged_by(stage.name, row.judge))))
            scores[row.judge] = (row.scores, debates_link(judged_by(stage.name, row.judge)))
    attacked: list[tuple[str, str, AttackRow]] = []
    for row in result.rows:
        for attack in row.attacks.rows if row.attacks else ():
            attacked.append((attack.attack, row.judge, attack))
    # Grouped by attack; the stable sort keeps the order of the judges in each group.
    order = {name: position for position, name in enumerate(dict.fromkeys(name for name, _, _ in attacked))}
    attacked.sort(key=lambda entry: order[entry[0]])
    bars = []
    for name, judge, attack in attacked:
        if attack.accuracy is not None:
            is_first = judge == result.rows[0].judge
            bars.append(Labelled(f"{name}, {judge}", attack.accuracy, is_reference=is_first))
    return JudgesView(
        stage=stage.name,
        result=result,
        accuracy=figures.judge_accuracy("Accuracy on the same games", rows) if rows else None,
        calibration=figures.calibration_change("Calibration of the judges", scores) if scores else None,
        attacks=figures.attack_effects(bars) if bars else None,
        attacked=tuple(attacked),
    )


def judged_by(stage: str, judge: str) -> str:
    """What the page calls the games of a judges stage with one judge's verdicts."""
    return f"{stage}, {judge}"


TURN_LINES = {
    "proxy": "proxy win rate",
    "paying": "payer right",
    "accuracy": "judge right",
    "held_out": "held-out right",
    "valid": "valid quotes",
}
"""Fields of `Turn` that are drawn, and what their lines are called."""


def turns_view(stage: Stage) -> TurnsView:
    """Draw what every turn of a cotraining stage was measured by."""
    result = stage.read(CotrainingResult)
    marked = {} if result.parted is None else {result.parted: "truth parts"}
    lines: dict[str, list[tuple[int, Estimate]]] = {}
    for field, name in TURN_LINES.items():
        measured: list[tuple[int, Estimate | None]] = [(turn.turn, getattr(turn, field)) for turn in result.turns]
        rows = [(turn, estimate) for turn, estimate in measured if estimate is not None]
        if len(rows) > 1:
            lines[name] = rows
    title = "Debaters and judge in turns"
    curve = figures.series_over_steps(title, SHARE, lines, marked, "turn") if lines else None
    return TurnsView(stage.name, result, curve)
