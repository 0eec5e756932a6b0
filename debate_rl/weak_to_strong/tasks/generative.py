"""Generative weak-to-strong tasks: a supervisor writes an answer, which is the student's label; exact match counts.

As in Burns et al. 2023 (section 4.1, chess puzzles): weak supervisors learn D1's right answers by SFT, write answers to
D2, and the strong student learns these by SFT. Beside it stand the weak model, the strong one trained on D1 and the
ceiling, trained on D2's right answers. What a model wrote is brought to one form first (for chess UCI); a text without
a legal move is no label and is counted.

Results are a `Hits`: P is 1 where the answer is right, else 0, and every truth is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from debate_rl.data.splits import divide
from debate_rl.data.tasks.chess_puzzles import Puzzle, generate, load_lichess, move_in, san
from debate_rl.engines.request import Completion, Engine, Message, Request, Sampling
from debate_rl.errors import UserError
from debate_rl.intervals import Floats
from debate_rl.records import digest, read_json, write, write_json
from debate_rl.trainers.common.job import job_name, launch
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.common.settings import Job, Weights
from debate_rl.weak_to_strong.ensemble import MOST_MEMBERS
from debate_rl.weak_to_strong.results.predictions import Hits
from debate_rl.weak_to_strong.training_cache import Settings

Part = Literal["supervisor", "student", "test"]
PARTS: tuple[Part, ...] = ("supervisor", "student", "test")


@dataclass(frozen=True)
class Written:
    """An item of a generative task.

    Example:
        Written(id="chess-mate-3f0c", cluster="chess-0-17", text="Position: 6k1/... w - - 0 1\\nWhich move mates ...?",
                answer="Ra8", form=..., right=frozenset({"a1a8"}), show=...)
    """

    id: str
    cluster: str
    text: str
    """What a model is asked."""
    answer: str
    """A right answer, as it is taught."""
    form: Callable[[str], str | None]
    """Brings a text to the form in which answers are compared; None where it holds none."""
    right: frozenset[str]
    """Right answers in that form."""
    show: Callable[[str], str]
    """Writes an answer of that form as it is taught."""

    def label(self, texts: Sequence[str]) -> str | None:
        """The answer of most texts, in their form, the earliest where several are as common; None without any."""
        forms = [form for text in texts if (form := self.form(text)) is not None]
        return Counter(forms).most_common(1)[0][0] if forms else None


@dataclass(frozen=True)
class GenerativeTask:
    """Items of D1, D2 and test."""

    name: str
    parts: dict[Part, tuple[Written, ...]]
    max_new_tokens: int
    """Of an answer."""


def of_puzzle(puzzle: Puzzle) -> Written:
    """A chess puzzle: any move that solves it is right; the first of them in SAN is taught."""
    return Written(
        id=puzzle.id, cluster=puzzle.group, text=puzzle.text, answer=san(puzzle.fen, puzzle.moves[0]),
        form=lambda text: move_in(puzzle.fen, text), right=frozenset(puzzle.moves),
        show=lambda move: san(puzzle.fen, move),
    )  # fmt: skip


def generative_task(
    name: Literal["chess-mate", "chess-best"], supervisor: int, student: int, test: int, seed: int = 0,
    path: str | Path | None = None,
) -> GenerativeTask:  # fmt: skip
    """Chess puzzles in three parts; no game is in two.

    Args:
        name: mate in one, or the best move.
        supervisor: items of D1.
        student: items of D2.
        test: items of the test set.
        seed: of the puzzles and of the split.
        path: Lichess's puzzle CSV; None draws puzzles from random games.

    Raises:
        UserError: python-chess is missing, the file has too few puzzles of the kind, or it is malformed.
    """
    total, kind = supervisor + student + test, name.removeprefix("chess-")
    if path is None:
        found = generate(total, seed, kind)  # type: ignore[arg-type]
    else:
        found = [puzzle for puzzle in load_lichess(path) if puzzle.kind == kind]
        if len(found) < total:
            raise UserError(f"{path}: {len(found)} puzzles of kind {kind!r}, and {total} are wanted; take fewer")
        # Games are not cut, so a part may miss its size by less than a game.
    sizes = {"supervisor": supervisor, "student": student, "test": test}
    shares = {part: size / total for part, size in sizes.items()}
    parts = divide(found, shares, seed)
    return GenerativeTask(
        name=name, max_new_tokens=16,
        parts={part: tuple(of_puzzle(puzzle) for puzzle in parts[part][: sizes[part]]) for part in PARTS},
    )  # fmt: skip


@dataclass(frozen=True)
class Writers:
    """Trains and asks the models of a study, none twice: trainings and answers lie in a folder by content."""

    settings: Settings
    open_engine: Callable[[], Engine]
    folder: Path
    max_new_tokens: int

    def fit(self, model: str, items: Sequence[Written], answers: Sequence[str], seed: int) -> Weights:
        """Finetune a language model to write these answers."""
        wanted = self.settings
        rows = [
            SftRow(prompt=[{"role": "user", "content": item.text}], completion=answer, question=item.id,
                   group=item.cluster)
            for item, answer in zip(items, answers, strict=True)
        ]  # fmt: skip
        path = self.folder / "rows" / f"{digest([row.model_dump(mode='json') for row in rows])}.jsonl"
        if not path.is_file():
            write(path, rows)
        job = Job(
            kind="sft", model=model, rows=str(path), out=str(self.folder), lora=wanted.lora, quantize=wanted.quantize,
            train=wanted.train, seed=seed,
        )  # fmt: skip
        job = job.model_copy(update={"out": str(self.folder / job_name(job))})
        result = launch(job, wanted.launch, wanted.processes)
        return Weights(model=result.path) if wanted.lora is None else Weights(model=model, adapter=result.path)

    def ask(self, weights: Weights, items: Sequence[Written]) -> list[str]:
        """The likeliest text of a model for each item.

        Raises:
            UserError: a model could not answer.
        """
        engine = self.open_engine()
        name = digest([engine.revision(weights.model, weights.adapter), self.max_new_tokens, [i.text for i in items]])
        path = self.folder / "answers" / f"{name}.json"
        if path.is_file():
            return list(read_json(path)["texts"])
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=0.0)
        asked = [
            Request(messages=(Message(role="user", content=item.text),), model=weights.model, adapter=weights.adapter,
                    sampling=sampling)
            for item in items
        ]  # fmt: skip
        texts = []
        for item, answer in zip(items, engine.generate(asked), strict=True):
            if not isinstance(answer, Completion):
                raise UserError(f"item {item.id!r}: {answer.message}; take a model with a longer context")
            texts.append(answer.text)
        write_json(path, {"texts": texts})
        return texts


def run_generative(
    task: GenerativeTask,
    settings: Settings,
    open_engine: Callable[[], Engine],
    folder: Path,
    methods: dict[str, int] | None = None,
) -> Hits:
    """Train everything; what a stopped study had trained or asked is not done again.

    Args:
        task: items of D1, D2 and test.
        settings: models and training; `readout` is not read.
        open_engine: opens an engine that writes.
        folder: for trainings and answers.
        methods: number of supervisors by name of a method; several vote. None is one supervisor, `single`.

    Returns:
        Who was right on which item.

    Raises:
        UserError: a number of supervisors that is not from 1 to 8, a training that can not be done, or supervisors that
            wrote no legal answer to any item of D2.
    """
    wanted = methods or {"single": 1}
    for name, count in wanted.items():
        if not 1 <= count <= MOST_MEMBERS:
            raise UserError(f"method {name!r} has {count} supervisors; give 1 to {MOST_MEMBERS}")
    study = _Study(task, Writers(settings, open_engine, folder, task.max_new_tokens))
    test: dict[str, list[Floats]] = {}
    labels: dict[str, list[Floats]] = {}
    counts: dict[str, list[dict[str, int]]] = {}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        members = [study.member(seed, number) for number in range(max(wanted.values()))]
        test.setdefault("weak", []).append(study.right("test", members[:1]))
        test.setdefault("strong", []).append(study.taught(seed, "supervisor"))
        for name, count in wanted.items():
            test.setdefault(f"{name}/supervisor", []).append(study.right("test", members[:count]))
            labels.setdefault(name, []).append(study.right("student", members[:count]))
            found, counted = study.student(seed, members[:count])
            test.setdefault(f"{name}/student", []).append(found)
            counts.setdefault(name, []).append(counted)
        test.setdefault("ceiling", []).append(study.taught(seed, "student"))
    test["untrained"] = [study.scored(Weights(model=settings.strong))]
    return _hits(task, test, labels, counts)


@dataclass(frozen=True)
class _Study:
    """The steps of a seed."""

    task: GenerativeTask
    writers: Writers

    def member(self, seed: int, number: int) -> Weights:
        """A weak supervisor, trained on D1's right answers."""
        items = self.task.parts["supervisor"]
        answers = [item.answer for item in items]
        return self.writers.fit(self.writers.settings.weak, items, answers, 1000 * seed + number)

    def taught(self, seed: int, part: Part) -> Floats:
        """Which test items the strong model solves that was trained on a part's right answers."""
        items = self.task.parts[part]
        answers = [item.answer for item in items]
        return self.scored(self.writers.fit(self.writers.settings.strong, items, answers, 1000 * seed))

    def student(self, seed: int, members: Sequence[Weights]) -> tuple[Floats, dict[str, int]]:
        """Which test items the student solves, and what became of its labels."""
        items = self.task.parts["student"]
        named = list(zip(items, self.labels("student", members), strict=True))
        kept = [(item, item.show(label)) for item, label in named if label is not None]
        if not kept:
            raise UserError(
                f"{self.task.name}: the supervisors wrote no legal answer to any of {len(items)} items; train them "
                "longer (train.num_train_epochs), or take another models.weak"
            )
        model = self.writers.fit(
            self.writers.settings.strong, [item for item, _ in kept], [answer for _, answer in kept], 1000 * seed
        )
        return self.scored(model), {"items": len(items), "illegal": len(items) - len(kept), "kept": len(kept)}

    def labels(self, part: Part, members: Sequence[Weights]) -> list[str | None]:
        """The answer of most members to each item."""
        items = self.task.parts[part]
        texts = [self.writers.ask(member, items) for member in members]
        return [item.label(said) for item, *said in zip(items, *texts, strict=True)]

    def right(self, part: Part, members: Sequence[Weights]) -> Floats:
        """1 where the label is right."""
        items = self.task.parts[part]
        pairs = zip(items, self.labels(part, members), strict=True)
        return np.array([float(label in item.right) for item, label in pairs])

    def scored(self, weights: Weights) -> Floats:
        """1 where the test item is solved."""
        return self.right("test", [weights])


def _hits(
    task: GenerativeTask,
    test: dict[str, list[Floats]],
    labels: dict[str, list[Floats]],
    counts: dict[str, list[dict[str, int]]],
) -> Hits:
    """The tables as a record."""
    asked, taught = task.parts["test"], task.parts["student"]
    return Hits.model_validate(
        {
            "test_items": [item.id for item in asked],
            "test_clusters": [item.cluster for item in asked],
            "test_truth": [1] * len(asked),
            "label_items": [item.id for item in taught],
            "label_clusters": [item.cluster for item in taught],
            "label_truth": [1] * len(taught),
            "test": {name: [row.tolist() for row in rows] for name, rows in test.items()},
            "labels": {name: [row.tolist() for row in rows] for name, rows in labels.items()},
            "label_counts": counts,
        }
    )
