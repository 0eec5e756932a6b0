"""Debates as rows of a table: quotes marked, and nothing that a player writes becomes markup."""

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.quotes import check_quotes
from debate_rl.game.transcript import Origin, Speech, Transcript
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.report.debate_rows import COLUMNS, PAGE, debate_rows

PASSAGE = "the book was moved to the tower at dusk . later the pipe was moved to the shed by ines ."


class Tags(HTMLParser):
    """Tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def debate(speech, seed=0, question="where is the book ?"):
    """A failed debate with one speech."""
    asked = Question(id="q", text=question, answers=("tower", "shed"), correct=0, passage=PASSAGE)
    game = Transcript(question=asked, protocol=load_protocol("debate"), players={"A": "dpo", "B": "sft"}, seed=seed)
    said = Speech(
        side="A", turn=0, text=speech, quotes=check_quotes(speech, PASSAGE, 97.0), origin=Origin(player="dpo")
    )
    failure = Failure(seat="A", kind="empty", message="said <b>nothing</b>")
    return JudgedDebate(transcript=game.model_copy(update={"speeches": (said,)}), failure=failure)


def cells(leg):
    return dict(zip(COLUMNS, debate_rows([leg], 1)[0], strict=True))


def test_quotes_are_counted_and_marked_by_validity():
    row = cells(debate("see <quote>the book was moved to the tower</quote> and <quote>it fell into the sea</quote>"))
    assert (row["exact quotes"], row["near quotes"], row["invalid quotes"]) == (1, 0, 1)
    tags = Tags(row[PAGE]).tags
    marks = [attributes["class"] for tag, attributes in tags if tag == "mark" and attributes.get("title")]
    assert marks == ["exact", "invalid"]
    assert row["failure"] == "said <b>nothing</b>" and "<b>nothing" not in row[PAGE]


@settings(max_examples=30)
@given(st.text(max_size=60).map(lambda text: f"<script>x</script>{text}<img src=x onerror=alert(1)></div>"))
def test_hostile_text_stays_text(text):
    page = Tags(cells(debate(text, question=text))[PAGE])
    harmless = {tag for tag, _ in Tags(cells(debate("fine"))[PAGE]).tags} | {"span", "mark"}
    assert {tag for tag, _ in page.tags} <= harmless
    assert "<script>x</script>" in page.text


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_the_sample_does_not_depend_on_the_order_of_the_debates(order):
    legs = [debate("fine", seed=seed) for seed in range(6)]
    assert debate_rows([legs[place] for place in order], 3) == debate_rows(legs, 3)
