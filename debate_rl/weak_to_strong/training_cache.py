"""Content-addressed cache of a run's trained models and their predictions.

FOLDER/rows/NAME.jsonl          training rows
FOLDER/NAME/                    a training (`trainers.job`); NAME is a digest of its settings, rows and starting weights
FOLDER/predictions/NAME.json    P(answer 0) of some texts by some weights; NAME is a digest of both

Methods, tables and seeds therefore share every supervisor, ceiling or student they have in common. A stopped study
continues where it was: a training from its last checkpoint, everything else from what is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from debate_rl.engines.request import Choice, Engine, EngineFailure, Message
from debate_rl.engines.weights import fingerprint
from debate_rl.errors import UserError
from debate_rl.intervals import Floats
from debate_rl.judges.judge import probability
from debate_rl.records import Record, digest, read_json, write, write_json
from debate_rl.trainers.classifier import predict
from debate_rl.trainers.common.job import job_name, launch
from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow, PreferenceRow, RewardRow, SftRow
from debate_rl.trainers.common.settings import Dtype, Job, Lora, Objective, StudentLoss, Weights
from debate_rl.weak_to_strong.shared_forward import one_base, predict_together
from debate_rl.weak_to_strong.tasks.items import Item, Sample, Samples
from debate_rl.weak_to_strong.tasks.lengths import check_readable
from debate_rl.weak_to_strong.tasks.pairs import reward_rows

OpenEngine = Callable[[], Engine]
Row = JudgeRow | ClassifierRow | RewardRow | PreferenceRow | SftRow
KINDS = {JudgeRow: "judge", ClassifierRow: "classifier", RewardRow: "reward", PreferenceRow: "dpo", SftRow: "sft"}
XENT = StudentLoss()
VERDICT = Objective(target="logprob", gamma=1.0, sft_weight=0.0, normalise=False)
"""DPO whose soft target is the judge's own probability: C_w / (C_w + C_l) with C_l = 1 - C_w."""


class Settings(Record):
    """Models and training of a study."""

    weak: str
    strong: str
    readout: Literal["answers", "head", "probe", "reward"] = "answers"
    """How models answer. `answers`: by the language model's probabilities of the two answers; `head`: by a new
    classification head; `probe`: by a head on frozen weights; `reward`: by the rewards of the prompt with either
    answer."""
    seeds: int = 2
    lora: Lora | None = None
    train: dict[str, Any] = {}
    quantize: Literal["nf4"] | None = None
    launch: str | None = None
    processes: int | None = None
    """Number of processes of a launch; None takes that of the launch file."""
    seed: int = 0
    dtype: Dtype = "float32"
    """Number format of language models whose probabilities are read."""


@dataclass(frozen=True)
class TrainingData:
    """Items with the texts and targets that a model learns.

    Example:
        TrainingData(items=splits.supervisor, samples=plain, targets=[1.0, 0.0, ...])
    """

    items: Sequence[Item]
    samples: Samples
    """Texts that the model reads, by item id."""
    targets: Sequence[float]
    """(n,) target P(answer 0) of each item."""
    weights: Sequence[float] | None = None
    """(n,) weights of the rows' losses; None is 1 for all."""

    def take(self, rows: Sequence[int]) -> TrainingData:
        """The items in these rows, in their order; a row may be taken more than once."""
        items = [self.items[row] for row in rows]
        targets = [self.targets[row] for row in rows]
        weights = None if self.weights is None else [self.weights[row] for row in rows]
        return TrainingData(items, self.samples, targets, weights)


def score(samples: Sequence[Sample], weights: Weights, engine: Engine) -> Floats:
    """P(answer 0) by a language model's probabilities of the two answers, (n,).

    Raises:
        UserError: a sample is longer than the model's context.
    """
    choices = []
    for sample in samples:
        messages = tuple(Message.model_validate(message) for message in sample.prompt)
        choices.append(
            Choice(messages=messages, model=weights.model, adapter=weights.adapter, candidates=sample.candidates)
        )
    p = []
    for answer in engine.choose(choices):
        if isinstance(answer, EngineFailure):
            fix = "take another model" if answer.kind == "not a number" else "shorten the items or take another model"
            raise UserError(f"weak-to-strong: {answer.message}; {fix}")
        p.append(probability((answer.logprobs[0], answer.logprobs[1])))
    return np.array(p)


class Trainings:
    """Trains models and predicts with them; does nothing twice.

    Args:
        settings: models and training.
        open_engine: opens an engine that scores answers.
        folder: the cache, shared by all tables of a run.
        rest: has other engines let go of their models before a training takes the memory.
    """

    def __init__(
        self, settings: Settings, open_engine: OpenEngine, folder: Path, rest: Callable[[], None] = lambda: None
    ) -> None:
        self.settings = settings
        self.folder = folder
        self._open_engine = open_engine
        self._rest = rest
        self._adapter_engine: Engine | None = None
        self._checked: list[tuple[Samples, str]] = []
        self.done: dict[str, str] = {}
        """Content name of each training, by its name in the study."""
        self.warnings: dict[str, tuple[str, ...]] = {}
        """Signs that a training taught nothing, by its name in the study."""

    def check_readable(self, samples: Samples, model: str, what: str) -> None:
        """Refuse texts that a model can not read whole, before anything is trained on them.

        A head or a probe with `train.max_length` cuts texts to that length, so they are not checked.

        Raises:
            UserError: some texts are too long.
        """
        if self.settings.readout != "answers" and self._max_length is not None:
            return
        for other, name in self._checked:
            # By identity: many members read the same samples, and comparing all their texts is slower than the check.
            if other is samples and name == model:
                return
        check_readable(samples.values(), model, what)
        self._checked.append((samples, model))

    def fit(
        self,
        called: str,
        start: Weights,
        data: TrainingData,
        seed: int,
        loss: StudentLoss = XENT,
        train: dict[str, Any] | None = None,
    ) -> Weights:
        """Train a model to give target P(answer 0) on items.

        Args:
            called: name of the training in its study, for the index.
            start: the model, and optionally an adapter to continue from.
            data: items, texts, targets and weights.
            seed: seed of new weights and of the order of rows.
            loss: what is minimised.
            train: changes to the study's training settings.

        Raises:
            UserError: the training can not be done as configured.
        """
        return self.train_rows(called, start, self._rows(data), seed, train, loss=loss)

    def read_texts(
        self, called: str, start: Weights, samples: Sequence[Sample], seed: int, train: dict[str, Any]
    ) -> Weights:
        """Finetune a language model to write the texts of a task, without labels and answers (Burns et al. 2023).

        Raises:
            UserError: the study's models answer by a head, whose adapter can not continue from a language model's.
        """
        if self.settings.readout != "answers" and self.settings.lora is not None:
            raise UserError(
                "transfer.generative: an adapter of a language model can not become one of a classifier; "
                "set readout: answers, or lora: null"
            )
        rows = []
        for sample in samples:
            text = "\n".join(message["content"] for message in sample.prompt)
            rows.append(SftRow(prompt=[{"role": "user", "content": ""}], completion=text))
        return self.train_rows(called, start, rows, seed, train)

    def prefer(
        self, called: str, start: Weights, rows: Sequence[PreferenceRow], seed: int, train: dict[str, Any]
    ) -> Weights:
        """Train a language model by DPO on pairs of answers, with the judge's probability as soft target.

        Raises:
            UserError: the study's models answer by a head.
        """
        if self.settings.readout != "answers":
            raise UserError("transfer.refine: dpo trains a language model; set readout: answers, or refine: labels")
        return self.train_rows(called, start, rows, seed, train, objective=VERDICT)

    def train_rows(
        self,
        called: str,
        start: Weights,
        rows: Sequence[Row],
        seed: int,
        train: dict[str, Any] | None = None,
        **of_kind: Any,
    ) -> Weights:
        """Train on rows of any kind, or return what the same training gave before.

        Args:
            called: name of the training in its study, for the index.
            start: the model, and optionally an adapter to continue from.
            rows: training rows, all of one type, which decides the kind of training.
            seed: seed of new weights and of the order of rows.
            train: changes to the study's training settings.
            of_kind: settings of this kind of training, such as `loss`.
        """
        settings = self.settings
        kind = KINDS[type(rows[0])]
        # By content: methods that come to the same labels share the file, and with it the training.
        rows_path = self.folder / "rows" / f"{digest([row.model_dump(mode='json') for row in rows])}.jsonl"
        if not rows_path.is_file():
            write(rows_path, rows)
        job = Job(
            kind=kind,  # type: ignore[arg-type]
            model=start.model,
            adapter=start.adapter,
            rows=str(rows_path),
            out=str(self.folder),
            lora=settings.lora,
            probe=settings.readout == "probe" and kind == "classifier",
            quantize=settings.quantize,
            train={**settings.train, **(train or {})},
            seed=seed,
            **of_kind,
        )
        name = job_name(job)
        # Before the launch: a training that is cut off can then still be found by its name.
        self.done[called] = name
        # Quiet: a table has dozens of trainings, and losses by the hundred would hide the lines that say how far it is.
        placed = job.model_copy(update={"out": str(self.folder / name)})
        self._adapter_engine = None
        self._rest()
        result = launch(placed, settings.launch, settings.processes, quiet=True)
        self.warnings[called] = result.warnings
        # Full training writes a model of its own; LoRA writes an adapter beside the base it started from.
        if settings.lora is None:
            return Weights(model=result.path)
        return Weights(model=start.model, adapter=result.path)

    def predict(self, weights: Weights, samples: Sequence[Sample]) -> Floats:
        """P(answer 0) of each sample, (n,).

        Raises:
            UserError: a sample is longer than the model's context.
        """
        return self.predict_all([weights], [samples])[0]

    def predict_all(self, members: Sequence[Weights], samples: Sequence[Sequence[Sample]]) -> list[Floats]:
        """P(answer 0) by each member of its own samples, k times (n,).

        Members that share a base and read the same samples share passes over the base.

        Raises:
            UserError: see `predict`.
        """
        paths = [self._prediction_path(member, texts) for member, texts in zip(members, samples, strict=True)]
        missing = [number for number, path in enumerate(paths) if not path.is_file()]
        missing_members = [members[number] for number in missing]
        missing_samples = [samples[number] for number in missing]
        predictions = self._predict_missing(missing_members, missing_samples)
        for number, p in zip(missing, predictions, strict=True):
            # Checked before writing: a diverged model's file would otherwise be read back as a finished prediction.
            if not np.isfinite(p).all():
                raise UserError(
                    f"weak-to-strong: {members[number].adapter or members[number].model} gives probabilities that are "
                    "no numbers; its weights are damaged, or the training diverged: lower train.learning_rate"
                )
            write_json(paths[number], {"p": np.asarray(p, dtype=float).tolist()})
        return [np.array(read_json(path)["p"]) for path in paths]

    def _predict_missing(self, members: Sequence[Weights], samples: Sequence[Sequence[Sample]]) -> list[Floats]:
        """P(answer 0) by members without a saved prediction, together where they can share passes."""
        if len(members) > 1 and one_base(members, self.settings.readout):
            first = list(samples[0])
            if all(list(texts) == first for texts in samples):
                return predict_together(first, members, self.settings.readout, self._max_length, self.settings.dtype)
        return [self._predict_alone(member, texts) for member, texts in zip(members, samples, strict=True)]

    def _predict_alone(self, weights: Weights, samples: Sequence[Sample]) -> Floats:
        """P(answer 0) by one model, (n,)."""
        if self.settings.readout == "reward":
            from debate_rl.trainers.reward import predict_pairs  # here: trl takes seconds to load

            pairs = []
            for sample in samples:
                first, second = sample.candidates
                pairs.append(RewardRow(prompt=sample.prompt, chosen=first, rejected=second))
            return predict_pairs(pairs, weights.model, weights.adapter, self._max_length)
        if self.settings.readout != "answers":
            rows = [ClassifierRow(id=str(number), prompt=sample.prompt) for number, sample in enumerate(samples)]
            return predict(rows, weights.model, weights.adapter, self._max_length)
        if weights.adapter is None:
            # A new engine each time: one engine would keep every fully trained model in memory.
            return score(samples, weights, self._open_engine())
        # Adapters are small and share their base, so one engine serves them all.
        if self._adapter_engine is None:
            self._adapter_engine = self._open_engine()
        return score(samples, weights, self._adapter_engine)

    @property
    def _max_length(self) -> int | None:
        limit = self.settings.train.get("max_length")
        return None if limit is None else int(limit)

    def _prediction_path(self, weights: Weights, samples: Sequence[Sample]) -> Path:
        """File of a prediction, named by the content of weights and texts."""
        fingerprints = [None if path is None else fingerprint(path) for path in (weights.model, weights.adapter)]
        texts = [sample.model_dump(mode="json") for sample in samples]
        parts: list[Any] = [fingerprints, self.settings.readout, self._max_length, texts]
        if self.settings.dtype != "float32":
            parts.append(self.settings.dtype)
        name = digest(parts)
        return self.folder / "predictions" / f"{name}.json"

    def _rows(self, data: TrainingData) -> Sequence[Row]:
        """Training rows of the kind that the readout needs."""
        items = data.items
        weights = [1.0] * len(items) if data.weights is None else data.weights
        if not len(items) == len(data.targets) == len(weights):
            raise UserError(f"{len(data.targets)} labels for {len(items)} items; give one label an item")
        if self.settings.readout == "reward":
            return reward_rows(items, data.samples, data.targets, weights)
        rows: list[Row] = []
        for item, target, weight in zip(items, data.targets, weights, strict=True):
            sample = data.samples[item.id]
            if self.settings.readout == "answers":
                row: Row = JudgeRow(
                    prompt=sample.prompt,
                    candidates=sample.candidates,
                    target=target,
                    weight=weight,
                    question=item.id,
                    group=item.cluster,
                )
            else:
                row = ClassifierRow(id=item.id, prompt=sample.prompt, target=target, weight=weight, group=item.cluster)
            rows.append(row)
        return rows
