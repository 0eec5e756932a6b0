import pytest

from debate_rl.report.wording import (
    count,
    duration,
    fixed,
    number,
    percent,
    printable,
    significant,
    slug,
    units,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (percent(0.75), "75.0 %"),
        (fixed(-0.4, 0), "0"),
        (fixed(-1.25, 1), "\u22121.2"),
        (significant(0.00002), "2e\u221205"),
        (significant(1234.5), "1234"),
        (number(0.1234), "0.123"),
        (number(None), "\u2013"),
        (number(-0.0001, 2), "0.00"),
        (number(1.25, 1, plus=True), "+1.2"),
        (number(-3.21, 1, plus=True), "\u22123.2"),
        (number(0.0, 1, plus=True), "0.0"),
        (count(52000), "52\u202f000"),
        (count(0.41), "0.41"),
        (count(-3.0), "\u22123"),
        (duration(3.14), "3.1 s"),
        (duration(48.2), "48 s"),
        (duration(75), "1 min 15 s"),
        (duration(12000), "3 h 20 min"),
        (slug("a b"), "a_20_b"),
        (units([]), "clusters"),
        (printable("a\x1b\tb\ud800\n"), "a\ufffd\tb?\n"),
    ],
)
def test_words_of_numbers(text, wanted):
    assert text == wanted


def test_slugs_of_different_names_differ():
    assert slug("a_20_b") != slug("a b")
