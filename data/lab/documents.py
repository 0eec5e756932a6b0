"""What the lab models read while they are pretrained: conversations about stories of the train split.

Kinds. `repeats` are random words said twice, after which copying is cheap. `recitals` are the sentences of a story said
again, so that a sentence is found among many of the same pattern. `facts` asks many short questions about a story,
`open_book` its real questions with the story at hand, in the judge's words. `clean` and `broad` ask for speeches, in
the debater's words. `notes` asks for the answer from marked quotes and no story, `hearings` the same in the words of a
debate. Part of the questions are put as claims, to be called correct or incorrect. Loss is on what the assistant says.
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
from debate_rl.data.lab.vocabulary import KINDS
from debate_rl.data.lab.world import FAMILIES, as_questions, stories
from debate_rl.data.questions import claims
from debate_rl.game.question import Question
from debate_rl.game.quotes import check_quotes
from debate_rl.game.transcript import MARKS

Turn = tuple[str, str]
"""What the user says, and what the assistant answers."""

CLEAN: dict[Skill, float] = {"decisive": 1.0}
BROAD: dict[Skill, float] = {
    "decisive": 0.15, "weak": 0.12, "irrelevant": 0.12, "misquote": 0.08, "retell": 0.28, "wordy": 0.16, "slangy": 0.09
}  # fmt: skip
"""Annotators that a base model has read: many retell instead of quoting, so that it is a middling debater."""
READ: dict[str, dict[str, Any]] = {
    "whereabouts": {"third_move": 0.15, "fillers": (0, 2), "asks": ("end", "end", "end", "before", "who")},
    "order": {"chains": 1, "steps": (1, 3), "fillers": (0, 2)},
    "accounts": {"fillers": (0, 2)},
    "preference": {},
}
"""Knobs of the stories that models read, by family; the number of things that move varies as well."""


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


def notes(questions: Sequence[Question], rng: Random, hearing: bool) -> list[Turn]:
    """Answers from quotes that are marked true or not.

    Among notes either side has untrue ones, in a hearing the wrong side alone: that is learnt first, and opens the way.

    Args:
        questions: of one story.
        rng: source of chance.
        hearing: whether each side's quotes stand in the words of a debate, else as notes that nobody speaks for.
    """
    turns = []
    for question in questions:
        lines = []
        for side in rng.sample((0, 1), 2):
            bad = rng.random() < ((0.0 if side == question.correct else 0.4) if hearing else 0.2)
            skill: Skill = rng.choice(("misquote", "retell")) if bad else "decisive"
            said = marked(speech(question, side, skill, rng), question.passage or "")
            opening = f"for {question.answers[side]} : {said}" if hearing else f"note : {said.split('because ', 1)[1]}"
            lines.append(f"{opening}\n")
        user = f"{question_line(question, rng)}\n{''.join(lines)}the answer is"
        turns.append((user, question.answers[question.correct or 0]))
    return turns


def facts(story: Story, rng: Random, most: int = 10) -> list[Turn]:
    """Short questions about a story, in any order."""
    asked = rng.sample(story.facts, min(most, len(story.facts)))
    told = f"story : {story.passage}\n"
    return [(f"{told if not at else ''}{query} ?", answer) for at, (query, answer) in enumerate(asked)]


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
        """Stories, then their sentences in another order; learnt from the word on that no other sentence shares.

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
                given = max(2, _told_apart(sentence, again))
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


def _told_apart(sentence: list[int], every: list[list[int]]) -> int:
    """How many first words of a sentence tell it apart from the others."""
    shared = [_common(sentence, other) for other in every if other is not sentence]
    return min(max(shared, default=0) + 1, len(sentence))


def _common(one: list[int], other: list[int]) -> int:
    """Length of the beginning that two sentences share."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _read(rng: Random, families: Mapping[str, float]) -> tuple[str, Story]:
    """A story of a family drawn by weight."""
    family = rng.choices(list(families), list(families.values()))[0]
    knobs = dict(READ[family])
    if family == "whereabouts":
        knobs["things"] = rng.choice((1, 2, 2, 3))
    return family, next(stories(family, "train", rng.randrange(1 << 60), **knobs))


def batch(
    kind: str,
    rows: int,
    seed: int,
    encoder: Encoder,
    families: Mapping[str, float] | None = None,
    claimed: float = 0.4,
) -> Batch:
    """One batch of documents.

    Args:
        kind: see the top of this file.
        rows: documents in it.
        seed: of the draws.
        encoder: makes token ids.
        families: weights of the families that the stories come from; None takes all alike.
        claimed: share of questions that are put as claims.
    """
    rng = Random(f"{kind}/{seed}")
    if kind == "repeats":
        return encoder.repeats(rng, rows)
    read = [_read(rng, families or dict.fromkeys(FAMILIES, 1.0)) for _ in range(rows)]
    if kind == "recitals":
        return encoder.recitals([story for _, story in read], rng)
    if kind == "facts":
        return encoder.rows([facts(story, rng) for _, story in read])
    return encoder.rows([_conversation(kind, family, story, rng, claimed) for family, story in read])


def _conversation(kind: str, family: str, story: Story, rng: Random, claimed: float) -> list[Turn]:
    """Turns of a kind about the questions of a story, some of them put as claims."""
    asked = as_questions(story, family, "train")
    asked = [
        question if rng.random() < 1 - claimed else claims([question], rng.randrange(1 << 30))[0]
        for question in rng.sample(asked, len(asked))
    ]
    if kind == "open_book":
        return open_book(asked, rng)
    if kind in ("notes", "hearings"):
        return notes(asked, rng, hearing=kind == "hearings")
    return debater(asked, rng, CLEAN if kind == "clean" else BROAD)
