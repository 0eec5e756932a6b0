"""One OpenAI-compatible endpoint over HTTP: posts with retries, and in words what went wrong, never with the key.

A body that was cut off is asked for again like an answer of a busy server. Waits are bounded, whatever the server asks
for, and so is the time that a body may take.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import sys
import time
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from debate_rl.engines.request import EngineFailure
from debate_rl.errors import UserError
from debate_rl.records import clean_text

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""HTTP answers that another try may mend."""
LONGEST_WAIT = 60.0
"""Seconds that a server is waited for at its word before it is asked again."""
BODY_TIMEOUTS = 5
"""Time-outs that a body may take once its headers are there: some servers send blank lines while they are busy."""
MOST_BYTES = 64 << 20
"""Of a body."""
_SAID_FROM = 5.0
LONGEST_BACKOFF = 30.0
"""Seconds between two tries where the server does not say."""
_CONTEXT = re.compile(r"context(?! (?:deadline|cancell?ed))", re.IGNORECASE)
"""What servers say of a prompt that is too long; `context deadline exceeded` is a gateway's time-out."""
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading an answer raises that has not the form of one."""
UNREACHABLE, REFUSED = "unreachable", "refused"
"""Kinds of failure that concern every request: nobody listens; the key, path, model or credit is not there."""


@dataclass(frozen=True)
class _Reply:
    """One HTTP answer, read to its end."""

    status: int
    data: bytes
    answer: Any
    """The body as JSON; None where it is none."""
    retry_after: str

    @property
    def passing(self) -> bool:
        """Whether another try may bring another answer."""
        # What begins like an answer and does not end like one was cut off on its way.
        cut_off = self.status == 200 and self.answer is None and self.data.lstrip().startswith(b"{")
        return cut_off or (self.status in RETRIED and not self.no_credit)

    @property
    def no_credit(self) -> bool:
        """Whether the account is empty: OpenAI says so with a 429, for which no wait helps."""
        return self.status == 402 or (self.status == 429 and b"insufficient_quota" in self.data)


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
        self.retries, self.timeout, self.backoff = retries, timeout, backoff
        self._key = _key(key_env)
        limits: dict[str, Any] = {"retries": False, "timeout": timeout, "maxsize": concurrency, "block": True}
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
        reply = self._send("POST", path, body, root)
        if isinstance(reply, EngineFailure):
            return reply
        if reply.status != 200:
            return self._error(reply)
        if isinstance(reply.answer, dict):
            return reply.answer
        return EngineFailure(kind="malformed", message=f"{self.url} gave no JSON: {self.clean(reply.data)!r}")

    def models(self) -> frozenset[str] | EngineFailure | None:
        """Names of what the server serves, its adapters among them; None where it does not tell."""
        reply = self._send("GET", "/models")
        if isinstance(reply, EngineFailure):
            return reply
        if reply.status != 200:
            return None
        try:
            return frozenset(str(one["id"]) for one in reply.answer["data"])
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
        return self._error(reply).message

    def unload_adapter(self, name: str) -> str | None:
        """Have a vLLM server let go of an adapter; what it said if it did not."""
        reply = self._send("POST", "/unload_lora_adapter", {"lora_name": name})
        if isinstance(reply, EngineFailure):
            return reply.message
        return None if reply.status == 200 else self._error(reply).message

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, root: bool = False
    ) -> _Reply | EngineFailure:
        """One request with its retries."""
        reply = self._try(method, path, body, root)
        for number in range(self.retries):
            if isinstance(reply, _Reply) and not reply.passing:
                break
            self._wait(reply, number)
            reply = self._try(method, path, body, root)
        return reply

    def _try(self, method: str, path: str, body: dict[str, Any] | None, root: bool) -> _Reply | EngineFailure:
        """One request, once."""
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        start = self.url.removesuffix("/v1") if root else self.url
        try:
            # No redirects: they could take the key elsewhere.
            response = self._pool.request(
                method, start + path, body=data, headers=headers, redirect=False, preload_content=False
            )
            content = _read(response, BODY_TIMEOUTS * self.timeout)
        except urllib3.exceptions.HTTPError as error:
            return self._lost(error)
        return _Reply(response.status, content, _parsed(content), response.headers.get("Retry-After", ""))

    def _wait(self, reply: _Reply | EngineFailure, number: int) -> None:
        """Wait before another try: as long as the server asks, or longer each time."""
        asked = wait_asked(reply.retry_after) if isinstance(reply, _Reply) else 0.0
        backoff = min(self.backoff * 2 ** min(number, 16), LONGEST_BACKOFF)
        time.sleep((asked or backoff) + self.backoff * random.random())

    def _lost(self, error: urllib3.exceptions.HTTPError) -> EngineFailure:
        """What a connection that failed means."""
        cause = error.original_error if isinstance(error, urllib3.exceptions.ProxyError) else error
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return EngineFailure(kind=UNREACHABLE, message=f"no answer from {self.url}; is the server up?")
        name = type(cause).__name__
        kind = "time-out" if isinstance(cause, urllib3.exceptions.TimeoutError) else "connection"
        return EngineFailure(kind=kind, message=f"{self.url}: {name} in every try: {self.clean(str(cause))}")

    def _error(self, reply: _Reply) -> EngineFailure:
        """What an HTTP error means, in the server's words, the key taken out."""
        status, said = reply.status, self.clean(_words(reply))
        if reply.no_credit:
            return EngineFailure(
                kind=REFUSED, message=f"{self.url} has no credit left for this key ({status}: {said}); top it up"
            )
        # A 403 is also how OpenAI refuses log-probabilities of some models.
        if status == 401 or (status == 403 and "logprob" not in said):
            what = f"set the key in ${self.key_env}" if self.key_env else "name its variable: engine.key_env"
            return EngineFailure(kind=REFUSED, message=f"{self.url} refuses the key ({status}: {said}); {what}")
        if status == 404:
            return EngineFailure(
                kind=REFUSED, message=f"{self.url} knows no such model or path (404: {said}); see engine.url, models"
            )
        refused = 400 <= status < 500 and status not in RETRIED
        kind = "request" if refused else "rate limit" if status == 429 else "server"
        # Some servers answer 500 to a prompt that is too long.
        if kind != "rate limit" and _CONTEXT.search(said):
            kind = "context"
        return EngineFailure(kind=kind, message=f"{self.url} answered {status}: {said}")

    def clean(self, text: str | bytes) -> str:
        """The beginning of what a server said, on one line, without the key."""
        plain = text.decode(errors="replace") if isinstance(text, bytes) else clean_text(text)
        if self._key:
            plain = plain.replace(self._key, "***")
        return " ".join(plain.split())[:300]


def _words(reply: _Reply) -> str | bytes:
    """What a server says of an error."""
    error = reply.answer.get("error", reply.answer) if isinstance(reply.answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else reply.data


def wait_asked(retry_after: str) -> float:
    """Seconds to wait as a server asks, `LONGEST_WAIT` at most; long ones are said on the terminal.

    Returns:
        0 where it does not say, which leaves it to the backoff.
    """
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
            date = parsedate_to_datetime(retry_after)
            seconds = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _read(response: urllib3.BaseHTTPResponse, seconds: float) -> bytes:
    """A whole body.

    Raises:
        HTTPError: it was cut off, is no gzip as it says, is too large, or comes too slowly.
    """
    deadline = time.monotonic() + seconds
    pieces, size = [], 0
    try:
        # read1 gives what is there; read would wait for a whole block, and a byte now and then would never end it.
        while piece := response.read1(1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_BYTES:
                raise urllib3.exceptions.ProtocolError(f"more than {MOST_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise urllib3.exceptions.TimeoutError(f"the body is not there after {seconds:g} s")
    except BaseException:
        response.close()  # else what is left of the body would be read as the next answer
        raise
    finally:
        response.release_conn()  # a connection that is not given back is one less for all further requests
    return b"".join(pieces)


def _parsed(data: bytes) -> Any:
    """A body as JSON; None where it is none."""
    try:
        return json.loads(data, strict=False)  # lenient about raw control characters, as servers are
    except (ValueError, RecursionError):
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
