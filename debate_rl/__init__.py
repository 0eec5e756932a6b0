"""debate-rl: train language models to debate, train judges, and measure whether debate helps weak judges.

    from debate_rl import Debater, Judge, load_questions, play_tournament

Names are loaded when first used, so that light commands stay fast.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if os.environ.setdefault("USE_HUB_KERNELS", "NO").upper() not in ("1", "ON", "YES", "TRUE"):
    # transformers and bitsandbytes look for compiled kernels on the hub where the package `kernels` is installed, and
    # run what they get. Nothing is fetched or run here that the user did not ask for: USE_HUB_KERNELS=YES asks for it.
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from debate_rl.arena.ratings import rate, read_votes
    from debate_rl.arena.tournament import TournamentSettings, play_tournament
    from debate_rl.config.tree import load_config
    from debate_rl.data.questions import load_questions
    from debate_rl.errors import UserError
    from debate_rl.game.protocol import Protocol, load_protocol
    from debate_rl.game.question import Question
    from debate_rl.game.transcript import Transcript
    from debate_rl.judges.judge import Judge
    from debate_rl.players.debater import Debater
    from debate_rl.weak_to_strong.facilitate import facilitate

_HOME = {
    "Debater": "debate_rl.players.debater",
    "Judge": "debate_rl.judges.judge",
    "Protocol": "debate_rl.game.protocol",
    "Question": "debate_rl.game.question",
    "TournamentSettings": "debate_rl.arena.tournament",
    "Transcript": "debate_rl.game.transcript",
    "UserError": "debate_rl.errors",
    "facilitate": "debate_rl.weak_to_strong.facilitate",
    "load_config": "debate_rl.config.tree",
    "load_protocol": "debate_rl.game.protocol",
    "load_questions": "debate_rl.data.questions",
    "play_tournament": "debate_rl.arena.tournament",
    "rate": "debate_rl.arena.ratings",
    "read_votes": "debate_rl.arena.ratings",
}
__all__ = [
    "Debater",
    "Judge",
    "Protocol",
    "Question",
    "TournamentSettings",
    "Transcript",
    "UserError",
    "facilitate",
    "load_config",
    "load_protocol",
    "load_questions",
    "play_tournament",
    "rate",
    "read_votes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'debate_rl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
