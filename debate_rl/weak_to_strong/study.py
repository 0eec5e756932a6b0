"""Weak-to-strong (Lang, Huang and Li 2025): debates help weak supervisors, whose labels teach a strong student.

For every seed and method: weak supervisors are trained on D1's ground truth, each reading its own samples; together
they label D2; the strong student learns D2 from what becomes of these labels and is tested. Beside it stand the weak
model alone and the ceiling, the strong model trained on D2's ground truth by cross entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from debate_rl.engines.request import Choice, Engine, EngineFailure, Message
from debate_rl.errors import UserError
from debate_rl.intervals import mean
from debate_rl.judges.judge import probability
from debate_rl.records import Record, digest, read_json, write, write_json
from debate_rl.trainers.classifier import predict
from debate_rl.trainers.job import launch
from debate_rl.trainers.rows import ClassifierRow, JudgeRow
from debate_rl.trainers.settings import Job, Lora, StudentLoss
from debate_rl.weak_to_strong.ensemble import boost, combine
from debate_rl.weak_to_strong.hits import Hits
from debate_rl.weak_to_strong.items import Item, Sample, Samples, Splits
from debate_rl.weak_to_strong.labels import Labelling, Labels, label
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.pgr import Recovered, compare_pgr, recovered

OpenEngine = Callable[[], Engine]
XENT = StudentLoss()


class Settings(Record):
    """Models and training of a study."""

    weak: str
    strong: str
    readout: Literal["answers", "head"] = "answers"
    """`answers`: the language model's probabilities of the two answers; `head`: a new classification head."""
    seeds: int = 2
    lora: Lora | None = None
    train: dict[str, Any] = {}
    quantize: Literal["nf4"] | None = None
    launch: str | None = None
    processes: int | None = None
    """Of a launch, where it differs from its file's."""
    seed: int = 0


def score(samples: Sequence[Sample], model: str, adapter: str | None, engine: Engine) -> np.ndarray:
    """P(answer 0) by a language model's probabilities of the two answers, (n,).

    Raises:
        UserError: a sample is longer than the model's context.
    """
    choices = [
        Choice(
            messages=tuple(Message.model_validate(m) for m in sample.prompt),
            model=model,
            adapter=adapter,
            candidates=sample.candidates,
        )
        for sample in samples
    ]
    found = []
    for answer in engine.choose(choices):
        if isinstance(answer, EngineFailure):
            raise UserError(f"weak-to-strong: {answer.message}; shorten the items or take another model")
        found.append(probability((answer.logprobs[0], answer.logprobs[1])))
    return np.array(found)


class _Seed:
    """The trainings and predictions of one seed, each in its own folder, none done twice."""

    def __init__(
        self, settings: Settings, splits: Splits, student: Samples, open_engine: OpenEngine, folder: Path, seed: int
    ) -> None:
        self.open_engine = open_engine
        self.settings = settings
        self.splits = splits
        self.student_samples = student
        self.folder = folder / f"seed{seed}"
        self.seed = seed

    def fit(
        self,
        name: str,
        model: str,
        items: Sequence[Item],
        samples: Samples,
        targets: Sequence[float],
        seed: int,
        weights: Sequence[float] | None = None,
        loss: StudentLoss = XENT,
        predicted: Sequence[str] = ("student", "test"),
    ) -> dict[str, np.ndarray]:
        """Train a model on items with target P(answer 0), and predict it for the splits that are named.

        Raises:
            UserError: the folder holds what was trained on other rows or with another loss.
        """
        out = self.folder / name
        rows = self._rows(items, samples, targets, [1.0] * len(items) if weights is None else weights)
        learnt = digest([[row.model_dump(mode="json") for row in rows], loss.model_dump(mode="json"), model, seed])
        if (out / "predictions.json").is_file():
            kept = read_json(out / "predictions.json")
            if kept.get("learnt") != learnt:
                raise UserError(
                    f"{out} was trained on other rows or with another loss; name the method anew or remove that folder"
                )
            return {key: np.array(kept[key]) for key in predicted}
        write(out / "rows.jsonl", rows)
        job = Job(
            kind="judge" if self.settings.readout == "answers" else "classifier",
            model=model, rows=str(out / "rows.jsonl"), out=str(out), lora=self.settings.lora,
            quantize=self.settings.quantize, train=self.settings.train, seed=seed, loss=loss,
        )  # fmt: skip
        result = launch(job, self.settings.launch, self.settings.processes)
        trained = (result.path, None) if self.settings.lora is None else (model, result.path)
        found = {key: self._predict(getattr(self.splits, key), samples, *trained) for key in predicted}
        kept = {key: values.tolist() for key, values in found.items()}
        write_json(out / "predictions.json", {"learnt": learnt, **kept})
        return found

    def _rows(
        self, items: Sequence[Item], samples: Samples, targets: Sequence[float], weights: Sequence[float]
    ) -> list[JudgeRow] | list[ClassifierRow]:
        """Rows of the readout's kind."""
        weighed = list(zip(items, targets, weights, strict=True))
        if self.settings.readout == "head":
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

    def _predict(self, items: Sequence[Item], samples: Samples, model: str, adapter: str | None) -> np.ndarray:
        """P(answer 0) of each item."""
        if self.settings.readout == "answers":
            # A new engine each time: it would keep every model that was trained.
            return score([samples[item.id] for item in items], model, adapter, self.open_engine())
        rows = [ClassifierRow(id=item.id, prompt=samples[item.id].prompt, group=item.cluster) for item in items]
        return predict(rows, model, adapter, self.settings.train.get("max_length"))

    def supervise(self, method: Method, samples: Sequence[Samples]) -> tuple[np.ndarray, np.ndarray]:
        """Train the supervisors of a method: their P(answer 0) on D2 and on the test set."""
        truth = [float(item.label) for item in self.splits.supervisor]
        weights, found, votes = np.ones(len(truth)), [], []
        for member in range(method.members):
            read = samples[0 if method.same_sample else member]
            one = self.fit(
                method.supervisor(member), self.settings.weak, self.splits.supervisor, read, truth,
                seed=1000 * self.seed + member, weights=weights.tolist(), predicted=("supervisor", "student", "test"),
            )  # fmt: skip
            found.append(one)
            if method.combine == "boosting":
                weights, vote = boost(weights, one["supervisor"], truth)
                votes.append(vote)
        both = [combine([one[key] for one in found], method.combine, votes) for key in ("student", "test")]
        return both[0], both[1]

    def label(self, p: np.ndarray, method: Method) -> Labels:
        """The labels of D2 that a method's student learns."""
        items = self.splits.student
        return label(p, [item.label for item in items], [item.id for item in items], method.labels, self.seed)

    def student(self, name: str, labels: Labels, loss: StudentLoss) -> np.ndarray:
        """Train the strong model on D2 with these labels and predict the test set."""
        items = [self.splits.student[place] for place in labels.kept]
        return self.fit(
            name, self.settings.strong, items, self.student_samples, labels.targets, seed=1000 * self.seed,
            weights=labels.weights, loss=loss, predicted=("test",),
        )["test"]  # fmt: skip

    def ceiling(self) -> np.ndarray:
        """Train the strong model on D2's ground truth by cross entropy and predict the test set."""
        items = self.splits.student
        truth = Method(labels=Labelling(kind="truth"))
        return self.student("ceiling", self.label(np.full(len(items), 0.5), truth), XENT)


def run_study(
    splits: Splits,
    contexts: Mapping[str, Sequence[Samples]],
    student: Samples,
    settings: Settings,
    open_engine: OpenEngine,
    folder: Path,
    methods: Mapping[str, Method] | None = None,
) -> dict[str, Any]:
    """Train everything and measure; what a stopped study had trained is not trained again.

    Args:
        splits: D1, D2 and test.
        contexts: what each member of an ensemble reads, by context; the first of `none` is the weak model alone.
        student: what the student and the ceiling read.
        settings: models and training.
        open_engine: opens an engine that scores answers.
        folder: for the trainings, and for hits.json, a `Hits`.
        methods: by name; None makes one of each context, with all its members and soft labels. The first is what the
            others are compared with.

    Returns:
        Metrics: `weak`, `ceiling`, one row a method, and paired comparisons of students with the first method's.
        Intervals of students and PGR resample seeds and items, those of supervisors, labels and the untrained strong
        model items only.
    """
    chosen = dict(methods or {name: Method(context=name, members=len(contexts[name])) for name in contexts})  # type: ignore[arg-type]
    _check_members(chosen, contexts)
    labels = np.array([item.label for item in splits.test])
    counts: dict[str, list[dict[str, int]]] = {}
    tables: dict[str, list[np.ndarray]] = {}
    agreements: dict[str, list[np.ndarray]] = {}

    def keep(name: str, p: np.ndarray) -> None:
        tables.setdefault(name, []).append(np.where(p == 0.5, 0.5, (p > 0.5) == labels))

    for number in range(settings.seeds):
        seed = _Seed(settings, splits, student, open_engine, folder, settings.seed + number)
        keep("weak", seed.supervise(Method(members=1), contexts["none"])[1])
        for name, method in chosen.items():
            p, tested = seed.supervise(method, contexts[method.context])
            keep(f"{name}/supervisor", tested)
            taught = seed.label(p, method)
            keep(f"{name}/student", seed.student(f"{name}/student", taught, method.loss))
            right = (np.array(taught.every) > 0.5) == np.array([item.label for item in splits.student])
            agreements.setdefault(name, []).append(right)
            counts.setdefault(name, []).append(taught.counts)
        keep("ceiling", seed.ceiling())
    if settings.readout == "answers":
        # Without it a student that only remembers what it knew before would pass for one that learnt from its labels.
        keep("untrained", score([student[item.id] for item in splits.test], settings.strong, None, open_engine()))
    found = Hits(
        test_items=tuple(item.id for item in splits.test),
        test_clusters=tuple(item.cluster for item in splits.test),
        label_items=tuple(item.id for item in splits.student),
        label_clusters=tuple(item.cluster for item in splits.student),
        test={name: np.array(rows, dtype=float).tolist() for name, rows in tables.items()},
        labels={name: np.array(rows, dtype=float).tolist() for name, rows in agreements.items()},
    )
    write_json(folder / "hits.json", found.model_dump(mode="json"))
    return _metrics(splits, tables, agreements, counts)


def _check_members(methods: Mapping[str, Method], contexts: Mapping[str, Sequence[Samples]]) -> None:
    """Make sure that every member of every method has something to read.

    Raises:
        UserError: a context is missing or has samples for fewer members.
    """
    for name, method in {"weak": Method(members=1), **methods}.items():
        there = len(contexts.get(method.context, ()))
        wanted = 1 if method.same_sample else method.members
        if there < wanted:
            raise UserError(
                f"method {name!r} reads {wanted} x {method.context!r}, of which there are {there}; add them"
            )


def _pgr_text(found: Recovered) -> str:
    """PGR with its interval, or why there is none."""
    if found.pgr is None:
        return f"undefined: the gap {found.gap:.3f} is not above 0"
    return f"{found.pgr:.3f}"


def _metrics(
    splits: Splits,
    tables: Mapping[str, list[np.ndarray]],
    label_hits: Mapping[str, list[np.ndarray]],
    counts: Mapping[str, list[dict[str, int]]],
) -> dict[str, Any]:
    """Numbers of a study from its tables of hits, seeds x items."""
    clusters = [item.cluster for item in splits.test]
    first = next(iter(label_hits))
    student_clusters = [item.cluster for item in splits.student]

    def accuracy(name: str) -> dict[str, Any]:
        return mean(np.mean(tables[name], axis=0), clusters).model_dump(mode="json")

    found = {
        name: recovered(tables["weak"], tables[f"{name}/student"], tables["ceiling"], clusters) for name in label_hits
    }
    methods = [
        {
            "name": name,
            "supervisor": accuracy(f"{name}/supervisor"),
            "labels": mean(np.mean(hits, axis=0), student_clusters).model_dump(mode="json"),
            "label_counts": counts[name],
            "student": found[name].student.model_dump(mode="json"),
            "pgr": found[name].model_dump(mode="json"),
            "pgr_text": _pgr_text(found[name]),
        }
        for name, hits in label_hits.items()
    ]
    comparisons = [
        {
            "first": name,
            "second": first,
            "accuracy": compare_pgr(
                tables["weak"], tables[f"{name}/student"], tables[f"{first}/student"], tables["ceiling"], clusters
            ).accuracy.model_dump(mode="json"),
        }
        for name in label_hits
        if name != first
    ]
    return {
        "weak": found[first].weak.model_dump(mode="json"),
        "ceiling": found[first].ceiling.model_dump(mode="json"),
        "untrained": accuracy("untrained") if "untrained" in tables else None,
        "methods": methods,
        "comparisons": comparisons,
        "test_items": len(splits.test),
        "seeds": len(tables["weak"]),
    }
