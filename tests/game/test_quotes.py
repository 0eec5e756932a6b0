import random
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from debate_rl.game.quotes import check_quotes, differences, locate

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


def cpu_seconds(call):
    """CPU seconds that a call takes, and what it gives."""
    start = time.process_time()
    value = call()
    return time.process_time() - start, value


def words(count, seed=0):
    """Words of a story, drawn anew for each seed."""
    drawn = random.Random(seed)
    known = ["".join(drawn.choices("abcdefghijklmnoprstuvwy", k=drawn.randint(2, 9))) for _ in range(1500)]
    return drawn.choices(known, k=count)


STORY = " ".join(words(5400))


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("story", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "quote",
    ["ordered a caf\u00e9 with milk", "\ud55c\uad6d\uc5b4 \ub9d0", "vi\u1ec7t nam", "\u0995\u09cb \u09b0", "\u1e69o"],
)
def test_a_quote_is_exact_however_its_accents_are_encoded(quote, form, story):
    passage = unicodedata.normalize(story, f"She {quote}. The rest.")
    speech = f"I say <quote>{unicodedata.normalize(form, quote)}</quote>"
    (found,) = check_quotes(speech, passage)
    assert found.verdict == "exact"
    assert unicodedata.normalize("NFC", passage[found.passage_start : found.passage_end]) == quote


@given(st.text(alphabet="a\u00e9\u1ec7\u1e69\u0301\u0323\u0307\uac01\u1100\u1161 b.", max_size=40), st.data())
def test_encodings_of_one_text_have_one_verdict(passage, data):
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    start = data.draw(st.integers(0, len(passage)))
    quote = passage[start : data.draw(st.integers(start, len(passage)))]
    whole = unicodedata.normalize("NFC", passage), unicodedata.normalize("NFD", passage)
    verdicts = {locate(unicodedata.normalize(form, quote), text)[0] for text in whole}
    assert len(verdicts) == 1


@pytest.mark.parametrize(
    ("quote", "passage"),
    [
        ("102 people", "there were 10\u00b2 people"),
        ("10\u00b2 people", "there were 102 people"),
        ("11/2 cups of milk", "it took 1\u00bd cups of milk"),
        ("1 cups", "it took 1\u00bd cups of milk"),
        ("H2 people", "H\u2082 people"),
        ("10 people came", "there were 1\u2070 people came"),
        ("5 degrees", "it was 0.5 degrees"),
        ("it was 10", "it was 10.5 degrees"),
        ("it was 10", "it was 10,500 metres"),
        ("it was 1", "it was 1/2 of it"),
        ("-5 degrees", "it was 5 degrees"),
        (".5 degrees", "it was 5 degrees"),
        ("1 men", "\u2460 men"),
        ("3 m2 of it", "3 \u33a1 of it"),
        ("resume", "a r\u00e9sum\u00e9 was left"),
        ("a caf", "a cafe\u0301 with milk"),
        ("cafe", "a cafe\u0301 with milk"),
    ],
)
def test_another_number_or_letter_is_never_exact_nor_near(quote, passage):
    assert locate(quote, passage)[0] == "invalid"


@pytest.mark.parametrize(
    ("quote", "passage"),
    [
        ("12 people", "there were \uff11\uff12 people"),
        ("\uff41 shed", "in a shed"),
        ("the office file", "the o\ufb03ce \ufb01le was there"),
        ("wait... no", "wait\u2026 no"),
        ("\u22125 degrees", "it was -5 degrees"),
        ("well-known man", "a well\u2011known man"),
        ("ordered coffee", "she or\u00addered cof\u200bfee"),
        ("10.5 degrees", "it was 10.5 degrees."),
        ("...5 degrees", "it was 5 degrees"),
        ("in 1990", "it was in 1990, or 1991."),
        ("1990, or 1991", "it was in 1990, or 1991."),
    ],
)
def test_another_dress_of_the_same_letters_is_exact(quote, passage):
    assert locate(quote, passage)[0] == "exact"


@pytest.mark.parametrize("other", ["3,400", "3.300", "-3,300", "3,300\u00b2", "33", "3 300", "thirty"])
def test_a_long_quote_with_another_number_is_invalid(other):
    passage = "the ship carried 3,300 barrels of oil across the whole of the northern sea in the winter of that year ."
    altered = passage.replace("3,300", other)
    assert locate(passage.replace("whole", "hole"), passage)[0] == "near"
    assert locate(altered, passage)[0] == "invalid"


@pytest.mark.parametrize(
    ("speech", "quoted"),
    [
        ("<quote>never closed, and <quote>the big Shed</quote>", ["the big Shed"]),
        ("<quote>the big</quote> shed</quote>", ["the big"]),
        ("</quote>the <quote>big", []),
        (
            "<quote>left the <quote>big</quote> Shed</quote> and <quote>at dusk</quote>",
            ["left the <quote>big</quote> Shed", "at dusk"],
        ),
        ("<quote><quote></quote>big</quote>", ["<quote></quote>big"]),
        ("<quote>a\n\nb</quote>", ["a\n\nb"]),
    ],
)
def test_marks_are_paired_as_brackets_are(speech, quoted):
    quotes = check_quotes(speech, PASSAGE)
    assert [quote.text for quote in quotes] == quoted
    for quote in quotes:
        assert speech[quote.start : quote.end].startswith("<quote>")
        assert speech[quote.start : quote.end].endswith("</quote>")
        assert quote.verdict == ("invalid" if quote.text[-1] == "b" else "exact")


@given(st.lists(st.sampled_from(["<quote>", "</quote>", "the big Shed", " ", "x"]), max_size=30))
def test_quotes_of_any_marks_lie_apart_and_in_order(parts):
    speech = "".join(parts)
    position = 0
    for quote in check_quotes(speech, PASSAGE):
        assert position <= quote.start < quote.end <= len(speech)
        position = quote.end


@pytest.mark.parametrize(
    "speech",
    [
        "<quote>" * 150_000,
        "<quote>the pipe was moved " * 40_000,
        "<quote>a" * 60_000 + "</quote>" * 60_000,
        "<quote>" + "a\u0323\u0301\u0323" * 100_000 + "</quote>",
        "".join(f"<quote>{' '.join(words(3000, seed))}</quote>" for seed in range(1, 4)),
        f"<quote>{' '.join(reversed(STORY.split()[:3000]))}</quote>",
    ],
    ids=["unclosed", "unclosed with words", "nested", "accents", "long fabrications", "a story backwards"],
)
def test_checking_takes_time_linear_in_the_speech(speech):
    """The bar is far above what it takes, a second, and far below what the square of the length would."""
    seconds, quotes = cpu_seconds(lambda: check_quotes(speech, STORY))
    assert seconds < 20
    assert all(quote.verdict == "invalid" for quote in quotes)


@pytest.mark.parametrize("count", [120, 600, 2500])
def test_long_quotes_with_a_few_changes_are_near_where_they_stand(count):
    drawn, told = random.Random(count), STORY.split()
    start = drawn.randrange(len(told) - count)
    quote = told[start : start + count]
    for _ in range(count // 25):
        quote[drawn.randrange(count)] = drawn.choice(["shed", "barn"])
    seconds, (verdict, low, high, score) = cpu_seconds(lambda: locate(" ".join(quote), STORY))
    assert (verdict, seconds < 20) == ("near", True)
    assert low == len(" ".join(told[:start])) + (start > 0)
    assert high == len(" ".join(told[: start + count]))
    assert 90 <= score == pytest.approx(100 * Indel.normalized_similarity(" ".join(quote), STORY[low:high]), abs=0.01)


def test_one_word_in_a_long_quote_is_near_and_the_difference_is_told():
    passage = "at the end of the long day Ines and Omar said that the old brass pipe was moved to the shed at dusk ."
    lie = passage.replace("shed", "barn")
    verdict, start, end, score = locate(lie, passage)
    assert verdict == "near" and score > 90
    assert [change for change in differences(lie, passage[start:end]) if change.kind != "same"] == [
        ("left out", "shed"),
        ("added", "barn"),
    ]


@given(st.lists(st.sampled_from(["shed", "barn", "Shed,", "at", "-"]), max_size=8), st.data())
def test_differences_hold_all_words_of_both(quoted, data):
    told = data.draw(st.permutations(quoted)) + data.draw(st.lists(st.sampled_from(["dusk", "noon"]), max_size=2))
    changes = differences(" ".join(quoted), " ".join(told))
    assert " ".join(c.text for c in changes if c.kind != "left out") == " ".join(quoted)
    missing = [word for c in changes if c.kind == "left out" for word in c.text.split()]
    assert not [word for word in ("dusk", "noon") if missing.count(word) != told.count(word)]
