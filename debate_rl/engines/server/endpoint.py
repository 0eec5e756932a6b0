"""HTTP client for one OpenAI-compatible endpoint: posts with retries, and errors in words, without the key.

A body that was cut off is asked for again, like the answer of a busy server. Waits are bounded whatever the server asks
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
from debate_rl.engines.server.settings import ServerSettings
from debate_rl.errors import UserError
from debate_rl.records import clean_text

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""HTTP statuses after which another try may succeed."""
LONGEST_WAIT = 60.0
"""Longest wait in seconds before the next try when the server names one (Retry-After)."""
LONGEST_BACKOFF = 30.0
"""Longest wait in seconds before the next try when the server names none."""
BODY_TIMEOUTS = 5
"""Time-outs that a body may take once its headers are there: some servers send blank lines while they are busy."""
MOST_BYTES = 64 << 20
"""Largest body that is read."""
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a malformed answer raises."""
UNREACHABLE = "unreachable"
"""Kind of failure that concerns every request: nobody listens at the url."""
REFUSED = "refused"
"""Kind of failure that concerns every request: the key, path, model or credit is not there."""

_PRINTED_FROM = 5.0
"""Seconds: a shorter Retry-After is waited for without a line on the terminal."""
# `context deadline exceeded` is a gateway's time-out, not a prompt that is too long.
_CONTEXT = re.compile(r"context(?! (?:deadline|cancell?ed))", re.IGNORECASE)


@dataclass(frozen=True)
class _Reply:
    """One HTTP answer, read to its end."""

    status: int
    data: bytes
    answer: Any
    """The body as JSON; None where it is not JSON."""
    retry_after: str

    @property
    def passing(self) -> bool:
        """Whether another try may bring another answer."""
        if self.no_credit:
            return False
        if self.status in RETRIED:
            return True
        # A body that begins like JSON and does not parse was cut off on its way.
        return self.status == 200 and self.answer is None and self.data.lstrip().startswith(b"{")

    @property
    def no_credit(self) -> bool:
        """Whether the account is empty."""
        if self.status == 402:
            return True
        # OpenAI answers 429 to an empty account as well, and no wait helps with that.
        return self.status == 429 and b"insufficient_quota" in self.data


class Endpoint:
    """An OpenAI-compatible API at one url.

    Args:
        settings: url, key and patience.

    Raises:
        UserError: the url is not valid, or the key is not set.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.url = _checked_url(settings.url)
        self.key_env = settings.key_env
        self.retries = settings.retries
        self.timeout = settings.timeout
        self.backoff = settings.backoff
        self._key = _read_key(settings.key_env)
        # `block`: a further thread waits for a free connection instead of opening one more.
        limits: dict[str, Any] = {
            "retries": False,
            "timeout": settings.timeout,
            "maxsize": settings.concurrency,
            "block": True,
        }
        parts = urlsplit(self.url)
        proxy = None
        if not proxy_bypass(parts.hostname or ""):
            proxy = getproxies().get(parts.scheme)
        self._answered = False
        """Whether it has answered anything: a server that then refuses connections has ended."""
        self._pool = urllib3.ProxyManager(proxy, **limits) if proxy else urllib3.PoolManager(**limits)

    def post(self, path: str, body: dict[str, Any], root: bool = False) -> dict[str, Any] | EngineFailure:
        """Post one request and return its JSON object, or the reason why there is none.

        Args:
            path: path below the url.
            body: sent as JSON.
            root: take the path from the server's root instead of its /v1.
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
        """List the names of the models and adapters served; None where the server has no list."""
        reply = self._send("GET", "/models")
        if isinstance(reply, EngineFailure):
            return reply
        if reply.status != 200:
            return None
        try:
            return frozenset(str(model["id"]) for model in reply.answer["data"])
        except MALFORMED:
            return None

    def load_adapter(self, name: str, folder: str) -> str | None:
        """Have a vLLM server load an adapter under a name; the server's complaint if it did not."""
        reply = self._send("POST", "/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        if isinstance(reply, EngineFailure):
            return reply.message
        # Another process may have loaded it since the models were listed.
        if reply.status == 200 or b"already" in reply.data:
            return None
        return self._error(reply).message

    def unload_adapter(self, name: str) -> str | None:
        """Have a vLLM server unload an adapter; the server's complaint if it did not."""
        reply = self._send("POST", "/unload_lora_adapter", {"lora_name": name})
        if isinstance(reply, EngineFailure):
            return reply.message
        if reply.status == 200:
            return None
        return self._error(reply).message

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
        base = self.url.removesuffix("/v1") if root else self.url
        try:
            # No redirects: they could take the key elsewhere.
            response = self._pool.request(
                method, base + path, body=data, headers=headers, redirect=False, preload_content=False
            )
            content = _read_body(response, BODY_TIMEOUTS * self.timeout)
        except urllib3.exceptions.HTTPError as error:
            return self._lost(error)
        self._answered = True
        return _Reply(response.status, content, _parse_json(content), response.headers.get("Retry-After", ""))

    def _wait(self, reply: _Reply | EngineFailure, number: int) -> None:
        """Wait before another try: as long as the server asks, else longer each time."""
        seconds = 0.0
        if isinstance(reply, _Reply):
            seconds = wait_asked(reply.retry_after)
        if not seconds:
            # The exponent is bounded because 2 ** 2000 is no float.
            seconds = min(self.backoff * 2 ** min(number, 16), LONGEST_BACKOFF)
        # Jitter: many requests that failed together should not come back together.
        time.sleep(seconds + self.backoff * random.random())

    def _lost(self, error: urllib3.exceptions.HTTPError) -> EngineFailure:
        """The failure that a broken connection stands for."""
        cause: Exception = error
        if isinstance(error, urllib3.exceptions.ProxyError):
            cause = error.original_error
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            message = f"no answer from {self.url}; is the server up?"
            if self._answered:
                message += " It answered before, so it has ended; its log says why. Start it again, then this command"
            return EngineFailure(kind=UNREACHABLE, message=message)
        name = type(cause).__name__
        kind = "time-out" if isinstance(cause, urllib3.exceptions.TimeoutError) else "connection"
        return EngineFailure(kind=kind, message=f"{self.url}: {name} in every try: {self.clean(str(cause))}")

    def _error(self, reply: _Reply) -> EngineFailure:
        """The failure that an HTTP error stands for, in the server's words without the key."""
        status = reply.status
        words = self.clean(_error_message(reply))
        if reply.no_credit:
            message = f"{self.url} has no credit left for this key ({status}: {words}); top it up"
            return EngineFailure(kind=REFUSED, message=message)
        # A 403 is also how OpenAI refuses log-probabilities of some models.
        refuses_key = status == 401 or (status == 403 and "logprob" not in words)
        if refuses_key:
            fix = f"set the key in ${self.key_env}" if self.key_env else "name its variable: engine.key_env"
            return EngineFailure(kind=REFUSED, message=f"{self.url} refuses the key ({status}: {words}); {fix}")
        if status == 404:
            message = f"{self.url} knows no such model or path (404: {words}); see engine.url, models"
            return EngineFailure(kind=REFUSED, message=message)
        kind = "server"
        if status == 429:
            kind = "rate limit"
        elif 400 <= status < 500 and status not in RETRIED:
            kind = "request"
        # Some servers answer 500 to a prompt that is too long.
        if kind != "rate limit" and _CONTEXT.search(words):
            kind = "context"
        return EngineFailure(kind=kind, message=f"{self.url} answered {status}: {words}")

    def clean(self, text: str | bytes) -> str:
        """The first 300 characters of a server's text, on one line, without the key."""
        plain = text.decode(errors="replace") if isinstance(text, bytes) else clean_text(text)
        if self._key:
            plain = plain.replace(self._key, "***")
        return " ".join(plain.split())[:300]


def _error_message(reply: _Reply) -> str | bytes:
    """The message of an error: `error.message`, `error`, or the whole body."""
    message = None
    if isinstance(reply.answer, dict):
        message = reply.answer.get("error", reply.answer)
    if isinstance(message, dict):
        message = message.get("message")
    if isinstance(message, str) and message:
        return message
    return reply.data


def wait_asked(retry_after: str) -> float:
    """Seconds to wait by a server's `Retry-After`, at most `LONGEST_WAIT`; long waits are printed.

    Returns:
        0 where the header names no time, which leaves the wait to the backoff.
    """
    seconds = _retry_seconds(retry_after)
    if seconds > LONGEST_WAIT:
        print(
            f"the server asks for {seconds:,.0f} s of patience (Retry-After); asked again in {LONGEST_WAIT:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    elif seconds > _PRINTED_FROM:
        print(f"the server asks to wait for {seconds:.0f} s (Retry-After)", file=sys.stderr, flush=True)
    return min(seconds, LONGEST_WAIT)


def _retry_seconds(retry_after: str) -> float:
    """Seconds that a `Retry-After` names, as a number or a date; 0 where it names none."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after)
            if not date.tzinfo:
                date = date.replace(tzinfo=timezone.utc)
            seconds = date.timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0.0
    if not math.isfinite(seconds):
        return 0.0
    return max(seconds, 0.0)


def _read_body(response: urllib3.BaseHTTPResponse, seconds: float) -> bytes:
    """Read a whole body.

    Args:
        response: an answer whose headers are there.
        seconds: time for the whole body.

    Raises:
        HTTPError: it was cut off, is no gzip as it says, is too large, or comes too slowly.
    """
    deadline = time.monotonic() + seconds
    pieces = []
    size = 0
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
        response.close()  # else the rest of the body would be read as the next answer
        raise
    finally:
        response.release_conn()  # the pool blocks: a connection that is not given back is missing ever after
    return b"".join(pieces)


def _parse_json(data: bytes) -> Any:
    """A body as JSON; None where it is not JSON."""
    try:
        return json.loads(data, strict=False)  # lenient about raw control characters, as servers are
    except (ValueError, RecursionError):
        return None


def url_fault(url: str) -> str | None:
    """What is wrong with the url of an API; None if nothing is.

    The message does not repeat the url, since that may hold a key.
    """
    example = "write for example http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port
    except ValueError:
        return f"the host or port is not valid; {example}"
    is_http = parts.scheme in ("http", "https")
    is_host = re.fullmatch(r"[\w.:%-]+", host) is not None
    if not is_http or not is_host or port == 0:
        return f"this is no url of an API; {example}"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "it holds a user, password or query; put the key into the variable that engine.key_env names"
    return None


def key_env_fault(name: str) -> str | None:
    """What is wrong with the name of a key's variable; None if nothing is.

    The message does not repeat the name, since that may be the key.
    """
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return None
    return "key_env is the NAME of an environment variable, such as OPENAI_API_KEY, never the key itself"


def _checked_url(url: str) -> str:
    """The url without a slash at its end.

    Raises:
        UserError: it is no http url, or holds a password.
    """
    fault = url_fault(url)
    if fault is not None:
        raise UserError(f"engine.url: {fault}")
    return url.rstrip("/")


def _read_key(name: str | None) -> str | None:
    """The key in an environment variable.

    Raises:
        UserError: the variable is not set, or its name is not valid.
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
