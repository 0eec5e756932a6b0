"""Weights & Biases, which gets the same numbers as the files and can never fail a run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, build_opener
from uuid import uuid4

from debate_rl.records import write_text

PATIENCE = 5.0
"""Seconds that the server is waited for."""
Mode = Literal["auto", "online", "offline", "disabled"]


class Tracker:
    """One W&B run, or none.

    Args:
        mode: auto is online where a key is set and the server answers, else offline.
        project: W&B project.
        entity: W&B user or team; None takes the key's own.
        name: the experiment.
        folder: where offline runs are written (`folder/wandb`).
        config: the resolved config.
    """

    def __init__(
        self, mode: Mode, project: str, entity: str | None, name: str, folder: Path, config: Mapping[str, Any]
    ) -> None:
        self.note = ""
        self._run: Any = None
        self._wandb: Any = None
        if mode == "disabled":
            return
        with self._guarded("start"):
            import wandb

            self._wandb = wandb
            where = _reachable_mode(mode)
            if where != mode and mode == "online":
                self.note = "W&B is not reachable: the run is kept offline; upload it later with `wandb sync`"
            os.environ.setdefault("WANDB_SILENT", "true")
            folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=project,
                entity=entity,
                name=name,
                group=name,
                dir=str(folder),
                mode=where,
                id=_run_id(folder),
                resume="allow" if where == "online" else None,
                config=dict(config),
                settings=wandb.Settings(init_timeout=30),
            )

    @property
    def folder(self) -> str | None:
        """Folder of the W&B run, None without one."""
        return None if self._run is None else str(self._run.dir)

    def log(self, values: Mapping[str, float], step: Mapping[str, float] | None = None) -> None:
        """Log numbers; `step` names their axis, for example {"sft/step": 10}."""
        if self._run is None:
            return
        step = step or {}
        with self._guarded("log"):
            for axis in step:
                self._run.define_metric(axis)
                for key in values:
                    self._run.define_metric(key, step_metric=axis)
            self._run.log({**values, **step})

    def summary(self, values: Mapping[str, float]) -> None:
        """Set final numbers of the run."""
        if self._run is None:
            return
        with self._guarded("summary"):
            self._run.summary.update(dict(values))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table."""
        if self._run is None or not rows:
            return
        with self._guarded("table"):
            self._run.log({key: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any]) -> None:
        """Log a file or folder with its lineage in the metadata."""
        if self._run is None or not path.exists():
            return
        with self._guarded("artifact"):
            artifact = self._wandb.Artifact(name, type=kind, metadata=dict(metadata))
            if path.is_dir():
                artifact.add_dir(str(path))
            else:
                artifact.add_file(str(path))
            self._run.log_artifact(artifact)

    def finish(self, exit_code: int = 0) -> None:
        """Close the run."""
        if self._run is not None:
            with self._guarded("finish"):
                self._run.finish(exit_code=exit_code)

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Whatever W&B does wrong is said once on stderr and ends tracking, not the run."""
        try:
            yield
        except Exception as error:  # W&B raises many kinds, and none may stop an experiment
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(
                f"tracking stopped: W&B could not {what} ({first}); the files of the run are complete", file=sys.stderr
            )
            self._run = None


def _run_id(folder: Path) -> str:
    """The id of a run folder's W&B run: the same whenever the run goes on."""
    note = folder / "wandb-id"
    if not note.is_file():
        write_text(note, uuid4().hex[:8])
    return note.read_text(encoding="utf-8").strip()


def _reachable_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    """The mode that can work here: W&B's own switch first, then online only with a key and a server that answers.

    The server is asked over HTTP, through the proxy where one is set.
    """
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    switch = os.environ.get("WANDB_MODE", "").lower()
    if switch == "dryrun":  # W&B's older word
        switch = "offline"
    if mode == "auto" and switch in ("offline", "disabled", "online"):
        mode = cast(Mode, switch)
    if mode == "offline" or mode == "disabled":
        return mode
    url = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if not os.environ.get("WANDB_API_KEY") and not _has_saved_key(url.hostname or ""):
        return "offline"
    return "online" if _answers(url.geturl()) else "offline"


def _has_saved_key(host: str) -> bool:
    """Whether `wandb login` has left a key for this server in ~/.netrc."""
    netrc = Path.home() / ".netrc"
    try:
        return netrc.is_file() and host in netrc.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _answers(url: str) -> bool:
    """Whether a server answers anything at all within some seconds."""
    request = Request(url, method="HEAD")
    try:
        with build_opener().open(request, timeout=PATIENCE):  # a new one: it reads the proxies that are set now
            return True
    except HTTPError:
        return True
    except (OSError, ValueError):
        return False
