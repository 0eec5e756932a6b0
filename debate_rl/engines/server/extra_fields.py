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
_SAMPLERS = ["penalties", "temperature", "top_p"]
"""What llama.cpp is to draw with, in this order. By itself it keeps the 40 likeliest tokens, of these the ones above a
twentieth of the likeliest, and cuts by top_p before the temperature."""


def extra_fields(request: Request, software: Software | None, url: str) -> dict[str, Any]:
    """The fields of a request that go beyond OpenAI's API; for a plain one only those that keep to its sampling.

    Raises:
        UserError: there are some, and what the server runs is not known.
    """
    penalty = request.sampling.repetition_penalty
    fields: dict[str, Any] = {"samplers": _SAMPLERS} if software == "llama.cpp" else {}
    if not request.opening and request.grammar is None and penalty == 1:
        return fields
    if software is None:
        raise UserError(
            f"{url}: OpenAI's API has no openings, grammars or repetition penalties; set engine.software to vllm, "
            "sglang or llama.cpp if the server runs one of them"
        )
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


def shows_llguidance(reply: dict[str, Any]) -> bool:
    """Whether llama.cpp's answer to a request with a schema says that it was built with llguidance.

    It shows the schema as the grammar that it was turned into. A server built without ends when it is sent a grammar of
    llguidance, so it must not be asked for a text to find out.
    """
    settings = reply.get("generation_settings")
    grammar = settings.get("grammar") if isinstance(settings, dict) else None
    return isinstance(grammar, str) and grammar.startswith("%llguidance")


def refused_grammar(message: str, software: Software, url: str) -> str:
    """Error message for a server that takes no grammar, or does not keep to it."""
    return f"{url} {message}; {_HOW[software]}, or set players.quotes.constrained false"
