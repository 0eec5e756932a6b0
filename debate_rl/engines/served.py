"""What a server calls our models and adapters, and whether it has them.

An adapter in a folder is asked for as STAGE-stepN-FINGERPRINT: servers key their prefix cache by the adapter's name, so
another training must have another one. Servers without a list of models are taken at their word.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from debate_rl.engines.endpoint import Endpoint
from debate_rl.engines.request import EngineFailure
from debate_rl.engines.weights import fingerprint
from debate_rl.errors import UserError
from debate_rl.records import read_json

_LISTED = 8


def adapter_name(folder: str | Path) -> str:
    """Name of an adapter in a folder: the stage that made it, its last step where that is known, and its weights.

    Example:
        runs/quickstart/dpo/adapter: "dpo-step375-9f86d081"

    Raises:
        UserError: there is no adapter there.
    """
    path = Path(folder).resolve()
    made, result = path.parent.name.lstrip("."), path.parent / "result.json"
    steps = f"-step{read_json(result)['steps']}" if result.is_file() else ""
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
        self._known: dict[str, frozenset[str] | None] = {}
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
        name = self.name(model, adapter)
        with self._lock:
            if server.url not in self._known:
                listed = server.models()
                if isinstance(listed, EngineFailure):
                    return listed
                self._known[server.url] = listed
            known = self._known[server.url]
            if known is None or name in known:
                return None
            folder = None if adapter is None else self._folder(adapter)
            if folder is None or not self._load:
                raise UserError(_missing(server.url, name, folder, known))
            said = server.load_adapter(name, str(folder))
            if said is not None:
                raise UserError(
                    f"{said}: adapter {name} was not loaded; start vLLM with --enable-lora and "
                    f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True where it sees {folder}, or with "
                    f"--lora-modules {name}={folder}"
                )
            self._known[server.url] = known | {name}
            return None

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
