"""Weights & Biases, which gets the same numbers as the files and can never fail a run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from uuid import uuid4

from debate_rl.records import write_text

PATIENCE = 5.0
"""Seconds that the server is waited for."""
Mode = Literal["auto", "online", "offline", "disabled"]
_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""What WANDB_MODE may say; W&B takes two older words as well."""
_OF_THE_PROXY = (407, 502, 503, 504)
"""HTTP answers that come from a proxy that can not, or may not, reach the server."""


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
        self._run: Any = None
        self._wandb: Any = None
        wanted, self.note = wanted_mode(mode)
        if wanted == "disabled":
            return
        with self._guarded("start"):
            import wandb

            self._wandb = wandb
            where = _reachable_mode(wanted)
            if where != wanted and wanted == "online":
                self.note = "W&B is not reachable: the run is kept offline; upload it later with `wandb sync`"
            os.environ.setdefault("WANDB_SILENT", "true")
            folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=project, entity=entity, name=name, group=name, dir=str(folder), mode=where,
                id=_run_id(folder), resume="allow" if where == "online" else None,
                config=dict(config), settings=wandb.Settings(init_timeout=30),
            )  # fmt: skip

    @property
    def folder(self) -> str | None:
        """Folder of the W&B run, None without one."""
        return None if self._run is None else str(self._run.dir)

    def log(self, values: Mapping[str, float], step: Mapping[str, float] | None = None) -> None:
        """Log numbers; `step` names their axis, for example {"sft/step": 10}."""
        if self._run is None:
            return
        with self._guarded("log"):
            for axis in step or {}:
                self._run.define_metric(axis)
                for key in values:
                    self._run.define_metric(key, step_metric=axis)
            self._run.log({**values, **(step or {})})

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


def wanted_mode(mode: Mode) -> tuple[Mode, str]:
    """The mode of a config and of W&B's own switches together, and a note where one of these says something unknown.

    The one that gives away less counts: who sets WANDB_MODE=offline on a machine must not find its runs online.
    """
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled", ""
    given = os.environ.get("WANDB_MODE", "").strip().lower()
    if not given:
        return mode, ""
    if given not in _MODES:
        note = f"WANDB_MODE is {given!r}, which is none of {', '.join(_MODES)}: the run is kept offline"
        return ("disabled", "") if mode == "disabled" else ("offline", note)
    order: tuple[Mode, ...] = ("disabled", "offline", "online", "auto")
    return min(mode, _MODES[given], key=order.index), ""


def _reachable_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    """The mode that can work here: W&B's own switches first, then online only with a key and a server that answers."""
    mode = wanted_mode(mode)[0]
    if mode == "offline" or mode == "disabled":
        return mode
    return "online" if _is_reachable() else "offline"


def _is_reachable() -> bool:
    """Whether there is a key, and a server that answers: any answer within some seconds, through a proxy if one is set.

    Asked as W&B asks, by HTTP: behind a proxy there is no other way out.
    """
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        saved = netrc.is_file() and (urlparse(url).hostname or "") in netrc.read_text("utf-8", errors="replace")
    except OSError:
        saved = False
    if not os.environ.get("WANDB_API_KEY") and not saved:
        return False
    import requests  # here: wandb brings it

    own = {scheme: os.environ.get(f"WANDB_{scheme.upper()}_PROXY") for scheme in ("http", "https")}
    proxies = {scheme: proxy for scheme, proxy in own.items() if proxy}
    try:
        # Without a redirect, and without the password that requests would look up in .netrc by itself.
        reply = requests.head(
            url, timeout=PATIENCE, allow_redirects=False, proxies=proxies or None, auth=lambda asked: asked
        )
    except (requests.RequestException, ValueError):
        return False
    return reply.status_code not in _OF_THE_PROXY
