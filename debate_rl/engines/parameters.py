"""What a model at a server takes: most take `max_tokens`, `temperature` and `top_p`, newer ones refuse some of them.

A refusal (HTTP 400) names what is refused. It is learnt once for a model, and from then on the model is sent what it
takes. A setting (`engine.parameters`) says it beforehand, and then nothing is learnt of that model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Literal

from debate_rl.engines.request import EngineFailure
from debate_rl.records import Record

NEUTRAL = {"top_p": 1.0, "temperature": 1.0}
"""Values that change nothing, so that leaving them out is not worth a word."""
_LEFT_OUT = ("top_p", "temperature", "seed", "stop")
"""What may be left out, that which is missed least first."""
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|unexpected|not (?:permitted|allowed|available)"
    r"|incompatible|deprecated|cannot both|only the default",
    re.IGNORECASE,
)
"""A parameter is refused as such. Other refusals are of its value, for example a temperature above 2."""


class Parameters(Record):
    """What one model is sent.

    Example:
        Parameters(limit="max_completion_tokens", leave_out=("temperature", "top_p"))
    """

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the limit of an answer's tokens is called; OpenAI's current models take the second."""
    leave_out: tuple[Literal["temperature", "top_p", "seed", "stop"], ...] = ()
    """What is not sent, so that the server's own choice applies. Texts are then still cut at stop texts."""


class Learnt:
    """The parameters of the models of a server.

    Args:
        settings: by model; `*` is all others. Nothing is learnt of these.
        say: tells the user what is left out.
    """

    def __init__(self, settings: Mapping[str, Parameters] | None, say: Callable[[str], None]) -> None:
        self._settings = dict(settings or {})
        self._say = say
        self._learnt: dict[str, Parameters] = {}
        self._lock = Lock()

    def fit(self, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body with what the model takes."""
        parameters = self._setting(model) or self._learnt.get(model, Parameters())
        fitted = {name: value for name, value in body.items() if name not in parameters.leave_out}
        if "max_tokens" in fitted:
            fitted[parameters.limit] = fitted.pop("max_tokens")
        return fitted

    def learn(self, model: str, sent: Mapping[str, Any], refusal: EngineFailure) -> bool:
        """Take a refusal in; whether the model should be asked again, in another way."""
        if refusal.status not in (400, 422) or self._setting(model) is not None:
            return False
        if not _UNSUPPORTED.search(refusal.message):
            return False
        name = _refused(sent, refusal)
        if name is None:
            return False
        with self._lock:
            before = self._learnt.get(model, Parameters())
            if name == "max_tokens":
                self._learnt[model] = before.model_copy(update={"limit": "max_completion_tokens"})
            elif name not in before.leave_out:  # else another thread has met the same refusal
                self._learnt[model] = before.model_copy(update={"leave_out": (*before.leave_out, name)})
                if sent[name] != NEUTRAL.get(name):
                    self._say(f"{model} takes no {name} ({refusal.message}); it is left out from now on")
        return True

    def _setting(self, model: str) -> Parameters | None:
        return self._settings.get(model, self._settings.get("*"))


def _refused(sent: Mapping[str, Any], refusal: EngineFailure) -> str | None:
    """Which parameter of a request a refusal is about; None where it is none that could be sent otherwise."""
    names = [name for name in ("max_tokens", *_LEFT_OUT) if name in sent]
    if refusal.param is not None:
        return refusal.param if refusal.param in names else None
    named = [name for name in names if re.search(rf"\b{name}\b", refusal.message)]
    # Of two that exclude one another the one goes that changes nothing.
    named.sort(key=lambda name: sent[name] != NEUTRAL.get(name))
    return named[0] if named else None
