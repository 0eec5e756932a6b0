from random import Random

import pytest
import torch

from debate_rl.data.lab.annotators import HUMAN, speeches
from debate_rl.data.lab.documents import (
    CLEAN,
    Encoder,
    batch,
    debate_lines,
    debater,
    marked,
    notes,
    open_book,
    scramble,
    workings,
)
from debate_rl.data.lab.tokenizer import TAGS, lab_tokenizer
from debate_rl.data.lab.words import vocabulary
from debate_rl.data.lab.world import questions, split_of, stories

TOKENIZER = lab_tokenizer()
ENCODER = Encoder(TOKENIZER)
STORY = questions(n=3, seed=11, per_story=3)


def chat(turns):
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]


def conversations():
    rng = Random(2)
    return [open_book(STORY, rng), debater(STORY, rng, HUMAN), notes(STORY, rng)]


def test_vocabulary_is_small_and_without_doubles():
    words = vocabulary()
    assert len(words) == len(set(words)) < 2000
    assert all(word == word.lower() for word in words)


def test_nothing_in_the_world_is_unknown_to_the_tokenizer():
    rng = Random(0)
    texts = [text for turns in conversations() for turn in turns for text in turn]
    for question in questions(n=500, seed=1):
        texts += [
            question.text,
            question.passage,
            *speeches(question, "human", rng),
            debate_lines(question, rng, HUMAN),
        ]
    ids = TOKENIZER(texts, add_special_tokens=False).input_ids
    assert not any(TOKENIZER.unk_token_id in row for row in ids)


def test_speeches_survive_a_round_trip():
    rng = Random(4)
    for question in questions(n=100, seed=2):
        for text in speeches(question, "human", rng):
            ids = TOKENIZER(text, add_special_tokens=False).input_ids
            assert TOKENIZER.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")
    plain = "the answer is shed because <quote> the pipe was moved to the shed at dusk and ines saw. </quote>"
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


def test_open_book_answers_are_right_and_notes_hold_the_right_evidence():
    for seed in range(30):
        made = questions(n=3, seed=seed, per_story=3)
        for turns, prompts in ((open_book(made, Random(seed)), made), (notes(made, Random(seed)), made)):
            assert [answer for _, answer in turns] == [q.answers[q.correct] for q in prompts]
        for (user, _), question in zip(notes(made, Random(seed)), made, strict=True):
            assert f"<v_quote> {question.evidence[question.correct]} </v_quote>" in user
            assert user.count("note :") == 2 and question.passage not in user


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
        assert "moved" not in tails and tails.count(".") == len(said)


def test_workings_end_with_the_answer():
    for story, _ in zip(stories("whereabouts", "train", 8), range(40), strict=False):
        right = {item.text: item.answers[item.correct] for item in story.items}
        for user, answer in workings(story, Random(1)):
            asked = next(text for text in right if text in user)
            *earlier, last = answer.split(" then ")
            assert last.split()[0] == right[asked] and earlier
        assert len(workings(story, Random(1))) == len(story.items)


def test_scrambled_words_stand_once():
    story = next(stories("whereabouts", "train", 4))
    fresh = " ".join(scramble(story, Random(0))).replace(".", "").split()
    frame = {"the", "was", "moved", "to", "at", "and", "it", "wore", "a", "hat", "sang", "in", "liked"}
    slots = [word for word in fresh if word not in frame]
    assert len(slots) == len(set(slots)) > 20


def test_batches_depend_on_kind_and_seed_only():
    for kind in ("repeats", "recitals", "workings", "clean", "broad", "open_book", "notes"):
        one, same, other = (batch(kind, 4, seed, ENCODER) for seed in (5, 5, 6))
        assert torch.equal(one.ids, same.ids) and torch.equal(one.learnt, same.learnt)
        assert one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)
        assert one.learnt.any(1).all() and one.ids.size(1) % 8 == 0


def test_pretraining_reads_train_stories_only():
    stream = stories("whereabouts", "train", 1_000_003)
    assert all(split_of(next(stream)) == "train" for _ in range(50))
