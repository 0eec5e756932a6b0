from random import Random

import pytest
import torch

from debate_rl.data.lab.annotators import HUMAN, speeches
from debate_rl.data.lab.documents import (
    BROAD,
    CLEAN,
    Encoder,
    batch,
    debate_lines,
    debater,
    facts,
    marked,
    notes,
    open_book,
    scramble,
)
from debate_rl.data.lab.tokenizer import TAGS, lab_tokenizer
from debate_rl.data.lab.vocabulary import KINDS
from debate_rl.data.lab.words import vocabulary
from debate_rl.data.lab.world import FAMILIES, questions, split_of, stories, stories_in_split
from debate_rl.data.questions import claims
from debate_rl.game.quotes import check_quotes

TOKENIZER = lab_tokenizer()
ENCODER = Encoder(TOKENIZER)
STORY = questions(n=3, seed=11, per_story=3, things=3)
BATCHES = ("repeats", "recitals", "facts", "clean", "broad", "open_book", "notes", "hearings")


def chat(turns):
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]


def conversations():
    rng = Random(2)
    return [open_book(STORY, rng), debater(STORY, rng, HUMAN), notes(STORY, rng, False), notes(STORY, rng, True)]


def test_vocabulary_is_small_and_without_doubles():
    words = vocabulary()
    assert len(words) == len(set(words)) < 2000
    assert all(word == word.lower() for word in words)
    assert set(KINDS) < set(words)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_in_the_world_is_unknown_to_the_tokenizer(family):
    rng = Random(0)
    texts = [text for turns in conversations() for turn in turns for text in turn]
    for question in questions(family, n=200, seed=1):
        for form in (question, *claims([question])):
            texts += [form.text, form.passage, *speeches(form, BROAD, rng), *speeches(form, HUMAN, rng)]
            texts.append(debate_lines(form, rng, HUMAN))
    ids = TOKENIZER(texts, add_special_tokens=False).input_ids
    assert not any(TOKENIZER.unk_token_id in row for row in ids)


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_know_every_word_and_fit_the_models(kind):
    for seed in range(4):
        ids = batch(kind, 8, seed, ENCODER).ids
        assert not (ids == TOKENIZER.unk_token_id).any()
        assert ids.size(1) <= 512


def test_speeches_survive_a_round_trip():
    rng = Random(4)
    for question in questions(n=100, seed=2):
        for text in speeches(question, "human", rng):
            ids = TOKENIZER(text, add_special_tokens=False).input_ids
            assert TOKENIZER.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")
    plain = "the answer is shed because <quote> the pipe was moved to the shed at dusk by ines. </quote>"
    assert TOKENIZER.decode(TOKENIZER(plain).input_ids, skip_special_tokens=True) == plain


def test_tokenizer_is_saved_for_the_auto_class(tmp_path):
    from transformers import AutoTokenizer

    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    text = "The PIPE was moved ‹x› <v_quote>at dusk.</v_quote> 17 unheard-of"
    assert loaded(text).input_ids == TOKENIZER(text).input_ids
    assert loaded.padding_side == "left" and loaded.pad_token_id == 0
    assert len({loaded.pad_token_id, loaded.eos_token_id, loaded.bos_token_id, loaded.unk_token_id}) == 4
    assert not set(TAGS) & set(loaded.all_special_tokens)
    assert loaded.apply_chat_template(chat([("hi", "yes")]), tokenize=False) == TOKENIZER.apply_chat_template(
        chat([("hi", "yes")]), tokenize=False
    )


@pytest.mark.parametrize("turns", conversations())
def test_encoder_agrees_with_the_chat_template(turns):
    expected = TOKENIZER.apply_chat_template(
        chat(turns), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    rows = ENCODER.rows([turns])
    length = len(expected["input_ids"])
    assert rows.ids[0, :length].tolist() == expected["input_ids"]
    assert rows.learnt[0, :length].int().tolist() == expected["assistant_masks"]
    assert not rows.learnt[0, length:].any() and not rows.ids[0, length:].any()


def test_first_turns_are_the_prompts_of_the_game():
    from debate_rl.game import prompts, protocol, transcript

    def words(text):
        return TOKENIZER(text, add_special_tokens=False).input_ids

    rules = protocol.load_protocol("debate", prompts="lab", turns=2)
    question = STORY[0]
    game = transcript.open_transcript(question, rules, {"A": "x", "B": "y"})
    user = prompts.debater_messages(game, "A", 0)[-1]["content"]
    ours = {debater([question], Random(s), CLEAN)[0][0] for s in range(60)}
    assert words(user) in [words(text) for text in ours]

    said = speeches(question, HUMAN, Random(3))
    origin = transcript.Origin(player="x")
    sides = ("A", "B")
    game = game.add(transcript.read_speech(text, game, side, 0, origin) for side, text in zip(sides, said, strict=True))
    judge = prompts.judge_messages(game, sides, (0, 1))[-1]["content"]
    lines = [f"for {a} : {marked(text, question.passage)}" for a, text in zip(question.answers, said, strict=True)]
    first, second = question.answers
    listed = f"question : {question.text} answers : {first} or {second} ."
    assert words(judge) == words("\n".join([listed, *lines, "the answer is"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_open_book_answers_are_right_and_notes_hold_the_evidence_of_both_sides(family):
    for seed in range(20):
        asked = questions(family, n=3, seed=seed, per_story=3)
        for made in (asked, claims(asked, seed)):
            right = [question.answers[question.correct] for question in made]
            assert [answer for _, answer in open_book(made, Random(seed))] == right
            for hearing in (False, True):
                turns = notes(made, Random(seed), hearing)
                assert [answer for _, answer in turns] == right
                for (user, _), question in zip(turns, made, strict=True):
                    true = [all(f"<v_quote> {s} </v_quote>" in user for s in side) for side in question.evidence]
                    assert all(true) or "<u_quote>" in user or "<n_quote>" in user or family == "preference"
                    assert question.passage not in user
                    assert user.count("note :") == (0 if hearing else 2)
                    assert sum(f"\nfor {a} : " in user for a in question.answers) == (2 if hearing else 0)


def test_what_is_noted_wrong_does_not_tell_the_side():
    asked = questions("whereabouts", n=600, per_story=1)
    told, wrong = [0, 0], [0, 0]
    for question, (user, _) in zip(asked, notes(asked, Random(0), hearing=False), strict=True):
        for side in (0, 1):
            for line in user.splitlines()[1:]:
                if f" {question.answers[side]} " in line:  # not where the place itself was misquoted
                    told[side == question.correct] += 1
                    wrong[side == question.correct] += "<v_quote>" not in line
    assert all(0.12 < w / t < 0.25 for w, t in zip(wrong, told, strict=True))


def test_marks_are_what_checking_found():
    question, rng = STORY[0], Random(0)
    for mark, verdict in (("v_quote", "exact"), ("n_quote", "near"), ("u_quote", "invalid")):
        said = [text for _ in range(200) for text in speeches(question, BROAD, rng)]
        text = next(t for t in said if {q.verdict for q in check_quotes(t, question.passage)} == {verdict})
        assert f"<{mark}>" in marked(text, question.passage) and "<quote>" not in marked(text, question.passage)


def test_facts_are_asked_of_the_story_once():
    for family in FAMILIES:
        story = next(stories(family, "train", 3))
        turns = facts(story, Random(0), most=5)
        assert turns[0][0].startswith(f"story : {story.passage}\n") and len(turns) == 5
        assert {(user.rsplit("\n", 1)[-1].removesuffix(" ?"), answer) for user, answer in turns} <= set(story.facts)
        assert sum("story :" in user for user, _ in turns) == 1
        assert len(facts(story, Random(0), most=99)) == len(story.facts)


def test_repeats_say_again_what_was_said():
    rows = ENCODER.repeats(Random(0), rows=8)
    for ids, learnt in zip(rows.ids, rows.learnt, strict=True):
        for place in learnt.nonzero()[:, 0].tolist():
            pair = ids[place - 1 : place + 1]
            earlier = ids[: place - 1].unfold(0, 2, 1)
            assert (earlier == pair).all(1).any()


def test_recitals_give_the_head_of_a_sentence_and_learn_its_tail():
    told = [next(stories("whereabouts", "train", 4))]
    for scrambled in (0.0, 1.0):
        rows = ENCODER.recitals(told, Random(1), scrambled)
        text = TOKENIZER.decode(rows.ids[0][rows.ids[0] > 0])
        story, *said = text.removeprefix("<|begin|>").split("<|end|>")
        assert sorted(s.strip() for s in said) == sorted(s.strip() + "." for s in story.split(".") if s.strip())
        assert (story.strip() == told[0].passage) == (scrambled == 0.0)
        tails = TOKENIZER.decode(rows.ids[0][rows.learnt[0]])
        assert ("moved" in tails) == (scrambled == 1.0) and tails.count(".") == len(said)


def test_scrambled_words_stand_once():
    story = next(stories("whereabouts", "train", 4))
    fresh = " ".join(scramble(story, Random(0))).replace(".", "").split()
    frame = {"the", "was", "moved", "to", "at", "by", "and", "it", "wore", "a", "hat", "sang", "in", "liked", "knew"}
    slots = [word for word in fresh if word not in frame]
    assert len(slots) == len(set(slots)) > 20


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_depend_on_kind_and_seed_only(kind):
    one, same, other = (batch(kind, 4, seed, ENCODER) for seed in (5, 5, 6))
    assert torch.equal(one.ids, same.ids) and torch.equal(one.learnt, same.learnt)
    assert one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)
    assert one.learnt.any(1).all() and one.ids.size(1) % 8 == 0


def test_batches_keep_to_the_families_asked_for():
    told = {"order": "than", "accounts": "coins", "preference": "guest", "whereabouts": "moved"}
    for family, word in told.items():
        rows = TOKENIZER.batch_decode(batch("open_book", 6, 1, ENCODER, {family: 1.0}).ids)
        assert all(word in row for row in rows)
        assert not any(other in row for row in rows for other in set(told.values()) - {word})


def test_some_questions_are_put_as_claims():
    rows = TOKENIZER.batch_decode(batch("open_book", 40, 2, ENCODER).ids)
    claimed = sum("correct or incorrect" in row or "incorrect or correct" in row for row in rows)
    assert 10 < claimed < 36


def test_pretraining_reads_train_stories_only(monkeypatch):
    seen = []

    def noted(family, split, *rest, **knobs):
        seen.append(split)
        return stories(family, split, *rest, **knobs)

    def others_noted(tell, family, split, seed):
        seen.append(split)
        return stories_in_split(tell, family, split, seed)

    monkeypatch.setattr("debate_rl.data.lab.documents.stories", noted)
    monkeypatch.setattr("debate_rl.data.lab.documents.stories_in_split", others_noted)
    for kind in BATCHES:
        batch(kind, 4, 3, ENCODER)
    assert set(seen) == {"train"} and len(seen) > 20
    stream = stories("whereabouts", "train", 1_000_003)
    assert all(split_of(next(stream)) == "train" for _ in range(50))
