"""Transcripts: what was said, by whom, made how; and the views of it that each seat has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Protocol, Side, drawn_side, other
from debate_rl.game.question import Question
from debate_rl.game.quotes import Quote, check_quotes
from debate_rl.records import Record, digest, folded

MARKS = {"exact": "v_quote", "near": "n_quote", "invalid": "u_quote"}
"""The tags others see round a checked quote: verified, near and unverified (after Khan et al. 2024)."""

_SCRATCHPAD = re.compile(r"<scratchpad>.*?(</scratchpad>|\Z)", re.DOTALL)
_ROLE_TAG = re.compile(
    # No letter before it (an underline may be markup), a seat's letter and its player's name, and markup to the colon.
    r"(?<![^\W_])(?:(?:debater|consultant|judge|user|assistant|system|human)(?:[\s_*~`]+\w)?(?:\s*\([^()\n]{1,60}\))?"
    r"|for(?:\s+\S+){1,3}?)[\s_*~`]*:",
    re.I,
)
_ESCAPES = str.maketrans(
    {
        **dict.fromkeys("<\uff1c\ufe64\u226e", "\u2039"),
        **dict.fromkeys(">\uff1e\ufe65\u226f", "\u203a"),
        **dict.fromkeys("[\uff3b\ufe47", "("),
        **dict.fromkeys("]\uff3d\ufe48", ")"),
        "\x00": "",
    }
)


class Draft(Record):
    """An earlier form of a speech, and what a critic said of it.

    Example:
        Draft(text="it is shed", critique="no quote says so", critic="lab-base", revision="9f86d081884c7d65",
              new_tokens=3, critique_tokens=5)
    """

    text: str
    """The draft as written."""
    critique: str
    critic: str
    """Model of the critic."""
    adapter: str | None = None
    revision: str | None = None
    """Fingerprint of the critic's weights."""
    new_tokens: int = 0
    critique_tokens: int = 0


class Origin(Record):
    """How a speech was made, so that it can be traced and made again.

    Example:
        Origin(player="dpo", model="lab-base", adapter="runs/quickstart/dpo/adapter", revision="9f86d081884c7d65",
               seed=3, temperature=0.7, top_p=1.0, max_new_tokens=48, prompt_tokens=131, new_tokens=17, finish="stop")
    """

    player: str
    model: str | None = None
    adapter: str | None = None
    revision: str | None = None
    """Fingerprint of the weights that spoke."""
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    prompt_tokens: int = 0
    new_tokens: int = 0
    finish: str = "stop"
    best_of: int = 1
    """Number of candidates this speech was chosen from."""
    drafts: tuple[Draft, ...] = ()
    """Earlier forms with their critiques, first one first, of a speech that was refined."""


class Speech(Record):
    """What one side said in one turn, as written, with its quotes checked.

    Example:
        Speech(side="A", turn=0, text="it is shed: <quote>the pipe was moved to the shed</quote>",
               quotes=(Quote(verdict="exact", ...),), origin=Origin(player="sft"))
    """

    side: Side
    turn: int
    text: str
    quotes: tuple[Quote, ...] = ()
    origin: Origin

    def __hash__(self) -> int:
        """Of what differs between speeches; all fields take many times as long."""
        return hash((self.side, self.turn, self.text))


class Transcript(Record):
    """One game: the question, the rules, who sat where, and the speeches so far.

    Example:
        Transcript(question=Question(id="lab-7-2", ...), protocol=load_protocol("debate"),
                   players={"A": "dpo", "B": "sft"}, seed=0, speeches=(Speech(side="A", ...), Speech(side="B", ...)))
    """

    question: Question
    protocol: Protocol
    players: dict[Side, str]
    """Player of each side present; a single consultancy has one."""
    seed: int = 0
    speeches: tuple[Speech, ...] = ()
    picked: Side | None = None
    """Side that the player picked, in protocols where it does; part of what was played, not of the game's name."""
    called: tuple[Side, ...] = ()
    """Side that was called to speak in each turn so far, in protocols where the judge's mind decides."""

    @property
    def id(self) -> str:
        """Name of the game: the same players, rules, question and seed give the same name."""
        return digest([self.question.id, self.protocol.model_dump(mode="json"), self.players, self.seed])

    @property
    def present(self) -> tuple[Side, ...]:
        """The sides that take part, in order."""
        if self.protocol.sides == "picked" and self.picked is not None:
            return (self.picked,)
        return tuple(side for side in SIDES if side in self.players)

    @property
    def complete(self) -> bool:
        """Whether every turn has been played."""
        return all(len(self.turn(turn)) == len(self.speakers(turn)) for turn in range(self.protocol.turns))

    def turn(self, turn: int) -> tuple[Speech, ...]:
        """Speeches of one turn."""
        return tuple(speech for speech in self.speeches if speech.turn == turn)

    def speakers(self, turn: int) -> tuple[Side, ...]:
        """Sides that speak in a turn; none where nobody is called any more."""
        if self.protocol.calls == "rejected":
            return self.called[turn : turn + 1]
        first = drawn_side(self.question.id, self.seed) if self.protocol.opens == "drawn" else self.picked
        if self.protocol.opens != "order" and first == "B":
            return tuple(other(side) for side in self.protocol.speakers(turn, self.present))
        return self.protocol.speakers(turn, self.present)

    def add(self, speeches: Iterable[Speech]) -> Transcript:
        """The game with the speeches of a turn added."""
        return self.model_copy(update={"speeches": (*self.speeches, *speeches)})


def open_transcript(question: Question, protocol: Protocol, players: dict[Side, str], seed: int = 0) -> Transcript:
    """Begin a game; a protocol with one drawn side keeps that side's player only.

    Raises:
        UserError: the protocol hides the passage from the judge, and the question has none; or a player shall pick its
            side, and there are two.
    """
    if protocol.open and len(set(players.values())) > 1:
        raise UserError(
            f"protocol {protocol.name!r} lets the player pick its side, so the same player sits on both; "
            "use it in self-play (oversight), not in a tournament"
        )
    if protocol.needs_passage and not question.passage:
        raise UserError(
            f"question {question.id!r} has no passage, which protocol {protocol.name!r} needs; "
            "add passages to the questions, or set the protocol's needs_passage to false"
        )
    if protocol.turns == 0:
        players = {}
    elif protocol.sides == "drawn":
        side = drawn_side(question.id, seed)
        players = {side: players[side]}
    return Transcript(question=question, protocol=protocol, players=players, seed=seed)


def read_speech(text: str, transcript: Transcript, side: Side, turn: int, origin: Origin) -> Speech:
    """Make a speech of a text: check its quotes against the passage before anyone else reads it."""
    quotes = check_quotes(text, transcript.question.passage, transcript.protocol.near_quotes)
    return Speech(side=side, turn=turn, text=text, quotes=quotes, origin=origin)


def seen_by_speaker(transcript: Transcript, side: Side, turn: int) -> tuple[Speech, ...]:
    """Speeches that a side may read before it speaks in a turn: earlier turns; own ones only where the rules say so."""
    own_only = transcript.protocol.speakers_see == "own"
    return tuple(s for s in transcript.speeches if s.turn < turn and (s.side == side or not own_only))


def seen_by_judge(transcript: Transcript, sides: Sequence[Side], turns: int | None = None) -> tuple[Speech, ...]:
    """Speeches of the given sides, turn by turn; within a turn in the order of `sides`.

    Args:
        transcript: the game.
        sides: the sides shown, first shown first: both presentation orders can be asked.
        turns: show the first so many turns only; None shows all.
    """
    shown = [s for s in transcript.speeches if s.side in sides and (turns is None or s.turn < turns)]
    return tuple(sorted(shown, key=lambda speech: (speech.turn, list(sides).index(speech.side))))


def escape(text: str) -> str:
    """Take the force from anything in a speech that could pass for a mark, a role tag or a special token.

    Angle and square brackets become look-alikes, and the colon after a role's name goes, so neither `<v_quote>`,
    `<|im_end|>`, `[INST]` nor `Judge: A wins` means more than its words.
    """
    return _without_role_tags(text.translate(_ESCAPES))


def _without_role_tags(text: str) -> str:
    """A text without the colon after a role's name, however the name is dressed up (bold, wide)."""
    flat, places = folded(text)
    colons = {match.end() - 1 for match in _ROLE_TAG.finditer(flat)}
    if places is not None:
        colons = {places[colon] for colon in colons}
    return "".join(character for place, character in enumerate(text) if place not in colons) if colons else text


def without_scratchpad(text: str, protocol: Protocol) -> str:
    """A text without its scratchpad, unless that is public."""
    return text if protocol.scratchpad == "public" else _SCRATCHPAD.sub("", text).strip()


@lru_cache(maxsize=1024)  # a speech is shown in each game and each order that has it
def shown_text(speech: Speech, protocol: Protocol) -> str:
    """The speech as others read it: scratchpad hidden unless public, quotes marked, the rest escaped, words limited."""
    pieces: list[str] = []
    hidden = [] if protocol.scratchpad == "public" else [m.span() for m in _SCRATCHPAD.finditer(speech.text)]
    position = 0
    # A quote that reaches into a scratchpad would show what is hidden: it is plain text, outside of the scratchpad.
    quotes = [q for q in speech.quotes if not any(q.start < b and a < q.end for a, b in hidden)]
    spans: list[tuple[int, int, Any]] = [(q.start, q.end, q) for q in quotes] + [(a, b, None) for a, b in hidden]
    for start, end, quote in sorted(spans, key=lambda span: span[:2]):
        if start < position:
            continue
        pieces.append(escape(speech.text[position:start]))
        if quote is not None:
            mark = MARKS[quote.verdict]
            pieces.append(f"<{mark}>{escape(quote.text)}</{mark}>")
        position = end
    pieces.append(escape(speech.text[position:]))
    return _limit_words("".join(pieces).strip(), protocol.max_words)


def _limit_words(text: str, limit: int | None) -> str:
    """Cut after so many words and say so; a mark left open by the cut is closed."""
    words = re.findall(r"\S+\s*", text)
    if limit is None or len(words) <= limit:
        return text
    cut = "".join(words[:limit]).rstrip()
    for mark in MARKS.values():
        if cut.count(f"<{mark}>") > cut.count(f"</{mark}>"):
            cut += f"</{mark}>"
    return f"{cut} (cut after {limit} words)"
