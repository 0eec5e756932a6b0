"""How a server is reached and asked."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from debate_rl.records import Record

Software = Literal["vllm", "sglang", "llama.cpp"]
"""Servers whose fields beside OpenAI's are known."""


class ServerSettings(Record):
    """An OpenAI-compatible server: its address, its key, and how patiently it is asked.

    Example:
        ServerSettings(url="http://localhost:8000/v1", concurrency=64, deployed="llama-3-8b at 5f0b02c")
    """

    # A key or password typed into the wrong field must not be repeated in an error message.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str
    """Base url of the API. Several servers stand behind one url: vLLM's data parallelism, or its router."""
    key_env: str | None = None
    """Environment variable that holds the key; None sends none. The key itself is in no record and no message."""
    concurrency: int = 16
    """Requests under way at a time."""
    retries: int = 5
    """Further tries after the first one."""
    timeout: float = 120.0
    """Seconds without a byte from the server until a try is given up."""
    backoff: float = 0.5
    """Seconds before the first retry; doubled for each further one, up to half a minute, plus as much jitter."""
    deployed: str | None = None
    """Name of the weights behind the url, under which the store keeps their answers; None takes the url."""
    software: Software | None = None
    """What the server runs; None sends no field but those of OpenAI's API."""
    load_adapters: bool = False
    """Have a vLLM server load the adapters that it lacks."""
    refused: dict[str, tuple[str, ...]] = {}
    """Request fields that a model does not take, by model; other fields are learnt from its first refusal."""
