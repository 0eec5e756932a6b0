"""Names of our models and adapters at a server, and the check that the server has them.

An adapter in a folder is asked for as STAGE-stepN-FINGERPRINT. Servers key their prefix cache by the adapter's name, so
another training, and another step of the same one, need another name. A server without a list of models is taken at
its word.
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
"""Names that an error message lists at most."""
_STEP = re.compile(r"step-0*(\d+)")


def adapter_name(folder: str | Path) -> str:
    """Name an adapter after its stage, its step where that is known, and its weights.

    Example:
        runs/quickstart/dpo/adapter: "dpo-step375-9f86d081"
        runs/quickstart/grpo/policy/step-000012: "policy-step12-60303ae2"

    Raises:
        UserError: there is no adapter there.
    """
    path = Path(folder).resolve()
    # A stage that is still running works in a hidden folder: .dpo becomes dpo.
    stage = path.parent.name.lstrip(".")
    result = path.parent / "result.json"
    numbered = _STEP.fullmatch(path.name)
    step = ""
    if numbered:
        step = f"-step{numbered[1]}"
    elif result.is_file():
        step = f"-step{read_json(result)['steps']}"
    return f"{stage}{step}-{fingerprint(path)[:8]}"


class Served:
    """The models and adapters that a server is asked for, each looked up once.

    Args:
        endpoint: the server.
        resolve: turns the name of an adapter into its folder; a name that has none is taken as the server's own.
        load: have the server load adapters that it lacks (vLLM, where runtime loading is allowed).
    """

    def __init__(self, endpoint: Endpoint, resolve: Callable[[str], str] = str, load: bool = False) -> None:
        self._endpoint = endpoint
        self._resolve = resolve
        self._load = load
        self._names: dict[str, str] = {}
        """Names of adapters by folder: a fingerprint reads all weights, so it is taken once."""
        self._known: frozenset[str] = frozenset()
        self._lock = Lock()

    def name(self, model: str, adapter: str | None) -> str:
        """Name under which a server is asked for a model, or for an adapter of it."""
        if adapter is None:
            return model
        folder = self._folder(adapter)
        if folder is None:
            return adapter
        key = str(folder)
        if key not in self._names:
            self._names[key] = adapter_name(folder)
        return self._names[key]

    def check(self, model: str, adapter: str | None) -> EngineFailure | None:
        """Make sure that the server has a model or adapter; load the adapter where that is allowed.

        Returns:
            Why the server could not be asked; None where it has the name.

        Raises:
            UserError: the server does not have it.
        """
        name = self.name(model, adapter)
        folder = None if adapter is None else self._folder(adapter)
        # Under the lock: of many threads that ask for a new adapter at once, one loads it and the others wait.
        with self._lock:
            if name in self._known:
                return None
            # Listed anew for each name: another process may have had it loaded since.
            listed = self._endpoint.models()
            if isinstance(listed, EngineFailure):
                return listed
            there = listed or frozenset()
            can_load = folder is not None and self._load
            if listed is None and not can_load:
                there = frozenset({name})  # no list to look into: the server is taken at its word
            if name not in there:
                self._load_into(name, folder, there)
            self._known = frozenset({*self._known, *there, name})
            return None

    def drop(self, adapter: str) -> str | None:
        """Have the server unload an adapter that it holds; its complaint if it did not."""
        name = self.name("", adapter)
        # Forgotten first: an adapter of the same name that comes later must be loaded again.
        with self._lock:
            self._known = self._known - {name}
        listed = self._endpoint.models()
        if isinstance(listed, frozenset) and name in listed:
            return self._endpoint.unload_adapter(name)
        return None

    def _load_into(self, name: str, folder: Path | None, there: frozenset[str]) -> None:
        """Have the server load an adapter that it lacks.

        Raises:
            UserError: loading is not allowed, or the server does not do it.
        """
        if folder is None or not self._load:
            raise UserError(_missing(self._endpoint.url, name, folder, there))
        complaint = self._endpoint.load_adapter(name, str(folder))
        if complaint is not None:
            raise UserError(
                f"{complaint}: adapter {name} was not loaded; start vLLM with --enable-lora and "
                f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True where it sees {folder}, or with "
                f"--lora-modules {name}={folder}"
            )

    def _folder(self, adapter: str) -> Path | None:
        """Folder of an adapter of ours; None for a name that only the server knows."""
        path = Path(self._resolve(adapter))
        if (path / "adapter_config.json").is_file():
            return path.resolve()
        return None


def _missing(url: str, name: str, folder: Path | None, known: frozenset[str]) -> str:
    """Error message for a name that a server lacks: what it serves, and what to change."""
    names = sorted(known)
    listed = ", ".join(names[:_LISTED]) or "nothing"
    if len(names) > _LISTED:
        listed += f" and {len(names) - _LISTED} more"
    if folder is None:
        fix = f"name one of these in the config, or start the server with --served-model-name {name}"
    else:
        fix = f"start it with --lora-modules {name}={folder}, or set engine.load_adapters true"
    return f"{url} does not serve {name!r}, it serves {listed}; {fix}"
