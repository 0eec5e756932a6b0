"""What a config opens: its engine, with the store and the worker processes in front, and its questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from debate_rl.config.tree import Config
from debate_rl.data.questions import LabStories, load_questions
from debate_rl.engines.parallel import Parallel
from debate_rl.engines.request import Engine
from debate_rl.engines.store import StoredEngine
from debate_rl.engines.workers import Crew, CrewEngine
from debate_rl.game.question import Question, Split


def load_splits(config: Config) -> dict[Split, list[Question]]:
    """Train and test questions, whose stories differ."""
    wanted = config.questions
    counts: dict[Split, int] = {"train": wanted.train, "test": wanted.test}
    seeds: dict[Split, int] = {"train": config.seed, "test": config.question_seed}
    return {
        split: load_questions(
            wanted.source, wanted.path, split, count, seeds[split],
            lab=LabStories(family=wanted.family, knobs=wanted.knobs), hard_only=wanted.hard_only, human=wanted.human,
        )
        for split, count in counts.items()
    }  # fmt: skip


def shared_engine(
    own: Engine, store: Path, config: Config, crew: Crew | None = None
) -> tuple[StoredEngine, Engine]:  # fmt: skip
    """An engine with its store, and what is asked: where several parts are answered at a time, each through the store.

    A server answers many requests at a time by itself, so a crew has nothing to do there.
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
        ledger = folder / "paid.jsonl" if (folder / "config.yaml").is_file() else None
        return ServerEngine(
            wanted.url or "", wanted.key_env, concurrency=wanted.concurrency, retries=wanted.retries,
            timeout=wanted.timeout, deployed=wanted.revision, resolve=resolve, load_adapters=wanted.load_adapters,
            refused=wanted.refused,
            budget=Budget(ledger, wanted.budget.tokens, wanted.budget.money, wanted.prices),
        )  # fmt: skip
    from debate_rl.engines.local.engine import TransformersEngine

    return TransformersEngine(
        resolve,
        device=wanted.device,
        dtype=wanted.dtype,
        batch_tokens=wanted.batch_tokens,
        revision=wanted.revision,
        cache_tokens=wanted.cache_tokens,
    )
