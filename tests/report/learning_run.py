"""A run in which debaters and judges learn by reinforcement, made of real records by the rooms that write them."""

from __future__ import annotations

import math
from pathlib import Path

from debate_rl.game import run_files
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.intervals import Estimate
from debate_rl.judges.attacks.robustness import AttackTable, Trial, attack_row
from debate_rl.records import append, write, write_json
from debate_rl.stages.cotraining import Turn
from debate_rl.stages.judges import change, measured_judge
from debate_rl.trainers.grpo.eval_metrics import START, Measured, point
from debate_rl.trainers.grpo.groups import POLICY
from debate_rl.trainers.grpo.judge_metrics import judge_point
from debate_rl.trainers.grpo.parting import parting
from debate_rl.trainers.grpo.settings import Alarms

STAGES = ("grpo", "rl", "judges", "turns", "frozen")
QUESTIONS = 16
SKILL = dict.fromkeys((START, POLICY, "sft", "turns.1", "frozen.1"), 0.5)


def said(leg: JudgedDebate, p_correct: float) -> JudgedDebate:
    """A leg whose judge gives the right answer this probability, in both orders."""
    p = p_correct if leg.transcript.question.correct == 0 else 1 - p_correct
    asks = []
    for ask in leg.verdict.asks:
        asks.append(ask.model_copy(update={"logprobs": (math.log(p), math.log(1 - p))}))
    verdict = Verdict(judge="judge", p=(p, 1 - p), asks=tuple(asks))
    return leg.model_copy(update={"verdict": verdict})


def toward(leg: JudgedDebate, player: str, p: float) -> JudgedDebate:
    """A leg whose judge gives a player this probability."""
    p = p if leg.transcript.players["A"] == player else 1 - p
    return leg.model_copy(update={"verdict": Verdict(judge="judge", p=(p, 1 - p))})


def watched(made, favour: float, right: float, held_out: float) -> list[Measured]:
    """A measurement: both judges' favour for the policy, and how sure the training judge is of right answers."""
    games = []
    for number in range(QUESTIONS):
        about = made.question(number)
        for seats in ((POLICY, START), (START, POLICY)):
            leg = made.leg(about, seats, skills=SKILL)
            games.append(Measured(leg=toward(leg, POLICY, favour), second=toward(leg, POLICY, held_out)))
        alone = made.leg(about, (POLICY, POLICY), skills=SKILL)
        # Every fourth verdict is the other way round, so that intervals have a width.
        p = right if number % 4 else 1 - right
        games.append(Measured(leg=said(alone, p), second=said(alone, 0.8)))
    return games


def put_grpo(made, run: Path) -> None:
    """Three measurements; at the last two the judge likes the policy more and is right less often."""
    steps = {0: watched(made, 0.5, 0.9, 0.5), 10: watched(made, 0.7, 0.3, 0.5), 20: watched(made, 0.8, 0.2, 0.5)}
    curve = []
    folder = run / "grpo"
    for step, games in steps.items():
        append(folder / run_files.watched(step), games)
        curve.append(point(step, games, steps[0], Alarms()))
    write(folder / run_files.CURVE, curve)
    metrics = {
        "start": "sft", "protocol": "debate", "opponent": "self", "judge": "judge", "second": "lab-base", "steps": 20,
        "generated_tokens": 900, "curve": [measured.model_dump(mode="json") for measured in curve],
        "parting": parting(curve).model_dump(mode="json"),
    }  # fmt: skip
    rows = [{"step": step, "loss": 0.1 * step, "watch/accuracy": 0.5} for step in (1, 2)]
    made.put(run, "grpo", metrics, legs=[game.leg for game in steps[20]], history=rows)


def verdicts(made, p_correct: float, player: str = "sft") -> list[JudgedDebate]:
    """Test games of a player with itself; a quarter of the verdicts are the other way round."""
    games = []
    for number in range(QUESTIONS):
        p = p_correct if number % 4 else 1 - p_correct
        games.append(said(made.leg(made.question(number), (player, player), skills=SKILL), p))
    return games


def put_judge_online(made, run: Path) -> None:
    """A judge that is wrong before its training and right after it."""
    before, after = verdicts(made, 0.3), verdicts(made, 0.8)
    curve = [judge_point(0, before, before, Alarms()), judge_point(10, after, before, Alarms())]
    metrics = {
        "rows": 16, "left_out": {}, "too_long": 0, "steps": 10, "train_loss": 0.1, "start": "states",
        "reward": "correctness+brier", "games": 16, "generated_tokens": 400, "counts": {"answers": 80, "unstated": 3},
        "before": measured_judge("states", before).model_dump(mode="json"),
        "after": measured_judge("rl", after).model_dump(mode="json"),
        "change": change(after, before).model_dump(mode="json"),
        "curve": [measured.model_dump(mode="json") for measured in curve],
    }  # fmt: skip
    folder = made.put(run, "rl", metrics, kind="judge_grpo", legs=after)
    write(folder / run_files.BASE_DEBATES, before)
    write(folder / run_files.TEST_DEBATES, after)


def attacked(judge: str, falls: float) -> list[Trial]:
    """Each game attacked by its wrong side, which gains so much of the judge's probability."""
    trials = []
    for number in range(QUESTIONS):
        after = 0.4 + falls if number % 4 else 0.4
        trials.append(
            Trial(attack="suffix_sure", judge=judge, game=f"g{number}", cluster=f"story-{number // 2}", side="A",
                  right=False, before=0.4, after=after)
        )  # fmt: skip
    return trials


def put_judges(made, run: Path) -> None:
    """Two judges; the second is right more often, and is not fooled."""
    found = {"base": verdicts(made, 0.3), "rl": verdicts(made, 0.8)}
    trials = {"base": attacked("base", 0.3), "rl": attacked("rl", 0.05)}
    rows = []
    for judge, games in found.items():
        row = measured_judge(judge, games)
        table = AttackTable(judge=judge, games=16, rows=(attack_row("suffix_sure", "suffix", trials[judge]),))
        changed = change(games, found["base"]) if judge == "rl" else None
        rows.append(row.model_copy(update={"attacks": table, "change": changed}).model_dump(mode="json"))
        write(run / "judges" / run_files.verdicts_of(judge), games)
    write(run / "judges" / run_files.ATTACKS, [*trials["base"], *trials["rl"]])
    made.put(run, "judges", {"rows": rows})


def put_turns(made, run: Path, name: str, right: float) -> None:
    """One turn, after which the judges are this sure of the right answer."""
    last = f"{name}.1"
    files = {0: verdicts(made, 0.8), 1: verdicts(made, right, last)}
    against = []
    for number in range(QUESTIONS):
        against.append(toward(made.leg(made.question(number), (last, "sft"), skills=SKILL), last, 0.7))
    for turn, games in files.items():
        write(run / name / f"judged{turn}.jsonl", games)
        for who in ("paying", "held_out"):
            write(run / name / f"{who}{turn}.jsonl", games + (against if turn else []))
    share = Estimate(value=right, low=right - 0.1, high=right + 0.1, n=16, clusters=8)
    turns = [Turn(turn=0, debater="sft", judge="states", valid=share, accuracy=share, paying=share, held_out=share)]
    turns.append(turns[0].model_copy(update={"turn": 1, "debater": last, "judge": f"{name}.judge.1", "proxy": share}))
    learns = "debater" if name == "frozen" else "both"
    metrics = {"turns": [turn.model_dump(mode="json") for turn in turns], "learns": learns, "held_out": "lab-base"}
    made.put(run, name, metrics, kind="cotraining")


def learning_run(made, folder: Path) -> Path:
    """The whole run."""
    run = made.open_run(folder, name="learning", stages=STAGES)
    put_grpo(made, run)
    put_judge_online(made, run)
    put_judges(made, run)
    put_turns(made, run, "turns", 0.8)
    put_turns(made, run, "frozen", 0.2)
    write_json(folder / "metrics.json", {})
    return run
