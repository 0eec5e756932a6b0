"""What a config opens: its engine, with the store and the worker processes in front, and its questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from debate_rl.config.tree import Config
from debate_rl.data.excerpts import words_count
from debate_rl.data.questions import Generated, load_questions
from debate_rl.engines.parallel import Parallel
from debate_rl.engines.request import Engine
from debate_rl.engines.store import StoredEngine
from debate_rl.engines.workers import Crew, CrewEngine
from debate_rl.game import run_files
from debate_rl.game.question import Question, Split


def load_splits(config: Config) -> dict[Split, list[Question]]:
    """Train and test questions; no story is in both."""
    settings = config.questions
    counts: dict[Split, int] = {"train": settings.train, "test": settings.test}
    seeds: dict[Split, int] = {"train": config.seed, "test": config.question_seed}
    splits: dict[Split, list[Question]] = {}
    source: str | Generated = settings.source
    if settings.source == "lab" or settings.source == "word_problems":
        source = Generated(source=settings.source, family=settings.family, knobs=settings.knobs)
    for split, count in counts.items():
        splits[split] = load_questions(
            source,
            settings.path,
            split,
            count,
            seeds[split],
            hard_only=settings.hard_only,
            human=settings.human,
            min_passage_words=settings.min_passage_words,
        )
    return splits


def passage_counter(config: Config, resolve: Callable[[str], str]) -> tuple[Callable[[str], int], str]:
    """How `protocol.passage_tokens` are counted: by the debater's tokenizer, else by words; and that in words.

    Every seat and every training row then shows the same text, whichever model reads it.
    """
    model = config.models.debater
    path = Path(resolve(model))
    if not (path / "tokenizer.json").is_file():
        return words_count, "1.3 tokens a word"
    from debate_rl.engines.load import load_tokenizer  # here: transformers only where passages are counted

    tokenizer = load_tokenizer(path)
    tokenizer.model_max_length = int(1e9)  # it would warn about each story that is longer than the model reads
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), f"the tokenizer of {model}"


def shared_engine(own: Engine, store: Path, config: Config, crew: Crew | None = None) -> tuple[StoredEngine, Engine]:
    """Put a store in front of an engine, and what answers several batches at a time in front of that.

    A server answers many requests at a time by itself, so worker processes have nothing to do there.

    Returns:
        The store, and the engine to ask.
    """
    if config.engine.kind == "server":
        from debate_rl.engines.server.engine import ServerEngine

        if isinstance(own, ServerEngine):
            stored = StoredEngine(own, store)
            return stored, Parallel(stored, own)
    elif crew is not None:
        spread = CrewEngine(own, crew, config)
        stored = StoredEngine(spread, store)
        return stored, Parallel(stored, spread)
    stored = StoredEngine(own, store)
    return stored, stored


def open_engine(config: Config, resolve: Callable[[str], str]) -> Engine:
    """The engine of the config's kind, with its settings."""
    wanted = config.engine
    if wanted.kind == "server":
        from debate_rl.engines.server.budget import Budget
        from debate_rl.engines.server.engine import ServerEngine

        folder = Path(config.runs) / config.name
        ledger = folder / "paid.jsonl" if (folder / run_files.CONFIG).is_file() else None
        budget = Budget(ledger, wanted.budget.tokens, wanted.budget.money, wanted.prices)
        from debate_rl.data.models.plain_template import MARKS

        # A server does not show its template, so what the config says of it is taken.
        marks = MARKS if config.models.template == "plain" else ()
        return ServerEngine(wanted.server(), resolve, budget, marks=marks)
    from debate_rl.engines.local.engine import TransformersEngine

    return TransformersEngine(
        resolve,
        device=wanted.device,
        dtype=wanted.dtype,
        judge_dtype=wanted.judge_dtype,
        batch_tokens=wanted.batch_tokens,
        revision=wanted.revision,
        cache_tokens=wanted.cache_tokens,
    )


def formats_said(config: Config, resolve: Callable[[str], str]) -> str | None:
    """What a run says of the number formats of its models; None where there is nothing to say."""
    wanted = config.engine
    if wanted.kind == "server":
        return None
    from debate_rl.engines.local.models import device_of
    from debate_rl.engines.number_formats import formats_line

    folders = {name: resolve(name) for name in config.models.by_role().values()}
    # A hub model that was not fetched yet has no files to look into.
    there = {name: folder for name, folder in folders.items() if Path(folder).is_dir()}
    return formats_line(there, device_of(wanted.device).type, wanted.dtype, wanted.judge_dtype)
