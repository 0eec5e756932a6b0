"""Iterated preference training: generate, judge, train, rate, repeat.

In the stage's folder:
    iteration1/preferences/   pools and rows of the first iteration, as a preferences stage leaves them
    iteration1/adapter/       its debater (or model/), with rows.jsonl and history.json beside it, as a dpo stage does
    iteration1/rating.json    its rating against the pool, as it stood then
    iteration2/ ...
    legs.jsonl                every game of the ratings

Each part is kept when it is finished, and what was begun goes on at the unit of one debate or one checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from debate_rl.analysis.behaviour.behaviour import behaviour
from debate_rl.analysis.iterations import Point, curve
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.rollout import play_to_file
from debate_rl.arena.schedule import round_robin, self_play
from debate_rl.arena.tournament import play_tournament, scores
from debate_rl.config.training_stages import DpoStage, IterationsStage, PreferencesStage
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Leg
from debate_rl.records import read, read_json, write, write_json
from debate_rl.runs.run import Metrics, Run
from debate_rl.stages import dpo, preferences
from debate_rl.stages.cards import complete_cards
from debate_rl.trainers.common.rows import PreferenceRow

LEARNING_RATE = 1e-4
"""Of the first iteration where `dpo.train` names none: what every dpo stage takes then."""


def name_of(run: Run, stage: IterationsStage) -> str:
    """The stage's name in its run."""
    return next(name for name, other in run.config.stages.items() if other is stage)


def player(stage: IterationsStage, name: str, number: int) -> str:
    """The debater after so many iterations; after none the start."""
    return f"{name}.{number}" if number else stage.start


def players(stage: IterationsStage, name: str, number: int) -> list[str]:
    """Who is rated after so many iterations: the pool, and every iteration's debater so far."""
    return [*stage.pooled, *policies(stage, name, number)[1:]]


def policies(stage: IterationsStage, name: str, number: int) -> list[str]:
    """The start, and the debaters of so many iterations."""
    return [player(stage, name, k) for k in range(number + 1)]


def preferences_of(stage: IterationsStage, run: Run, name: str, number: int) -> PreferencesStage:
    """How an iteration, counted from 1, makes its rows."""
    start, count = share(stage, len(run.questions("train")), number)
    changes = {"player": player(stage, name, number - 1), "skip": start, "questions": count}
    if stage.opponents == "start":
        changes["opponents_from"] = (stage.start,)
    return stage.preferences.model_copy(update=changes)


def share(stage: IterationsStage, total: int, number: int) -> tuple[int, int]:
    """An iteration's training questions: how many are left out before the first, and how many there are.

    Shares are disjoint where there are enough questions, else they overlap as little as they can.

    Example:
        300 questions each of 600, second of two iterations: (300, 300); of 500: (200, 300); of 250: (0, 250)

    Raises:
        UserError: `preferences.skip` leaves none.
    """
    first = stage.preferences.skip
    if first >= total:
        raise UserError(f"iterations: preferences.skip {first} leaves no training questions of {total}; lower it")
    count = min(stage.preferences.questions, total - first)
    if not stage.fresh_questions or stage.iterations == 1:
        return first, count
    step = min(count, (total - first - count) // (stage.iterations - 1))
    return first + step * (number - 1), count


def dpo_of(stage: IterationsStage, name: str, number: int) -> DpoStage:
    """How an iteration, counted from 1, trains."""
    rate = float(stage.dpo.train.get("learning_rate", LEARNING_RATE))
    rate *= stage.learning_rate_factor ** (number - 1)
    return stage.dpo.model_copy(
        update={
            "start": player(stage, name, number - 1),
            "reference": stage.start if stage.reference == "start" else None,
            "train": {**stage.dpo.train, "learning_rate": rate},
        }
    )


def games(stage: IterationsStage, run: Run) -> list[Transcript]:
    """The pools of every iteration, then the games of the ratings."""
    name = name_of(run, stage)
    numbers = range(1, stage.iterations + 1)
    found = [game for k in numbers for game in preferences.games(preferences_of(stage, run, name, k), run)]
    return found + _rating_games(stage, run, players(stage, name, stage.iterations))


def _rating_games(stage: IterationsStage, run: Run, names: list[str]) -> list[Transcript]:
    """Cross-play where the protocol has an opponent, and self-play."""
    questions, protocol = run.questions("test", stage.questions), run.protocol(stage.preferences.protocol)
    cross = round_robin(names, questions, protocol, run.config.seed) if protocol.sides == "both" else []
    return cross + self_play(names, questions, protocol, run.config.seed)


def run(stage: IterationsStage, run: Run, out: Path) -> Metrics:
    """Iterate, then draw the curve over all iterations."""
    name = name_of(run, stage)
    count = share(stage, len(run.questions("train")), 1)[1]
    if count < stage.preferences.questions:
        run.say(f"  {count} training questions an iteration; {stage.preferences.questions} were asked for")
    done = [_iterate(stage, run, out, name, number) for number in range(1, stage.iterations + 1)]
    names = players(stage, name, stage.iterations)
    legs, ratings = _rate(stage, run, out, names)
    write(out / "legs.jsonl", legs)
    points = curve(legs, policies(stage, name, stage.iterations), ratings)
    accuracy = {one: scores([leg for leg in legs if set(leg.transcript.players.values()) == {one}]) for one in names}
    for point in points:
        _log(run, name, point)
    run.log_debates(name, legs)
    complete_cards(run, name, accuracy, ratings)
    return {
        "points": [point.model_dump(mode="json") for point in points],
        "iterations": done,
        "ratings": None if ratings is None else ratings.model_dump(mode="json"),
        "judge_accuracy": {one: found.model_dump(mode="json") for one, found in accuracy.items()},
        "behaviour": [row.model_dump(mode="json") for row in behaviour(legs)],
        "legs": len(legs),
        "failed": sum(leg.verdict is None for leg in legs),
    }


def _iterate(stage: IterationsStage, run: Run, out: Path, name: str, number: int) -> Metrics:
    """One iteration: rows, training, rating."""
    folder = out / f"iteration{number}"
    wanted, training = preferences_of(stage, run, name, number), dpo_of(stage, name, number)
    made = _once(folder / "preferences.json", lambda: preferences.run(wanted, run, folder / "preferences"))

    def learn() -> Metrics:
        rows = read(folder / "preferences" / "rows.jsonl", PreferenceRow)
        return dpo.learn(training, run, rows, folder, dpo.preference_facts(wanted, run, name))

    def rate() -> Metrics:
        legs, ratings = _rate(stage, run, out, players(stage, name, number))
        return curve(legs, policies(stage, name, number), ratings)[-1].model_dump(mode="json")

    trained = _once(folder / "training.json", learn)
    point = Point.model_validate(_once(folder / "rating.json", rate))
    run.say(f"  {point}")
    met = {place for k in range(1, number) for place in _places(preferences_of(stage, run, name, k))}
    return {
        "iteration": number,
        "player": player(stage, name, number),
        "learning_rate": training.train["learning_rate"],
        "reference": training.reference or training.start,
        "opponent": ", ".join(wanted.opponents_from) or wanted.player,
        "questions": wanted.questions,
        "met_before": len(met & _places(wanted)),
        "preferences": made,
        "training": trained,
        "rating": point.model_dump(mode="json"),
    }


def _places(wanted: PreferencesStage) -> set[int]:
    """Which training questions an iteration plays on."""
    return set(range(wanted.skip, wanted.skip + wanted.questions))


def _once(path: Path, work: Callable[[], Metrics]) -> Metrics:
    """What a finished part measured; it is done only where it has not been."""
    if not path.is_file():
        write_json(path, work())
    return dict(read_json(path))


def _rate(stage: IterationsStage, run: Run, out: Path, names: list[str]) -> tuple[list[Leg], Ratings | None]:
    """Play what has not been played yet; the games, and ratings where the protocol has two sides."""
    protocol, questions = run.protocol(stage.preferences.protocol), run.questions("test", stage.questions)
    debaters = [run.debater(one, stage.preferences.opponents) for one in names]
    if protocol.sides == "both":
        result = play_tournament(
            debaters, questions, run.judge(), protocol, engine=run.engine, folder=out, seed=run.config.seed,
            ridge=stage.ridge, resamples=stage.resamples, progress=run.progress(out),
        )  # fmt: skip
        return list(result.legs), result.ratings
    planned, by_name = _rating_games(stage, run, names), {one.name: one for one in debaters}
    path = out / "legs.jsonl"
    return list(play_to_file(planned, by_name, run.engine, run.judge(), path, progress=run.progress(out))), None


def _log(run: Run, name: str, point: Point) -> None:
    """The curve in W&B, iteration by iteration."""
    found = {"elo": point.rating, "win_rate": point.win_rate, "persuaded": point.persuaded, "valid": point.valid,
             "words": point.words, "judge_accuracy": point.judge.accuracy}  # fmt: skip
    values = {f"{name}/{key}": estimate.value for key, estimate in found.items() if estimate is not None}
    run.tracker.log(values, {f"{name}/iteration": float(point.iteration)})
