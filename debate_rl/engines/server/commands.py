"""Commands that start a server for what a run asks of it: vLLM, or llama.cpp for a .gguf file.

The flags are those with which such servers were run (docs/guides/servers.md).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from debate_rl.records import Record

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for."""
_MAX_LORAS = 4
_SLOTS = 4
"""Texts at a time of llama.cpp. Each slot reads a story for itself, so more of them cost more than they bring."""


class Command(Record):
    """A program with its arguments, and the environment that it needs.

    Example:
        Command(env={"DO_NOT_TRACK": "1"}, words=("vllm", "serve", "smollm2-135m"))
    """

    env: dict[str, str]
    words: tuple[str, ...]
    key_env: str | None = None
    """Environment variable that holds the key which clients must send; None asks for none."""
    key_name: str = ""
    """Variable in which the program reads that key: it is on no command line."""

    def __str__(self) -> str:
        """The command for a shell, a flag a line."""
        env = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        if self.key_env is not None:
            env.append(f'{self.key_name}="${self.key_env}"')
        lines = [" ".join(env)] if env else []
        flags: list[list[str]] = []
        for word in self.words:
            if word.startswith("-") or not flags:
                flags.append([])
            flags[-1].append(shlex.quote(word))
        lines += [" ".join(words) for words in flags]
        return " \\\n    ".join(lines)


class Deployment(Record):
    """What a server is to serve: one base model with its adapters.

    Example:
        Deployment(name="smollm2-135m", path="/home/a/models/smollm2-135m", port=8000, longest=7400, context=8192)
    """

    name: str
    """Name under which the engine asks for the model."""
    path: str
    """Its folder, hub name or .gguf file."""
    host: str = "127.0.0.1"
    port: int = 8000
    longest: int
    """Tokens of the longest prompt with its answer."""
    context: int | None = None
    """Tokens that the model reads; None where that is unknown."""
    concurrency: int = 16
    """Requests under way at a time."""
    adapters: dict[str, str] = {}
    """Folder of each adapter that is there already, by the name that the engine asks for."""
    rank: int = 0
    """Largest rank of the run's adapters; 0 where it has none."""
    loads: bool = False
    """Whether the engine has the server load adapters."""
    cpu: bool = False
    dtype: str | None = None
    key_env: str | None = None

    @property
    def length(self) -> int:
        """Tokens of a row: those asked for, in whole blocks, as far as the model reads."""
        blocks = -(-self.longest // 256) * 256
        return blocks if self.context is None else min(blocks, self.context)


def vllm_command(served: Deployment) -> Command:
    """The command of vLLM."""
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    words = ["vllm", "serve", served.path, "--served-model-name", served.name]
    words += ["--host", served.host, "--port", str(served.port), "--max-model-len", str(served.length)]
    # The first: a story is read once. The second: the model's own top-k and penalties stay out of our sampling.
    words += ["--enable-prefix-caching", "--generation-config", "vllm", "--enable-prompt-tokens-details"]
    words += ["--max-num-seqs", str(max(served.concurrency, 32))]
    dtype = served.dtype
    if served.cpu:
        env |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        # A prompt that is read in chunks ends vLLM 0.32 on CPU where a request has a seed.
        words += ["--enforce-eager", "--no-enable-chunked-prefill"]
        words += ["--max-num-batched-tokens", str(max(served.length, 8192))]
        dtype = dtype or "float32"
    if dtype == "nf4":  # vLLM quantizes as it loads, and computes in the checkpoint's format
        words += ["--quantization", "bitsandbytes"]
    elif dtype is not None:
        words += ["--dtype", dtype]
    if served.rank:
        rank = next((rank for rank in _RANKS if rank >= served.rank), served.rank)
        words += ["--enable-lora", "--max-loras", str(_MAX_LORAS), "--max-lora-rank", str(rank)]
        if served.loads:
            env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if served.adapters:
        words.append("--lora-modules")
        words += [f"{name}={folder}" for name, folder in served.adapters.items()]
    return Command(env=env, words=tuple(words), key_env=served.key_env, key_name="VLLM_API_KEY")


def llama_command(served: Deployment) -> Command:
    """The command of llama.cpp's server."""
    slots = min(served.concurrency, _SLOTS)
    words = ["llama-server", "--model", served.path, "--alias", served.name]
    words += ["--host", served.host, "--port", str(served.port)]
    # Its context is divided among the slots.
    words += ["--parallel", str(slots), "--ctx-size", str(slots * served.length), "--jinja"]
    return Command(env={}, words=tuple(words), key_env=served.key_env, key_name="LLAMA_API_KEY")


def environment(command: Command, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command that is started here."""
    env = {**own, **command.env}
    if command.key_env is not None:
        env[command.key_name] = own.get(command.key_env, "")
    return env


def all_named(commands: Sequence[Command]) -> str:
    """Several commands for a shell, one after the other."""
    return "\n\n".join(map(str, commands))
