"""What the lab models read while they are pretrained: conversations about stories of the train split.

Six kinds. `repeats` are random words said twice, after which copying is cheap. `recitals` are the sentences of a story
said again, so that a sentence is found among many of the same pattern. `workings` asks for the steps to an answer,
`open_book` for the answer with the story at hand, in the judge's words. `debater` asks for a speech, in the debater's
words. `notes` asks for the answer from two marked sentences and no story. Loss is on what the assistant says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import torch

from debate_rl.data.lab.annotators import Skill, draw, speech
from debate_rl.data.lab.story import Story
from debate_rl.data.lab.tokenizer import BOS, END
from debate_rl.data.lab.world import KINDS, as_questions, stories
from debate_rl.game.question import Question
from debate_rl.game.quotes import check_quotes
from debate_rl.game.transcript import MARKS

Turn = tuple[str, str]
"""What the user says, and what the assistant answers."""

CLEAN: dict[Skill, float] = {"decisive": 1.0}
BROAD: dict[Skill, float] = {
    "decisive": 0.18, "weak": 0.12, "irrelevant": 0.12, "misquote": 0.10, "retell": 0.32, "wordy": 0.08, "slangy": 0.08
}  # fmt: skip
"""Annotators that a base model has read: many retell instead of quoting, so that it is a middling debater."""


class Batch(NamedTuple):
    """Token ids of shape (rows, length), padded right, and which of them are learnt."""

    ids: torch.Tensor
    learnt: torch.Tensor


def question_line(question: Question, rng: Random) -> str:
    """The question and its answers in either order, as every lab prompt has them."""
    first, second = rng.sample(question.answers, 2)
    return f"question : {question.text} answers : {first} or {second} ."


def open_book(questions: Sequence[Question], rng: Random) -> list[Turn]:
    """All questions of a story, asked one after the other; the first in the judge's open-book words."""
    turns: list[Turn] = []
    for question in questions:
        story = "" if turns else f"story : {question.passage}\n"
        user = f"{story}{question_line(question, rng)}\nthe answer is"
        turns.append((user, question.answers[question.correct or 0]))
    return turns


def debater(questions: Sequence[Question], rng: Random, mix: Mapping[Skill, float]) -> list[Turn]:
    """Speeches for sides of a story's questions; the first in the debater's words, some with a turn already played."""
    turns: list[Turn] = []
    for question in questions:
        story = "" if turns else f"story : {question.passage}\n"
        side = rng.randrange(2)
        said = debate_lines(question, rng, mix) if rng.random() < 0.2 else ""
        user = f"{story}{question_line(question, rng)}\n{said}argue for {question.answers[side]}"
        turns.append((user, speech(question, side, draw(mix, rng), rng)))
    return turns


def debate_lines(question: Question, rng: Random, mix: Mapping[Skill, float]) -> str:
    """A first turn of both sides as others read it, in either order."""
    lines = []
    for side in rng.sample((0, 1), 2):
        text = marked(speech(question, side, draw(mix, rng), rng), question.passage or "")
        lines.append(f"for {question.answers[side]} : {text}\n")
    return "".join(lines)


def marked(text: str, passage: str) -> str:
    """A speech as others read it: each quote in the mark that checking it earned."""
    for quote in reversed(check_quotes(text, passage)):
        mark = MARKS[quote.verdict]
        text = f"{text[: quote.start]}<{mark}> {quote.text.strip()} </{mark}>{text[quote.end :]}"
    return text


def notes(questions: Sequence[Question], rng: Random) -> list[Turn]:
    """Answers from two noted sentences that are marked true or not; a sentence that is not true says nothing."""
    turns = []
    for question in questions:
        right = question.correct or 0
        lines = [f"note : <v_quote> {question.evidence[right]} </v_quote>\n"]
        if rng.random() < 0.6:
            lines.append(f"note : <v_quote> {question.evidence[1 - right]} </v_quote>\n")
        else:
            skill: Skill = "misquote" if rng.random() < 0.5 else "retell"
            bad = marked(speech(question, 1 - right, skill, rng), question.passage or "")
            lines.append(f"note : {bad.split('because ', 1)[1]}\n")
        rng.shuffle(lines)
        user = f"{question_line(question, rng)}\n{''.join(lines)}the answer is"
        turns.append((user, question.answers[right]))
    return turns


def workings(story: Story, rng: Random) -> list[Turn]:
    """The steps to the answer of each question of a story."""
    turns: list[Turn] = []
    for item in rng.sample(story.items, len(story.items)):
        told = "" if turns else f"story : {story.passage}\n"
        turns.append((f"{told}question : {item.text}\nexplain", item.working))
    return turns


class Encoder:
    """Turns conversations into padded rows; agrees with the tokenizer's chat template (a test compares them)."""

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer.backend_tokenizer
        self.begin, self.end = tokenizer.convert_tokens_to_ids([BOS, END])
        self.user, self.assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
        self.words = tokenizer.convert_tokens_to_ids(list(KINDS))

    def rows(self, conversations: Sequence[Sequence[Turn]]) -> Batch:
        """Encode conversations, one a row; learnt are the assistant's words and its end of turn."""
        texts = [text for turns in conversations for turn in turns for text in turn]
        encoded = iter(self.inner.encode_batch(texts, add_special_tokens=False))
        rows, learnt = [], []
        for turns in conversations:
            ids, mask = [self.begin], [False]
            for _ in turns:
                user, answer = next(encoded).ids, next(encoded).ids
                ids += [self.user, *user, self.end, self.assistant, *answer, self.end]
                mask += [False] * (len(user) + 3) + [True] * (len(answer) + 1)
            rows.append(ids)
            learnt.append(mask)
        return _padded(rows, learnt)

    def repeats(self, rng: Random, rows: int, pieces: int = 4) -> Batch:
        """Random story words, then pieces of them said again; learnt from the second word of a piece."""
        all_ids, learnt = [], []
        words = rng.choice((16, 20, 20, 24))
        for _ in range(rows):
            said = rng.sample(self.words, words)
            ids, mask = [self.begin, *said], [False] * (words + 1)
            for _ in range(pieces):
                start = rng.randrange(words - 8)
                piece = said[start : start + rng.randint(8, 16)]
                ids += [self.end, *piece]
                mask += [False, False] + [True] * (len(piece) - 1)
            all_ids.append(ids)
            learnt.append(mask)
        return _padded(all_ids, learnt)

    def recitals(self, stories: Sequence[Story], rng: Random, scrambled: float = 0.5) -> Batch:
        """Stories, then their sentences in another order; learnt after the place of a move, else the second word.

        In a share of the stories (`scrambled`) every story word is a random one that stands nowhere else.
        """
        told = [scramble(story, rng) if rng.random() < scrambled else story.sentences for story in stories]
        said = iter(self.inner.encode_batch([text for texts in told for text in texts], add_special_tokens=False))
        rows, learnt = [], []
        for texts in told:
            again = [next(said).ids for _ in texts]
            ids = [self.begin, *(word for sentence in again for word in sentence)]
            mask = [False] * len(ids)
            rng.shuffle(again)
            for sentence in again:
                given = 7 if len(sentence) > 12 else 2
                ids += [self.end, *sentence]
                mask += [False] * (given + 1) + [True] * (len(sentence) - given)
            rows.append(ids)
            learnt.append(mask)
        return _padded(rows, learnt)


def scramble(story: Story, rng: Random) -> list[str]:
    """The sentences of a story with every story word exchanged for another, none of them twice."""
    fresh = iter(rng.sample(list(KINDS), len(KINDS)))
    return [re.sub(r"\w+", lambda word: next(fresh) if word[0] in KINDS else word[0], text) for text in story.sentences]


def _padded(rows: list[list[int]], learnt: list[list[bool]]) -> Batch:
    """Pad right with id 0 to a multiple of 8; no attention mask is needed, because what is learnt comes before it."""
    length = -(-max(map(len, rows)) // 8) * 8
    return Batch(
        torch.tensor([row + [0] * (length - len(row)) for row in rows]),
        torch.tensor([mask + [False] * (length - len(mask)) for mask in learnt]),
    )


def batch(kind: str, rows: int, seed: int, encoder: Encoder) -> Batch:
    """One batch of repeats, recitals, workings, clean or broad speeches, open_book or notes."""
    rng = Random(f"{kind}/{seed}")
    if kind == "repeats":
        return encoder.repeats(rng, rows)
    told = stories("whereabouts", "train", seed, things=rng.choice((1, 2, 2, 3, 3, 3)), third_move=0.15, fillers=(0, 2))
    read = [next(told) for _ in range(rows)]
    if kind == "recitals":
        return encoder.recitals(read, rng)
    if kind == "workings":
        return encoder.rows([workings(story, rng) for story in read])
    asked = [
        rng.sample(questions, len(questions)) for questions in (as_questions(s, "whereabouts", "train") for s in read)
    ]
    if kind == "notes":
        return encoder.rows([notes(questions, rng) for questions in asked])
    if kind == "open_book":
        return encoder.rows([open_book(questions, rng) for questions in asked])
    mix = CLEAN if kind == "clean" else BROAD
    return encoder.rows([debater(questions, rng, mix) for questions in asked])
