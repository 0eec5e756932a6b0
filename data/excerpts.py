"""Excerpts of long passages: the paragraphs nearest to the question and its answers, in story order, `[...]` for gaps.

A model that reads an excerpt is still held to the whole passage: its quotes are checked against `Question.passage`.
Nearness is BM25 (library `bm25s`) over the words of the question and both answers, so neither side is favoured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from debate_rl.data.shorten import MARK, PARAGRAPH
from debate_rl.errors import UserError
from debate_rl.game.question import Question

TOKENS_PER_WORD = 1.3
"""Tokens of an English word, about, where no tokenizer is at hand."""
_GAP = f"\n\n{MARK}\n\n"
_SENTENCE = re.compile(r"\S.*?(?:[.!?][\"'\u201d\u2019)]*(?=\s)|\Z)", re.DOTALL)
_WHOLE_SHARE = 4
"""A paragraph longer than a quarter of the excerpt is chosen by its sentences: whole, it would crowd out the rest."""

Span = tuple[int, int]
Count = Callable[[str], int]


def words_count(text: str) -> int:
    """Tokens of a text, about, by its words."""
    return round(len(text.split()) * TOKENS_PER_WORD)


def with_excerpts(questions: Sequence[Question], limit: int, count: Count = words_count) -> list[Question]:
    """Give each question whose passage is too long an excerpt of it.

    Args:
        questions: those that have an excerpt already keep it: what was shown once is shown again.
        limit: most tokens of an excerpt, marks included.
        count: counts the tokens of a text; the speaking model's, where it can be had.

    Returns:
        The questions in their order; those with shorter passages, or none, as they are.
    """
    if limit < 1:
        raise UserError(f"passage_tokens must be at least 1, not {limit}")
    counted = lru_cache(maxsize=1 << 14)(count)  # questions on one story count the same paragraphs
    shown = []
    for question in questions:
        if question.passage and question.excerpt is None:
            excerpt = excerpt_of(question, limit, counted)
            question = question.model_copy(update={"excerpt": excerpt})
        shown.append(question)
    return shown


def excerpt_of(question: Question, limit: int, count: Count = words_count, keep: Sequence[Span] = ()) -> str | None:
    """The part of a question's passage that is nearest to question and answers; None where all of it fits.

    Args:
        question: with a passage.
        limit: most tokens; a single piece longer than that is cut after its words.
        count: counts the tokens of a text.
        keep: spans of characters whose paragraphs are chosen first, such as what a recorded game quotes.

    Example:
        >>> question = Question(id="q", text="Where is the pipe?", answers=("barn", "shed"), passage=(
        ...     "It rained.\\n\\nThe pipe is in the barn.\\n\\nInes slept.\\n\\nThe shed is empty."))
        >>> excerpt_of(question, 18)
        '[...]\\n\\nThe pipe is in the barn.\\n\\n[...]\\n\\nThe shed is empty.'
    """
    passage = question.passage or ""
    if count(passage) <= limit:
        return None
    pieces = _pieces(passage, limit, count)
    scores = nearness([passage[start:end] for start, end in pieces], " ".join([question.text, *question.answers]))
    for place, (start, end) in enumerate(pieces):
        if any(start < kept_end and kept_start < end for kept_start, kept_end in keep):
            scores[place] = float("inf")
    # Sorting is stable: of pieces that are equally near the earlier one is taken.
    ranked = sorted(range(len(pieces)), key=lambda place: -scores[place])
    return _filled(passage, pieces, ranked, limit, count)


def _pieces(passage: str, limit: int, count: Count) -> list[Span]:
    """Spans of the paragraphs, and of the sentences of those that are long for this limit."""
    pieces: list[Span] = []
    for paragraph in PARAGRAPH.finditer(passage):
        if count(paragraph[0]) * _WHOLE_SHARE <= limit:
            pieces.append(paragraph.span())
            continue
        offset = paragraph.start()
        for sentence in _SENTENCE.finditer(paragraph[0]):
            pieces.append((offset + sentence.start(), offset + sentence.end()))
    return pieces


def nearness(texts: Sequence[str], query: str) -> list[float]:
    """BM25 of each text for a query; words that are common everywhere ("the") do not count."""
    import bm25s  # here: only long passages need it

    words = bm25s.tokenize(list(texts), stopwords="en", show_progress=False, return_ids=False)
    known: set[str] = set()
    for text_words in words:
        known.update(text_words)
    (query_words,) = bm25s.tokenize([query], stopwords="en", show_progress=False, return_ids=False)
    # The library has no answer for words that no text holds.
    asked = [word for word in query_words if word in known]
    if not asked:
        return [0.0] * len(texts)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return [float(score) for score in index.get_scores(asked)]


def _filled(passage: str, pieces: Sequence[Span], ranked: Sequence[int], limit: int, count: Count) -> str:
    """Take pieces in the order of their rank as long as they fit."""
    chosen: list[int] = []
    mark = count(MARK)
    left = limit - mark  # there may be a gap before the first piece as well as after each
    for place in ranked:
        start, end = pieces[place]
        size = count(passage[start:end]) + mark
        if size <= left:
            chosen.append(place)
            left -= size
    # Sizes of pieces are quick to add up, but a tokenizer may count their join a little differently.
    while len(chosen) > 1 and count(joined(passage, pieces, chosen)) > limit:
        chosen.pop()
    if not chosen:
        return _first_words(passage[slice(*pieces[ranked[0]])], limit, count)
    return joined(passage, pieces, chosen)


def joined(passage: str, pieces: Sequence[Span], chosen: Iterable[int]) -> str:
    """The chosen pieces in the order of the passage; neighbours as they stand there, a mark in each gap."""
    text = ""
    previous = -1
    for place in sorted(chosen):
        start, end = pieces[place]
        if place != previous + 1:
            text += _GAP
        elif place:
            start = pieces[previous][1]  # with the white space between the two
        text += passage[start:end]
        previous = place
    if previous != len(pieces) - 1:
        text += _GAP
    return text.strip()


def _first_words(text: str, limit: int, count: Count) -> str:
    """As many first words of a text as fit, one at least."""
    words = text.split()
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if count(" ".join([*words[:middle], MARK])) <= limit:
            low = middle
        else:
            high = middle - 1
    return " ".join([*words[:low], MARK])
