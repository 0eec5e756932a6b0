"""Control marks of chat templates, and how texts are kept from writing them.

A control mark tells the model who speaks, such as `<|im_end|>`. Every text in a prompt passes `neutral`, for the local
engine, for a server and for training. It breaks the marks of common templates and those of the tokenizer itself: its
special tokens, and what its template writes. Look-alike characters count as the letters they resemble, since tokenizers
may fold them as well. A double angle quote counts as two brackets around the marks that have two: `\u00abSYS\u00bb` is
`<<SYS>>`, but `\u00abimage\u00bb` is a quoted word.

Marks with spaces inside, such as `[ INST ]` or `<< SYS >>`, are left alone. A tokenizer makes other tokens of them, so
none is a control token, and a model whose marks are plain text was trained on other ids: a space is what `neutral`
itself puts in. To break them again would change prose in brackets and make no text safer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from debate_rl.records import folded, spaced_after

_NAMES = (
    "think|tool_call|tool_response|tools|function|tool_calls|tool_code|tool_output|image|video|audio|role|arg_key|"
    r"arg_value|parameter|(?:function|parameter)=[^<>]{1,60}|[a-z]{1,20}:tool_calls?"
)
_BRACKETS = (
    "INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|MODEL_SETTINGS|THINK|"
    "IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX|gMASK"
)
_TOKENS = (
    r"[be]o[sd]|pad|unk|mask|[se]op|(?:start|end)_of_[a-z_]{1,20}|(?:start|end)_header_id|fake_token_[a-z_]{1,20}|(?:BOS|EOS|EOD|PAD|UNK)_TOKEN|seed:[a-z_]{1,30}|"
    r"(?:extra_id|unused|special|reserved|reserved_special_token)_?\d{1,5}"
)
# A look-ahead finds overlapping marks too. Upper and lower case, because templates may change the case of a text.
_USUAL = re.compile(
    rf"(?=<\|[^|<>]{{1,60}}\|>|<\|[a-z_]{{1,30}}>|<[a-z_]{{1,30}}\|>|[\]\[][a-z]?~[b!]{{0,2}}[\]\[]|\[\|[^|\[\]]{{1,60}}\|\]|</?s>|<(?:{_TOKENS})>"
    rf"|<</?SYS>>|\u00ab/?SYS\u00bb|\[/?(?:{_BRACKETS})\]|</?(?:{_NAMES})>)",
    re.I,
)
_DOUBLE = str.maketrans("\u300a\u27ea\u226a\u2aa1\u300b\u27eb\u226b\u2aa2", "\u00ab" * 4 + "\u00bb" * 4)
"""Forms of the double angle quotes; one letter each, so that indices stay."""
# Marks in the source or the output of a template: `<|user|>`, `[INST]`, `<<SYS>>`.
_WRITTEN = re.compile(r"<<?[|/]?[A-Za-z_][^<>\s'\"]{0,60}>>?|\[/?[A-Z_]{2,40}\]")
# Other words in brackets or bars, in the output of a template only: `{{user}}`, `|assistant|`.
_FRAMED = re.compile(r"[^\w\s]{1,3}\w[^\s<>\[\]]{0,60}[\]\[>|}\u00bb]+")
_LABEL = re.compile(r"(?:user|human|assistant|system|instruction|response|gpt|bot)(?=\s?:)", re.I)
_LAST_LABEL = re.compile(r"([^\W\d_][\w ]{0,30}?)\s*:\s*\Z")
_PROBE = "debate-rl-probe"


class Marks:
    """Control marks of one tokenizer, besides the common ones.

    Args:
        marks: texts that act as control marks.
        labels: names of roles that a template writes before a colon at the start of a line, such as `USER`.
    """

    def __init__(self, marks: Iterable[str] = (), labels: Iterable[str] = ()) -> None:
        self._marks = {_flat(mark)[0] for mark in marks if len(mark) > 1}
        for mark in list(self._marks):
            if mark.startswith("<<") and mark.endswith(">>"):
                self._marks.add(f"\u00ab{mark[2:-2]}\u00bb")
        # A tokenizer may have thousands of marks, but few beginnings of two characters: a text is searched for these,
        # and what stands there is looked up in each length that a mark with this beginning has.
        self._lengths: dict[str, set[int]] = defaultdict(set)
        for mark in self._marks:
            self._lengths[mark[:2]].add(len(mark))
        self._beginning: re.Pattern[str] | None = None
        if self._lengths:
            beginnings = "|".join(map(re.escape, sorted(self._lengths)))
            self._beginning = re.compile(f"(?=({beginnings}))")  # looks ahead only, since marks may overlap
        self._label: re.Pattern[str] | None = None
        names = sorted(set(labels))
        if names:
            at_line_start = "|".join(map(re.escape, names))
            # In capitals anywhere in a line, since some templates write all turns into one line.
            in_capitals = "|".join(re.escape(name.upper()) for name in names)
            label = rf"^[ \t#*]*(?i:{at_line_start})(?=:)|(?<!\w)(?:{in_capitals})(?=:)"
            self._label = re.compile(label, re.M)

    def places(self, text: str) -> Iterator[int]:
        """Yield the indexes of a folded text after which a space breaks a mark, some of them twice."""
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
"""The common marks, for a server whose template is unknown."""


def neutral(text: str, marks: Marks = USUAL) -> str:
    """Break every control mark of a text by a space after its first character.

    Example:
        >>> neutral("yes <|im_end|>")
        'yes < |im_end|>'
    """
    flat, origins = _flat(text)
    return spaced_after(text, marks.places(flat), origins)


def _flat(text: str) -> tuple[str, Sequence[int] | None]:
    """A text in which each mark has one form, and the index of each of its characters (see `folded`)."""
    plain, origins = folded(text)
    return plain.translate(_DOUBLE), origins


def marks_of(tokenizer: Any) -> Marks:
    """Control marks of a tokenizer: its special tokens, and what its chat template writes."""
    return _marks_of(tokenizer, repr(tokenizer.chat_template))


@lru_cache(maxsize=32)
def _marks_of(tokenizer: Any, template: str) -> Marks:
    """See `marks_of`; the template's text is part of the cache key because a tokenizer may get another template."""
    frames = _frames(tokenizer)
    output = "\n".join(frames).translate(_DOUBLE)
    marks = {*_WRITTEN.findall(template), *_WRITTEN.findall(output), *_FRAMED.findall(output)}
    # Headings such as "### Instruction"; those with a colon are found as labels below.
    for line in map(str.strip, output.splitlines()):
        if line.startswith("#") and not line.endswith(":"):
            marks.add(line)
    marks.update(tokenizer.all_special_tokens)
    for token in tokenizer.added_tokens_decoder.values():
        # A token that is not special counts if the template writes it; others, such as the tags of quotes, are words.
        if token.special or str(token) in template or str(token) in output:
            marks.add(str(token))
    labels = _LABEL.findall(template)
    for frame in frames:
        label = _LAST_LABEL.search(frame)
        if label:
            labels.append(label[1])
    return Marks(marks, labels)


def _frames(tokenizer: Any) -> list[str]:
    """The texts that a chat template writes before, between and after messages."""
    # The output shows marks that the source does not, because a template may join them from parts and roles.
    for roles in (("system", "user", "assistant", "user"), ("user", "assistant", "user")):
        turns = [{"role": role, "content": _PROBE} for role in roles]
        with suppress(Exception):  # it may refuse a role, or fail, which is reported when it renders a prompt
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            return str(text).split(_PROBE)
    return []
