"""The main loop on one page, to read and to run: a debate, a verdict, preferences, a training step, a rating.

Everything a run does is here in small, with the library's own functions and the lab model that ships.
"""

from pathlib import Path

from debate_rl import Debater, Judge, load_protocol, load_questions
from debate_rl.arena.ratings import rate
from debate_rl.arena.rollout import play
from debate_rl.arena.schedule import round_robin, self_play
from debate_rl.arena.tournament import outcomes
from debate_rl.data.models import model_path
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.store import StoredEngine
from debate_rl.game.prompts import debater_messages
from debate_rl.records import write
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.rows import preference_rows
from debate_rl.trainers.common.settings import Job, Lora, Objective


def test_the_main_loop(tmp_path: Path) -> None:
    rules = load_protocol("debate", prompts="lab", max_new_tokens=32)
    train = load_questions("lab", split="train", limit=6)
    test = load_questions("lab", split="test", limit=4)
    engine = StoredEngine(TransformersEngine(model_path), tmp_path / "store")
    judge = Judge(model="lab-base")

    # Play: both sides speak at once in every round; each speech is the best of four in the judge's eyes,
    # against two simulated opponents. All games of a round are one call to the engine.
    player = Debater(name="base@4", model="lab-base", temperature=1.0, best_of=4, opponents=2)
    pools = []
    legs = play(self_play(["base@4"], train, rules), {"base@4": player}, engine, judge, pools=pools)
    assert all(leg.verdict is not None for leg in legs) and len(pools) == 2 * len(train)

    # Prefer: of each pool, the speech the judge believed most over the one it believed least.
    rows = [
        row
        for pool in pools
        for row in preference_rows(
            debater_messages(pool.transcript, pool.side, pool.turn),
            [(speech.text, score) for speech, score in zip(pool.candidates, pool.scores, strict=True)],
        )
    ]
    assert rows and all(row.p_chosen > row.p_rejected for row in rows)

    # Learn: DPO with the judge's probabilities as soft targets (Arnesen et al. 2024).
    write(tmp_path / "rows.jsonl", rows)
    job = Job(
        kind="dpo", model=model_path("lab-base"), rows=str(tmp_path / "rows.jsonl"), out=str(tmp_path / "dpo"),
        lora=Lora(r=8, alpha=16), objective=Objective(target="prob", gamma=7), train={"max_steps": 3, "beta": 0.5},
    )  # fmt: skip
    trained = run_job(job, quiet=True)

    # Rate: every pair on every question, sides swapped; a judge's probability is a soft outcome.
    players = {
        "base": Debater(name="base", model="lab-base"),
        "dpo": Debater(name="dpo", model="lab-base", adapter=trained.path),
    }
    legs = play(round_robin(list(players), test, rules), players, engine, judge)
    ratings = rate(outcomes(legs), resamples=50)
    assert {row.player for row in ratings.standings} == {"base", "dpo"} and ratings.matches == 2 * len(test)
    print(ratings)
