"""Preference training of the debater (DPO and its relatives)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from debate_rl.errors import UserError
from debate_rl.judges.judge import models_of
from debate_rl.records import read
from debate_rl.stages import preferences
from debate_rl.stages.base import TrainingStage
from debate_rl.stages.preferences import PreferencesStage
from debate_rl.stages.training import CardFacts, TrainingResult, start_from, train
from debate_rl.stages.workload import TrainingLoad
from debate_rl.trainers.common.rows import PreferenceRow
from debate_rl.trainers.common.settings import DpoComparison, Kind, Objective, Weights

if TYPE_CHECKING:
    from debate_rl.runs.run import Run


class DpoResult(TrainingResult):
    """The training, and by what it is compared with other ones."""

    objective: DpoComparison


class DpoStage(TrainingStage):
    """Preference training of the debater."""

    kind: Literal["dpo"] = "dpo"
    start: str = "sft"
    """Earlier stage whose adapter is trained further and, without `reference`, is the reference."""
    reference: str | None = None
    """Another earlier stage as the reference, such as the first policy of several trainings in a row."""
    preferences: str = "preferences"
    """Stage that made the rows."""
    objective: Objective = Objective()
    """The loss; see below."""
    share_prompt: bool = False
    """Encode each prompt once for both speeches: the same numbers in about half the time, for models with full
    attention in every layer (Llama, Qwen 2 and 3, Mixtral)."""

    def references(self) -> set[str]:
        """Where it starts, its reference, and its rows."""
        return {self.start, self.preferences} | ({self.reference} if self.reference else set())

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """One."""
        yield "dpo", self

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """At most the pairs that the preferences stage makes.

        Raises:
            UserError: `preferences` names a stage of another kind.
        """
        rows = preferences.pair_rows(self.preferences_stage(run), run)
        return TrainingLoad("dpo", run.config.models.debater, rows, share_prompt=self.share_prompt)

    def preferences_stage(self, run: Run) -> PreferencesStage:
        """The stage that makes its rows.

        Raises:
            UserError: `preferences` names a stage of another kind.
        """
        stage = run.config.stages[self.preferences]
        if not isinstance(stage, PreferencesStage):
            raise UserError("a dpo stage's `preferences` names a stage of another kind; name one of kind preferences")
        return stage

    def execute(self, run: Run, out: Path) -> DpoResult:
        """Train on the rows of the preferences stage."""
        rows = read(run.folder / self.preferences / "rows.jsonl", PreferenceRow)
        facts = preference_facts(self.preferences_stage(run), run, self.preferences)
        return learn(self, run, rows, out, facts)


def learn(
    stage: DpoStage, run: Run, rows: Sequence[PreferenceRow], out: Path, facts: dict[str, str | float]
) -> DpoResult:
    """Train on rows; the reference is what the training starts from, where the stage names no other.

    Args:
        stage: settings.
        run: the experiment.
        rows: preferences.
        out: see `training.train`.
        facts: where the rows come from, for the model card.
    """
    base, start = start_from(run, stage.start, run.config.models.debater)
    objective = stage.objective
    ratios = "length-normalised" if objective.normalise else "summed"
    card: dict[str, str | float] = {
        **facts,
        "reference": stage.reference or stage.start,
        "loss": f"{objective.loss}, target {objective.target}, {ratios} log-ratios, "
        f"SFT weight {objective.sft_weight:g}",
    }
    metrics = train(
        run,
        stage,
        "dpo",
        rows,
        out,
        base,
        start,
        CardFacts(card),
        objective=objective,
        share_prompt=stage.share_prompt,
        reference=_reference(stage, run),
    )
    comparison = DpoComparison(
        start=stage.start, preferences=stage.preferences, loss=objective.loss, target=objective.target
    )
    return DpoResult(**metrics, objective=comparison)


def _reference(stage: DpoStage, run: Run) -> Weights | None:
    """The reference policy's weights; None where it is the policy that the training starts from."""
    if stage.reference is None:
        return None
    base = run.config.models.debater
    model, adapter = run.weights(stage.reference, base)
    if (model, adapter) == run.weights(stage.start, base):
        return None  # named anyway, the same weights would be held twice
    return Weights(model=run.resolve(model), adapter=None if adapter is None else run.resolve(adapter))


def preference_facts(stage: PreferencesStage, run: Run, name: str) -> dict[str, str | float]:
    """Where preferences come from, for a model card: questions, speaker, opponents, judge.

    Args:
        stage: how they were made.
        run: the experiment.
        name: of the stage that made them; its judge is the last one before it.
    """
    changed = stage.model_dump(mode="json", exclude={"kind", "player", "questions", "protocol"}, exclude_none=True)
    judge, count = run.judge(name), len(preferences.questions(stage, run))
    return {
        "data": f"judged speeches of {stage.player} on {count} training questions "
        f"({run.config.questions.source}), protocol {run.protocol(stage.protocol).name}",
        "preferences": ", ".join(f"{key} {value}" for key, value in changed.items()),
        "judge": f"{judge.name} ({models_of(judge)})",
    }
