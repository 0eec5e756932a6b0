"""One OpenAI-compatible endpoint over HTTP: posts with retries, and in words what went wrong, never with the key.

Retries, their waiting and `Retry-After` are urllib3's; a body that was cut off is asked for again as well.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import sys
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from debate_rl.engines.request import EngineFailure
from debate_rl.errors import UserError

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""HTTP answers that another try may mend."""
LONGEST_WAIT = 60.0
"""Seconds that a server is waited for at its word before it is asked again."""
_SAID_FROM = 5.0
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading an answer raises that has not the form of one."""
UNREACHABLE, REFUSED = "unreachable", "refused"
"""Kinds of failure that concern every request: nobody listens; the key, path or model is not known."""


class Endpoint:
    """An API at a url.

    Args:
        url: of the API, for example http://localhost:8000/v1.
        key_env: environment variable that holds the key; None sends none. The key is in no record and no message.
        concurrency: connections kept open.
        retries: further tries after the first one.
        timeout: seconds without a byte from the server until a try is given up.
        backoff: seconds before the first retry, doubled for each further one, up to half a minute, plus as much jitter.

    Raises:
        UserError: the url is not one, or the key is not set.
    """

    def __init__(
        self, url: str, key_env: str | None, concurrency: int, retries: int, timeout: float, backoff: float
    ) -> None:
        self.url = _checked(url)
        self.key_env = key_env
        self.retries, self.backoff = retries, backoff
        self._key = _key(key_env)
        retry = _Retry(
            total=retries, backoff_factor=backoff / 2, backoff_max=30, backoff_jitter=backoff, status_forcelist=RETRIED,
            allowed_methods=None, redirect=0, raise_on_redirect=False, raise_on_status=False,
        )  # fmt: skip
        limits: dict[str, Any] = {"retries": retry, "timeout": timeout, "maxsize": concurrency, "block": True}
        parts = urlsplit(self.url)
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        self._pool = urllib3.ProxyManager(proxy, **limits) if proxy else urllib3.PoolManager(**limits)

    def post(self, path: str, body: dict[str, Any], root: bool = False) -> dict[str, Any] | EngineFailure:
        """The server's answer to one request, or why there is none.

        Args:
            path: below the url.
            body: sent as JSON.
            root: take the path from the server's root, not from its /v1.
        """
        for left in range(self.retries, -1, -1):
            reply = self._send("POST", path, body, root)
            if isinstance(reply, EngineFailure):
                return reply
            data, answer = reply.data, _parsed(reply.data)
            if reply.status != 200:
                return self._error(reply.status, answer, data)
            if isinstance(answer, dict):
                return answer
            # What begins like an answer and does not end like one was cut off on its way.
            if not data.lstrip().startswith(b"{") or not left:
                break
            time.sleep(self.backoff * (1 + random.random()))
        return EngineFailure(kind="malformed", message=f"{self.url} gave no JSON: {self.clean(data)!r}")

    def models(self) -> frozenset[str] | EngineFailure | None:
        """Names of what the server serves, its adapters among them; None where it does not tell."""
        reply = self._send("GET", "/models")
        if isinstance(reply, EngineFailure):
            return reply
        if reply.status != 200:
            return None
        try:
            return frozenset(str(one["id"]) for one in _parsed(reply.data)["data"])
        except MALFORMED:
            return None

    def load_adapter(self, name: str, folder: str) -> str | None:
        """Have a vLLM server load an adapter under a name; what it said if it did not."""
        reply = self._send("POST", "/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        if isinstance(reply, EngineFailure):
            return reply.message
        # Another process may have loaded it since we looked.
        if reply.status == 200 or b"already" in reply.data:
            return None
        return self._error(reply.status, _parsed(reply.data), reply.data).message

    def unload_adapter(self, name: str) -> str | None:
        """Have a vLLM server let go of an adapter; what it said if it did not."""
        reply = self._send("POST", "/unload_lora_adapter", {"lora_name": name})
        if isinstance(reply, EngineFailure):
            return reply.message
        return None if reply.status == 200 else self._error(reply.status, _parsed(reply.data), reply.data).message

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, root: bool = False
    ) -> urllib3.BaseHTTPResponse | EngineFailure:
        """One request with its retries."""
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        start = self.url.removesuffix("/v1") if root else self.url
        try:
            reply = self._pool.request(method, start + path, body=data, headers=headers)
            _ = reply.data
            return reply
        except urllib3.exceptions.HTTPError as error:
            return self._lost(error)

    def _lost(self, error: urllib3.exceptions.HTTPError) -> EngineFailure:
        """What a connection that failed in every try means."""
        cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return EngineFailure(kind=UNREACHABLE, message=f"no answer from {self.url}; is the server up?")
        name = type(cause).__name__
        kind = "time-out" if isinstance(cause, urllib3.exceptions.TimeoutError) else "connection"
        return EngineFailure(kind=kind, message=f"{self.url}: {name} in every try: {self.clean(str(cause))}")

    def _error(self, status: int, answer: Any, data: bytes) -> EngineFailure:
        """What an HTTP error means, in the server's words, the key taken out."""
        error = answer.get("error", answer) if isinstance(answer, dict) else None
        said = self.clean(str(error.get("message", error)) if isinstance(error, dict) else error or data)
        if status in (401, 403):
            what = f"set the key in ${self.key_env}" if self.key_env else "name its variable: engine.key_env"
            return EngineFailure(kind=REFUSED, message=f"{self.url} refuses the key ({status}: {said}); {what}")
        if status == 404:
            return EngineFailure(
                kind=REFUSED, message=f"{self.url} knows no such model or path (404: {said}); see engine.url, models"
            )
        if status == 429:
            kind = "rate limit"
        elif "context" in said:
            kind = "context"
        else:
            kind = "request" if 400 <= status < 500 and status not in RETRIED else "server"
        return EngineFailure(kind=kind, message=f"{self.url} answered {status}: {said}")

    def clean(self, text: str | bytes) -> str:
        """The beginning of what a server said, on one line, without the key."""
        plain = text.decode(errors="replace") if isinstance(text, bytes) else text
        if self._key:
            plain = plain.replace(self._key, "***")
        return " ".join(plain.split())[:300]


class _Retry(urllib3.Retry):
    """Retries that read any `Retry-After`, and wait no longer than `LONGEST_WAIT`."""

    def parse_retry_after(self, retry_after: str) -> float:
        """Seconds to wait; 0 where it does not say, which leaves it to the backoff."""
        seconds = _seconds(retry_after)
        if seconds > LONGEST_WAIT:
            print(
                f"the server asks for {seconds:,.0f} s of patience (Retry-After); asked again in {LONGEST_WAIT:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        elif seconds > _SAID_FROM:
            print(f"the server asks to wait for {seconds:.0f} s (Retry-After)", file=sys.stderr, flush=True)
        return min(seconds, LONGEST_WAIT)


def _seconds(retry_after: str) -> float:
    """Seconds that a `Retry-After` names, as a number or a date; 0 where it names none."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _parsed(data: bytes) -> Any:
    """A body as JSON; None where it is none."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def url_fault(url: str) -> str | None:
    """What is wrong with the url of an API, without repeating it, since it may hold a key; None if nothing is."""
    example = "write for example http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"the host or port is not valid; {example}"
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:%-]+", host) or port == 0:
        return f"this is no url of an API; {example}"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "it holds a user, password or query; put the key into the variable that engine.key_env names"
    return None


def key_env_fault(name: str) -> str | None:
    """What is wrong with the name of a key's variable, without repeating it: it may be the key. None if nothing is."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return None
    return "key_env is the NAME of an environment variable, such as OPENAI_API_KEY, never the key itself"


def _checked(url: str) -> str:
    """The url without a slash at its end.

    Raises:
        UserError: it is no http url, or holds a password.
    """
    fault = url_fault(url)
    if fault is not None:
        raise UserError(f"engine.url: {fault}")
    return url.rstrip("/")


def _key(name: str | None) -> str | None:
    """The key of an environment variable.

    Raises:
        UserError: it is not set, or the name is none.
    """
    if name is None:
        return None
    fault = key_env_fault(name)
    if fault is not None:
        raise UserError(f"engine.key_env: {fault}")
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(f"engine.key_env: the environment variable {name} is not set; export it before the run")
    return key
