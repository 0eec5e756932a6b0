"""Run folders as the page reads them: finished stages with their metrics, and the names of unfinished ones.

runs/NAME/       for a study runs/NAME/seed0/, seed1/ and so on
    config.yaml  code.json
    STAGE/       stage.json {"name", "kind", "fingerprint"}, metrics.json, timing.json, debates.jsonl, history.json,
                 for an adversarial judge also round1/history.json and so on
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.records import explain, read_json

M = TypeVar("M", bound=BaseModel)


def seed_folder(seed: int) -> str:
    """Name of a seed's run in the folder of its study."""
    return f"seed{seed}"


class Stage(NamedTuple):
    """A finished stage.

    Example:
        Stage(name="dpo", kind="dpo", folder=Path("runs/quickstart/dpo"), metrics={"rows": 200, "train_loss": 0.61},
              timing={"seconds": 48.2, "store_hits": 120, "store_misses": 12})
    """

    name: str
    kind: str
    folder: Path
    metrics: dict[str, Any]
    timing: dict[str, Any]

    def read(self, kind: type[M]) -> M:
        """The metrics as a record.

        Raises:
            UserError: a field is missing or malformed; names file and field.
        """
        try:
            return kind.model_validate(self.metrics)
        except ValidationError as error:
            raise UserError(
                f"{self.folder / 'metrics.json'}: {explain(error)}; remove the folder and run the stage again"
            ) from error

    @property
    def numbers(self) -> dict[str, float]:
        """The plain numbers at the top of the metrics."""
        return {key: value for key, value in self.metrics.items() if _is_number(value)}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The trainer's log, step by step; empty if the stage trained nothing.

        A judge's adversarial rounds follow its first training, and their steps are counted on from it.
        """
        # By number, not by name: round10 comes after round9.
        rounds = sorted(int(path.name[5:]) for path in self.folder.glob("round*") if path.name[5:].isdecimal())
        history: list[dict[str, Any]] = []
        for folder in [self.folder, *[self.folder / f"round{number}" for number in rounds]]:
            path = folder / run_files.HISTORY
            steps_before = history[-1]["step"] if history else 0
            for row in read_json(path) if path.is_file() else []:
                if isinstance(row, dict) and _is_number(row.get("step")):
                    history.append({**row, "step": steps_before + row["step"]})
        return history

    @property
    def legs(self) -> Path | None:
        """The file of the stage's debates; None if it played none."""
        path = self.folder / run_files.DEBATES
        return path if path.is_file() else None


class RunFolder(NamedTuple):
    """A run: its config, code and finished stages.

    Example:
        RunFolder(name="quickstart", config="name: quickstart\\n...", commit="1f0c2e9...", changed=False,
                  versions={"trl": "1.16.0"}, date="2026-03-01 12:00 UTC", stages=(Stage(name="sft", ...),),
                  unfinished=("dpo",))
    """

    name: str
    config: str
    """The resolved config, YAML as written."""
    commit: str | None
    changed: bool
    """Whether the checkout differed from the commit."""
    versions: dict[str, str]
    date: str
    """When the run began: `date` in code.json, else when that file was last written."""
    stages: tuple[Stage, ...]
    """In the order of the config."""
    unfinished: tuple[str, ...]
    """Stages that the config names and the folder does not hold, without the report itself."""

    def of(self, *kinds: str) -> list[Stage]:
        """Finished stages of some kinds."""
        return [stage for stage in self.stages if stage.kind in kinds]


def load_run(run_folder: str | Path) -> RunFolder:
    """Read a run folder; debates and training histories are read later, when they are needed.

    Raises:
        UserError: the folder is no run, or a file in it can not be read.
    """
    folder = Path(run_folder)
    path = folder / run_files.CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder} is no run (no config.yaml); give a folder such as runs/NAME, made by `debate-rl run`"
        )
    # The page shows the config as text, so a broken byte in it is replaced rather than refused.
    if any(folder.glob("*/legs.jsonl")):
        raise UserError(
            f"{folder} was made by an earlier version, which named debates.jsonl legs.jsonl; "
            "run it again under another name=..."
        )
    config = path.read_text(encoding="utf-8", errors="replace")
    try:
        tree = yaml.safe_load(config)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    tree = tree if isinstance(tree, dict) else {}
    planned = tree.get("stages") or {}
    stages = _stages(folder, list(planned))
    done = {stage.name for stage in stages}
    code = read_json(folder / run_files.CODE) if (folder / run_files.CODE).is_file() else {}
    return RunFolder(
        name=str(tree.get("name") or folder.resolve().name),
        config=config,
        commit=code.get("commit"),
        changed=bool(code.get("changed")),
        versions=code.get("versions") or {},
        date=_date(folder, code),
        stages=tuple(stage for stage in stages if stage.kind != "report"),
        unfinished=tuple(name for name in planned if name not in done and not _is_report(name, planned[name])),
    )


def _stages(folder: Path, planned: list[str]) -> list[Stage]:
    """Finished stages, those of the config first and in its order."""
    stages = []
    for path in folder.glob(f"*/{run_files.STAGE}"):
        if path.parent.name.startswith("."):  # a stage that is still running
            continue
        label = read_json(path)
        timing = path.with_name(run_files.TIMING)
        stage = Stage(
            name=str(label.get("name", path.parent.name)),
            kind=str(label.get("kind", "")),
            folder=path.parent,
            metrics=read_json(path.with_name(run_files.METRICS)),
            timing=read_json(timing) if timing.is_file() else {},
        )
        stages.append(stage)
    order = {name: index for index, name in enumerate(planned)}
    return sorted(stages, key=lambda stage: (order.get(stage.name, len(order)), stage.name))


def _date(folder: Path, code: Mapping[str, Any]) -> str:
    """When the run began, UTC."""
    if code.get("date"):
        # Set by the run itself; the file's own time changes when a folder is copied.
        return str(code["date"])
    path = folder / run_files.CODE
    source = path if path.is_file() else folder / run_files.CONFIG
    return datetime.fromtimestamp(source.stat().st_mtime, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _is_report(name: str, settings: Any) -> bool:
    """Whether a stage of the config is the page itself; a stage without a kind has its name as its kind."""
    kind = settings.get("kind") if isinstance(settings, dict) else None
    return (kind or name) == "report"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
