"""Quotes by construction: a grammar of speeches in which everything between the tags stands in the passage.

The grammar is Lark as llguidance reads it; `%regex {"substring_chunks": ...}` is a suffix automaton over pieces of the
passage. The pieces are cut where `quotes.locate` sees the edges of words, so a quote of whole pieces is always exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache

from pydantic import Field, model_validator

from debate_rl.game.quotes import CLOSE, OPEN, in_word
from debate_rl.records import Record

_MARK = re.compile(r"</?quote>")
_CORE = re.compile(r"w(?:[wp]*w)?")
_SENTENCE_END = re.compile(r"(?<=[.!?])([\"'\u2019\u201d)\]]*)\s+(?=\S)")


class QuoteRules(Record):
    """What may stand between the tags of a quote.

    Example:
        QuoteRules(constrained=True, min_words=4, max_words=20)
    """

    constrained: bool = False
    """Have everything between `<quote>` and `</quote>` stand in the passage, word for word."""
    min_words: int = Field(default=4, ge=1)
    """Words of a quote, at least. Models that may stop at once quote a single "and"."""
    max_words: int | None = Field(default=20, ge=1)
    """Words of a quote, at most: without a limit small models copy until the speech is full, and the quote is never
    closed. A speech needs some 1.5 tokens a word of it. Empty has none."""
    sentences: bool = False
    """Quote whole sentences only. Where no sentence keeps to `max_words`, there is no limit."""

    @model_validator(mode="after")
    def _limits_in_order(self) -> QuoteRules:
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(
                f"max_words {self.max_words} is below min_words {self.min_words}; raise it, or leave it empty"
            )
        return self


@lru_cache(maxsize=256)
def quote_grammar(passage: str, rules: QuoteRules, inside: bool = False) -> str:
    """The grammar of a speech about a passage.

    Args:
        passage: what may be quoted. Without a word in it, quotes are left out altogether.
        rules: how long a quote is, and whether it is whole sentences.
        inside: whether the speech begins inside a quote, because its opening ends with the tag.

    Returns:
        A Lark grammar for llguidance. Its first line makes SGLang and llama.cpp read it as one too.
    """
    # Line breaks become spaces, as the checker reads them. Tags in the passage would end a quote early.
    pieces = [" ".join(piece.split()) for piece in _MARK.split(passage)]
    cut = _sentences if rules.sentences else word_chunks
    chunks = [cut(piece) for piece in pieces if any(map(in_word, piece))]
    if not chunks:
        return f"%llguidance {{}}\nstart: TEXT\nTEXT: /(?s:.*)/ & ~/(?s:.*){OPEN}(?s:.*)/\n"
    first = "quote " if inside else ""
    lines = [
        "%llguidance {}",
        f"start: {first}(before quote)* rest",
        # Lazy: it ends with the first tag, and then nothing but a quote can follow.
        f"before[lazy]: /(?s:.*){OPEN}/",
        "quote: QUOTE",
        "rest: /(?s:.*)/",
        # The closing tag is part of the terminal: a passage may hold a "<" itself.
        f'QUOTE: WORDS "{CLOSE}"',
        f"WORDS: ({' | '.join(f'PASSAGE{number}' for number in range(len(chunks)))}) & {_counted(chunks, rules)}",
    ]
    for number, part in enumerate(chunks):
        # Spaces at either end are no part of a quote, but tokens often begin with one.
        substrings = json.dumps({"substring_chunks": [" ", *part, " "]}, ensure_ascii=False, separators=(",", ":"))
        lines.append(f"PASSAGE{number}: %regex {substrings}")
    return "\n".join([*lines, ""])


def _counted(chunks: Sequence[Sequence[str]], rules: QuoteRules) -> str:
    """A regular expression for a number of words that some quote can have."""
    longest = max(len("".join(part).split()) for part in chunks)
    # A passage of three words can not be quoted with four.
    fewest = min(rules.min_words, longest)
    most = rules.max_words
    if rules.sentences and most is not None:
        lengths = [[len(chunk.split()) for chunk in part] for part in chunks]
        # Where all sentences are longer, the limit would leave nothing to quote.
        has_quote = any(_fits(part, fewest, most) for part in lengths)
        most = most if has_quote else None
    more = "" if most is None else str(most - 1)
    return f"/ ?([^ ]+ ){{{fewest - 1},{more}}}[^ ]+ ?/"


def _fits(lengths: Sequence[int], fewest: int, most: int) -> bool:
    """Whether chunks that follow one another have between `fewest` and `most` words together."""
    total = 0
    start = 0
    for end in range(len(lengths)):
        total += lengths[end]
        while total > most:
            total -= lengths[start]
            start += 1
        if total >= fewest:
            return True
    return False


def word_chunks(text: str) -> list[str]:
    """Cut a text with single spaces into words, the marks around them, and spaces.

    A quote may begin and end at any of these cuts. A word is cut from the first to the last of its letters and digits,
    so that no quote ends inside of one; marks that stand alone (`* * *`) go with the spaces around them.

    Example:
        >>> word_chunks('He said "no -- never".')
        ['He', ' ', 'said', ' ', '"', 'no', ' -- ', 'never', '".']
    """
    kinds = "".join("s" if character == " " else "w" if in_word(character) else "p" for character in text)
    chunks: list[str] = []
    position = 0
    for word in _CORE.finditer(kinds):
        chunks += _gap_chunks(text[position : word.start()])
        chunks.append(text[word.start() : word.end()])
        position = word.end()
    chunks += _gap_chunks(text[position:])
    return [chunk for chunk in chunks if chunk]


def _gap_chunks(gap: str) -> tuple[str, str, str]:
    """What stands between two words: marks behind the first, spaces, and marks before the second."""
    first = gap.find(" ")
    if first < 0:
        return ("", "", gap)
    last = gap.rfind(" ") + 1
    return (gap[:first], gap[first:last], gap[last:])


def _sentences(text: str) -> list[str]:
    """Cut a text into sentences and the spaces between them."""
    marked = _SENTENCE_END.sub("\\1\n", text)
    chunks: list[str] = []
    for sentence in marked.split("\n"):
        chunks += [sentence, " "]
    return chunks[:-1]
