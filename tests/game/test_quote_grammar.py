"""Grammars of speeches whose quotes stand in the passage, walked at random by the bytes."""

import random

import llguidance
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from debate_rl.engines.grammars import follows
from debate_rl.game.quote_grammar import QuoteRules, quote_grammar, word_chunks
from debate_rl.game.quotes import CLOSE, OPEN, check_quotes

STORY = 'The pipe\nwas moved (at noon) to "the shed". * * * Nobody -- but Omar -- saw it! He can\'t say why.'
WORDS = ["pipe", "it's", "A1", "cafe\u0301", "\u00e9t\u00e9", "10\u00b2", "x<y", "\ufb01n", "a_b", "\u4e2d\u6587"]
MARKS = ["--", "...", '"', "\u201cno\u201d", "\u00a8", "\u2122", ".", "!", "* *", "<quote>", "</quote>", "\u0301"]
PIECES = st.sampled_from([*WORDS, *MARKS, " ", "\n", "\u00a0"])


def walked(grammar, seed, steps=80):
    """A text that a grammar allows, byte by byte, which closes its quote as soon as it may."""
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar, log_level=0)
    drawn = random.Random(seed)
    text = b""
    for _ in range(steps):
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        bytes_allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little")[:256])
        if not len(bytes_allowed):
            break
        token = int(drawn.choice(list(bytes_allowed)))
        if len(bytes_allowed) > 60:  # outside a quote: the next one is begun
            for byte in OPEN.encode():
                assert matcher.consume_token(byte), matcher.get_error()
            text += OPEN.encode()
            continue
        if ord("<") in bytes_allowed and drawn.random() < 0.5:
            token = ord("<")
        assert matcher.consume_token(token), matcher.get_error()
        text += bytes([token])
    return text.decode(errors="ignore")


@settings(max_examples=60, deadline=None)
@given(
    passage=st.lists(PIECES, min_size=1, max_size=14).map("".join),
    rules=st.builds(
        QuoteRules, min_words=st.integers(1, 4), max_words=st.sampled_from([None, 4, 9]), sentences=st.booleans()
    ),
    seed=st.integers(0, 99),
)
def test_every_quote_that_a_grammar_allows_is_exact(passage, rules, seed):
    grammar = quote_grammar(passage, rules, inside=True)
    if "QUOTE" not in grammar:
        return  # there is no word to quote
    for quote in check_quotes(OPEN + walked(grammar, seed), passage):
        assert quote.verdict == "exact", (passage, quote)


@pytest.mark.parametrize("seed", range(3))
def test_quotes_have_the_words_that_they_should_have(seed):
    text = walked(quote_grammar(STORY, QuoteRules(min_words=3, max_words=5)), seed, 200)
    quotes = check_quotes(text, STORY)
    assert quotes
    for quote in quotes:
        assert quote.verdict == "exact" and 3 <= len(quote.text.split()) <= 5


@pytest.mark.parametrize("seed", range(3))
def test_whole_sentences_are_quoted_where_that_is_asked_for(seed):
    rules = QuoteRules(min_words=1, sentences=True)
    passage = "The pipe was moved. Who saw it? Omar did."
    quotes = check_quotes(walked(quote_grammar(passage, rules), seed, 200), passage)
    assert quotes
    for quote in quotes:
        assert quote.text.strip()[-1] in ".?" and quote.text.strip().split()[0] in ("The", "Who", "Omar")


def test_words_are_not_cut_and_marks_that_stand_alone_go_with_the_spaces_around_them():
    assert word_chunks('He said "no -- never".') == ["He", " ", "said", " ", '"', "no", " -- ", "never", '".']
    assert word_chunks("* * * It's x_1") == ["*", " * * ", "It's", " ", "x_1"]


def test_free_text_may_hold_anything_but_a_quote_that_is_not_in_the_passage():
    grammar = quote_grammar(STORY, QuoteRules(min_words=2))
    assert follows(grammar, "Any words, </quote> < b > and {braces}.")
    assert follows(grammar, f"I say {OPEN}the pipe was moved{CLOSE}") is False  # it is written "The"
    assert follows(grammar, f"I say {OPEN}The pipe was moved{CLOSE} and {OPEN}saw it!{CLOSE} so there")
    assert not follows(grammar, f"I say {OPEN}The{CLOSE}")
    assert not follows(grammar, f"I say {OPEN}invented words{CLOSE}")


def test_without_a_passage_nothing_is_quoted():
    grammar = quote_grammar("  ... ", QuoteRules())
    assert follows(grammar, "plain words") and not follows(grammar, f"words {OPEN}")


def test_a_passage_shorter_than_a_quote_is_quoted_whole():
    grammar = quote_grammar("Two words", QuoteRules(min_words=4), inside=True)
    assert follows(grammar, f"Two words{CLOSE}") and not follows(grammar, f"Two{CLOSE}")


def test_sentences_longer_than_a_quote_may_be_are_quoted_without_a_limit():
    grammar = quote_grammar("One two three four five.", QuoteRules(min_words=1, max_words=2, sentences=True), True)
    assert follows(grammar, f"One two three four five.{CLOSE}")


def test_limits_out_of_order_are_refused():
    with pytest.raises(ValidationError, match="max_words 2 is below min_words 4"):
        QuoteRules(max_words=2)
