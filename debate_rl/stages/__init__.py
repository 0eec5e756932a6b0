"""The stages of a run, one module each: what it plays (`games`) and what it does (`run`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from debate_rl.game.transcript import Transcript
from debate_rl.runs.run import Run, StageFunction
from debate_rl.stages import (
    dpo,
    grpo,
    iterations,
    judge,
    oversight,
    preferences,
    reading,
    report,
    sft,
    tournament,
    weak_to_strong,
)

FUNCTIONS: dict[str, StageFunction] = {
    "sft": sft.run,
    "judge": judge.run,
    "preferences": preferences.run,
    "dpo": dpo.run,
    "grpo": grpo.run,
    "iterations": iterations.run,
    "tournament": tournament.run,
    "oversight": oversight.run,
    "reading": reading.run,
    "weak_to_strong": weak_to_strong.run,
    "report": report.run,
}
"""What each kind of stage does."""

GAMES: dict[str, Callable[[Any, Run], list[Transcript]]] = {
    "judge": judge.games,
    "preferences": preferences.games,
    "grpo": grpo.games,
    "iterations": iterations.games,
    "tournament": tournament.games,
    "oversight": oversight.games,
    "reading": reading.games,
    "weak_to_strong": weak_to_strong.games,
}
"""The games that a kind of stage plays, before they are played."""
