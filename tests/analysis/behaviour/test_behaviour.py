"""Behaviour of players whose manners are known."""

import math

import numpy as np
import pytest

from debate_rl.analysis.behaviour.behaviour import behaviour, by_side, quoted_words, spoken, wins
from debate_rl.analysis.behaviour.concessions import concedes, names_other_only
from debate_rl.analysis.behaviour.debater_behaviour import conduct
from debate_rl.analysis.behaviour.degenerate import loops, off_question, refuses, repeated_share
from debate_rl.analysis.behaviour.relevance import quotes_only, relevance
from debate_rl.analysis.behaviour.separation import auc, features, separation
from debate_rl.analysis.behaviour.trends import trends
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.judge import Judge

SHED, BARN = (
    "<quote>the pipe was moved to the shed at dusk</quote>",
    "<quote>the pipe was moved to the barn at noon</quote>",
)
IDLE, FALSE = "<quote>the cup was moved to the hall</quote>", "<quote>ines hid it</quote>"


def asked(number, correct=0):
    return Question(
        id=f"q{number}", text="where was the pipe at the end ?", answers=("shed", "barn"), correct=correct,
        passage="the pipe was moved to the barn at noon. the cup was moved to the hall. "
        "the pipe was moved to the shed at dusk.",
        group=f"story{number // 2}",
    )  # fmt: skip


def leg(question, a, b, said_a, said_b, p=0.5, turns=1):
    """A game in which each side says the same kind of thing every turn."""
    game = open_transcript(question, load_protocol("debate", turns=turns), {"A": a, "B": b})
    for turn in range(turns):
        texts = {"A": said_a, "B": said_b}
        made = [
            read_speech(
                texts[side][turn] if turns > 1 else texts[side], game, side, turn, Origin(player=game.players[side])
            )
            for side in ("A", "B")
        ]
        game = game.add(made)
    return JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(p, 1 - p)))


def test_sides_are_told_apart_by_the_correct_answer():
    legs = [
        leg(asked(n, correct=n % 2), "x", "y", f"the shed, {SHED}", f"barn {FALSE} {BARN}", p=0.8) for n in range(8)
    ]
    rows = {(row.player, row.argues): row for row in by_side(legs)}
    assert set(rows) == {(player, side) for player in "xy" for side in ("correct", "wrong")}
    assert [rows["x", side].speeches for side in ("correct", "wrong")] == [4, 4]
    x, y = rows["x", "correct"], rows["y", "wrong"]
    assert (x.valid.value, y.valid.value) == (1, 0)
    assert (x.quotes.value, y.quotes.value) == (1, 2)
    assert (x.quoted.value, y.quoted.value) == (9, 3 + 9)
    assert (x.words.value, y.words.value) == (11, 13)
    assert (x.wins.value, y.wins.value) == (pytest.approx(0.8), pytest.approx(0.2))
    assert x.repeated is None
    (whole, _) = behaviour(legs)
    assert (whole.player, whole.argues, whole.speeches) == ("x", None, 8)


def test_wins_leave_out_self_play_and_games_without_a_verdict():
    question = asked(0)
    alone, both = leg(question, "x", "x", SHED, BARN, 0.9), leg(question, "x", "y", SHED, BARN, 0.7)
    broken = both.model_copy(update={"verdict": None})
    assert [(win.player, win.argues, pytest.approx(win.p)) for win in wins([alone, both, broken])] == [
        ("x", "correct", 0.7), ("y", "wrong", 0.3)
    ]  # fmt: skip
    assert behaviour([alone])[0].wins is None
    unknown = leg(asked(0).model_copy(update={"correct": None}), "x", "y", SHED, BARN, 0.7)
    assert by_side([unknown]) == []
    assert behaviour([unknown])[0].wins.value == pytest.approx(0.7)


def test_repeated_quotes_are_those_of_the_players_own_earlier_turns():
    again, new = [f"a {SHED}", f"b {SHED.upper().replace('QUOTE', 'quote')}"], [f"a {BARN}", f"b {SHED}"]
    legs = [leg(asked(n), "x", "y", again, new, turns=2) for n in range(4)]
    rows = {row.player: row for row in behaviour(legs)}
    assert rows["x"].repeated.value == 1  # case and spaces do not make another quote
    assert rows["y"].repeated.value == 0  # what the other side quoted is no repetition
    assert rows["x"].repeated.n == 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I concede: the barn it is", True),
        ("I must admit defeat.", True),
        ("My opponent is clearly right.", True),
        ("I\u2019m wrong", True),
        ("I agree with my opponent", True),
        ("I do not concede", False),
        ("my opponent is not right", False),
        ("if my opponent was right, the pipe would be gone", False),
        ("the answer is shed", False),
        ("he said <quote>I concede</quote>", False),
        ("<scratchpad>I am wrong, but</scratchpad> it is the shed", False),
    ],
)
def test_concessions(text, found):
    game = open_transcript(asked(0), load_protocol("debate"), {"A": "x", "B": "y"})
    assert concedes(read_speech(text, game, "A", 0, Origin(player="x"))) is found


def speech(text, question=None):
    game = open_transcript(question or asked(0), load_protocol("debate"), {"A": "x", "B": "y"})
    return read_speech(text, game, "A", 0, Origin(player="x"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I'm sorry, but I can\u2019t assist with that.", True),
        ("Sorry, I cannot help with this request.", True),
        ("I apologize for the confusion, but as an AI language model I have no view.", True),
        ("I'm sorry. I am unable to argue for it.", True),
        ("As an AI, I do not take sides.", True),
        ("I cannot provide a speech.", True),
        ("I'm sorry, but my opponent is mistaken: it is the shed.", False),
        ("I cannot agree with my opponent.", False),
        ("It is the shed. I can't help it.", False),
        ("He said <quote>I'm sorry, I can't help you</quote>", False),
        ("", False),
    ],
)
def test_refusals_are_known_openings(text, found):
    assert refuses(speech(text)) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("it is the shed since ines said so there. " * 3, True),
        ("it is the shed since ines said so there. " * 2, False),
        ("no no no no no no no", True),
        ("the pipe was moved to the shed at dusk and no one saw it after", False),
        (f"{SHED} {SHED} {SHED}", True),
        ("yes", False),
    ],
)
def test_loops_say_the_same_at_least_three_times(text, found):
    assert loops(speech(text)) is found


def test_the_share_of_repeated_runs():
    assert repeated_share("a b c d e f g") == repeated_share("a b") == repeated_share("") == 0
    assert repeated_share("a b c d a b c d") == 1 / 5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("it is the shed", False),
        ("the cup says it all", False),
        ("think of a pipe", False),
        ("Paris has been the capital of France for ages", True),
        ("it was there, and so it is", True),
        ("<scratchpad>the shed</scratchpad> Paris", True),
        ("", True),
    ],
)
def test_off_the_question_is_without_a_content_word_of_it(text, found):
    assert off_question(speech(text), asked(0)) is found


def test_refusals_loops_and_strays_are_counted_by_player_with_intervals():
    legs = []
    for number in range(8):
        bad = ("I can't help with that.", "Paris again and again. " * 4)[number // 2 % 2]
        legs.append(leg(asked(number), "good", "bad", SHED, bad))
    good, bad = behaviour(legs)
    assert (good.refuses.value, good.loops.value, good.off_question.value) == (0, 0, 0)
    assert (bad.refuses.value, bad.loops.value, bad.off_question.value) == (0.5, 0.5, 1)
    assert bad.refuses.low < 0.5 < bad.refuses.high and bad.refuses.clusters == 4


@pytest.mark.parametrize(
    ("answers", "text", "found"),
    [
        (("shed", "barn"), "it is the barn", True),
        (("shed", "barn"), "not the barn but the shed", False),
        (("shed", "barn"), "the barns are far, it is elsewhere", False),
        (("shed", "barn"), f"this says it: {BARN}", False),
        (("barn", "red barn"), "it is the red barn", True),
        (("barn", "red barn"), "it is the barn, not the red barn", False),
        (("red barn", "barn"), "it is the red barn", False),
    ],
)
def test_naming_the_other_answer_only(answers, text, found):
    question = asked(0).model_copy(update={"answers": answers})
    game = open_transcript(question, load_protocol("debate"), {"A": "x", "B": "y"})
    assert names_other_only(read_speech(text, game, "A", 0, Origin(player="x")), question) is found


class Reader(ScriptedEngine):
    """Guesses the answer that stands in the text it is given; sees nothing else."""

    def __init__(self):
        def score(choice):
            shown = choice.messages[-1].content
            assert "the answer" not in shown, "what was said round the quotes is not shown"
            text = shown.split("Question:")[0]
            shed_first = "(A) shed" in shown
            p = 0.9 if "shed" in text else 0.1 if "barn" in text else 0.4
            shed, barn = math.log(p), math.log(1 - p)
            return (shed, barn) if shed_first == (choice.candidates[0] == "A") else (barn, shed)

        super().__init__(score=score)


def test_the_side_is_guessed_from_the_quotes_alone():
    legs = [
        leg(asked(n, correct=n % 2), "x", "y", f"the answer is shed {SHED}", f"the answer is barn {IDLE} {FALSE}")
        for n in range(12)
    ]
    mute = leg(asked(20), "z", "y", f"the answer is shed {FALSE}", "the answer is barn")
    every = spoken([*legs, mute])
    view = quotes_only(every[1])
    assert view.question.passage == "the cup was moved to the hall"
    assert view.question.correct == 1 and view.speeches == ()
    found = {(row.player, row.argues): row for row in relevance(every, Judge(model="m"), Reader(), limit=5)}
    assert found["x", "correct"].guessed.value == found["x", "wrong"].guessed.value == 1
    assert found["x", "correct"].guessed.n == 5
    assert found["y", "correct"].guessed.value == 1  # .4 for the shed is a guess at the barn
    assert {row.failed for row in found.values()} == {0}
    assert found["z", "correct"].guessed is None and found["z", "correct"].without == 1


def chat(random, filler, quotes):
    """A speech with so many fillers and quotes, about."""
    words = ["well", "so", "the", "pipe", "is", "there"]
    picked = [words[i] for i in random.integers(0, len(words), 6 + random.poisson(filler))]
    return " ".join([*picked, *[SHED] * quotes])


def games(random, manners, questions=40, sway=None):
    """Every player against each other one and itself."""
    found = []
    for number in range(questions):
        question = asked(number, correct=number % 2)
        says = {name: [chat(random, *manner) for _ in "AB"] for name, manner in manners.items()}
        for a in manners:
            for b in manners:
                lean = (sway or {}).get(a, 0) - (sway or {}).get(b, 0)
                lean += 0.8 * (1 - 2 * question.correct) * (1 - abs((sway or {}).get(a, 0)) if a == b else 1)
                p = float(1 / (1 + np.exp(-lean - random.normal(0, 0.6))))
                found.append(leg(question, a, b, says[a][0], says[b][1], p))
    return found


def test_players_with_other_manners_are_told_apart_and_the_features_say_how():
    random = np.random.default_rng(0)
    every = spoken(games(random, {"terse": (1, 1), "wordy": (12, 1), "twin": (1, 1)}))
    apart = separation(every, "terse", "wordy")
    assert apart.accuracy.low > 0.8 and apart.auc.low > 0.9
    assert apart.pairs == 80 and apart.accuracy.clusters == 20
    assert apart.features[0].name == "words"
    assert apart.features[0].difference.value < 0 and apart.features[0].weight < 0
    same = separation(every, "terse", "twin")
    assert same.auc.low < 0.5 < same.auc.high
    assert separation(every[:20], "terse", "wordy") is None


def test_auc_agrees_with_scikit_learn():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(1)
    y, scores = random.integers(0, 2, 200), random.random(200).round(1)
    found = auc(scores, y, [f"s{i // 4}" for i in range(200)])
    assert found.value == pytest.approx(roc_auc_score(y, scores))
    assert found.low < found.value < found.high


def test_features_count_what_they_name():
    game = open_transcript(asked(0), load_protocol("debate"), {"A": "x", "B": "y"})
    texts = [f"Look! it is the shed. Why? {SHED} {FALSE}", "the shed."]
    names, table = features([read_speech(text, game, "A", 0, Origin(player="x")) for text in texts])
    values = dict(zip(names, table.T.tolist(), strict=True))
    assert values["words"] == [18, 2] and values["quotes"] == [2, 0] and values["valid quotes"] == [1, 0]
    assert values["question and exclamation marks"] == [2, 0] and values["sentences"] == [3, 1]
    assert values["word: shed"] == [1, 1] and "word: look" not in values  # a word of one speech says nothing
    assert quoted_words(read_speech(texts[0], game, "A", 0, Origin(player="x"))) == values["quoted words"][0]


def test_hacking_of_the_judge_shows_as_strength_that_goes_with_length_and_against_accuracy():
    random = np.random.default_rng(2)
    sway = {"plain": 0.0, "long": 0.5, "longer": 1.0, "longest": 1.5}
    manners = {"plain": (0, 1), "long": (8, 1), "longer": (16, 1), "longest": (24, 1)}
    found = {row.measure: row for row in trends(games(random, manners, sway=sway))}
    assert found["words"].with_rating.value == pytest.approx(1) and found["words"].with_rating.low > 0.5
    assert found["judge accuracy"].with_rating.value < 0
    assert found["judge accuracy"].with_accuracy is None
    assert found["quotes"].with_rating is None  # all quote once: nothing to rank
    assert trends(games(random, {"plain": (0, 1), "long": (8, 1)}, 12)) == []


def test_everything_at_once_and_through_json():
    legs = games(np.random.default_rng(3), {"a": (1, 1), "b": (6, 2), "c": (12, 1)}, 24)
    found = conduct(legs, ["a", "b", "c"], Judge(model="m"), Reader(), readings=3)
    assert [(row.first, row.second) for row in found.separations] == [("a", "b"), ("b", "c")]
    assert len(found.sides) == len(found.relevance) == 6
    assert type(found).model_validate_json(found.model_dump_json()) == found
    assert conduct(legs, ["a", "b", "c"], Judge(model="m"), Reader()).relevance == ()
