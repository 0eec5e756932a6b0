"""One OpenAI-compatible endpoint over HTTP: posts with retries, and in words what went wrong, never with the key.

A body that was cut off is asked for again like an answer of a busy server. Waits are bounded, whatever the server asks
for, and long ones are said on the terminal.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import exceptions as errors

from debate_rl.engines.request import EngineFailure
from debate_rl.errors import UserError
from debate_rl.records import clean_text

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""HTTP answers that another try may mend."""
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading an answer raises that has not the form of one."""
UNREACHABLE, REFUSED, LONG_WAIT = "unreachable", "refused", "long wait"
"""Kinds of failure that concern every request: nobody listens; the key, path, model or credit is not there; the server
asks for a wait that is longer than all tries."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, at most."""
SAID_FROM = 5.0
"""Waits of so many seconds and more are said on the terminal, one in so many seconds."""
BODY_TIMEOUTS = 5
"""Time-outs that a body may take once its headers are there: some servers send blank lines while they are busy."""
MOST_BYTES = 64 << 20
"""Of a body."""
_CONTEXT = re.compile(r"context(?! (?:deadline|cancell?ed))", re.IGNORECASE)
"""What servers say of a prompt that is too long; `context deadline exceeded` is a gateway's time-out."""
_UNCLEAN = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)|\xed[\xa0-\xbf]|\x00")
"""Bytes of JSON that may stand for a lone surrogate or NUL."""


@dataclass(frozen=True)
class Reply:
    """One HTTP answer, read to its end."""

    status: int
    data: bytes
    answer: Any
    """The body as JSON; None where it is none."""
    retry_after: float | None = None
    """Seconds that the server asks to wait."""

    @property
    def cut_off(self) -> bool:
        """Whether the body begins like an answer and does not end like one."""
        return self.status == 200 and self.answer is None and self.data.lstrip().startswith(b"{")


class Endpoint:
    """An API at a url.

    Args:
        url: of the API, for example http://localhost:8000/v1.
        key_env: environment variable that holds the key; None sends none. The key is in no record and no message.
        concurrency: connections kept open.
        retries: further tries after the first one.
        timeout: seconds without a byte from the server until a try is given up.
        backoff: seconds before the first retry, doubled for each further one, up to half a minute, plus as much jitter.
        say: tells the user why nothing moves; None prints on stderr.

    Raises:
        UserError: the url is not one, or the key is not set.
    """

    def __init__(
        self,
        url: str,
        key_env: str | None,
        concurrency: int,
        retries: int,
        timeout: float,
        backoff: float,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.url = _checked(url)
        self.key_env = key_env
        self.retries, self.backoff, self.timeout = retries, backoff, timeout
        self._key = _key(key_env)
        self._say = say or say_on_terminal
        self._last_said = float("-inf")
        self._lock = Lock()
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
    ) -> Reply | EngineFailure:
        """One request with its retries."""
        reply = self._try(method, path, body, root)
        for number in range(self.retries):
            if isinstance(reply, Reply) and not self._may_pass(reply):
                return reply
            self._wait(reply, number)
            reply = self._try(method, path, body, root)
        return reply

    def _may_pass(self, reply: Reply) -> bool:
        """Whether another try may bring another answer."""
        return reply.cut_off or (reply.status in RETRIED and not _out_of_credit(reply))

    def _wait(self, reply: Reply | EngineFailure, number: int) -> None:
        """Wait before another try: as long as the server asks, or longer each time."""
        asked = reply.retry_after if isinstance(reply, Reply) else None
        seconds = self.backoff * 2 ** min(number, 16) if asked is None else asked
        seconds = min(seconds, LONGEST_WAIT) + self.backoff * random.random()
        if seconds >= SAID_FROM:
            failure = self._error(reply) if isinstance(reply, Reply) else reply
            longer = f", which asks for {asked:,.0f} s" if asked is not None and asked > LONGEST_WAIT else ""
            self._tell(f"{failure.message}{longer}; try {number + 2} of {self.retries + 1} in {seconds:.0f} s")
        time.sleep(seconds)

    def _tell(self, what: str) -> None:
        """Say why nothing moves, once for all requests that wait."""
        with self._lock:
            now = time.monotonic()
            if now - self._last_said < SAID_FROM:
                return
            self._last_said = now
        self._say(what)

    def _try(self, method: str, path: str, body: dict[str, Any] | None, root: bool) -> Reply | EngineFailure:
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
        except errors.HTTPError as error:
            return self._lost(error)
        return Reply(response.status, content, _parsed(content), retry_after(response.headers.get("Retry-After")))

    def _lost(self, error: errors.HTTPError) -> EngineFailure:
        """What a connection that failed means."""
        cause = error.original_error if isinstance(error, errors.ProxyError) else error
        if isinstance(cause, errors.NewConnectionError | errors.LocationValueError):
            return EngineFailure(kind=UNREACHABLE, message=f"no answer from {self.url}; is the server up?")
        if isinstance(cause, errors.SSLError):
            said = self.clean(str(cause))
            return EngineFailure(kind=UNREACHABLE, message=f"no secure connection to {self.url} ({said})")
        name = type(cause).__name__
        kind = "time-out" if isinstance(cause, errors.TimeoutError) else "connection"
        return EngineFailure(kind=kind, message=f"{self.url}: {name}: {self.clean(str(cause))}")

    def _error(self, reply: Reply) -> EngineFailure:
        """What an HTTP error means, in the server's words, the key taken out."""
        status, answer = reply.status, reply.answer
        error = answer.get("error", answer) if isinstance(answer, dict) else None
        fields = error if isinstance(error, dict) else {}
        said = self.clean(str(fields.get("message", error)) if fields else str(error) if error else reply.data)
        if _out_of_credit(reply):
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
        message = f"{self.url} answered {status}: {said}"
        asked = reply.retry_after
        if asked is not None and asked > LONGEST_WAIT * max(self.retries, 1) and status in RETRIED:
            wait = f"{message}; it asks to wait {asked:,.0f} s (Retry-After)"
            return EngineFailure(
                kind=LONG_WAIT, message=f"{wait}. What is finished is kept, and the same command goes on then"
            )
        kind = "rate limit" if status == 429 else "time-out" if status == 408 else "server"
        if status < 500 and _CONTEXT.search(said):
            kind = "context"
        param = fields.get("param")
        return EngineFailure(kind=kind, message=message, status=status, param=param if isinstance(param, str) else None)

    def clean(self, text: str | bytes) -> str:
        """The beginning of what a server said, on one line, without the key."""
        plain = text.decode(errors="replace") if isinstance(text, bytes) else clean_text(text)
        if self._key:
            plain = plain.replace(self._key, "***")
        return " ".join(plain.split())[:300]


def say_on_terminal(text: str) -> None:
    """Print a line on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


def retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` asks for, be it a number or a date; None where it is neither, or gone by.

    Example:
        >>> retry_after("0.5")
        0.5
        >>> retry_after("soon")
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return seconds if seconds >= 0 else None  # nor is NaN


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
                raise errors.ProtocolError(f"more than {MOST_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise errors.TimeoutError(f"the body is not there after {seconds:g} s")
    except BaseException:
        response.close()  # else what is left of the body would be read as the next answer
        raise
    finally:
        response.release_conn()  # a connection that is not given back is one less for all further requests
    return b"".join(pieces)


def _parsed(data: bytes) -> Any:
    """A body as JSON, its texts cleaned; None where it is none."""
    try:
        answer = json.loads(data, strict=False)  # lenient about raw control characters, as servers are
        return _cleaned(answer) if _UNCLEAN.search(data) else answer
    except (ValueError, RecursionError):
        return None


def _cleaned(value: Any) -> Any:
    """JSON with all of its texts cleaned."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {name: _cleaned(one) for name, one in value.items()}
    return value


def _out_of_credit(reply: Reply) -> bool:
    """Whether the account is empty: OpenAI says so with a 429, for which no wait helps."""
    return reply.status == 402 or (reply.status == 429 and b"insufficient_quota" in reply.data)


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
