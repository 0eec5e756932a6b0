"""Request fields that a model does not take: given by the config, or learnt from its refusals."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from debate_rl.engines.request import EngineFailure

# Log-probabilities are not among them: nothing can stand in for them, so their refusal is an error.
_OPTIONAL = ("max_tokens", "temperature", "top_p", "seed", "stop_token_ids", "stop", "n")
"""Request fields that some models refuse and that can be left out."""
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "n": 1}
"""What a server takes where a field is left out."""
_UNSUPPORTED = re.compile(
    r"unsupported|(?:not|n't) (?:be )?(?:support|accept|permitted|allowed|available|implemented|recogni[sz]ed|apply)"
    r"|unrecogni[sz]ed|unknown|unexpected|extra|incompatible|deprecated|forbidden|disabled|removed|rejected|no such"
    r"|fixed (?:at|to)|must be (?:null|omitted|unset)|for this model|only (?:supports?|accepts?)|can ?not|can't"
    r"|only the default",
    re.IGNORECASE,
)
"""How servers refuse a field as such."""
_LIMIT = re.compile(
    r"(?:greater|more|less|larger|higher|lower|longer|fewer) than|at (?:most|least)|exceed|between|below|above|maximum"
    r"|too (?:large|high|low|long|many|small)",
    re.IGNORECASE,
)
"""How servers refuse a value alone: `temperature must be below 2`. Only several texts (`n`) may be more than one."""


class RefusedFields:
    """The fields that each model refuses.

    Newer models of OpenAI want `max_completion_tokens` in place of `max_tokens`, and no temperature or top_p.

    Args:
        refused: fields that are known beforehand, by model.
    """

    def __init__(self, refused: Mapping[str, Sequence[str]]) -> None:
        self._by_model = {name: frozenset(fields) for name, fields in refused.items()}
        self._lock = Lock()

    def accepted(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """The fields of a request that a model takes."""
        refused = self._by_model.get(name, frozenset())
        accepted = {key: value for key, value in body.items() if key not in refused}
        if "max_tokens" in refused and "max_tokens" in body:
            accepted["max_completion_tokens"] = body["max_tokens"]
        return accepted

    def learn(self, name: str, sent: dict[str, Any], failure: EngineFailure) -> bool:
        """Learn from a refusal which field a model does not take.

        Args:
            name: the model that was asked.
            sent: fields of the request that was refused.
            failure: the refusal.

        Returns:
            Whether a field was learnt, so that the request may be tried again without it.
        """
        # Without words of refusal the field's value is at fault, and leaving it out would change what is asked.
        if failure.kind != "request" or not _UNSUPPORTED.search(failure.message):
            return False
        named = []
        for key in _OPTIONAL:
            if key != "n" and _LIMIT.search(failure.message):
                continue
            mention = re.search(rf"\b{key}\b", failure.message) if key in sent else None
            if mention is not None:
                has_effect = sent[key] != _DEFAULTS.get(key)
                named.append((has_effect, mention.start(), key))
        if not named:
            return False
        # Of fields that do not go together one is left out: the one that changes nothing, else the first that is named.
        has_effect, _, field = min(named)
        with self._lock:
            known = self._by_model.get(name, frozenset())
            self._by_model[name] = known | {field}
        # The limit on tokens is sent under another name, so nothing is lost with it.
        if has_effect and field != "max_tokens" and field not in known:
            print(
                f"{name} takes no {field}: it is left out from now on, see engine.refused ({failure.message})",
                file=sys.stderr,
                flush=True,
            )
        return True
