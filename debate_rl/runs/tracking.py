"""Weights & Biases, which gets the same numbers as the files and can never fail a run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, build_opener
from uuid import uuid4

from debate_rl.records import write_text

PATIENCE = 5.0
"""Seconds that the server is waited for."""
UPLOAD = 60
"""Seconds that the upload of an artifact is waited for before a later one names it as its source."""
Mode = Literal["auto", "online", "offline", "disabled"]


class Labels(NamedTuple):
    """How a W&B run is found among others.

    Example:
        Labels(group="lab_study", job_type="train", tags=("qwen",), notes="second try, lower learning rate")
    """

    group: str | None = None
    """Runs that W&B shows together; None is the run's own name."""
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None


class Tracker:
    """One W&B run, or none.

    Args:
        mode: auto is online where a key is set and the server answers, else offline.
        project: W&B project.
        entity: W&B user or team; None takes the key's own.
        name: the experiment.
        folder: where offline runs are written (`folder/wandb`).
        config: the resolved config.
        labels: group, job type, tags and notes.
    """

    def __init__(
        self,
        mode: Mode,
        project: str,
        entity: str | None,
        name: str,
        folder: Path,
        config: Mapping[str, Any],
        labels: Labels | None = None,
    ) -> None:
        self.note = ""
        self._run: Any = None
        self._wandb: Any = None
        self._is_online = False
        self.tables: set[str] = set()
        """Keys of the tables that this process has logged."""
        self._axes: dict[str, str] = {}
        """Axis of each key that was logged over one."""
        self._artifacts: dict[str, Any] = {}
        """Artifacts that this process has logged, by name."""
        labels = labels or Labels()
        if mode == "disabled":
            return
        with self._guarded("start"):
            import wandb

            self._wandb = wandb
            where = _reachable_mode(mode)
            if where != mode and mode == "online":
                self.note = "W&B is not reachable: the run is kept offline; upload it later with `wandb sync`"
            self._is_online = where == "online"
            os.environ.setdefault("WANDB_SILENT", "true")
            folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=project,
                entity=entity,
                name=name,
                group=labels.group or name,
                job_type=labels.job_type,
                tags=labels.tags,
                notes=labels.notes,
                dir=str(folder),
                mode=where,
                id=_run_id(folder),
                resume="allow" if where == "online" else None,
                config=dict(config),
                settings=wandb.Settings(init_timeout=30),
            )

    @property
    def is_on(self) -> bool:
        """Whether anything is logged."""
        return self._run is not None

    @property
    def folder(self) -> str | None:
        """Folder of the W&B run, None without one."""
        return None if self._run is None else str(self._run.dir)

    def log(self, values: Mapping[str, float], step: Mapping[str, float] | None = None) -> None:
        """Log numbers; `step` names their axis, for example {"sft/step": 10}."""
        self._log(values, step)

    def summary(self, values: Mapping[str, float]) -> None:
        """Set final numbers of the run."""
        if self._run is None:
            return
        with self._guarded("summary"):
            self._run.summary.update(dict(values))

    def table(
        self,
        key: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        page: str | None = None,
        step: Mapping[str, float] | None = None,
    ) -> None:
        """Log a table.

        Args:
            key: where it stands in the workspace; later tables of the key are its later steps.
            columns: names.
            rows: cells.
            page: name of a column that holds HTML pages.
            step: see `log`.
        """
        if self._run is None or not rows:
            return
        with self._guarded("table"):
            data = [list(row) for row in rows]
            if page is not None:
                for row in data:
                    row[columns.index(page)] = self._html(row[columns.index(page)])
            self._log({key: self._wandb.Table(columns=list(columns), data=data)}, step)
            self.tables.add(key)

    def pages(self, pages: Mapping[str, str]) -> None:
        """Log HTML pages by key."""
        if self._run is None or not pages:
            return
        with self._guarded("pages"):
            self._run.log({key: self._html(page) for key, page in pages.items()})

    def artifact(
        self,
        name: str,
        kind: str,
        path: Path,
        metadata: Mapping[str, Any],
        sources: Sequence[str] = (),
        copy: bool = True,
    ) -> None:
        """Log a file or folder with its lineage, once in the life of this process.

        Args:
            name: of the artifact.
            kind: debates, dataset, model or report.
            path: of the file or folder.
            metadata: facts about it.
            sources: names of the artifacts that it was made from; online W&B marks them as used by the run, and in
                its metadata they stand in any case, since W&B can not mark them offline.
            copy: keep a copy until it is uploaded; false for files that stay where they are.
        """
        if self._run is None or name in self._artifacts or not path.exists():
            return
        self._use(sources)
        with self._guarded("artifact"):
            facts = {**metadata, "made from": list(sources)}
            artifact = self._wandb.Artifact(name, type=kind, metadata=facts)
            policy = "mutable" if copy else "immutable"
            if path.is_dir():
                artifact.add_dir(str(path), policy=policy)
            else:
                artifact.add_file(str(path), policy=policy)
            self._run.log_artifact(artifact)
            self._artifacts[name] = artifact

    def _use(self, sources: Sequence[str]) -> None:
        """Mark artifacts as used by this run, where W&B can do so."""
        if not self._is_online:
            return
        for name in sources:
            # A source may lie in another project or be uploading still: its name is in the metadata anyway.
            with contextlib.suppress(Exception):
                artifact = self._artifacts.get(name)
                if artifact is not None:
                    artifact.wait(timeout=UPLOAD)
                self._run.use_artifact(f"{name}:latest" if artifact is None else artifact)

    def _log(self, values: Mapping[str, Any], step: Mapping[str, float] | None) -> None:
        """Log numbers or media over an axis."""
        if self._run is None:
            return
        step = step or {}
        with self._guarded("log"):
            for axis in step:
                for key in values:
                    if self._axes.get(key) != axis:
                        self._run.define_metric(axis)
                        self._run.define_metric(key, step_metric=axis)
                        self._axes[key] = axis
            self._run.log({**values, **step})

    def _html(self, page: str) -> Any:
        """A page for W&B, as it is: never read from a path, and without W&B's own style sheet."""
        return self._wandb.Html(page, inject=False, data_is_not_path=True)

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
            print(
                f"tracking stopped: W&B could not {what} ({_one_line(error)}); the files of the run are complete",
                file=sys.stderr,
            )
            self._run = None


@contextlib.contextmanager
def attempt(what: str) -> Iterator[None]:
    """Do something for W&B alone: a failure is said in one line on stderr, and everything else goes on."""
    try:
        yield
    except Exception as error:  # what only W&B would have shown stops neither the run nor the rest of the log
        print(f"tracking: could not {what} ({_one_line(error)}); the rest is logged", file=sys.stderr)


def _one_line(error: Exception) -> str:
    """What an error says, in one line: pydantic names the setting in its second line and the fault in its third."""
    return " ".join(str(error).split())[:300] or type(error).__name__


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
