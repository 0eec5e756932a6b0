"""The store in front of an engine: no answer is paid for twice.

An answer's name is the content of its request and of the weights that answer it. Answers are lines of files that only
grow (`store_file`), one for each writing process and set of weights, so that any number of processes and machines may
share a store, and each finds what the others have written. Prompts are not kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import TypeVar
from uuid import uuid4

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores
from debate_rl.engines.store_file import StoreFile, Weights, begin_store_file, file_stem, open_store_file, row
from debate_rl.errors import PASSING_KINDS
from debate_rl.records import append_bytes, digest, locked

Q = TypeVar("Q", Request, Choice)
A = TypeVar("A", Completion, Scores)

LOCK = ".lock"
"""File in a store's folder that writers share and who prunes it holds alone."""
PATIENCE = 600.0
_PLACE = 48
"""Bits of a place in a file; what is above them is the number of the file."""


class Store:
    """Answers by name.

    In memory are names and places; an answer is read when it is asked for. Several threads may use one store.

    Args:
        folder: where the files are; it is made when the first answer is kept.

    Raises:
        UserError: a file is of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: list[StoreFile] = []
        self._known: dict[str, int] = {}
        self._own: dict[tuple[int, Weights], StoreFile] = {}
        self._places: dict[int, int] = {}
        self._lock = RLock()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """Take in what this and other processes have written since."""
        with self._lock:
            if not self.folder.is_dir():
                return
            with os.scandir(self.folder) as found:
                sizes = {entry.name: entry.stat().st_size for entry in found if entry.name.endswith(".jsonl")}
            for name in sorted(sizes):
                number = self._known.get(name)
                if number is None:
                    file = open_store_file(self.folder / name)
                    if file is None:
                        continue
                    number = self._number(file)
                if sizes[name] > self._files[number].end:
                    self._scan(number)

    def _number(self, file: StoreFile) -> int:
        """Give a file its number."""
        self._known[file.path.name] = len(self._files)
        self._files.append(file)
        return len(self._files) - 1

    def _scan(self, number: int) -> None:
        """Note the places of a file's new lines."""
        for place, line in self._files[number].lines():
            try:
                self._places[int(line[2:18], 16)] = number << _PLACE | place
            except ValueError:
                continue  # no answer: it is made again

    def get(self, key: str, kind: type[A]) -> A | None:
        """The answer of a name; None if the store has none."""
        name = int(key, 16)
        at = self._places.get(name)
        if at is None:
            return None
        file = self._files[at >> _PLACE]
        try:
            return file.answer(at & (1 << _PLACE) - 1, key, kind)
        except (ValueError, TypeError, FileNotFoundError):
            self._places.pop(name, None)  # damaged, or pruned meanwhile: it is made again
            return None

    def put(self, answers: Mapping[str, Completion | Scores], model: str, adapter: str | None) -> None:
        """Keep answers of one model, on disk when this returns.

        Raises:
            UserError: the disk is full; what was kept before is intact.
        """
        groups: dict[str, dict[str, Completion | Scores]] = {}
        for key, answer in answers.items():
            groups.setdefault(answer.revision, {})[key] = answer
        with self._lock:
            for revision, own in groups.items():
                self._write(Weights(revision, model, adapter), own)

    def _write(self, weights: Weights, answers: Mapping[str, Completion | Scores]) -> None:
        writer = os.getpid(), weights  # of a forked process a file of its own
        rows = b"".join(row(key, answer) for key, answer in answers.items())
        # Several may write at a time; who prunes the store waits for them, and they for it.
        with locked(self.folder / LOCK, f"{self.folder} is being pruned", patience=PATIENCE, shared=True):
            file = self._own.get(writer)
            if file is None or not file.path.is_file():
                name = f"{file_stem(weights.revision)}-{os.getpid()}-{uuid4().hex[:8]}.jsonl"
                file = begin_store_file(self.folder / name, weights)
                self._own[writer] = file
                self._number(file)
            append_bytes(file.path, rows)
        self._scan(self._known[file.path.name])


class StoredEngine:
    """An engine with a store in front.

    Args:
        engine: who answers what the store does not hold.
        folder: where the store lives; it is made if absent.
        wave: so many missing requests are answered before they are written down, so that a crash loses at most these.

    Attributes:
        hits: answers taken from the store.
        misses: answers that had to be made.
        tokens: read and written for these.
        passing: requests that failed for reasons that pass.
    """

    def __init__(self, engine: Engine, folder: str | Path, wave: int = 256) -> None:
        self.engine = engine
        self.store = Store(folder)
        self.wave = wave
        self.hits = 0
        self.misses = 0
        self.tokens = 0
        self.passing = 0
        self._lock = RLock()

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request, or take it from the store."""
        return self._answer("generate", requests, Completion, self.engine.generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice, or take the scores from the store."""
        return self._answer("choose", choices, Scores, self.engine.choose)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter."""
        return self.engine.revision(model, adapter)

    def _names(self, verb: str, questions: Sequence[Q]) -> list[str]:
        """Name of each answer. The path of a model or adapter does not count, its weights do."""
        revisions = {
            weights: self.engine.revision(*weights) for weights in {(asked.model, asked.adapter) for asked in questions}
        }
        return [_name(verb, asked, revisions[asked.model, asked.adapter]) for asked in questions]

    def _answer(
        self,
        verb: str,
        questions: Sequence[Q],
        kind: type[A],
        ask: Callable[[Sequence[Q]], list[A | EngineFailure]],
    ) -> list[A | EngineFailure]:
        """Ask for each missing answer once, write it down, and give every answer in order. Failures are not kept."""
        names = self._names(verb, questions)
        wanted = dict(zip(names, questions, strict=True))
        answers = self._held(wanted, kind)
        if len(answers) < len(wanted):
            self.store.refresh()
            answers |= self._held([name for name in wanted if name not in answers], kind)
        missing = [name for name in wanted if name not in answers]
        with self._lock:
            self.misses += len(missing)
            self.hits += len(names) - len(missing)
        for start in range(0, len(missing), self.wave):
            wave = missing[start : start + self.wave]
            made = dict(zip(wave, ask([wanted[name] for name in wave]), strict=True))
            self._keep(made, wanted)
            answers |= made
        return [answers[name] for name in names]

    def _held(self, names: Iterable[str], kind: type[A]) -> dict[str, A | EngineFailure]:
        """What the store has of some names."""
        found = {name: self.store.get(name, kind) for name in names}
        return {name: answer for name, answer in found.items() if answer is not None}

    def _keep(self, made: Mapping[str, A | EngineFailure], asked: Mapping[str, Q]) -> None:
        """Write down what was answered, each model's in its own file."""
        groups: dict[tuple[str, str | None], dict[str, Completion | Scores]] = {}
        tokens = passing = 0
        for name, answer in made.items():
            if isinstance(answer, EngineFailure):
                passing += answer.kind in PASSING_KINDS
            else:
                groups.setdefault((asked[name].model, asked[name].adapter), {})[name] = answer
                tokens += answer.prompt_tokens + (answer.new_tokens if isinstance(answer, Completion) else 0)
        for weights, own in groups.items():
            self.store.put(own, *weights)
        with self._lock:
            self.tokens += tokens
            self.passing += passing


def _name(verb: str, asked: Request | Choice, revision: str) -> str:
    """Name of an answer, 16 hexadecimal digits. Texts are hashed as they are: canonical JSON of them takes ten times as
    long."""
    read = [[message.role, hashlib.sha256(message.content.encode()).hexdigest()] for message in asked.messages]
    rest = asked.model_dump(mode="json", exclude={"model", "adapter", "messages"})
    return digest([verb, revision, read, rest])
