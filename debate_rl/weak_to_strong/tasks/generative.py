"""Generative weak-to-strong tasks: a supervisor writes an answer, which is the student's label; exact match counts.

As in Burns et al. 2023 (section 4.1, chess puzzles): weak supervisors learn D1's right answers by SFT, write answers to
D2, and the strong student learns these by SFT, beside the baselines of `label_study`. Texts are brought to one form
before they are compared (UCI for chess); a text without a legal move is no label and is counted.

In the resulting `Hits`, P is 1 where the answer is right, else 0, and every truth is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from debate_rl.data.tasks.chess_puzzles import Puzzle, generate, load_lichess, move_in, san
from debate_rl.engines.request import Completion, Engine, Message, Request, Sampling
from debate_rl.errors import UserError
from debate_rl.intervals import Floats
from debate_rl.records import digest, read_json, write_json
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.ensemble import MOST_MEMBERS
from debate_rl.weak_to_strong.label_study import Answers, Outcome, TruthPart, run_label_study
from debate_rl.weak_to_strong.results.predictions import Hits
from debate_rl.weak_to_strong.tasks.items import cut_parts
from debate_rl.weak_to_strong.training_cache import Settings, Trainings

Part = Literal["supervisor", "student", "test"]


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
    """The question that a model answers."""
    answer: str
    """A right answer, as it is taught."""
    form: Callable[[str], str | None]
    """Brings a text to the form in which answers are compared; None where it holds no answer."""
    right: frozenset[str]
    """Right answers in that form."""
    show: Callable[[str], str]
    """Writes an answer of that form as it is taught."""

    def label(self, texts: Sequence[str]) -> str | None:
        """The most common answer of the texts, in their form; ties go to the earliest. None without any answer."""
        forms = []
        for text in texts:
            form = self.form(text)
            if form is not None:
                forms.append(form)
        if not forms:
            return None
        # `most_common` keeps the order of first appearance among equals.
        return Counter(forms).most_common(1)[0][0]


@dataclass(frozen=True)
class GenerativeTask:
    """Items of D1, D2 and test."""

    name: str
    parts: dict[Part, tuple[Written, ...]]
    max_new_tokens: int
    """Longest answer, in tokens."""


def of_puzzle(puzzle: Puzzle) -> Written:
    """A chess puzzle as an item: any move that solves it is right; the first of them in SAN is taught."""
    return Written(
        id=puzzle.id,
        cluster=puzzle.group,
        text=puzzle.text,
        answer=san(puzzle.fen, puzzle.moves[0]),
        form=lambda text: move_in(puzzle.fen, text),
        right=frozenset(puzzle.moves),
        show=lambda move: san(puzzle.fen, move),
    )


def generative_task(
    name: Literal["chess-mate", "chess-best"],
    supervisor: int,
    student: int,
    test: int,
    seed: int = 0,
    path: str | Path | None = None,
) -> GenerativeTask:
    """Chess puzzles in three parts that share no game.

    Args:
        name: mate in one, or the best move.
        supervisor: number of items of D1.
        student: number of items of D2.
        test: number of test items.
        seed: seed of the puzzles and of the split.
        path: Lichess's puzzle CSV; None draws puzzles from random games.

    Raises:
        UserError: python-chess is missing, the file has too few puzzles of the kind, or it is malformed.
    """
    total = supervisor + student + test
    kind = name.removeprefix("chess-")
    if path is None:
        puzzles = generate(total, seed, kind)  # type: ignore[arg-type]
    else:
        puzzles = [puzzle for puzzle in load_lichess(path) if puzzle.kind == kind]
        if len(puzzles) < total:
            raise UserError(f"{path}: {len(puzzles)} puzzles of kind {kind!r}, and {total} are wanted; take fewer")
    # Games are not cut, so a part may miss its size by less than a game.
    sizes: dict[Part, int] = {"supervisor": supervisor, "student": student, "test": test}
    parts = cut_parts(puzzles, sizes, seed)
    items = {part: tuple(map(of_puzzle, group)) for part, group in parts.items()}
    return GenerativeTask(name=name, max_new_tokens=16, parts=items)


@dataclass(frozen=True)
class Writers:
    """Trains models to write answers, and asks them; trainings and answers are cached in one folder by content."""

    trainings: Trainings
    open_engine: Callable[[], Engine]
    max_new_tokens: int

    def fit(self, called: str, model: str, items: Sequence[Written], answers: Sequence[str], seed: int) -> Weights:
        """Finetune a language model to write these answers."""
        rows = []
        for item, answer in zip(items, answers, strict=True):
            prompt = [{"role": "user", "content": item.text}]
            rows.append(SftRow(prompt=prompt, completion=answer, question=item.id, group=item.cluster))
        return self.trainings.train_rows(called, Weights(model=model), rows, seed)

    def ask(self, weights: Weights, items: Sequence[Written]) -> list[str]:
        """Greedy answers of a model, one for each item.

        Raises:
            UserError: a model could not answer.
        """
        # A new engine each time: one engine would keep every model that was asked in memory.
        engine = self.open_engine()
        texts = [item.text for item in items]
        name = digest([engine.revision(weights.model, weights.adapter), self.max_new_tokens, texts])
        path = self.trainings.folder / "answers" / f"{name}.json"
        if path.is_file():
            return list(read_json(path)["texts"])
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=0.0)
        requests = []
        for text in texts:
            messages = (Message(role="user", content=text),)
            requests.append(Request(messages=messages, model=weights.model, adapter=weights.adapter, sampling=sampling))
        answers = []
        for item, completion in zip(items, engine.generate(requests), strict=True):
            if not isinstance(completion, Completion):
                raise UserError(f"item {item.id!r}: {completion.message}; take a model with a longer context")
            answers.append(completion.text)
        write_json(path, {"texts": answers})
        return answers


@dataclass(frozen=True)
class WriterSeed:
    """Trains and tests the models of one seed; a method is the number of supervisors that vote."""

    task: GenerativeTask
    writers: Writers
    seed: int
    most_members: int
    """Supervisors of the largest method; smaller ones take the first of them."""

    @cached_property
    def members(self) -> list[Weights]:
        """Weak supervisors, trained on D1's right answers."""
        items = self.task.parts["supervisor"]
        answers = [item.answer for item in items]
        weak = self.writers.trainings.settings.weak
        # Seeds as in `supervisors`: members of different seeds never share one, and the first has the student's.
        return [
            self.writers.fit(f"seed{self.seed}/supervisor{number}", weak, items, answers, 1000 * self.seed + number)
            for number in range(self.most_members)
        ]

    def weak(self) -> Floats:
        """1 where the first supervisor alone solves a test item, (n,)."""
        return self.solved("test", self.members[:1])

    def taught_truth(self, part: TruthPart) -> Floats:
        """1 where the strong model trained on a part's right answers solves a test item, (n,)."""
        items = self.task.parts[part]
        called = {"student": "ceiling", "supervisor": "strong"}[part]
        return self._solved_by_strong(called, items, [item.answer for item in items])

    def run(self, name: str, method: int) -> Outcome:
        """Label D2 by the votes of the first supervisors, and train a student on the labels."""
        members = self.members[:method]
        items = self.task.parts["student"]
        labelled = []
        answers = []
        for item, label in zip(items, self.labels("student", members), strict=True):
            # A text without a legal move teaches nothing; the counts say how many there were.
            if label is not None:
                labelled.append(item)
                answers.append(item.show(label))
        if not labelled:
            raise UserError(
                f"{self.task.name}: the supervisors wrote no legal answer to any of {len(items)} items; train them "
                "longer (train.num_train_epochs), or take another models.weak"
            )
        return Outcome(
            labels=self.solved("student", members),
            counts={"items": len(items), "illegal": len(items) - len(labelled), "kept": len(labelled)},
            supervisor=self.solved("test", members),
            student=self._solved_by_strong(f"{name}/student", labelled, answers),
        )

    def _solved_by_strong(self, called: str, items: Sequence[Written], answers: Sequence[str]) -> Floats:
        """1 where the strong model trained on these answers solves a test item, (n,)."""
        strong = self.writers.trainings.settings.strong
        model = self.writers.fit(f"seed{self.seed}/{called}", strong, items, answers, 1000 * self.seed)
        return self.solved("test", [model])

    def labels(self, part: Part, members: Sequence[Weights]) -> list[str | None]:
        """The answer of most members to each item; None where nobody wrote a legal one."""
        items = self.task.parts[part]
        texts = [self.writers.ask(member, items) for member in members]
        return [item.label(answers) for item, *answers in zip(items, *texts, strict=True)]

    def solved(self, part: Part, members: Sequence[Weights]) -> Floats:
        """1 where the answer of most members is right, (n,)."""
        items = self.task.parts[part]
        labels = self.labels(part, members)
        return np.array([float(label in item.right) for item, label in zip(items, labels, strict=True)])


def run_generative(
    task: GenerativeTask,
    settings: Settings,
    open_engine: Callable[[], Engine],
    folder: Path,
    methods: dict[str, int] | None = None,
) -> Hits:
    """Run a study of labels on written answers; trainings and answers that are finished are not done again.

    Args:
        task: items of D1, D2 and test.
        settings: models and training; `readout` is not read.
        open_engine: opens an engine that writes.
        folder: for trainings and answers.
        methods: number of supervisors by name of a method; several vote. None is one supervisor, `single`.

    Returns:
        Which model was right on which item.

    Raises:
        UserError: a number of supervisors that is not from 1 to 8, a training that can not be done, or supervisors that
            wrote no legal answer to any item of D2.
    """
    methods = methods or {"single": 1}
    for name, count in methods.items():
        if not 1 <= count <= MOST_MEMBERS:
            raise UserError(f"method {name!r} has {count} supervisors; give 1 to {MOST_MEMBERS}")
    # Larger methods come from the same members, so that methods differ in their number alone.
    writers = Writers(Trainings(settings, open_engine, folder), open_engine, task.max_new_tokens)
    numbers = range(settings.seed, settings.seed + settings.seeds)
    seeds = [WriterSeed(task, writers, number, max(methods.values())) for number in numbers]
    return run_label_study(
        seeds,
        methods,
        test=_right_answers(task.parts["test"]),
        labelled=_right_answers(task.parts["student"]),
        untrained=lambda: seeds[0].solved("test", [Weights(model=settings.strong)]),
    )


def _right_answers(items: Sequence[Written]) -> Answers:
    """Items with truth 1, since P says whether a written answer is right."""
    return Answers(items, truth=tuple(1 for _ in items))
