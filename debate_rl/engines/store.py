"""The answer store: a cache in front of an engine, so no answer is paid for twice.

The key of an answer is a hash of its request and of the weights that answer it. Answers are lines of files that only
grow (see `store_format`), one file per writing process and set of weights. So any number of processes and machines may
share a store, and each reads what the others have written. Prompts are not stored.

`contents` lists what a store holds; `prune` makes it smaller.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import TypeVar
from uuid import uuid4

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores, answer_distinct
from debate_rl.engines.store_format import AnswerSource, StoreFile, begin_store_file, format_row, open_store_file
from debate_rl.errors import UserError
from debate_rl.records import Record, append_bytes, digest, locked, write_pieces

Q = TypeVar("Q", Request, Choice)
A = TypeVar("A", Completion, Scores)

LOCK = ".lock"
"""Lock file in a store's folder: writers share it, pruning holds it alone."""
PATIENCE = 600.0
"""Seconds that a writer waits for a pruning to end."""
DAY = 86400.0
_OFFSET_BITS = 48
"""An answer's location is one integer: the offset in these low bits, the number of the file above them."""


class Store:
    """Answers by key.

    Keys and locations are in memory; the answer itself is read from its file on request. Thread-safe.

    Args:
        folder: where the files are; it is created with the first answer.

    Raises:
        UserError: another version wrote one of the files.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: list[StoreFile] = []
        self._number_by_name: dict[str, int] = {}
        self._writing: dict[tuple[int, AnswerSource], StoreFile] = {}
        # Integers only: a million answers as objects would take gigabytes.
        self._locations: dict[int, int] = {}
        self._lock = RLock()
        self.refresh()

    def __len__(self) -> int:
        return len(self._locations)

    def refresh(self) -> None:
        """Read what this and other processes have written since the last look."""
        with self._lock:
            if not self.folder.is_dir():
                return
            with os.scandir(self.folder) as entries:
                sizes = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl")}
            # By name, so that of two answers to one question every process takes the same.
            for name in sorted(sizes):
                number = self._number_by_name.get(name)
                if number is None:
                    file = open_store_file(self.folder / name)
                    if file is None:
                        continue
                    number = self._add_file(file)
                if sizes[name] > self._files[number].end:
                    self._index(number)

    def _add_file(self, file: StoreFile) -> int:
        """Register a file and return its number."""
        number = len(self._files)
        self._files.append(file)
        self._number_by_name[file.path.name] = number
        return number

    def _index(self, number: int) -> None:
        """Record the locations of a file's new answers."""
        for offset, line in self._files[number].new_lines():
            try:
                key = int(line[2:18], 16)
            except ValueError:
                continue  # damaged: the answer is computed again
            self._locations[key] = number << _OFFSET_BITS | offset

    def get(self, key: str, kind: type[A]) -> A | None:
        """The answer under a key; None if the store has none."""
        location = self._locations.get(int(key, 16))
        if location is None:
            return None
        file = self._files[location >> _OFFSET_BITS]
        offset = location & (1 << _OFFSET_BITS) - 1
        try:
            return file.read_answer(offset, key, kind)
        except (ValueError, TypeError, FileNotFoundError):
            # Damaged, or pruned by another process: forgotten here, so the caller computes it again.
            self._locations.pop(int(key, 16), None)
            return None

    def put(self, answers: Mapping[str, Completion | Scores], model: str, adapter: str | None) -> None:
        """Write answers of one model; they are on disk when this returns.

        Args:
            answers: by key.
            model: name under which the model was requested.
            adapter: its adapter.

        Raises:
            UserError: the disk is full; earlier answers are intact.
        """
        by_revision: dict[str, dict[str, Completion | Scores]] = {}
        for key, answer in answers.items():
            by_revision.setdefault(answer.revision, {})[key] = answer
        with self._lock:
            for revision, group in by_revision.items():
                self._write(AnswerSource(revision, model, adapter), group)

    def _write(self, source: AnswerSource, answers: Mapping[str, Completion | Scores]) -> None:
        # The process id is part of the key: a forked child must not append to its parent's file.
        writer = (os.getpid(), source)
        rows = b"".join(format_row(key, answer) for key, answer in answers.items())
        with locked(self.folder / LOCK, f"{self.folder} is being pruned", patience=PATIENCE, shared=True):
            file = self._writing.get(writer)
            # Pruning merges files into new ones, so the file may be gone.
            if file is None or not file.path.is_file():
                name = f"{source.revision[:16]}-{os.getpid()}-{uuid4().hex[:8]}.jsonl".replace("/", "_")
                file = begin_store_file(self.folder / name, source)
                self._writing[writer] = file
                self._add_file(file)
            append_bytes(file.path, rows)
        self._index(self._number_by_name[file.path.name])


class StoredEngine:
    """An engine with a store in front.

    Args:
        engine: answers what the store lacks.
        folder: where the store lives; it is created if absent.
        wave: number of missing requests answered before they are written; a crash loses at most these.

    Attributes:
        hits: distinct answers taken from the store.
        misses: answers that the engine computed.
        tokens: tokens read and written for the misses.
    """

    def __init__(self, engine: Engine, folder: str | Path, wave: int = 256) -> None:
        self.engine = engine
        self.store = Store(folder)
        self.wave = wave
        self.hits = 0
        self.misses = 0
        self.tokens = 0
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

    def _answer(
        self,
        verb: str,
        questions: Sequence[Q],
        kind: type[A],
        ask: Callable[[Sequence[Q]], list[A | EngineFailure]],
    ) -> list[A | EngineFailure]:
        """Take stored answers, have the missing ones computed and write them down. Failures are not stored."""
        keys = self._keys(verb, questions)
        question_by_key = dict(zip(keys, questions, strict=True))

        def answer_keys(distinct: Sequence[str]) -> list[A | EngineFailure]:
            answers = self._stored(distinct, kind)
            if len(answers) < len(distinct):
                # Another process may have computed them since the last look.
                self.store.refresh()
                answers |= self._stored([key for key in distinct if key not in answers], kind)
            missing = [key for key in distinct if key not in answers]
            with self._lock:
                self.misses += len(missing)
                self.hits += len(distinct) - len(missing)
            for start in range(0, len(missing), self.wave):
                wave = missing[start : start + self.wave]
                computed = dict(zip(wave, ask([question_by_key[key] for key in wave]), strict=True))
                self._put(computed, question_by_key)
                answers |= computed
            return [answers[key] for key in distinct]

        # By key rather than by question: two paths of the same weights are one question.
        return answer_distinct(keys, answer_keys)

    def _keys(self, verb: str, questions: Sequence[Q]) -> list[str]:
        """Key of each answer. It holds the weights, not the path of the model or adapter."""
        # Once per model and adapter: an engine may have to look at the files for each fingerprint.
        weights = {(question.model, question.adapter) for question in questions}
        revisions = {(model, adapter): self.engine.revision(model, adapter) for model, adapter in weights}
        return [_answer_key(verb, question, revisions[question.model, question.adapter]) for question in questions]

    def _stored(self, keys: Iterable[str], kind: type[A]) -> dict[str, A | EngineFailure]:
        """Answers that the store has, by key."""
        answers: dict[str, A | EngineFailure] = {}
        for key in keys:
            answer = self.store.get(key, kind)
            if answer is not None:
                answers[key] = answer
        return answers

    def _put(self, computed: Mapping[str, A | EngineFailure], question_by_key: Mapping[str, Q]) -> None:
        """Write down computed answers, each model's into its own file, and count their tokens."""
        groups: dict[tuple[str, str | None], dict[str, Completion | Scores]] = {}
        tokens = 0
        for key, answer in computed.items():
            if isinstance(answer, EngineFailure):
                continue
            question = question_by_key[key]
            groups.setdefault((question.model, question.adapter), {})[key] = answer
            tokens += answer.prompt_tokens
            if isinstance(answer, Completion):
                tokens += answer.new_tokens
        for (model, adapter), answers in groups.items():
            self.store.put(answers, model, adapter)
        with self._lock:
            self.tokens += tokens


def _answer_key(verb: str, question: Request | Choice, revision: str) -> str:
    """Key of an answer: 16 hexadecimal digits."""
    # Prompts are hashed as they are: as canonical JSON they would take ten times as long.
    messages = [[message.role, hashlib.sha256(message.content.encode()).hexdigest()] for message in question.messages]
    rest = question.model_dump(mode="json", exclude={"model", "adapter", "messages"})
    return digest([verb, revision, messages, rest])


class Contents(Record):
    """Answers of one set of weights in a store.

    Example:
        Contents(model="lab-base", adapter="runs/quickstart/dpo/adapter", revision="9f86d081884c7d65", answers=1280,
                 size=141824, files=2, days=0.2)
    """

    model: str
    adapter: str | None
    revision: str
    answers: int
    size: int
    """Bytes."""
    files: int
    days: float
    """Since the last one was written."""


class Pruned(Record):
    """The result of pruning a store.

    Example:
        Pruned(kept=1280, removed=640, before=283648, after=141824)
    """

    kept: int
    """Answers."""
    removed: int
    """Answers."""
    before: int
    """Bytes."""
    after: int
    """Bytes."""


def contents(folder: str | Path) -> list[Contents]:
    """List what a store holds by weights, the largest part first.

    Raises:
        UserError: there is no store, or another version wrote it.
    """
    parts = []
    for files in _files_by_source(folder):
        source = files[0].source
        stats = [file.path.stat() for file in files]
        newest = max(stat.st_mtime for stat in stats)
        parts.append(
            Contents(
                model=source.model,
                adapter=source.adapter,
                revision=source.revision,
                answers=_count_answers(files),
                size=sum(stat.st_size for stat in stats),
                files=len(files),
                days=(time.time() - newest) / DAY,
            )
        )
    return sorted(parts, key=lambda part: -part.size)


def prune(folder: str | Path, days: float | None = None, of: str | None = None) -> Pruned:
    """Make a store smaller: remove the answers selected by `days` and `of`, and merge the files of the same weights.

    With neither option only torn lines and duplicates are lost.

    Args:
        folder: of the store; processes that write to it wait meanwhile.
        days: remove files that were not written to for this many days.
        of: remove the answers of weights whose model, adapter or fingerprint contains this text.

    Raises:
        UserError: there is no store, another version wrote it, or the disk is full; then nothing is removed.
    """
    _store_paths(folder)  # before the lock, which would create the folder
    with locked(Path(folder) / LOCK, f"a process writes to {folder}; wait for it", patience=10):
        return _prune_locked(folder, days, of)


def _prune_locked(folder: str | Path, days: float | None, of: str | None) -> Pruned:
    """Prune while no other process writes."""
    for leftover in Path(folder).glob(".*.partial"):  # of a pruning that was killed
        leftover.unlink()
    oldest = 0.0 if days is None else time.time() - days * DAY
    kept = 0
    removed = 0
    before = 0
    after = 0
    for files in _files_by_source(folder):
        paths = [file.path for file in files]
        answers = _count_answers(files)
        before += sum(path.stat().st_size for path in paths)
        remaining = [file for file in files if file.path.stat().st_mtime >= oldest]
        if of is not None and _name_contains(files[0].source, of):
            remaining = []
        remaining_answers = 0
        # Write the merged file before the old ones go: a crash in between leaves duplicates, never a loss.
        if remaining:
            merged = _merge(remaining)
            remaining_answers = _count_answers([merged])
            after += merged.path.stat().st_size
        kept += remaining_answers
        removed += answers - remaining_answers
        for path in paths:
            path.unlink()
    return Pruned(kept=kept, removed=removed, before=before, after=after)


def _store_paths(folder: str | Path) -> list[Path]:
    """Paths of a store's files.

    Raises:
        UserError: there are none.
    """
    paths = sorted(Path(folder).glob("*.jsonl"))
    if not paths:
        raise UserError(f"{folder}: no store there; give the folder of a run that has played, or of a store")
    return paths


def _files_by_source(folder: str | Path) -> list[list[StoreFile]]:
    """The files of a store, grouped by equal first lines.

    Raises:
        UserError: there are none, or another version wrote one.
    """
    groups: dict[str, list[StoreFile]] = {}
    for path in _store_paths(folder):
        file = open_store_file(path)
        if file is not None:
            groups.setdefault(repr((file.source, file.fields)), []).append(file)
    return list(groups.values())


def _name_contains(source: AnswerSource, part: str) -> bool:
    """Whether the model, adapter or fingerprint contains a text."""
    return any(part in (name or "") for name in (source.model, source.adapter, source.revision))


def _rows(files: Sequence[StoreFile]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, line) of every answer, read from the start of each file."""
    for file in files:
        for _, line in replace(file, end=file.start).new_lines():
            if line.startswith(b'["') and line.endswith(b"]\n"):
                yield line[2:18], line


def _count_answers(files: Sequence[StoreFile]) -> int:
    """Number of distinct answers in some files."""
    return len({key for key, _ in _rows(files)})


def _merge(files: Sequence[StoreFile]) -> StoreFile:
    """Write one file with the answers of several, each once."""
    first = files[0]
    name = f"{first.source.revision[:16]}-{uuid4().hex[:8]}.jsonl".replace("/", "_")
    path = first.path.with_name(name)
    newest = max(file.path.stat().st_mtime for file in files)

    def merged_lines() -> Iterator[bytes]:
        with first.path.open("rb") as file:
            yield file.readline()
        seen = set[bytes]()
        for key, line in _rows(files):
            if key not in seen:
                seen.add(key)
                yield line

    write_pieces(path, merged_lines())
    # As old as its youngest part, so that `days` still selects by the last real write.
    os.utime(path, (newest, newest))
    return replace(first, path=path)
