import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.game.quotes import check_quotes, locate, other_words

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


def test_composed_and_decomposed_letters_are_the_same():
    passage = "She ordered a caf\u00e9 with na\u00efve \u1ec7 waiters."
    for form in ("NFC", "NFD"):
        for other in ("NFC", "NFD"):
            quote = unicodedata.normalize(form, "ordered a caf\u00e9 with na\u00efve \u1ec7 waiters")
            assert locate(quote, unicodedata.normalize(other, passage))[0] == "exact"
    assert locate("ordered a cafe", passage)[0] != "exact"


@pytest.mark.parametrize(
    ("quote", "passage"),
    [
        ("102 people came", "10\u00b2 people came"),
        ("11/2 cups", "1\u00bd cups"),
        ("1 1/2 cups", "1\u00bd cups"),
        ("room 4 was shut", "room \u2463 was shut"),
        ("H2O is wet", "H\u2082O is wet"),
        ("part IV ends", "part \u2163 ends"),
        ("-5 degrees at dawn", "it was 5 degrees at dawn"),
        ("\u22125 degrees at dawn", "it was 5 degrees at dawn"),
        ("'.5 litres'", "it held 5 litres"),
    ],
)
def test_what_means_another_number_is_not_exact(quote, passage):
    assert locate(quote, passage)[0] != "exact"


@pytest.mark.parametrize("quote", ["...5 degrees", "- 5 degrees", "--5 degrees", "-5 degrees", "\u22125 degrees"])
def test_a_minus_is_read_in_every_form_and_dots_and_dashes_around_a_quote_are_not(quote):
    assert locate(quote, "it was \u22125 degrees")[0] == "exact"
    assert other_words("-5 degrees", "5 degrees") == [("-5", "5")]


def test_wide_and_joined_letters_are_exact():
    assert locate("the first office", "the \ufb01rst o\ufb03ce \uff21")[0] == "exact"
    assert locate("room 12", "\uff52oom \uff11\uff12")[0] == "exact"


def test_checking_takes_time_that_grows_with_the_speech_and_no_faster():
    story = " ".join(f"word{n % 997} of{n % 31} the{n % 7} story" for n in range(1500))
    words = story.split()
    wrong = " ".join(words[n * 7919 % len(words)] for n in range(3000))
    cases = {
        "unclosed": "<quote>" * 150_000,
        "wrong": f"<quote>{wrong}</quote>",
        "moved": f"<quote>{' '.join(words[100:2100:1])} and more that is wrong</quote>",
        "many": "<quote>the story was never so</quote>" * 5000,
        "nested": "<quote>" * 50_000 + "</quote>" * 50_000,
    }
    for name, speech in cases.items():
        begin = time.process_time()
        check_quotes(speech, story)
        took = time.process_time() - begin
        print(f"{name}: {len(speech):,} characters, {1000 * took:.0f} ms")
        assert took < 20, name  # seconds at a hundred times its measured time: it took minutes


def test_a_long_quote_with_a_slip_is_near_and_in_its_place():
    words = [f"w{n}x{n * n % 89}" for n in range(2000)]
    story = " ".join(words)
    said = words[300:800]
    said[100] = said[250] = "slip"
    verdict, start, end, score = locate(" ".join(said), story)
    assert verdict == "near" and score > 98
    assert story[start:end] == " ".join(words[300:800])


def test_the_words_of_a_near_quote_that_differ_are_named():
    said = "The pipe was moved by Ines to the big barn at dusk"
    stands = "the pipe was moved by Ines to the big shed, at dusk"
    assert other_words(said, stands) == [("barn", "shed,")]
    assert other_words("a b c", "a c") == [("b", "")]


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


def test_a_letter_with_very_many_marks_takes_no_time_and_keeps_their_order():
    marks = "\u0301\u0316" * 100_000  # ranks 230 and 220, so that every second one belongs before all others
    began = time.process_time()
    assert locate(f"a{marks} b", f"so a{chr(0x316) * 100_000}{chr(0x301) * 100_000} b it is")[0] == "exact"
    assert time.process_time() - began < 20  # minutes, where each mark is moved by itself


@pytest.mark.parametrize(
    ("quote", "passage", "exact"),
    [
        ("5 litres", "it holds 2.5 litres", False), ("it holds 2", "it holds 2.5 litres", False),
        ("000 men", "there were 1,000 men", False), ("30 today", "at 12:30 today", False),
        ("-5 degrees", "at -5 degrees", True),
        ("2.5 litres", "it holds 2.5 litres", True), ("in 1990", "in 1990. then", True), ("5", "pages 3-5", True),
        ("3 and 4", "of 2, 3 and 4", True),
    ],
)  # fmt: skip
def test_a_quote_does_not_begin_or_end_inside_a_number(quote, passage, exact):
    assert (locate(quote, passage)[0] == "exact") == exact
