"""Control marks: what a chat template uses to tell who speaks, and how a text is kept from writing them.

Every text that goes into a prompt passes `neutral`, on its way to the local engine, to a server and into training. It
breaks the marks of the usual templates, and those of a tokenizer's own: its special tokens, and what stands in its
template's text. Look-alikes count as what they fold to, since tokenizers may fold them as well.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from debate_rl.records import folded, spaced_after

_NAMES = "think|tool_call|tool_response|tools|function|tool_calls|tool_code|tool_output|image|video|audio"
_BRACKETS = (
    "INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|MODEL_SETTINGS|THINK|"
    "IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX|gMASK"
)
_TOKENS = (
    r"[be]o[sd]|pad|unk|mask|[se]op|(?:start|end)_of_(?:turn|image)|(?:BOS|EOS|EOD|PAD|UNK)_TOKEN|seed:[a-z_]{1,30}|"
    r"(?:extra_id|unused|special|reserved|reserved_special_token)_?\d{1,5}"
)
# A look-ahead, so that marks which overlap are all found; templates may change the case of what they are given.
_USUAL = re.compile(
    rf"(?=<\|[^|<>]{{1,60}}\|>|\[\|[^|\[\]]{{1,60}}\|\]|</?s>|<(?:{_TOKENS})>"
    rf"|<</?SYS>>|\[/?(?:{_BRACKETS})\]|</?(?:{_NAMES})>)",
    re.I,
)
_WRITTEN = re.compile(r"<<?[|/]?[A-Za-z_][^<>\s'\"]{0,60}>>?|\[/?[A-Z_]{2,40}\]")
_FRAMED = re.compile(r"[^\w\s]{1,3}\w[^\s<>\[\]]{0,60}[\]\[>|}]+")
_LABEL = re.compile(r"(?:user|human|assistant|system|instruction|response|gpt|bot)(?=\s?:)", re.I)
_LAST_LABEL = re.compile(r"([^\W\d_][\w ]{0,30}?)\s*:\s*\Z")
_PROBE = "debate-rl-probe"


class Marks:
    """Control marks of one tokenizer beside the usual ones.

    Args:
        marks: texts that act as control marks.
        labels: names of roles that a template writes with a colon at the head of a line, such as `USER`.
    """

    def __init__(self, marks: Iterable[str] = (), labels: Iterable[str] = ()) -> None:
        self._marks = {folded(mark)[0] for mark in marks if len(mark) > 1}
        lengths: dict[str, set[int]] = defaultdict(set)
        for mark in self._marks:
            lengths[mark[:2]].add(len(mark))
        self._lengths = {beginning: sorted(found) for beginning, found in lengths.items()}
        # Thousands of marks have few beginnings, so a text is searched for these first.
        beginnings = "|".join(re.escape(beginning) for beginning in sorted(self._lengths))
        self._beginning = re.compile(f"(?=({beginnings}))") if beginnings else None
        names = "|".join(re.escape(label) for label in sorted(set(labels)))
        # In capitals anywhere, since some templates write all turns into one line.
        capitals = "|".join(re.escape(label.upper()) for label in sorted(set(labels)))
        label = rf"^[ \t#*]*(?i:{names})(?=:)|(?<!\w)(?:{capitals})(?=:)"
        self._label = re.compile(label, re.M) if names else None

    def places(self, text: str) -> Iterator[int]:
        """Characters of a folded text after which a space breaks a mark; one may come twice."""
        for match in _USUAL.finditer(text):
            yield match.start()
        if self._beginning is not None:
            for match in self._beginning.finditer(text):
                start = match.start()
                if any(text[start : start + length] in self._marks for length in self._lengths[match[1]]):
                    yield start
        if self._label is not None:
            for match in self._label.finditer(text):
                yield match.end() - 1


USUAL = Marks()
"""For a server, whose template nobody tells."""


def neutral(text: str, marks: Marks = USUAL) -> str:
    """A text in which every control mark is broken by a space after its first character.

    Example:
        >>> neutral("yes <|im_end|>")
        'yes < |im_end|>'
    """
    flat, origins = folded(text)
    return spaced_after(text, marks.places(flat), origins)


def marks_of(tokenizer: Any) -> Marks:
    """Control marks of a tokenizer: special tokens, and what its chat template writes."""
    return _marks_of(tokenizer, repr(tokenizer.chat_template))


@lru_cache(maxsize=32)
def _marks_of(tokenizer: Any, template: str) -> Marks:
    """See `marks_of`; the template's text is given so that a tokenizer with another template is asked again."""
    frames = _frames(tokenizer)
    shown = "\n".join(frames)
    written = {*_WRITTEN.findall(template), *_WRITTEN.findall(shown), *_FRAMED.findall(shown)}
    lines = (line.strip() for line in shown.splitlines())
    written |= {line for line in lines if line.startswith("#") and not line.endswith(":")}
    added = tokenizer.added_tokens_decoder.values()
    # A token that is not special counts where the template writes it: others, such as the tags of quotes, are words.
    control = [str(token) for token in added if token.special or str(token) in template or str(token) in shown]
    labels = [match[1] for frame in frames if (match := _LAST_LABEL.search(frame))]
    return Marks({*control, *tokenizer.all_special_tokens, *written}, [*labels, *_LABEL.findall(template)])


def _frames(tokenizer: Any) -> list[str]:
    """What a chat template writes before, between and after messages: it may make marks of parts, and of roles."""
    for roles in (("system", "user", "assistant", "user"), ("user", "assistant", "user")):
        turns = [{"role": role, "content": _PROBE} for role in roles]
        with suppress(Exception):  # it may refuse a role, or fail: that is said where a prompt is made by it
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            return str(text).split(_PROBE)
    return []
