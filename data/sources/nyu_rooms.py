"""Room files of the web app behind Michael et al. 2023: one JSON file a game.

A story is a list of Penn Treebank tokens, a quote is a span of them, and a round holds the speeches of both sides, the
judge's feedback, or votes to end (debate/src/Debate.scala and DebateRound.scala of github julianmichael/debate).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from debate_rl.errors import UserError
from debate_rl.records import explain, read_json


class _Text(BaseModel):
    text: str


class _Span(BaseModel):
    span: tuple[int, int]


class _Segment(BaseModel):
    """A piece of a speech: text, or a quote as a span of story tokens."""

    Text: _Text | None = None
    Quote: _Span | None = None


class _Speech(BaseModel):
    speaker: str
    content: list[_Segment] = []


class _Speeches(BaseModel):
    speeches: dict[Literal["0", "1"], _Speech]


class _Feedback(BaseModel):
    distribution: tuple[float, float]
    feedback: _Speech
    endDebate: bool = False


class _OfflineRoom(BaseModel):
    mode: Literal["stepped", "timed"]
    judgments: list[_Feedback] = []


class _OfflineRooms(BaseModel):
    judgments: dict[str, _OfflineRoom]


class _Votes(BaseModel):
    votes: dict[str, bool]


class _Round(BaseModel):
    """One round of a room; exactly one of the fields is set."""

    SimultaneousSpeeches: _Speeches | None = None
    SequentialSpeeches: _Speeches | None = None
    JudgeFeedback: _Feedback | None = None
    NegotiateEnd: _Votes | None = None
    OfflineJudgments: _OfflineRooms | None = None

    @property
    def ends_game(self) -> bool:
        """Whether the judge ended the game here, or all debaters voted to."""
        if self.JudgeFeedback and self.JudgeFeedback.endDebate:
            return True
        if self.NegotiateEnd is None:
            return False
        votes = self.NegotiateEnd.votes.values()
        return len(votes) > 1 and all(votes)


class _Story(BaseModel):
    articleId: str | None = None
    title: str
    contents: tuple[str, ...]


class _Material(BaseModel):
    QuALITYSourceMaterial: _Story | None = None
    CustomSourceMaterial: _Story | None = None


class _Setup(BaseModel):
    sourceMaterial: _Material
    question: str
    answers: tuple[str, str]
    correctAnswerIndex: Literal[0, 1]
    roles: dict[str, str]


class _Room(BaseModel):
    """A room file."""

    setup: _Setup
    rounds: list[_Round] = []


_UNESCAPED = {
    "``": '"',
    "''": '"',
    "`": "'",
    "-LRB-": "(",
    "-RRB-": ")",
    "-LCB-": "{",
    "-RCB-": "}",
    "-LSB-": "[",
    "-RSB-": "]",
    "/.": ".",
    "/?": "?",
    "/-": "-",
}
"""What the Penn Treebank writes in place of quotation marks, brackets and a few others."""
_CLOSING_BRACKETS = {")", "]", "}", "-RRB-", "-RCB-", "-RSB-"}
_OPENING_BRACKETS = {"(", "[", "{", "-LRB-", "-LCB-", "-LSB-"}
_CLOSING = {".", ",", "!", "?", ";", ":", "/.", "/?", "''", "n't", "%", "°", "-", "+", *_CLOSING_BRACKETS}
"""Tokens without a space before them."""
_OPENING = {"``", "`", "$", "£", "€", "#", "-", "\n", *_OPENING_BRACKETS}
"""Tokens without a space after them."""


class StoryText(NamedTuple):
    """A story as text, and the span of characters that each token takes.

    Example:
        StoryText(text="He didn't.", spans=((0, 2), (3, 6), (6, 9), (9, 10)))
    """

    text: str
    spans: tuple[tuple[int, int], ...]


@lru_cache(maxsize=256)
def join_tokens(tokens: tuple[str, ...]) -> StoryText:
    """Join Penn Treebank tokens into text.

    Many rooms share a story, so the last stories are kept.
    """
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0
    before = "\n"
    for token in tokens:
        # The Treebank writes a slash within a token as \/.
        word = _UNESCAPED.get(token, token).replace("\\/", "/")
        if _has_space(before, token):
            pieces.append(" ")
            length += 1
        pieces.append(word)
        spans.append((length, length + len(word)))
        length += len(word)
        before = token
    return StoryText("".join(pieces), tuple(spans))


def _has_space(before: str, token: str) -> bool:
    """Whether a space stands between two tokens."""
    if before in _OPENING or token in _CLOSING:
        return False
    if token[:1] in ("'", "\n"):
        return False
    # The Treebank cuts these words in two.
    return before + token not in ("gonna", "wanna")


def _speech_text(speech: _Speech, story: StoryText) -> str:
    """A speech as text; its quotes are cut from the story's text, so that they stand in it word for word."""
    pieces = []
    for segment in speech.content:
        if segment.Text:
            pieces.append(segment.Text.text)
        elif segment.Quote:
            first, last = segment.Quote.span  # the end is exclusive
            if not 0 <= first < last <= len(story.spans):
                raise ValueError(f"quote span {[first, last]} is outside the story of {len(story.spans)} tokens")
            start = story.spans[first][0]
            end = story.spans[last - 1][1]
            pieces.append(f"<quote>{story.text[start:end]}</quote>")
    return "".join(pieces)


def _turns(rounds: Iterable[_Round], story: StoryText) -> Iterator[dict[str, Any]]:
    """The turns of a room in the form of debates.jsonl."""
    for round_ in rounds:
        if round_.JudgeFeedback:
            judged = round_.JudgeFeedback
            yield {
                "role": "Judge",
                "speaker": judged.feedback.speaker,
                "text": _speech_text(judged.feedback, story),
                "probabilities": judged.distribution,
                "endDebate": judged.endDebate,
            }
        elif round_.NegotiateEnd:
            yield {"role": "NegotiateEnd"}
        kind = "SimultaneousSpeeches" if round_.SimultaneousSpeeches else "SequentialSpeeches"
        spoken = round_.SimultaneousSpeeches or round_.SequentialSpeeches
        if spoken is None:
            continue
        # Sorted: side A (0) first, whatever the order of keys in the file.
        for index, speech in sorted(spoken.speeches.items()):
            yield {
                "role": "Debater",
                "speaker": speech.speaker,
                "index": int(index),
                "text": _speech_text(speech, story),
                "round": kind,
            }


def _offline_judges(rounds: Iterable[_Round], story: StoryText) -> Iterator[dict[str, Any]]:
    """The offline judgements of a room in the form of debates.jsonl."""
    for round_ in rounds:
        if round_.OfflineJudgments is None:
            continue
        for judge, offline in round_.OfflineJudgments.judgments.items():
            judgements = [
                {
                    "probabilities": judged.distribution,
                    "text": _speech_text(judged.feedback, story),
                    "endDebate": judged.endDebate,
                }
                for judged in offline.judgments
            ]
            yield {"judge": judge, "mode": offline.mode, "judgments": judgements}


def read_room(path: Path) -> tuple[dict[str, Any], str]:
    """Read a room file.

    Returns:
        The game in the form of a line of debates.jsonl, and its story.

    Raises:
        UserError: not JSON, or not a room; names the file and the field.
    """
    try:
        room = _Room.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    material = room.setup.sourceMaterial.QuALITYSourceMaterial or room.setup.sourceMaterial.CustomSourceMaterial
    if material is None:
        raise UserError(f"{path}: setup.sourceMaterial: holds no story")
    story = join_tokens(material.contents)
    try:
        turns = list(_turns(room.rounds, story))
        offline = list(_offline_judges(room.rounds, story))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    # A room file does not say whether its game is over.
    ended = any(round_.ends_game for round_ in room.rounds)
    line = {
        "roomName": path.stem,
        "storyId": material.articleId or material.title,
        "storyTitle": material.title,
        "status": "Complete" if ended else "InProgress",
        "turns": turns,
        "offlineJudgments": offline,
        **room.setup.model_dump(exclude={"sourceMaterial"}),
    }
    return line, story.text
