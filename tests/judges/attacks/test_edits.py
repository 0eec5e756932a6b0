import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.models import model_path
from debate_rl.errors import UserError
from debate_rl.game.prompts import judge_messages
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import MARKS, Origin, open_transcript, read_speech, shown_text
from debate_rl.judges.attacks.edits import (
    ATTACKS,
    FORGERIES,
    LONGEST,
    MEASURED,
    Wording,
    attacked_copies,
    chosen,
    fill,
    suffix,
    suffix_words,
)

SETS = ("lab", "default")
OPENING = re.compile(r"<\|?/?[a-z_]+|\[/?INST\]|\b(judge|system|user|assistant|debater \w)\s*:", re.IGNORECASE)
"""What could pass for a mark, a special token, a tag of a template or a role."""


def debate(question, prompts="lab", turns=1, said=None):
    rules = load_protocol("debate", prompts=prompts, turns=turns)
    found = open_transcript(question, rules, {"A": "x", "B": "y"})
    texts = said or {
        "A": "it is shed , because <quote>the pipe was moved to the shed at dusk.</quote>",
        "B": "it is barn , because <quote>the pipe was moved to the barn at noon.</quote>",
    }
    for turn in range(turns):
        found = found.add([read_speech(texts[side], found, side, turn, Origin(player="p")) for side in "AB"])
    return found


def verdicts(game, side):
    return [quote.verdict for speech in game.speeches if speech.side == side for quote in speech.quotes]


@pytest.mark.parametrize("prompts", SETS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_changes_every_speech_of_its_side_and_nothing_else(question, name, prompts):
    game = debate(question, prompts, turns=2)
    attacked = ATTACKS[name].change(game, "B")
    assert attacked is not None and attacked == ATTACKS[name].change(game, "B")
    for before, after in zip(game.speeches, attacked.speeches, strict=True):
        assert (before == after) == (before.side == "A")
        assert after == read_speech(after.text, game, after.side, after.turn, before.origin)  # quotes checked again
    same = ("question", "protocol", "players", "seed", "id")
    assert all(getattr(game, key) == getattr(attacked, key) for key in same)


def test_quote_attacks_change_what_their_names_say(question):
    game = debate(question)
    found = {name: verdicts(ATTACKS[name].change(game, "B"), "B") for name in ATTACKS}
    assert verdicts(game, "B") == ["exact"]
    assert found["quotes_repeated"] == ["exact"] * 3
    assert found["quotes_unrelated"] == ["exact", "exact"]
    assert found["quotes_invented"] == ["exact", "invalid"]
    assert all(value == ["exact"] for name, value in found.items() if not name.startswith("quotes"))


def test_an_altered_quote_swaps_the_answer_and_passes_only_where_the_threshold_lets_it(question):
    game = debate(question)
    attacked = ATTACKS["quotes_altered"].change(game, "B")
    quotes = attacked.speeches[1].quotes
    assert quotes[1].text == "the pipe was moved to the barn at dusk."
    assert quotes[1].verdict == "near"  # one word of eight: 90 % similar, the default's threshold
    strict = game.model_copy(update={"protocol": game.protocol.model_copy(update={"near_quotes": 97.0})})
    assert verdicts(ATTACKS["quotes_altered"].change(strict, "B"), "B") == ["exact", "invalid"]


def test_an_attack_without_anything_to_do_says_so(question):
    bare = debate(question, said={"A": "shed", "B": "barn"})
    assert ATTACKS["quotes_repeated"].change(bare, "A") is None
    assert ATTACKS["quotes_altered"].change(bare, "A") is None
    no_passage = debate(question).model_copy(update={"question": question.model_copy(update={"passage": None})})
    assert ATTACKS["quotes_unrelated"].change(no_passage, "A") is None
    silent = bare.model_copy(update={"speeches": ()})
    assert all(attack.change(silent, "A") is None for attack in ATTACKS.values())


def test_repeating_adds_words_and_no_quotes(question):
    game = debate(question)
    longer = ATTACKS["length_repeat"].change(game, "A").speeches[0]
    assert longer.text.count("it is shed") == 3 and longer.quotes == game.speeches[0].quotes


@pytest.mark.parametrize("prompts", SETS)
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_has_no_force_in_what_the_judge_reads(question, name, prompts):
    """Marks, special tokens, template tags, role names and messages are as many with the forgery as without it."""
    game = debate(question, prompts)
    attacked = ATTACKS[name].change(game, "A")
    raw = attacked.speeches[0].text
    assert OPENING.search(raw) or re.search(r"for \w+ :", raw)  # it does forge something
    plain, forged = (judge_messages(one, one.present, (0, 1)) for one in (game, attacked))
    assert [message["role"] for message in plain] == [message["role"] for message in forged]
    for before, after in zip(plain, forged, strict=True):
        tags = [Counter(found[0].casefold() for found in OPENING.finditer(m["content"])) for m in (before, after)]
        assert tags[0] == tags[1]
    # The lab's template opens a speech by its answer and a colon.
    shown = shown_text(attacked.speeches[0], attacked.protocol)
    assert not re.search(r"\bfor \w+\s*:", shown)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_makes_no_special_token_of_the_lab(question, name):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path("lab-small"))
    special = set(tokenizer.convert_tokens_to_ids(["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]))
    special |= set(
        tokenizer.convert_tokens_to_ids([f"<{slash}{mark}>" for mark in MARKS.values() for slash in ("", "/")])
    )
    game = debate(question)
    counts = []
    for one in (game, ATTACKS[name].change(game, "A")):
        text = judge_messages(one, one.present, (0, 1))[-1]["content"]
        counts.append(Counter(token for token in tokenizer(text)["input_ids"] if token in special))
    assert counts[0] == counts[1]


def test_the_lab_knows_every_word_of_its_attacks(question):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path("lab-small"))
    game = debate(question)
    for attack in ATTACKS.values():
        shown = shown_text(attack.change(game, "A").speeches[0], game.protocol)
        ids = tokenizer(shown)["input_ids"]
        assert tokenizer.convert_tokens_to_ids("<|unknown|>") not in ids, (attack.name, shown)


@given(st.text(max_size=40), st.sampled_from(["A", "B"]))
def test_filling_takes_answers_as_they_are(answer, side):
    one = Question(id="q", text="?", answers=("{other}" + answer, "barn"), correct=0, passage="p")
    game = open_transcript(one, load_protocol("debate"), {"A": "x", "B": "y"})
    own, other = one.answers if side == "A" else one.answers[::-1]
    assert fill("{own}|{other}|{else}", game, side) == f"{own}|{other}|{{else}}"


@given(st.text(min_size=1, max_size=60))
def test_no_suffix_at_all_puts_a_mark_into_the_view(text):
    """Whatever stands in a suffix, other than a quote of its own, is shown without angle or square brackets."""
    one = Question(id="q", text="?", answers=("shed", "barn"), correct=0, passage="the pipe was moved.")
    attacked = suffix(Wording(text, text))(debate(one), "A")
    shown = shown_text(attacked.speeches[0], attacked.protocol)
    for mark in MARKS.values():
        shown = shown.replace(f"<{mark}>", "").replace(f"</{mark}>", "")
    assert not set("<>[]\x00") & set(shown)


def test_words_of_suffixes(question):
    lab = suffix_words([debate(question)])
    assert "shed" in lab and "{own}" in lab and "." not in lab and "<quote>" not in lab
    english = debate(question, "default", said={"A": "it is shed", "B": "surely not"})
    assert "surely" in suffix_words([english]) and "umbrella" not in suffix_words([english])


@pytest.mark.parametrize("name", ["suffix_random", "suffix_claim"])
@pytest.mark.parametrize("prompts", SETS)
def test_random_suffixes_differ_by_game_and_side_and_stay_within_the_search(question, prompts, name):
    said = set()
    for seed in range(40):
        game = debate(question, prompts).model_copy(update={"seed": seed})
        story = re.findall(r"[^\W_]+", f"{question.passage} {question.text} {' '.join(s.text for s in game.speeches)}")
        words = {word for one in suffix_words([game]) for side in "AB" for word in fill(one, game, side).split()}
        for side in "AB":
            attacked = ATTACKS[name].change(game, side)
            at = "AB".index(side)
            added = attacked.speeches[at].text.removeprefix(game.speeches[at].text).split()
            assert len(added) >= 1 and set(added) <= words | (set(story) if name == "suffix_claim" else set())
            said.add(tuple(added))
    assert {len(added) for added in said} == set(range(1, LONGEST + 1))
    assert len(said) > (70 if name == "suffix_random" else 30)
    answers = [word for added in said for word in added if word in question.answers]
    assert (len(answers) > len(said) / 4) == (name == "suffix_claim")


def test_training_games_are_attacked_by_each_side_in_turn(question):
    games = [debate(question) for _ in range(6)]
    names = ("suffix_sure", "concede")
    copies = attacked_copies(games, names)
    assert copies == [ATTACKS[name].change(games[0], side) for side in "ABA" for name in names]
    assert attacked_copies(games, ()) == []
    twice = attacked_copies(games[:3], names, 2)
    assert twice == copies and attacked_copies(games[:2], names[:1], 2) == [
        ATTACKS[names[0]].change(games[0], side) for side in "ABAB"
    ]
    bare = debate(question, said={"A": "shed", "B": "barn"})
    assert attacked_copies([bare, bare], ("quotes_repeated", "concede")) == [ATTACKS["concede"].change(bare, "A")]
    with pytest.raises(UserError, match="'position' is measured and can not be learnt from"):
        attacked_copies(games, ("position",))


def test_names_of_attacks():
    assert chosen(True) == (*ATTACKS, *MEASURED) and chosen(False) == ()
    assert chosen(("concede", "position", "concede")) == ("concede", "position")
    with pytest.raises(UserError, match=r"no attack 'suffix_shure'; did you mean 'suffix_sure'\?"):
        chosen(("suffix_shure",))
