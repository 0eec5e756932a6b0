"""The text that the lab models are pretrained on: conversations about stories of the train split.

Kinds. `repeats` are random words said twice, after which copying is cheap. `recitals` are the sentences of a story said
again, so that a sentence is found among many of the same pattern. `facts` asks many short questions about a story,
`open_book` its real questions with the story at hand, in the judge's words. `clean` and `broad` ask for speeches, in
the debater's words. `notes` asks for the answer from marked quotes without the story, `hearings` the same in the words
of a debate. Some questions are put as claims, to be called correct or incorrect. The loss is on the assistant's words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import torch

from debate_rl.data.lab.annotators import Skill, draw, speech
from debate_rl.data.lab.other_stories import OTHER_STORIES
from debate_rl.data.lab.story import Story
from debate_rl.data.lab.tokenizer import BOS, END
from debate_rl.data.lab.vocabulary import KINDS
from debate_rl.data.lab.world import as_questions, stories, stories_in_split
from debate_rl.data.questions import claims
from debate_rl.game.question import Question
from debate_rl.game.quotes import check_quotes
from debate_rl.game.transcript import MARKS

Turn = tuple[str, str]
"""The user's text, and the assistant's answer."""

CLEAN: dict[Skill, float] = {"decisive": 1.0}
BROAD: dict[Skill, float] = {
    "decisive": 0.15,
    "weak": 0.12,
    "irrelevant": 0.12,
    "misquote": 0.08,
    "retell": 0.28,
    "wordy": 0.16,
    "slangy": 0.09,
}
"""Skills that a base model reads: many retell instead of quoting, so that it is a middling debater."""
READ: dict[str, Any] = {"third_move": 0.15, "fillers": (0, 2), "asks": ("end", "end", "end", "before", "who")}
"""Knobs of the whereabouts stories that models read; the number of things that move varies as well."""


class Batch(NamedTuple):
    """Token ids of shape (rows, length), padded right, and a mask of those that are learnt."""

    ids: torch.Tensor
    learnt: torch.Tensor


def question_line(question: Question, rng: Random) -> str:
    """The question and its answers in either order, as every lab prompt has them."""
    # Either order: a model that learns to favour one place would read worse.
    first, second = rng.sample(question.answers, 2)
    return f"question : {question.text} answers : {first} or {second} ."


def open_book(questions: Sequence[Question], rng: Random) -> list[Turn]:
    """All questions of a story, asked one after the other; the first in the words of an open-book judge."""
    turns: list[Turn] = []
    for question in questions:
        story = "" if turns else f"story : {question.passage}\n"
        user = f"{story}{question_line(question, rng)}\nthe answer is"
        turns.append((user, question.answers[question.correct or 0]))
    return turns


def debater(questions: Sequence[Question], rng: Random, mix: Mapping[Skill, float]) -> list[Turn]:
    """Speeches for sides of a story's questions, the first in the debater's words; some after a played turn."""
    turns: list[Turn] = []
    for question in questions:
        story = "" if turns else f"story : {question.passage}\n"
        side = rng.randrange(2)
        played = debate_lines(question, rng, mix) if rng.random() < 0.2 else ""
        user = f"{story}{question_line(question, rng)}\n{played}argue for {question.answers[side]}"
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
    # From the last quote to the first, so that the positions of those before it stay right.
    for quote in reversed(check_quotes(text, passage)):
        mark = MARKS[quote.verdict]
        text = f"{text[: quote.start]}<{mark}> {quote.text.strip()} </{mark}>{text[quote.end :]}"
    return text


def notes(questions: Sequence[Question], rng: Random, hearing: bool) -> list[Turn]:
    """Answers from quotes that are marked true or not.

    Args:
        questions: questions of one story.
        rng: source of chance.
        hearing: put each side's quotes in the words of a debate; False makes them notes that nobody speaks for.
    """
    turns = []
    for question in questions:
        lines = []
        for side in rng.sample((0, 1), 2):
            # In a hearing only the wrong side has untrue quotes. That is easier, is learnt first, and opens the way to
            # notes, where either side has some.
            if not hearing:
                untrue_share = 0.2
            elif side == question.correct:
                untrue_share = 0.0
            else:
                untrue_share = 0.4
            untrue = rng.random() < untrue_share
            skill: Skill = rng.choice(("misquote", "retell")) if untrue else "decisive"
            text = marked(speech(question, side, skill, rng), question.passage or "")
            if hearing:
                lines.append(f"for {question.answers[side]} : {text}\n")
            else:
                lines.append(f"note : {text.split('because ', 1)[1]}\n")
        user = f"{question_line(question, rng)}\n{''.join(lines)}the answer is"
        turns.append((user, question.answers[question.correct or 0]))
    return turns


def facts(story: Story, rng: Random, most: int = 10) -> list[Turn]:
    """Short questions about a story, in any order."""
    turns: list[Turn] = []
    for query, answer in rng.sample(story.facts, min(most, len(story.facts))):
        passage = "" if turns else f"story : {story.passage}\n"
        turns.append((f"{passage}{query} ?", answer))
    return turns


class Encoder:
    """Encodes conversations as padded rows, like the tokenizer's chat template but faster (a test compares them)."""

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer.backend_tokenizer
        self.begin, self.end = tokenizer.convert_tokens_to_ids([BOS, END])
        self.user, self.assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
        self.words = tokenizer.convert_tokens_to_ids(list(KINDS))

    def rows(self, conversations: Sequence[Sequence[Turn]]) -> Batch:
        """Encode conversations, one a row; the assistant's words and its end of turn are learnt."""
        texts = []
        for turns in conversations:
            for user, answer in turns:
                texts += [user, answer]
        encoded = iter(self.inner.encode_batch(texts, add_special_tokens=False))
        rows = []
        learnt = []
        for turns in conversations:
            ids = [self.begin]
            mask = [False]
            for _ in turns:
                user_ids = next(encoded).ids
                answer_ids = next(encoded).ids
                ids += [self.user, *user_ids, self.end, self.assistant, *answer_ids, self.end]
                mask += [False] * (len(user_ids) + 3) + [True] * (len(answer_ids) + 1)
            rows.append(ids)
            learnt.append(mask)
        return _padded(rows, learnt)

    def repeats(self, rng: Random, rows: int, pieces: int = 4) -> Batch:
        """Random story words, then pieces of them again; learnt from the second word of a piece."""
        all_ids = []
        learnt = []
        length = rng.choice((16, 20, 20, 24))
        for _ in range(rows):
            words = rng.sample(self.words, length)
            ids = [self.begin, *words]
            mask = [False] * len(ids)
            for _ in range(pieces):
                start = rng.randrange(length - 8)
                piece = words[start : start + rng.randint(8, 16)]
                ids += [self.end, *piece]
                # The first word of a piece can not be known; the others follow from what was said.
                mask += [False, False] + [True] * (len(piece) - 1)
            all_ids.append(ids)
            learnt.append(mask)
        return _padded(all_ids, learnt)

    def recitals(self, stories: Sequence[Story], rng: Random, scrambled: float = 0.5) -> Batch:
        """Stories, then their sentences in another order; learnt from the first word that no other sentence shares.

        In a share of the stories (`scrambled`) every story word is a random one that stands nowhere else.
        """
        passages = [scramble(story, rng) if rng.random() < scrambled else story.sentences for story in stories]
        texts = list(itertools.chain.from_iterable(passages))  # encoded in one call, which is faster
        encoded = iter(self.inner.encode_batch(texts, add_special_tokens=False))
        rows = []
        learnt = []
        for passage in passages:
            sentences = [next(encoded).ids for _ in passage]
            ids = [self.begin]
            for sentence in sentences:
                ids += sentence
            mask = [False] * len(ids)
            rng.shuffle(sentences)
            for sentence in sentences:
                given = max(2, _distinguishing_words(sentence, sentences))
                ids += [self.end, *sentence]
                mask += [False] * (given + 1) + [True] * (len(sentence) - given)
            rows.append(ids)
            learnt.append(mask)
        return _padded(rows, learnt)


def scramble(story: Story, rng: Random) -> list[str]:
    """The sentences of a story with every story word replaced by another, none of them twice."""
    fresh = iter(rng.sample(list(KINDS), len(KINDS)))

    def replace(word: re.Match[str]) -> str:
        return next(fresh) if word[0] in KINDS else word[0]

    return [re.sub(r"\w+", replace, text) for text in story.sentences]


def _padded(rows: list[list[int]], learnt: list[list[bool]]) -> Batch:
    """Pad right with id 0 to a multiple of 8; no attention mask is needed, because a causal model never looks there."""
    length = -(-max(map(len, rows)) // 8) * 8
    return Batch(
        torch.tensor([row + [0] * (length - len(row)) for row in rows]),
        torch.tensor([mask + [False] * (length - len(mask)) for mask in learnt]),
    )


def _distinguishing_words(sentence: list[int], sentences: list[list[int]]) -> int:
    """Number of first words that tell a sentence apart from the others."""
    longest = 0
    for other in sentences:
        if other is not sentence:
            longest = max(longest, _common_start(sentence, other))
    return min(longest + 1, len(sentence))


def _common_start(first: list[int], second: list[int]) -> int:
    """Length of the beginning that two sentences share."""
    length = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        length += 1
    return length


def _draw_story(rng: Random, families: Mapping[str, float]) -> tuple[str, Story]:
    """Draw a kind of story by weight, and a story of it from the train split."""
    family = rng.choices(list(families), list(families.values()))[0]
    if family == "whereabouts":
        things = rng.choice((1, 2, 2, 3))
        drawn = stories(family, "train", rng.randrange(1 << 60), things=things, **READ)
    else:
        drawn = stories_in_split(OTHER_STORIES[family], family, "train", rng.randrange(1 << 60))
    return family, next(drawn)


def batch(
    kind: str,
    rows: int,
    seed: int,
    encoder: Encoder,
    families: Mapping[str, float] | None = None,
    claimed: float = 0.4,
) -> Batch:
    """Make one batch of documents.

    Args:
        kind: see the top of this file.
        rows: documents in it.
        seed: seed of the draws.
        encoder: makes token ids.
        families: weights of whereabouts and of `OTHER_STORIES`; None takes all alike.
        claimed: share of questions that are put as claims.
    """
    rng = Random(f"{kind}/{seed}")
    if kind == "repeats":
        return encoder.repeats(rng, rows)
    if families is None:
        families = dict.fromkeys(("whereabouts", *OTHER_STORIES), 1.0)
    # All stories first, then their documents: the shipped models' texts depend on the order of the draws.
    drawn = [_draw_story(rng, families) for _ in range(rows)]
    if kind == "recitals":
        return encoder.recitals([story for _, story in drawn], rng)
    documents = []
    for family, story in drawn:
        if kind == "facts":
            documents.append(facts(story, rng))
        else:
            documents.append(_conversation(kind, family, story, rng, claimed))
    return encoder.rows(documents)


def _conversation(kind: str, family: str, story: Story, rng: Random, claimed: float) -> list[Turn]:
    """Turns of a kind about the questions of a story, some of them put as claims."""
    questions = as_questions(story, family, "train")
    asked = []
    for question in rng.sample(questions, len(questions)):
        if rng.random() < 1 - claimed:
            asked.append(question)
        else:
            asked += claims([question], rng.randrange(1 << 30))
    if kind == "open_book":
        return open_book(asked, rng)
    if kind in ("notes", "hearings"):
        return notes(asked, rng, hearing=kind == "hearings")
    return debater(asked, rng, CLEAN if kind == "clean" else BROAD)
