"""All debates of a run as files beside the page, which its script loads part by part.

report/debates/
    s0-rows.js     a line of the table for every debate of the first stage: who, what, how the judge decided
    s0-0.js ...    those debates whole, without their stories
    story-0.js ... stories, each once

A page that is opened from a folder may load scripts and nothing else. Each file is one call with a string of base64:
gzipped JSON, so no word that a model wrote stands in a script.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from debate_rl.game.protocol import SIDES
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import digest, write_text
from debate_rl.report.transcripts import Exhibit, Piece, exhibit
from debate_rl.report.wording import printable

PART_LETTERS = 400_000
"""Letters of JSON after which a part is written; a page unpacks one in a few hundredths of a second."""
COLUMNS = (
    "id", "question", "protocol", "a", "b", "p", "right", "words", "exact", "near", "invalid", "surprise", "failure",
    "part", "place",
)  # fmt: skip
"""Fields of a row; names, questions and failures are numbers of the lists beside the rows."""

Keep = Callable[[str, str], None]
"""Takes a part's key and its packed text."""


class DebateSet(NamedTuple):
    """The debates of one file of a stage, as the page's script finds them.

    Example:
        DebateSet(name="tournament", key="s0", debates=1500)
    """

    name: str
    key: str
    debates: int


class Names:
    """A list without repetition; rows hold places in it."""

    def __init__(self) -> None:
        """Begin empty."""
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any, key: str | None = None) -> int:
        """Place of a value, added if it is new; `key` stands for a value that is no text."""
        key = str(value) if key is None else key
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


class Parts:
    """Values collected until a part is full."""

    def __init__(self, key: str, keep: Keep) -> None:
        """Begin with part 0.

        Args:
            key: of the parts; they are called KEY-0, KEY-1 and so on.
            keep: takes every part that is full.
        """
        self._key, self._keep = key, keep
        self._number, self._letters = 0, 0
        self._values: list[str] = []

    def add(self, value: Any) -> tuple[int, int]:
        """Number of the part that holds the value, and its place in it."""
        text = dumped(value)
        if self._values and self._letters + len(text) > PART_LETTERS:
            self.flush()
        self._values.append(text)
        self._letters += len(text)
        return self._number, len(self._values) - 1

    def flush(self) -> None:
        """Write what was collected."""
        if self._values:
            self._keep(f"{self._key}-{self._number}", packed(f"[{','.join(self._values)}]"))
            self._number, self._letters, self._values = self._number + 1, 0, []


class DebateWriter:
    """Writes the debates of a run, stage by stage."""

    def __init__(self, keep: Keep) -> None:
        """Begin with no debates.

        Args:
            keep: takes every part (see `keep_in`).
        """
        self._keep = keep
        self._stories = Parts("story", keep)
        self._story_places: dict[str, tuple[int, int]] = {}
        self.sets: list[DebateSet] = []

    def open(self, name: str) -> SetWriter:
        """Begin the debates of one file of a stage."""
        return SetWriter(name, f"s{len(self.sets)}", self)

    def close_set(self, name: str, key: str, rows: dict[str, Any]) -> None:
        """Write the table of a set."""
        self._keep(f"{key}-rows", packed(dumped(rows)))
        self.sets.append(DebateSet(name, key, len(rows["rows"])))

    def keep(self, key: str, text: str) -> None:
        """Write a part."""
        self._keep(key, text)

    def story(self, passage: str) -> tuple[int, int] | None:
        """Part and place of a story, written at its first use."""
        if not passage:
            return None
        name = digest(passage)
        if name not in self._story_places:
            self._story_places[name] = self._stories.add(printable(passage))
        return self._story_places[name]

    def close(self) -> None:
        """Write the last stories."""
        self._stories.flush()


class SetWriter:
    """Writes the debates of one file of a stage."""

    def __init__(self, name: str, key: str, writer: DebateWriter) -> None:
        """Begin with no debates.

        Args:
            name: of the stage, or what else the set is called.
            key: of its parts.
            writer: takes the parts and the stories.
        """
        self._name, self._key, self._writer = name, key, writer
        self._parts = Parts(key, writer.keep)
        self._questions, self._protocols, self._players, self._failures = Names(), Names(), Names(), Names()
        self._rows: list[list[Any]] = []

    def add(self, leg: JudgedDebate) -> None:
        """Write one debate, judged or failed."""
        shown = exhibit(self._name, leg)
        story = self._writer.story(leg.transcript.question.passage or "")
        part, place = self._parts.add(_whole(shown, story))
        self._rows.append([*self._row(shown), part, place])

    def close(self) -> None:
        """Write what is left, and the table."""
        self._parts.flush()
        lists = {
            "questions": self._questions.values,
            "protocols": self._protocols.values,
            "players": self._players.values,
            "failures": self._failures.values,
        }
        self._writer.close_set(self._name, self._key, {**lists, "rows": self._rows})

    def _row(self, shown: Exhibit) -> list[Any]:
        leg, game = shown.leg, shown.leg.transcript
        question = game.question
        asked = [question.id, question.text, *question.answers, question.correct, question.group, question.source]
        counts = dict.fromkeys(("exact", "near", "invalid"), 0)
        for speech in game.speeches:
            for quote in speech.quotes:
                counts[quote.verdict] += 1
        seats = [self._players.place(game.players[side]) if side in game.players else None for side in SIDES]
        return [
            shown.id,
            self._questions.place(asked, dumped(asked)),
            self._protocols.place(game.protocol.name),
            *seats,
            None if leg.verdict is None else round(leg.verdict.p[0], 4),
            shown.right,
            sum(len(speech.text.split()) for speech in game.speeches),
            *counts.values(),
            _surprise(leg.p_correct),
            None if leg.failure is None else self._failures.place(leg.failure.kind),
        ]


def _surprise(p_correct: float | None) -> float | None:
    """How far the verdict is from the truth, in bits: 1 for one half, more where the judge is wrong."""
    return None if p_correct is None else round(-math.log2(max(p_correct, 1e-12)) + 0.0, 3)


def _whole(shown: Exhibit, story: tuple[int, int] | None) -> dict[str, Any]:
    """A debate as the page's script shows it."""
    leg, game = shown.leg, shown.leg.transcript
    passage, verdict = game.question.passage or "", leg.verdict
    speeches = []
    for speech in shown.speeches:
        pieces = [_piece(piece) for piece in speech.pieces]
        speeches.append([speech.side, speech.player, speech.turn, pieces, speech.origin])
    asks = [[ask.how, ask.p[0], *ask.logprobs, ask.after_turn, ask.text] for ask in shown.asks]
    # Left out where the protocol has none, so that parts of other debates stay as they were.
    questions = {"asked": [list(question) for question in shown.asked]} if shown.asked else {}
    return questions | {
        "seed": game.seed,
        "story": story,
        "marks": [
            [utf16(passage, mark.start), utf16(passage, mark.end), mark.look, mark.numbers] for mark in shown.marked
        ],
        "speeches": speeches,
        "hidden": game.protocol.scratchpad == "private",
        "judge": None if verdict is None else verdict.judge,
        "revision": None if verdict is None else verdict.revision,
        "between": [] if verdict is None else [p[0] for p in verdict.after_turn],
        "asks": asks,
        "members": [] if verdict is None else [[member.judge, member.p[0]] for member in verdict.members],
        "failure": None if leg.failure is None else leg.failure.model_dump(mode="json"),
    }


def _piece(piece: Piece) -> list[Any]:
    return [piece.text] if piece.look == "plain" else [piece.text, piece.look, piece.numbers, piece.note]


def utf16(text: str, position: int) -> int:
    """A place in a text as JavaScript counts it: letters beyond U+FFFF count twice."""
    before = text[:position]
    return len(before) if before.isascii() else len(before.encode("utf-16-le", "surrogatepass")) // 2


def dumped(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def packed(text: str) -> str:
    """Gzipped text as base64; the same text gives the same letters."""
    return base64.b64encode(gzip.compress(printable(text).encode(), 6, mtime=0)).decode("ascii")


def keep_in(folder: Path) -> Keep:
    """Write every part as a script of a folder."""

    def keep(key: str, text: str) -> None:
        write_text(folder / f"{key}.js", f'debates("{key}","{text}")\n')

    return keep
