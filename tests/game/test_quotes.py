from hypothesis import given
from hypothesis import strategies as st

from debate_rl.game.quotes import check_quotes, locate

PASSAGE = (
    "The pipe was moved to the barn.\n\nInes said \u201cit\u2019s late\u201d \u2014 and left the big Shed at dusk."
)


def test_exact_quotes_are_found_whatever_the_case_spaces_and_marks():
    for quote in (
        "The pipe was moved",
        "the PIPE was\n moved",
        "it's late\" - and left",
        "the barn. Ines said",
        " shed at dusk. ",
    ):
        verdict, start, end, score = locate(quote, PASSAGE)
        assert (verdict, score) == ("exact", 100.0), quote
        assert PASSAGE[start:end].strip()


def test_the_span_is_that_of_the_original_text():
    _, start, end, _ = locate("it's late", PASSAGE)
    assert PASSAGE[start:end] == "it\u2019s late"


def test_a_quote_does_not_end_inside_a_word():
    assert locate("the big She", "the big Shed stood")[0] == "near"
    assert locate("big Shed", "the big Shed stood")[0] == "exact"
    assert locate("no", "at noon")[0] == "invalid"


def test_near_and_invalid_depend_on_the_threshold():
    changed = "The pipe was moved to the bars"
    verdict, start, end, score = locate(changed, PASSAGE, threshold=90)
    assert verdict == "near" and 90 <= score < 100
    assert "pipe was moved to the bar" in PASSAGE[start:end]
    assert locate(changed, PASSAGE, threshold=99)[0] == "invalid"
    assert locate("a fabricated sentence about ships", PASSAGE)[0] == "invalid"


def test_empty_quotes_and_missing_passages_are_invalid():
    assert locate("", PASSAGE)[0] == "invalid"
    assert locate(" .,", PASSAGE)[0] == "invalid"
    assert check_quotes("<quote>The pipe</quote>", None)[0].verdict == "invalid"


def test_spans_in_the_speech_cover_the_tags():
    speech = "I say <quote>The pipe was moved</quote> and <quote>never</quote> and <quote>open"
    first, second = check_quotes(speech, PASSAGE)
    assert speech[first.start : first.end] == "<quote>The pipe was moved</quote>"
    assert (first.verdict, second.verdict) == ("exact", "invalid")


@given(st.text(min_size=1, max_size=200), st.data())
def test_any_part_of_a_passage_between_spaces_is_exact_or_empty(passage, data):
    words = passage.split()
    if not words:
        return
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    verdict, low, high, _ = locate(" ".join(words[start:end]), passage)
    assert verdict == "exact" or low is None
    if low is not None:
        assert 0 <= low < high <= len(passage)


@given(st.text(max_size=300), st.text(max_size=100))
def test_checking_never_fails_and_never_leaves_the_texts(speech, passage):
    assert not check_quotes('<quote>"</quote>', passage)
    for quote in check_quotes(f"{speech}<quote>{passage}</quote>", passage):
        assert 0 <= quote.start < quote.end
        assert quote.passage_end is None or quote.passage_end <= len(passage)
