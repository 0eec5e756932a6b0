"""Grammars that an answer keeps to: compiled by llguidance for one tokenizer, a matcher for each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import llguidance
import numpy as np

from debate_rl.errors import UserError

_COMPILED = 64
"""Grammars kept compiled; one of a long story takes some megabytes."""
_FEW = 200
"""Tokens that may come next, at most, inside a quote; outside of it nearly all of them may."""
_ANCHOR = "the"
"""A word before the token whose spelling is asked for."""


def _limits() -> Any:
    """Limits for grammars of long passages; the library's own are for schemas."""
    return llguidance.LLParserLimits(
        initial_lexer_fuel=100_000_000,
        step_lexer_fuel=10_000_000,
        max_lexer_states=5_000_000,
        max_grammar_size=20_000_000,
    )


class Grammars:
    """Compiles grammars for one tokenizer and keeps them.

    Args:
        tokenizer: of transformers.
        vocabulary: number of logits of the model.
        ends: token ids that end an answer; allowed where the grammar is complete.

    Raises:
        UserError: the library can not spell the tokenizer's tokens.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Iterable[int]) -> None:
        self._tokenizer, self._whole_words = _spelled(tokenizer, max(vocabulary, len(tokenizer)), tuple(sorted(ends)))
        self._compiled: Callable[[str], Any] = lru_cache(maxsize=_COMPILED)(self._compile)

    def matcher(self, grammar: str) -> Matcher:
        """A matcher at the beginning of an answer.

        Raises:
            UserError: the grammar has a mistake.
        """
        # A copy has states of its own, so what one answer has read is nothing to the others.
        return Matcher(self._compiled(grammar).deep_copy(), self._tokenizer.vocab_size, self._whole_words)

    def _compile(self, grammar: str) -> Any:
        if self._whole_words:
            # Where the library finds text forced it takes the tokens of that text alone: here they would be words.
            grammar = f'%llguidance {{"no_forcing": true}}\n{grammar}'
        compiled = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
        if compiled.is_error():
            raise UserError(f"a grammar can not be compiled: {_first_line(compiled.get_error())}")
        return compiled


class Matcher:
    """Follows one answer through its grammar.

    Args:
        matcher: of llguidance.
        vocabulary: number of tokens.
        whole_words: whether no token goes on inside a word, so that one that begins a longer word is a dead end.
    """

    def __init__(self, matcher: Any, vocabulary: int, whole_words: bool = False) -> None:
        self._matcher = matcher
        self._whole_words = whole_words
        self._bits = np.zeros((vocabulary + 31) // 32, dtype=np.int32)

    def allowed(self) -> np.ndarray | None:
        """The tokens that may come next.

        Returns:
            (vocabulary,) bytes of 0 and 1; None where no token of the model continues the answer.
        """
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error() or not self._bits.any():
            return None
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")
        if self._whole_words and allowed.sum() <= _FEW:
            for token in np.flatnonzero(allowed):
                allowed[token] = self._goes_on(int(token))
            return allowed if allowed.any() else None
        return allowed

    def _goes_on(self, token: int) -> bool:
        """Whether some token may follow a token."""
        ahead = self._matcher.deep_copy()
        if not ahead.consume_token(token):
            return False
        following = ahead.compute_bitmask()
        return not ahead.is_error() and any(following)

    def read(self, token: int) -> None:
        """Go on by a token, one of those allowed."""
        self._matcher.consume_token(token)


def follows(grammar: str, text: str) -> bool:
    """Whether a text keeps to a grammar, or is the beginning of one that does."""
    matcher = llguidance.LLMatcher(_bytes_tokenizer(), grammar, log_level=0, limits=_limits())
    return not matcher.is_error() and bool(matcher.consume_tokens(list(text.encode())))


@lru_cache(maxsize=1)
def _bytes_tokenizer() -> Any:
    return llguidance.LLTokenizer("byte")


def _first_line(message: str) -> str:
    return message.splitlines()[0] if message else "unknown reason"


@lru_cache(maxsize=8)  # takes seconds, and online training holds its model anew at every step
def _spelled(tokenizer: Any, size: int, ends: tuple[int, ...]) -> tuple[Any, bool]:
    """The library's form of a tokenizer, the bytes of every token; and whether its tokens are whole words.

    Raises:
        UserError: it has none.
    """
    import llguidance.hf

    if not ends:
        raise UserError(f"{tokenizer.name_or_path}: no token ends an answer, so it can not keep to a grammar")
    try:
        return llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=list(ends)), False
    except ValueError as error:
        spelled = _spelled_by_decoding(tokenizer, size)
        if spelled is None:
            raise UserError(
                f"{tokenizer.name_or_path}: its tokens can not be spelled ({_first_line(str(error))}), so quotes can "
                "not be constrained; set players.quotes.constrained false"
            ) from error
    wrapper = llguidance.TokenizerWrapper(_Spelling(tokenizer, spelled, list(ends)))
    return llguidance.LLTokenizer(wrapper, eos_token=list(ends)), True


class _Spelling:
    """The tokens of a word-level tokenizer, as `llguidance.TokenizerWrapper` asks for them."""

    def __init__(self, tokenizer: Any, tokens: list[bytes], ends: list[int]) -> None:
        self._encode = tokenizer
        self.tokens = tokens
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self.special_token_ids = sorted({*tokenizer.all_special_ids, *ends})

    def __call__(self, text: str) -> list[int]:
        """Token ids of a text."""
        if isinstance(text, bytes):
            raise TypeError("texts only")
        return list(self._encode(text, add_special_tokens=False)["input_ids"])


def _spelled_by_decoding(tokenizer: Any, size: int) -> list[bytes] | None:
    """What each token adds to a text behind a word; None where that is not the same at every place.

    Word-level tokenizers, such as the lab's, put spaces between tokens only when they decode them.
    """
    special = set(tokenizer.all_special_ids)
    words = [token for token in range(len(tokenizer)) if token not in special]
    if not words:
        return None
    anchor = tokenizer.convert_tokens_to_ids(_ANCHOR)
    if anchor is None or anchor in special:
        anchor = words[-1]
    start = tokenizer.decode([anchor])
    tokens = [b""] * size
    for token in range(len(tokenizer)):
        if token in special:
            tokens[token] = str(tokenizer.convert_ids_to_tokens(token)).encode()
            continue
        text = tokenizer.decode([anchor, token])
        if not text.startswith(start):
            return None
        tokens[token] = text[len(start) :].encode()
    whole = b"".join(tokens[token] for token in words)
    same = tokenizer.decode(words).encode() == whole.lstrip()
    return tokens if same else None
