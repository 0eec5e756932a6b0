"""The tournament: players of the run against one another, rated, with judge accuracy in self-play."""

from __future__ import annotations

from pathlib import Path

from debate_rl.analysis.accuracy import cross_play
from debate_rl.analysis.behaviour import behaviour
from debate_rl.analysis.conduct import conduct
from debate_rl.analysis.slopes import Rated, measure
from debate_rl.arena.schedule import round_robin, self_play
from debate_rl.arena.tournament import play_tournament, save_tournament
from debate_rl.config_stages import TournamentStage
from debate_rl.experiment import Metrics, Run
from debate_rl.game.transcript import Transcript
from debate_rl.judges.judge import Judge
from debate_rl.stages.cards import complete_cards


def games(stage: TournamentStage, run: Run) -> list[Transcript]:
    """Cross-play with sides swapped, then self-play."""
    questions, protocol = run.questions("test", stage.questions), run.protocol(stage.protocol)
    seed = run.config.seed
    return round_robin(stage.players, questions, protocol, seed) + self_play(stage.players, questions, protocol, seed)


def run(stage: TournamentStage, run: Run, out: Path) -> Metrics:
    """Play, rate, and say what the players do."""
    result = play_tournament(
        [run.debater(name, stage.opponents) for name in stage.players],
        run.questions("test", stage.questions),
        run.judge(),
        run.protocol(stage.protocol),
        engine=run.engine,
        folder=out,
        seed=run.config.seed,
        ridge=stage.ridge,
        resamples=stage.resamples,
        progress=run.progress(out),
    )
    legs = list(result.legs)  # the analyses go through them many times
    save_tournament(result, out)
    run.say(str(result.ratings))
    elo = {row.player: row.rating.value for row in result.ratings.standings}
    alone = [leg for leg in legs if len(set(leg.transcript.players.values())) == 1]
    slope, crossed = measure(Rated(legs, stage.ridge), alone), cross_play(legs)
    run.tracker.log({f"elo/{name}": value for name, value in elo.items()})
    run.tracker.log({f"accuracy/{name}": found.accuracy.value for name, found in result.judge_accuracy.items()})
    run.log_debates(out.name.lstrip("."), legs)
    complete_cards(run, out.name.lstrip("."), result.judge_accuracy, result.ratings)
    reader = Judge(name="reader", model=run.config.models.judge)
    return {
        "ratings": result.ratings.model_dump(mode="json"),
        "judge_accuracy": {name: found.model_dump(mode="json") for name, found in result.judge_accuracy.items()},
        "cross_play": None if crossed is None else crossed.model_dump(mode="json"),
        "accuracy_over_rating": None if slope is None else slope.replicates.effect().model_dump(mode="json"),
        "behaviour": [row.model_dump(mode="json") for row in behaviour(legs)],
        "conduct": conduct(legs, stage.players, reader, run.engine, stage.readings).model_dump(mode="json"),
        "legs": len(legs),
        "failed": sum(leg.verdict is None for leg in legs),
    }
