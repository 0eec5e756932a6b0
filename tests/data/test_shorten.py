import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.shorten import MARK, shorten
from debate_rl.data.sources import nyu


def count(text):
    return len(text.split())


def test_what_fits_is_left_as_it_is():
    assert shorten("One two.\n\n\nThree.", [], 3, count) == "One two.\n\n\nThree."


def test_whole_paragraphs_go_and_a_mark_says_so():
    passage = "\n\n".join(f"paragraph {n} of ten words is this one here ." for n in range(10))
    found = shorten(passage, [(0, 1), (len(passage) - 3, len(passage))], 45, count, "q")
    assert count(found) <= 45
    pieces = found.split("\n\n")
    assert pieces[0] == "paragraph 0 of ten words is this one here ." and pieces[-1].startswith("paragraph 9 ")
    assert MARK in pieces and (MARK, MARK) not in pairwise(pieces)
    assert all(piece == MARK or piece in passage.split("\n\n") for piece in pieces)
    assert found == shorten(passage, [(0, 1), (len(passage) - 3, len(passage))], 45, count, "q")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_quoted_words_always_stand_and_order_is_kept(sizes, data):
    paragraphs = [" ".join(f"w{n}x{i}" for i in range(size)) for n, size in enumerate(sizes)]
    passage = "\n\n".join(paragraphs)
    quote = data.draw(st.sampled_from(paragraphs))
    start = passage.index(quote)
    limit = data.draw(st.integers(1, 60))
    found = shorten(passage, [(start, start + len(quote))], limit, count, str(limit))
    assert quote in found.split("\n\n")
    left = [piece for piece in found.split("\n\n") if piece != MARK]
    assert left == [paragraph for paragraph in paragraphs if paragraph in left]
    if found != passage:
        assert MARK in found
        assert count(found) <= max(limit, count(quote) + 2)
    else:
        assert count(passage) <= limit or paragraphs == [quote]


def test_the_limit_holds_with_the_blank_lines_counted():
    def count_all(text):
        return len(re.findall(r"\S+|\n\n", text))

    passage = "\n\n".join(f"paragraph {n} is this ." for n in range(12))
    for limit in range(12, 60):
        assert count_all(shorten(passage, [(0, 1)], limit, count_all, str(limit))) <= limit


def test_quotes_of_real_debates_stay_whole(shared_data):
    games = nyu.games(shared_data / "nyu_2023", split="test")[:10]
    quotes = 0
    for game in map(nyu.transcript, games):
        found = [q for s in game.speeches for q in s.quotes if q.verdict == "exact"]
        passage = game.question.passage
        short = shorten(passage, [(q.passage_start, q.passage_end) for q in found], 2500, count, game.id)
        assert count(short) < 0.8 * count(passage) and MARK in short
        for quote in found:
            words = " ".join(passage[quote.passage_start : quote.passage_end].split())
            assert words in re.sub(r"\s+", " ", short)
        quotes += len(found)
    assert quotes > 20


@pytest.mark.parametrize("limit", [1, 5])
def test_quoted_paragraphs_may_be_all_that_is_left(limit):
    assert shorten("a b c d e f\n\ng h", [(0, 3)], limit, count) == f"a b c d e f\n\n{MARK}"
