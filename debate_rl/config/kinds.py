"""Every kind of stage, by the name that `kind:` gives it in a config. A new stage is one line here."""

from debate_rl.stages.base import Stage
from debate_rl.stages.cotraining import CotrainingStage
from debate_rl.stages.dpo import DpoStage
from debate_rl.stages.grpo import GrpoStage
from debate_rl.stages.iterations import IterationsStage
from debate_rl.stages.judge import JudgeStage
from debate_rl.stages.judge_grpo import JudgeGrpoStage
from debate_rl.stages.judges import JudgesStage
from debate_rl.stages.merge import MergeStage
from debate_rl.stages.oversight import OversightStage
from debate_rl.stages.preferences import PreferencesStage
from debate_rl.stages.reading import ReadingStage
from debate_rl.stages.report import ReportStage
from debate_rl.stages.sft import SftStage
from debate_rl.stages.stating import StatingStage
from debate_rl.stages.tournament import TournamentStage
from debate_rl.stages.weak_to_strong import WeakToStrongStage

STAGES: dict[str, type[Stage]] = {
    "sft": SftStage,
    "merge": MergeStage,
    "judge": JudgeStage,
    "stating": StatingStage,
    "judge_grpo": JudgeGrpoStage,
    "judges": JudgesStage,
    "preferences": PreferencesStage,
    "dpo": DpoStage,
    "grpo": GrpoStage,
    "cotraining": CotrainingStage,
    "iterations": IterationsStage,
    "tournament": TournamentStage,
    "oversight": OversightStage,
    "reading": ReadingStage,
    "weak_to_strong": WeakToStrongStage,
    "report": ReportStage,
}
