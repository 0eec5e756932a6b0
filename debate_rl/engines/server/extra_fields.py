"""Request fields that OpenAI's API does not have, as each kind of server calls them."""

from __future__ import annotations

from typing import Any

from debate_rl.engines.request import Request
from debate_rl.engines.server.settings import Software
from debate_rl.errors import UserError

_PENALTY: dict[Software, str] = {
    "vllm": "repetition_penalty",
    "sglang": "repetition_penalty",
    "llama.cpp": "repeat_penalty",
}
_HOW: dict[Software, str] = {
    "vllm": "start vLLM with --structured-outputs-config.backend guidance (0.11 or newer)",
    "sglang": "start SGLang with --grammar-backend llguidance",
    "llama.cpp": "build llama.cpp with -DLLAMA_LLGUIDANCE=ON",
}
"""How a server comes to read the grammars of llguidance."""


def extra_fields(request: Request, software: Software | None, url: str) -> dict[str, Any]:
    """The fields of a request that go beyond OpenAI's API; empty for a plain one.

    Raises:
        UserError: there are some, and what the server runs is not known.
    """
    penalty = request.sampling.repetition_penalty
    if not request.opening and request.grammar is None and penalty == 1:
        return {}
    if software is None:
        raise UserError(
            f"{url}: OpenAI's API has no openings, grammars or repetition penalties; set engine.software to vllm, "
            "sglang or llama.cpp if the server runs one of them"
        )
    fields: dict[str, Any] = {}
    if penalty != 1:
        fields[_PENALTY[software]] = penalty
        if software == "llama.cpp":
            fields["repeat_last_n"] = -1  # the whole context, as the others count
    if request.grammar is not None:
        fields.update(_grammar_field(request.grammar, software))
    # llama.cpp goes on from a last message of the assistant by itself.
    if request.opening and software != "llama.cpp":
        fields["continue_final_message"] = True
        if software == "vllm":
            fields["add_generation_prompt"] = False
    return fields


def _grammar_field(grammar: str, software: Software) -> dict[str, Any]:
    """The field of a grammar. Its first line, `%llguidance {}`, keeps servers from reading it as another kind."""
    if software == "vllm":
        return {"structured_outputs": {"grammar": grammar}}
    if software == "sglang":
        return {"ebnf": grammar}
    return {"grammar": grammar}


def refused_grammar(message: str, software: Software, url: str) -> str:
    """Error message for a server that takes no grammar, or does not keep to it."""
    return f"{url} {message}; {_HOW[software]}, or set players.quotes.constrained false"
