"""debate-rl: train language models to debate, train judges, and measure whether debate helps weak judges.

    import debate_rl as dr

    questions = dr.load_questions("lab", split="train", limit=40)
    base = dr.Debater("base", model="lab-base", best_of=4)
    judge = dr.Judge(model="lab-base")
    debates = dr.play(base, base, questions, judge, dr.load_protocol("debate", prompts="lab", max_new_tokens=48))
    dpo = dr.train_dpo(base, dr.preferences(debates), out="runs/mine/dpo", beta=0.5)

Names are loaded when first used, so that light commands stay fast.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if os.environ.setdefault("USE_HUB_KERNELS", "NO").upper() not in ("1", "ON", "YES", "TRUE"):
    # transformers and bitsandbytes look for compiled kernels on the hub where the package `kernels` is installed, and
    # run what they get. Nothing is fetched or run here that the user did not ask for: USE_HUB_KERNELS=YES asks for it.
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
if "OMP_WAIT_POLICY" not in os.environ:
    # A thread of torch that waits for another one spins, by default for milliseconds. Where a further program takes a
    # core, that makes small models eight times slower; after this many turns (microseconds) it sleeps instead.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Saving a model imports DeepSpeed, which warns on a machine without a GPU.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())

if TYPE_CHECKING:
    from debate_rl.api.play import play, preferences
    from debate_rl.api.results import Debates
    from debate_rl.api.train import train_dpo, train_grpo, train_judge, train_judge_grpo, train_sft
    from debate_rl.api.transfer import train_weak_to_strong
    from debate_rl.arena.ratings import rate, read_votes
    from debate_rl.arena.tournament import TournamentSettings, play_tournament
    from debate_rl.config.tree import load_config
    from debate_rl.data.questions import load_questions
    from debate_rl.data.transcripts import load_transcripts
    from debate_rl.errors import UserError
    from debate_rl.export.environment import load_environment
    from debate_rl.game.protocol import Protocol, load_protocol
    from debate_rl.game.question import Question
    from debate_rl.game.transcript import Transcript
    from debate_rl.judges.function import FunctionJudge
    from debate_rl.judges.judge import Judge, Panel, ReasoningJudge, StatedJudge
    from debate_rl.players.debater import Debater
    from debate_rl.weak_to_strong.facilitate import facilitate

_HOME = {
    "Debater": "debate_rl.players.debater",
    "Debates": "debate_rl.api.results",
    "FunctionJudge": "debate_rl.judges.function",
    "Judge": "debate_rl.judges.judge",
    "Panel": "debate_rl.judges.judge",
    "Protocol": "debate_rl.game.protocol",
    "Question": "debate_rl.game.question",
    "ReasoningJudge": "debate_rl.judges.judge",
    "StatedJudge": "debate_rl.judges.judge",
    "TournamentSettings": "debate_rl.arena.tournament",
    "Transcript": "debate_rl.game.transcript",
    "UserError": "debate_rl.errors",
    "facilitate": "debate_rl.weak_to_strong.facilitate",
    "load_config": "debate_rl.config.tree",
    "load_environment": "debate_rl.export.environment",
    "load_protocol": "debate_rl.game.protocol",
    "load_questions": "debate_rl.data.questions",
    "load_transcripts": "debate_rl.data.transcripts",
    "play": "debate_rl.api.play",
    "play_tournament": "debate_rl.arena.tournament",
    "preferences": "debate_rl.api.play",
    "rate": "debate_rl.arena.ratings",
    "read_votes": "debate_rl.arena.ratings",
    "train_dpo": "debate_rl.api.train",
    "train_grpo": "debate_rl.api.train",
    "train_judge": "debate_rl.api.train",
    "train_judge_grpo": "debate_rl.api.train",
    "train_sft": "debate_rl.api.train",
    "train_weak_to_strong": "debate_rl.api.transfer",
}
__all__ = [
    "Debater",
    "Debates",
    "FunctionJudge",
    "Judge",
    "Panel",
    "Protocol",
    "Question",
    "ReasoningJudge",
    "StatedJudge",
    "TournamentSettings",
    "Transcript",
    "UserError",
    "facilitate",
    "load_config",
    "load_environment",
    "load_protocol",
    "load_questions",
    "load_transcripts",
    "play",
    "play_tournament",
    "preferences",
    "rate",
    "read_votes",
    "train_dpo",
    "train_grpo",
    "train_judge",
    "train_judge_grpo",
    "train_sft",
    "train_weak_to_strong",
]
if find_spec("verifiers") is not None:
    # verifiers finds an environment by the name of a package that lists its classes here.
    _HOME |= dict.fromkeys(("DebateEnv", "DebateHarness", "DebateTaskset"), "debate_rl.export.verifiers_env")
    __all__ += ["DebateEnv", "DebateHarness", "DebateTaskset"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'debate_rl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
