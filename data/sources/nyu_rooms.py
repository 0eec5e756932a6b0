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


_UNESCAPED = {"``": '"', "''": '"', "`": "'", "-LRB-": "(", "-RRB-": ")", "-LCB-": "{", "-RCB-": "}", "-LSB-": "[",
              "-RSB-": "]", "/.": ".", "/?": "?", "/-": "-"}  # fmt: skip
_CLOSES = {".", ",", "!", "?", ";", ":", "''", "n't", "%", "-", "+", "-RRB-", "-RCB-", "-RSB-", ")", "]", "}", "/.",
           "/?", "°"}  # fmt: skip
_OPENS = {"``", "`", "$", "£", "€", "#", "-", "-LRB-", "-LCB-", "-LSB-", "(", "[", "{", "\n"}


class _Written(NamedTuple):
    """A story as text, and the span of characters that each token takes."""

    text: str
    spans: tuple[tuple[int, int], ...]


@lru_cache(maxsize=256)
def _written(tokens: tuple[str, ...]) -> _Written:
    """Join Penn Treebank tokens into text; rooms share stories, so the last ones are kept."""
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    length, before = 0, "\n"
    for token in tokens:
        glued = (
            before in _OPENS or token in _CLOSES or token[:1] in ("'", "\n") or (before + token) in ("gonna", "wanna")
        )
        word = _UNESCAPED.get(token, token).replace("\\/", "/")
        pieces.append(word if glued else f" {word}")
        start = length + (not glued)
        length = start + len(word)
        spans.append((start, length))
        before = token
    return _Written("".join(pieces), tuple(spans))


def _spoken(speech: _Speech, story: _Written) -> str:
    """A speech as text; its quotes are cut from the written story, so that they stand in it word for word."""
    pieces = []
    for segment in speech.content:
        if segment.Text:
            pieces.append(segment.Text.text)
        elif segment.Quote:
            first, last = segment.Quote.span
            if not 0 <= first < last <= len(story.spans):
                raise ValueError(f"quote span {[first, last]} is outside the story of {len(story.spans)} tokens")
            pieces.append(f"<quote>{story.text[story.spans[first][0] : story.spans[last - 1][1]]}</quote>")
    return "".join(pieces)


def _turns_of(rounds: Iterable[_Round], story: _Written) -> Iterator[dict[str, Any]]:
    """The turns of a room in the form of debates.jsonl."""
    for round_ in rounds:
        if round_.JudgeFeedback:
            judged = round_.JudgeFeedback
            yield {"role": "Judge", "speaker": judged.feedback.speaker, "text": _spoken(judged.feedback, story),
                   "probabilities": judged.distribution, "endDebate": judged.endDebate}  # fmt: skip
        elif round_.NegotiateEnd:
            yield {"role": "NegotiateEnd"}
        kind = "SimultaneousSpeeches" if round_.SimultaneousSpeeches else "SequentialSpeeches"
        held = round_.SimultaneousSpeeches or round_.SequentialSpeeches
        for index, speech in sorted(held.speeches.items()) if held else ():
            yield {"role": "Debater", "speaker": speech.speaker, "index": int(index), "text": _spoken(speech, story),
                   "round": kind}  # fmt: skip


def _offline_of(rounds: Iterable[_Round], story: _Written) -> Iterator[dict[str, Any]]:
    """The offline judgements of a room in the form of debates.jsonl."""
    for round_ in rounds:
        for judge, offline in round_.OfflineJudgments.judgments.items() if round_.OfflineJudgments else ():
            judged = [
                {"probabilities": j.distribution, "text": _spoken(j.feedback, story), "endDebate": j.endDebate}
                for j in offline.judgments
            ]
            yield {"judge": judge, "mode": offline.mode, "judgments": judged}


def read_room(path: Path) -> tuple[dict[str, Any], str]:
    """Read a room file: the game in the form of a line of debates.jsonl, and its story.

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
    story = _written(material.contents)
    try:
        turns, offline = list(_turns_of(room.rounds, story)), list(_offline_of(room.rounds, story))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    line = {
        "roomName": path.stem,
        "storyId": material.articleId or material.title,
        "storyTitle": material.title,
        "status": "Complete" if _ended(room.rounds) else "InProgress",
        "turns": turns,
        "offlineJudgments": offline,
        **room.setup.model_dump(exclude={"sourceMaterial"}),
    }
    return line, story.text


def _ended(rounds: Iterable[_Round]) -> bool:
    """Whether the judge ended the game, or all debaters voted to."""
    return any(
        (r.JudgeFeedback and r.JudgeFeedback.endDebate)
        or (r.NegotiateEnd and len(r.NegotiateEnd.votes) > 1 and all(r.NegotiateEnd.votes.values()))
        for r in rounds
    )
