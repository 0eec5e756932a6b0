"""Fixtures: a tiny base model on disk, and jobs on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from debate_rl.records import write
from debate_rl.trainers.common.settings import Job, Lora
from tests.trainers.tiny import EXAMPLES, make_model

# Nothing heavy is imported above, so the hub's and torch's settings are still read after this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ[name] = "1"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def make_job(tmp_path: Path, base: str) -> Callable[..., Job]:
    """Make a small job of a kind, its rows written."""

    def make(kind: str, count: int = 8, out: str = "out", **fields: Any) -> Job:
        rows = tmp_path / f"{kind}-{count}.jsonl"
        if "rows" not in fields:
            write(rows, EXAMPLES[kind](count))
        train = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3, **fields.pop("train", {})}
        settings = {"model": base, "rows": str(rows), "lora": Lora(r=4, alpha=8), **fields}
        return Job.model_validate({"kind": kind, "out": str(tmp_path / out), "train": train, **settings})

    return make
