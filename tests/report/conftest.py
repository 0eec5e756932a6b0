"""Run folders made of real records: speeches are checked, verdicts scored and ratings fitted by the rooms below."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from debate_rl.analysis.accuracy import cross_play
from debate_rl.analysis.behaviour.behaviour import behaviour
from debate_rl.analysis.behaviour.debater_behaviour import conduct
from debate_rl.analysis.honest_wins import honest_wins
from debate_rl.analysis.judging.second_judge import beside
from debate_rl.analysis.oversight import oversight
from debate_rl.analysis.slopes import Rated, measure, slopes
from debate_rl.arena.match_record import match_record
from debate_rl.arena.ratings import rate
from debate_rl.arena.tournament import outcomes, scores
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Ask, Failure, JudgedDebate, Verdict
from debate_rl.judges.judge import Judge
from debate_rl.judges.scores import judge_change, judge_scores, order_effect
from debate_rl.records import write, write_json, write_text
from debate_rl.weak_to_strong.results.results import results
from tests.weak_to_strong.drawn import GOOD, study

SKILL = {"base": 0.0, "sft": 0.6, "dpo": 1.1}
PLACES = ("shed", "barn", "cellar", "attic", "garden")
STAGES = ("sft", "preferences", "dpo", "judge", "tournament", "oversight", "weak_to_strong")


def question(number: int, long: bool = False) -> Question:
    """A question of a story; two questions share each story."""
    right, wrong = PLACES[number % 5], PLACES[(number + 2) % 5]
    lines = [
        f"the pipe was moved to the {place} at {hour} and ines saw." for hour, place in enumerate((wrong, right), 8)
    ]
    filler = [f"on day {day} the miller counted {day + number} sacks of meal." for day in range(400 if long else 4)]
    passage = " ".join([*filler[: len(filler) // 2], *lines, *filler[len(filler) // 2 :]])
    return Question(
        id=f"q-{number}", text="where is the pipe at the end ?",
        answers=(right, wrong) if number % 2 else (wrong, right), correct=0 if number % 2 else 1,
        passage=passage, group=f"story-{number // 2}", source="made", split="test",
    )  # fmt: skip


def leg(
    about: Question, players: tuple[str, str], protocol: str = "debate", skills=SKILL, text: str | None = None
) -> JudgedDebate:
    """Play and judge one game without a model: better players quote more exactly and sway the judge more."""
    rules = load_protocol(protocol)
    game = open_transcript(about, rules, dict(zip("AB", players, strict=True)))
    random = np.random.default_rng(int(game.id, 16) % 2**32)
    for turn in range(rules.turns):
        for side in game.speakers(turn):
            answer = about.answers["AB".index(side)]
            hour = 8 if answer in about.passage.split(" at 8")[0] else 9
            quote = f"the pipe was moved to the {answer} at {hour}"
            if random.random() > 0.4 + 0.4 * skills[game.players[side]]:
                quote = random.choice([f"the pipe was moved too the {answer} at {hour}", "ines hid it under the bed"])
            said = text or f"it is the {answer}, for <quote>{quote}</quote> as anyone can read."
            made = Origin(player=game.players[side], model="lab-base", seed=3, temperature=0.5, new_tokens=21)
            game = game.add([read_speech(said, game, side, turn, made)])
    lean = 0.9 * (1 if about.correct == 0 else -1) * (0.3 if rules.turns == 0 else 1)
    sway = [skills[game.players[side]] if side in game.players else 0.0 for side in "AB"]
    asks = []
    for order in ((0, 1), (1, 0)):
        logit = lean + 1.2 * (sway[0] - sway[1]) + random.normal(0, 0.9) + (0.1 if order == (0, 1) else -0.1)
        logprobs = (-math.log1p(math.exp(-logit)), -math.log1p(math.exp(logit)))
        asks.append(Ask(sides=game.present if order == (0, 1) else game.present[::-1], order=order, logprobs=logprobs))
    p = sum(math.exp(ask.logprobs[0]) for ask in asks) / 2
    return JudgedDebate(transcript=game, verdict=Verdict(judge="judge", p=(p, 1 - p), asks=tuple(asks)))


def tournament_legs(questions: list[Question], skills=SKILL) -> tuple[list[JudgedDebate], list[JudgedDebate]]:
    """Cross-play with one failed leg, and self-play."""
    names = list(skills)
    cross = [
        leg(about, pair, skills=skills)
        for about in questions
        for i, one in enumerate(names)
        for two in names[i + 1 :]
        for pair in ((one, two), (two, one))
    ]
    failure = Failure(seat="B", turn=0, kind="context", message="prompt of 9120 tokens and 300 new ones exceed 8192")
    cross[3] = cross[3].model_copy(update={"verdict": None, "failure": failure})
    return cross, [leg(about, (name, name), skills=skills) for about in questions for name in names]


def put(run: Path, name: str, metrics: dict, *, kind: str | None = None, legs=(), history=()) -> Path:
    """Write a finished stage."""
    folder = run / name
    write_json(folder / "stage.json", {"name": name, "kind": kind or name, "fingerprint": "0" * 16})
    write_json(folder / "metrics.json", metrics)
    write_json(
        folder / "timing.json",
        {"seconds": 75.0, "cpu_seconds": 70.0, "tokens": 5000, "store_hits": 1200, "store_misses": 34},
    )
    if legs:
        write(folder / "debates.jsonl", legs)
    if history:
        write_json(folder / "history.json", list(history))
    return folder


def history(steps: int) -> list[dict]:
    """What a trainer logs."""
    rows = [
        {"step": s, "epoch": s / steps, "loss": 2 / (1 + s), "rewards/margins": 0.01 * s} for s in range(1, steps + 1)
    ]
    return [*rows, {"step": steps, "train_loss": 0.4, "train_runtime": 12.5}]


def open_run(folder: Path, name: str = "made", stages=STAGES) -> Path:
    """An empty run folder."""
    listed = "\n".join(f"  {stage}: {{}}" for stage in (*stages, "report"))
    write_text(folder / "config.yaml", f"name: {json.dumps(name)}\nseed: 0\nstages:\n{listed}\n")
    write_json(folder / "code.json", {"versions": {"debate-rl": "0.1.0"}, "commit": "a" * 40, "changed": False})
    return folder


def tournament_stage(run: Path, questions: list[Question], skills=SKILL) -> list[JudgedDebate]:
    """Write a tournament stage; returns its legs."""
    cross, alone = tournament_legs(questions, skills)
    slope = measure(Rated(cross), alone)
    found = honest_wins(Rated(cross, resamples=20))
    metrics = {
        "ratings": rate(outcomes(cross), resamples=100).model_dump(mode="json"),
        "judge_accuracy": {
            name: scores([one for one in alone if one.transcript.players["A"] == name]).model_dump(mode="json")
            for name in skills
        },
        "cross_play": cross_play(cross + alone).model_dump(mode="json"),
        "matches": match_record(cross).model_dump(mode="json"),
        "honest_wins": found and found.model_dump(mode="json"),
        "accuracy_over_rating": slope and slope.replicates.effect().model_dump(mode="json"),
        "behaviour": [row.model_dump(mode="json") for row in behaviour(cross + alone)],
        "conduct": conduct(cross + alone, list(skills), Judge(model="reader"), ScriptedEngine(), readings=4).model_dump(
            mode="json"
        ),
        "legs": len(cross + alone),
        "failed": 1,
    }
    put(run, "tournament", metrics, legs=cross + alone)
    return cross + alone


def oversight_stage(run: Path, questions: list[Question]) -> None:
    """Write an oversight stage of three protocols."""
    keys = [("debate", "dpo"), ("single", "dpo"), ("blind", "-")]
    legs = {key: [leg(q, ("dpo", "dpo"), key[0]) for q in questions] for key in keys}
    other = {(name, player): [leg(q, ("base", "base"), name) for q in questions] for name, player in legs}
    found = oversight(legs, "judge", second=beside(legs, other, ("judge", "lab-base")))
    both = {("debate", "dpo"): legs["debate", "dpo"], ("debate", "base"): other["debate", "dpo"]}
    crossed = [leg(q, ("dpo", "base"), "debate") for q in questions]
    found = found.model_copy(
        update={
            "slopes": tuple(slopes(both, Rated(crossed))),
            "left_out": {"double by dpo": 7},
            "rated_by": "tournament",
        }
    )
    put(run, "oversight", found.model_dump(mode="json"), legs=[one for found in legs.values() for one in found])


def judge_stage(run: Path) -> None:
    """Write a judge stage: the judge is surer than it should be before, less so after."""
    random = np.random.default_rng(0)
    labels = [f"story-{i // 2}" for i in range(120)]
    before = 1 / (1 + np.exp(-random.normal(1, 3, 120)))
    after = 1 / (1 + np.exp(-random.normal(1, 1.2, 120)))
    metrics = {
        "before": judge_scores(before, labels).model_dump(mode="json"),
        "after": judge_scores(after, labels).model_dump(mode="json"),
        "change": judge_change(after, before, labels).model_dump(mode="json"),
        "order_effect": order_effect(before, np.clip(before - 0.03, 0, 1), labels).model_dump(mode="json"),
        **{"rows": 120, "left_out": {}, "too_long": 0, "steps": 30, "train_loss": 0.4},
    }
    put(run, "judge", metrics, history=history(30))


def transfer_stage(run: Path, name: str = "weak_to_strong", **skills: float) -> None:
    """Write a weak-to-strong stage of two methods."""
    hits = study({**GOOD, **skills}, items=200)
    folder = put(run, name, results(hits).model_dump(mode="json"), kind="weak_to_strong")
    write_text(folder / "trainings" / "hits.json", hits.model_dump_json())


def whole_run(folder: Path) -> Path:
    """A run with every kind of stage."""
    run = open_run(folder)
    questions = [question(number) for number in range(12)]
    put(run, "sft", {"rows": 400, "tokens": 52000, "train_loss": 0.41}, history=history(50))
    put(run, "preferences", {"pools": 200, "pairs": 188, "mean_gap": 0.23})
    put(run, "dpo", {"rows": 188, "tokens": 9000, "train_loss": 0.61}, history=history(40))
    judge_stage(run)
    tournament_stage(run, questions)
    oversight_stage(run, questions)
    transfer_stage(run)
    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A run with every kind of stage; tests must not change it."""
    return whole_run(tmp_path_factory.mktemp("run") / "made")


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The makers of this file, for tests that need a run of their own."""
    makers = (question, leg, put, history, open_run, tournament_stage, oversight_stage, judge_stage, transfer_stage)
    return SimpleNamespace(skill=SKILL, **{maker.__name__: maker for maker in makers})
