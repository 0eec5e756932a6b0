import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.game.protocol import load_protocol
from debate_rl.game.quotes import Quote, check_quotes
from debate_rl.game.transcript import Origin, Speech, open_transcript, read_speech
from debate_rl.game.verdict import Ask, Failure, JudgedDebate, Verdict
from debate_rl.report.transcripts import Numbered, cut_speech, exhibit, mark_passage

PASSAGE = "on monday the pipe was moved to the shed. on tuesday ines moved it to the barn, and all saw it."


def speech(text, passage=PASSAGE):
    return Speech(side="A", turn=0, text=text, quotes=check_quotes(text, passage), origin=Origin(player="dpo"))


def numbered(*spans, verdict="exact"):
    return [
        Numbered(n, Quote(text="", verdict=verdict, start=0, end=0, passage_start=a, passage_end=b))
        for n, (a, b) in enumerate(spans, start=1)
    ]


def joined(pieces):
    return "".join(piece.text for piece in pieces)


def test_speech_is_cut_at_its_quotes():
    text = (
        "see <quote>the pipe was moved to the shed</quote>, <quote>ines moved it too the barn</quote> "
        "and <quote>the moon is cheese</quote>."
    )
    pieces, quotes = cut_speech(speech(text), first=4)
    assert [(p.text, p.look, p.numbers) for p in pieces if p.look != "plain"] == [
        ("the pipe was moved to the shed", "exact", (4,)),
        ("ines moved it too the barn", "near", (5,)),
        ("the moon is cheese", "invalid", (6,)),
    ]
    assert [quote.number for quote in quotes] == [4, 5, 6]
    assert joined(pieces) == text.replace("<quote>", "").replace("</quote>", "")
    assert "% similar" in pieces[3].note and "not in the passage" in pieces[5].note


def test_markup_of_a_debater_is_text():
    pieces, quotes = cut_speech(speech("</quote><script>x</script><v_quote>sure</v_quote> </div>"))
    assert [p.look for p in pieces] == ["plain"] and not quotes
    assert joined(pieces) == "</quote><script>x</script><v_quote>sure</v_quote> </div>"


def test_scratchpad_has_a_look_of_its_own():
    pieces, quotes = cut_speech(speech("<scratchpad>hm <quote>all saw it</quote></scratchpad>it is the barn"))
    assert [p.look for p in pieces] == ["scratchpad", "plain"]
    assert not quotes


@given(
    st.lists(st.sampled_from(["<quote>", "</quote>", "the pipe", " was moved", "x", "<scratchpad>", "\n"]), max_size=20)
)
def test_pieces_of_a_speech_hold_all_its_words(parts):
    text = "".join(parts)
    pieces, quotes = cut_speech(speech(text))
    rest = text
    for piece in pieces:
        assert piece.text in rest
        rest = rest[rest.index(piece.text) + len(piece.text) :]
    lost = len(text) - sum(len(piece.text) for piece in pieces)
    assert lost == len("<quote></quote>") * len(quotes)


@given(
    st.lists(st.tuples(st.integers(0, 95), st.integers(0, 95)).map(sorted).filter(lambda s: s[0] < s[1]), max_size=6)
)
def test_marks_of_a_passage_cover_what_quotes_match_and_nothing_else(spans):
    marked = mark_passage(numbered(*spans), len(PASSAGE))
    covered = [place for mark in marked for place in range(mark.start, mark.end)]
    assert covered == sorted({place for start, end in spans for place in range(start, end)})
    assert sorted(number for mark in marked for number in mark.numbers) == list(range(1, len(spans) + 1))


def test_exact_shows_where_exact_and_near_overlap():
    quotes = [*numbered((0, 20)), Numbered(2, numbered((10, 30), verdict="near")[0].quote)]
    assert [tuple(mark) for mark in mark_passage(quotes, len(PASSAGE))] == [
        (0, 10, "exact", ()), (10, 20, "exact", (1,)), (20, 30, "near", (2,))
    ]  # fmt: skip


def long_leg(made, quotes=("ines hid the key under the third stone",)):
    """A leg on a passage of 20,000 characters; its quotes stand far apart in it."""
    filler = [f"on day {day} the miller counted {day} sacks." for day in range(600)]
    lines = filler[:200] + [quotes[0] + "."] + filler[200:500] + [quote + "." for quote in quotes[1:]] + filler[500:]
    question = made.question(1).model_copy(update={"passage": " ".join(lines)})
    game = open_transcript(question, load_protocol("debate"), {"A": "dpo", "B": "sft"})
    said = " ".join(f"<quote>{quote}</quote>" for quote in quotes)
    speeches = [read_speech(said, game, side, 0, Origin(player="dpo")) for side in "AB"]
    asks = (Ask(sides=("A", "B"), logprobs=(-0.1, -2.4)), Ask(sides=("B", "A"), order=(1, 0), logprobs=(-0.9, -0.5)))
    return JudgedDebate(transcript=game.add(speeches), verdict=Verdict(judge="judge", p=(0.65, 0.35), asks=asks))


def test_quotes_are_marked_where_they_stand_in_a_long_passage(made):
    quotes = ("ines hid the key under the third stone", "the mayor burnt the map at noon")
    leg = long_leg(made, quotes)
    passage = leg.transcript.question.passage
    found = exhibit("oversight", leg)
    assert [(passage[mark.start : mark.end], mark.numbers) for mark in found.marked] == [
        (quotes[0], (1, 3)), (quotes[1], (2, 4))
    ]  # fmt: skip


def test_a_failed_debate_is_shown_without_a_verdict(made):
    leg = made.leg(made.question(3), ("dpo", "sft"))
    failure = Failure(seat="judge", kind="server", message="500")
    found = exhibit("s", leg.model_copy(update={"verdict": None, "failure": failure}))
    assert found.asks == () and found.right is None and [seat.p for seat in found.seats] == [None, None]
    assert len(found.speeches) == 2


def test_verdict_is_told_in_both_orders(made):
    leg = made.leg(made.question(3), ("dpo", "sft"))
    found = exhibit("tournament", leg)
    assert [ask.how for ask in found.asks] == [
        "A read first, answer A listed first",
        "B read first, answer B listed first",
    ]
    assert sum(ask.p[0] for ask in found.asks) / 2 == pytest.approx(leg.verdict.p[0])
    assert found.right == (leg.p_correct > 0.5)
    assert [(seat.side, seat.player, seat.correct) for seat in found.seats] == [("A", "dpo", True), ("B", "sft", False)]


def test_judge_that_reads_each_side_alone_and_one_that_reads_nothing_are_told(made):
    leg = long_leg(made)
    asks = (Ask(sides=("B",), logprobs=(-0.7, -0.7)), Ask(sides=(), order=(1, 0), logprobs=(-0.7, -0.7)))
    found = exhibit("s", leg.model_copy(update={"verdict": leg.verdict.model_copy(update={"asks": asks})}))
    assert [ask.how for ask in found.asks] == [
        "B read alone, answer A listed first",
        "no speech read, answer B listed first",
    ]


def test_consultancy_has_an_empty_seat_and_ties_are_neither_right_nor_wrong(made):
    leg = made.leg(made.question(3), ("dpo", "dpo"), "single")
    even = leg.model_copy(update={"verdict": leg.verdict.model_copy(update={"p": (0.5, 0.5)})})
    found = exhibit("s", even)
    assert [seat.player for seat in found.seats].count(None) == 1
    assert found.right is None


def test_origin_says_which_model_spoke(made):
    leg = made.leg(made.question(3), ("dpo", "sft"))
    origin = Origin(player="dpo", model="lab-base", adapter="dpo/adapter", revision="9f86", seed=3, best_of=4,
                    temperature=0.5, new_tokens=17, finish="length")  # fmt: skip
    speeches = [
        leg.transcript.speeches[0].model_copy(update={"origin": made}) for made in (origin, Origin(player="human"))
    ]
    found = exhibit(
        "s", leg.model_copy(update={"transcript": leg.transcript.model_copy(update={"speeches": speeches})})
    )
    assert [said.origin for said in found.speeches] == [
        "lab-base + dpo/adapter, weights 9f86, temperature 0.5, seed 3, best of 4, 17 tokens, ended by length", ""
    ]  # fmt: skip
