"""The trainings and predictions of a run, each named by its content, none done twice, none written over.

FOLDER/rows/NAME.jsonl          the rows of trainings
FOLDER/NAME/                    a training (`trainers.job`): NAME is made of its settings, rows and starting weights
FOLDER/predictions/NAME.json    P(answer 0) of some texts by some weights, the same

Methods, tables and seeds that have a supervisor, a ceiling or a student in common thus share it, and a stopped study
goes on where it was: a training from its last checkpoint, all else from what is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from debate_rl.trainers.common.settings import Job, Lora, Objective, StudentLoss, Weights
from debate_rl.weak_to_strong.shared_forward import one_base, predict_together
from debate_rl.weak_to_strong.tasks.items import Item, Sample, Samples
from debate_rl.weak_to_strong.tasks.lengths import check_readable
from debate_rl.weak_to_strong.tasks.pairs import reward_rows

OpenEngine = Callable[[], Engine]
Row = JudgeRow | ClassifierRow | RewardRow | PreferenceRow | SftRow
KINDS = {JudgeRow: "judge", ClassifierRow: "classifier", RewardRow: "reward", PreferenceRow: "dpo", SftRow: "sft"}
XENT = StudentLoss()
VERDICT = Objective(target="logprob", gamma=1.0, sft_weight=0.0, normalise=False)
"""Preferences whose probability is the judge's own: C_w / (C_w + C_l) with C_l = 1 - C_w."""


class Settings(Record):
    """Models and training of a study."""

    weak: str
    strong: str
    readout: Literal["answers", "head", "probe", "reward"] = "answers"
    """`answers`: the language model's probabilities of the two answers; `head`: a new classification head; `probe`: the
    same on frozen weights; `reward`: a reward model that reads the prompt with either answer."""
    seeds: int = 2
    lora: Lora | None = None
    train: dict[str, Any] = {}
    quantize: Literal["nf4"] | None = None
    launch: str | None = None
    processes: int | None = None
    """Of a launch, where it differs from its file's."""
    seed: int = 0


def score(samples: Sequence[Sample], weights: Weights, engine: Engine) -> Floats:
    """P(answer 0) by a language model's probabilities of the two answers, (n,).

    Raises:
        UserError: a sample is longer than the model's context.
    """
    choices = [
        Choice(
            messages=tuple(Message.model_validate(m) for m in sample.prompt),
            model=weights.model,
            adapter=weights.adapter,
            candidates=sample.candidates,
        )
        for sample in samples
    ]
    found = []
    for answer in engine.choose(choices):
        if isinstance(answer, EngineFailure):
            fix = "take another model" if answer.kind == "not a number" else "shorten the items or take another model"
            raise UserError(f"weak-to-strong: {answer.message}; {fix}")
        found.append(probability((answer.logprobs[0], answer.logprobs[1])))
    return np.array(found)


class Trainings:
    """Trains and predicts.

    Args:
        settings: models and training.
        open_engine: opens an engine that scores answers.
        folder: see the module; shared by all tables of a run.
    """

    def __init__(self, settings: Settings, open_engine: OpenEngine, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self._open_engine = open_engine
        self._adapted: Engine | None = None
        self._checked: list[tuple[Samples, str]] = []
        self.done: dict[str, str] = {}
        """Content name of each training asked for, by what it was called."""

    def check_readable(self, samples: Samples, model: str, what: str) -> None:
        """Refuse texts that a model can not read whole, before anything is trained on them.

        A head or a probe with `train.max_length` cuts texts as that says, and counts them.

        Raises:
            UserError: some are too long.
        """
        cuts = self.settings.readout != "answers" and self._max_length is not None
        if cuts or any(one is samples and name == model for one, name in self._checked):
            return
        check_readable(samples.values(), model, what)
        self._checked.append((samples, model))

    def fit(
        self,
        called: str,
        start: Weights,
        items: Sequence[Item],
        samples: Samples,
        targets: Sequence[float],
        seed: int,
        weights: Sequence[float] | None = None,
        loss: StudentLoss = XENT,
        train: dict[str, Any] | None = None,
    ) -> Weights:
        """Train a model on items with target P(answer 0).

        Args:
            called: what the training is called in a study, for its index.
            start: the model, and an adapter to go on from where there is one.
            items: what is learnt.
            samples: what the model reads of them.
            targets: one an item.
            seed: of new weights and of the order.
            weights: of the rows' losses; None is 1 for all.
            loss: what is minimised.
            train: changes to the study's settings.

        Raises:
            UserError: the training can not be done as asked.
        """
        rows = self._rows(items, samples, targets, [1.0] * len(items) if weights is None else weights)
        return self._launch(called, start, rows, seed, train, loss=loss)

    def read_texts(
        self, called: str, start: Weights, samples: Sequence[Sample], seed: int, train: dict[str, Any]
    ) -> Weights:
        """Finetune a language model to write the texts of a task, labels and answers left out (Burns et al. 2023).

        Raises:
            UserError: the study's models have a head whose adapter can not go on from a language model's.
        """
        if self.settings.readout != "answers" and self.settings.lora is not None:
            raise UserError(
                "transfer.generative: an adapter of a language model can not become one of a classifier; "
                "set readout: answers, or lora: null"
            )
        opening = [{"role": "user", "content": ""}]
        texts = ["\n".join(message["content"] for message in sample.prompt) for sample in samples]
        return self._launch(called, start, [SftRow(prompt=opening, completion=text) for text in texts], seed, train)

    def prefer(
        self, called: str, start: Weights, rows: Sequence[PreferenceRow], seed: int, train: dict[str, Any]
    ) -> Weights:
        """Train a language model by DPO on pairs of answers, soft by the judge's probability.

        Raises:
            UserError: the study's models answer by a head.
        """
        if self.settings.readout != "answers":
            raise UserError("transfer.refine: dpo trains a language model; set readout: answers, or refine: labels")
        return self._launch(called, start, rows, seed, train, objective=VERDICT)

    def predict(self, weights: Weights, samples: Sequence[Sample]) -> Floats:
        """P(answer 0) of each sample, (n,).

        Raises:
            UserError: a sample is longer than the model's context.
        """
        return self.predict_all([weights], [samples])[0]

    def predict_all(self, members: Sequence[Weights], samples: Sequence[Sequence[Sample]]) -> list[Floats]:
        """P(answer 0) by each member of its samples; members of one base that read the same share passes over it.

        Raises:
            UserError: see `predict`.
        """
        paths = [self._prediction(one, read) for one, read in zip(members, samples, strict=True)]
        missing = [at for at, path in enumerate(paths) if not path.is_file()]
        same = all(list(samples[at]) == list(samples[missing[0]]) for at in missing)
        if len(missing) > 1 and same and one_base([members[at] for at in missing], self.settings.readout):
            new = predict_together(
                samples[missing[0]], [members[at] for at in missing], self.settings.readout, self._max_length
            )
        else:
            new = [self._alone(members[at], samples[at]) for at in missing]
        for at, p in zip(missing, new, strict=True):
            if not np.isfinite(p).all():
                raise UserError(
                    f"weak-to-strong: {members[at].adapter or members[at].model} gives probabilities that are no "
                    "numbers; its weights are damaged, or the training diverged: lower train.learning_rate"
                )
            write_json(paths[at], {"p": np.asarray(p, dtype=float).tolist()})
        return [np.array(read_json(path)["p"]) for path in paths]

    @property
    def _max_length(self) -> int | None:
        limit = self.settings.train.get("max_length")
        return None if limit is None else int(limit)

    def _alone(self, weights: Weights, samples: Sequence[Sample]) -> Floats:
        """P(answer 0) by one model."""
        if self.settings.readout == "reward":
            from debate_rl.trainers.reward import predict_pairs  # here: trl takes seconds to load

            both = [(one.prompt, *one.candidates) for one in samples]
            pairs = [RewardRow(prompt=prompt, chosen=first, rejected=second) for prompt, first, second in both]
            return predict_pairs(pairs, weights.model, weights.adapter, self._max_length)
        if self.settings.readout != "answers":
            rows = [ClassifierRow(id=str(at), prompt=sample.prompt) for at, sample in enumerate(samples)]
            return predict(rows, weights.model, weights.adapter, self._max_length)
        if weights.adapter is None:
            # A new engine each time: it would keep every model that was trained.
            return score(samples, weights, self._open_engine())
        self._adapted = self._adapted or self._open_engine()
        return score(samples, weights, self._adapted)

    def _prediction(self, weights: Weights, samples: Sequence[Sample]) -> Path:
        """Where a prediction is kept."""
        names = [None if path is None else fingerprint(path) for path in (weights.model, weights.adapter)]
        read = [sample.model_dump(mode="json") for sample in samples]
        name = digest([names, self.settings.readout, self._max_length, read])
        return self.folder / "predictions" / f"{name}.json"

    def _rows(
        self, items: Sequence[Item], samples: Samples, targets: Sequence[float], weights: Sequence[float]
    ) -> Sequence[Row]:
        """Rows of the readout's kind."""
        if not len(items) == len(targets) == len(weights):
            raise UserError(f"{len(targets)} labels for {len(items)} items; give one label an item")
        if self.settings.readout == "reward":
            return reward_rows(items, samples, targets, weights)
        weighed = list(zip(items, targets, weights, strict=True))
        if self.settings.readout != "answers":
            return [
                ClassifierRow(
                    id=item.id, prompt=samples[item.id].prompt, target=target, weight=weight, group=item.cluster
                )
                for item, target, weight in weighed
            ]  # fmt: skip
        return [
            JudgeRow(
                prompt=samples[item.id].prompt, candidates=samples[item.id].candidates, target=target,
                weight=weight, question=item.id, group=item.cluster,
            )
            for item, target, weight in weighed
        ]  # fmt: skip

    def _launch(
        self,
        called: str,
        start: Weights,
        rows: Sequence[Row],
        seed: int,
        train: dict[str, Any] | None = None,
        **of_kind: Any,
    ) -> Weights:
        """Train on rows, or take what the same training gave before."""
        wanted = self.settings
        kind = KINDS[type(rows[0])]
        path = self.folder / "rows" / f"{digest([row.model_dump(mode='json') for row in rows])}.jsonl"
        if not path.is_file():
            write(path, rows)
        job = Job(
            kind=kind, model=start.model, adapter=start.adapter, rows=str(path), out=str(self.folder),  # type: ignore[arg-type]
            lora=wanted.lora, probe=wanted.readout == "probe" and kind == "classifier", quantize=wanted.quantize,
            train={**wanted.train, **(train or {})}, seed=seed, **of_kind,
        )  # fmt: skip
        name = job_name(job)
        self.done[called] = name
        result = launch(job.model_copy(update={"out": str(self.folder / name)}), wanted.launch, wanted.processes)
        if wanted.lora is None:
            return Weights(model=result.path)
        return Weights(model=start.model, adapter=result.path)
