"""Merging a stage's adapter into its base, so that later stages train new adapters with settings of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from debate_rl.errors import UserError
from debate_rl.stages.base import Stage, StageResult
from debate_rl.trainers.common.model_card import write_model_card

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debate_rl.config.settings import Models
    from debate_rl.runs.run import Run


class MergeResult(StageResult):
    """What was merged (see `Merged`)."""

    start: str
    modules: int
    number_format: str
    base: str
    fingerprint: str


class MergeStage(Stage):
    """Merges a debater's adapter into its base: the model in NAME/model, from which stages train adapters anew."""

    makes_players: ClassVar[bool] = True

    kind: Literal["merge"] = "merge"
    start: str = "sft"
    """Earlier stage whose adapter is merged. Stages that name this one as their `start` train a new adapter with their
    own `lora`, and the merged model is their reference (published: DPO with r 128, alpha 16 on merged SFT)."""

    @property
    def makes_model(self) -> bool:
        """The merged one."""
        return True

    def references(self) -> set[str]:
        """Whose adapter it merges."""
        return {self.start}

    def models_used(self, models: Models) -> Iterator[tuple[str, str]]:
        """The debater's; nobody judges."""
        yield "models.debater", models.debater

    def plan_note(self, run: Run) -> str:
        """Nothing is asked."""
        return "merges weights"

    def execute(self, run: Run, out: Path) -> MergeResult:
        """Merge, and write the card.

        Raises:
            UserError: the start has no adapter.
        """
        from debate_rl.trainers.common.merge import merge_adapter  # here: it loads torch

        model, adapter = run.weights(self.start, run.config.models.debater)
        if adapter is None:
            raise UserError(f"{run.name_of(out)}: {self.start!r} has no adapter to merge; name it as `start` directly")
        run.rest()
        merged = merge_adapter(run.resolve(model), run.resolve(adapter), out / "model")
        name = run.name_of(out)
        facts: dict[str, str | float] = {
            "base model": model,
            "merged adapter": adapter,
            "layers": merged.modules,
            "number format": merged.number_format,
        }
        write_model_card(out / "model", f"{run.label}: {name}", facts, {})
        run.say(f"  {adapter} merged into {model}: {merged.modules} layers, {merged.number_format}")
        return MergeResult(start=self.start, **merged.model_dump())
