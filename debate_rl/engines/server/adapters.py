"""What a server calls our models and adapters, and whether it has them.

An adapter in a folder is asked for as STAGE-stepN-FINGERPRINT: servers key their prefix cache by the adapter's name, so
another training, and another step of one, must have another one. Servers without a list of models are taken at their
word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from debate_rl.engines.request import EngineFailure
from debate_rl.engines.server.endpoint import Endpoint
from debate_rl.engines.weights import fingerprint
from debate_rl.errors import UserError
from debate_rl.records import read_json

_LISTED = 8
_STEP = re.compile(r"step-0*(\d+)")


def adapter_name(folder: str | Path) -> str:
    """Name of an adapter in a folder: what made it, its step where that is known, and its weights.

    Example:
        runs/quickstart/dpo/adapter: "dpo-step375-9f86d081"
        runs/quickstart/grpo/policy/step-000012: "policy-step12-60303ae2"

    Raises:
        UserError: there is no adapter there.
    """
    path = Path(folder).resolve()
    made, result = path.parent.name.lstrip("."), path.parent / "result.json"
    step = _STEP.fullmatch(path.name)
    steps = f"-step{step[1]}" if step else f"-step{read_json(result)['steps']}" if result.is_file() else ""
    return f"{made}{steps}-{fingerprint(path)[:8]}"


class Served:
    """The names under which servers are asked.

    Args:
        resolve: turns the name of an adapter into its folder; what is no folder is a name on the server already.
        load: have the servers load adapters that they lack, which vLLM does where it is allowed to.
    """

    def __init__(self, resolve: Callable[[str], str] = str, load: bool = False) -> None:
        self._resolve = resolve
        self._load = load
        self._names: dict[str, str] = {}
        self._known: dict[str, frozenset[str]] = {}
        self._lock = Lock()

    def name(self, model: str, adapter: str | None) -> str:
        """What a server is asked for."""
        if adapter is None:
            return model
        folder = self._folder(adapter)
        return adapter if folder is None else self._named(folder)

    def check(self, server: Endpoint, model: str, adapter: str | None) -> EngineFailure | None:
        """Make sure that a server has what it will be asked for; it is looked up once.

        Returns:
            Why the server could not be asked; None is well.

        Raises:
            UserError: it has not.
        """
        name, folder = self.name(model, adapter), None if adapter is None else self._folder(adapter)
        with self._lock:
            if name in self._known.get(server.url, ()):
                return None
            # Asked anew for each name: another process may have had it loaded since.
            listed = server.models()
            if isinstance(listed, EngineFailure):
                return listed
            there = {name} if listed is None and (folder is None or not self._load) else listed or frozenset()
            if name not in there:
                self._load_into(server, name, folder, frozenset(there))
            self._known[server.url] = frozenset({*self._known.get(server.url, ()), *there, name})
            return None

    def drop(self, server: Endpoint, adapter: str) -> str | None:
        """Have a server let go of an adapter that it holds; what it said if it did not."""
        name = self.name("", adapter)
        with self._lock:
            self._known[server.url] = self._known.get(server.url, frozenset()) - {name}
        listed = server.models()
        return server.unload_adapter(name) if isinstance(listed, frozenset) and name in listed else None

    def _load_into(self, server: Endpoint, name: str, folder: Path | None, there: frozenset[str]) -> None:
        """Have a server load an adapter that it lacks.

        Raises:
            UserError: it may not, or does not.
        """
        if folder is None or not self._load:
            raise UserError(_missing(server.url, name, folder, there))
        said = server.load_adapter(name, str(folder))
        if said is not None:
            raise UserError(
                f"{said}: adapter {name} was not loaded; start vLLM with --enable-lora and "
                f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True where it sees {folder}, or with "
                f"--lora-modules {name}={folder}"
            )

    def _folder(self, adapter: str) -> Path | None:
        path = Path(self._resolve(adapter))
        return path.resolve() if (path / "adapter_config.json").is_file() else None

    def _named(self, folder: Path) -> str:
        key = str(folder)
        if key not in self._names:
            self._names[key] = adapter_name(folder)
        return self._names[key]


def _missing(url: str, name: str, folder: Path | None, known: frozenset[str]) -> str:
    """What to change where a server lacks a name."""
    there = sorted(known)
    listed = ", ".join(there[:_LISTED]) + (f" and {len(there) - _LISTED} more" if len(there) > _LISTED else "")
    if folder is None:
        fix = f"name one of these in the config, or start the server with --served-model-name {name}"
    else:
        fix = f"start it with --lora-modules {name}={folder}, or set engine.load_adapters true"
    return f"{url} does not serve {name!r}, it serves {listed or 'nothing'}; {fix}"
