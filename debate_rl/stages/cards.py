"""Model cards completed: training writes them, and the stages that rate players add what they measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debate_rl.arena.ratings import Ratings
from debate_rl.judges.scores import JudgeScores
from debate_rl.trainers.common.model_card import complete_model_card

if TYPE_CHECKING:
    from debate_rl.runs.run import Run


def complete_cards(run: Run, stage: str, accuracy: Mapping[str, JudgeScores], ratings: Ratings | None = None) -> None:
    """Add a stage's ratings and judge accuracy to the cards of the weights that it rated.

    Weights that the run did not train have no card here; a player that chooses among N speeches stands in the card of
    its weights.

    Args:
        run: the experiment.
        stage: name of the stage that rated.
        accuracy: the judge's scores on each player's debates with itself, or alone.
        ratings: of the players, where they met.
    """
    by_folder: dict[Path, dict[str, Any]] = {}
    for name, scores in accuracy.items():
        model, adapter = run.weights(name.partition("@")[0], run.config.models.debater)
        folder = Path(run.resolve(adapter or model))
        if (folder / "README.md").is_file() and run.folder in folder.parents:
            by_folder.setdefault(folder, {})[name] = _scores(name, scores, ratings)
    judge = run.judge()
    for folder, rows in by_folder.items():
        about = {"judge": judge.name, "players rated": ", ".join(accuracy)}
        complete_model_card(folder, f"Rated in {stage}", {**about, **rows})


def _scores(name: str, scores: JudgeScores, ratings: Ratings | None) -> dict[str, Any]:
    """One player's row in the card."""
    row: dict[str, Any] = {}
    standings = [] if ratings is None else [row for row in ratings.standings if row.player == name]
    if standings:
        row["Elo (mean of the players 1000)"] = standings[0].rating
        row["win rate"] = standings[0].win_rate
    row["judge accuracy"] = scores.accuracy
    row["judge Brier"] = scores.brier
    return row
