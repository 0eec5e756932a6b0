"""Transcripts: the speeches of a game, how each was made, and the view that each seat has of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from pydantic import Field

from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Protocol, Side, drawn_side, other
from debate_rl.game.question import Question
from debate_rl.game.quote_grammar import QuoteRules
from debate_rl.game.quotes import Quote, check_quotes
from debate_rl.records import Record, digest, folded

MARKS = {"exact": "v_quote", "near": "n_quote", "invalid": "u_quote"}
"""Tags that others see around a checked quote: verified, near and unverified (after Khan et al. 2024)."""

_SCRATCHPAD = re.compile(r"<scratchpad>.*?(</scratchpad>|\Z)", re.DOTALL)
_ROLE_TAG = re.compile(
    # No letter before it (an underline may be markup), a seat's letter and its player's name, and markup to the colon.
    r"(?<![^\W_])(?:(?:debater|consultant|judge|user|assistant|system|human)(?:[\s_*~`]+\w)?(?:\s*\([^()\n]{1,60}\))?"
    r"|for(?:\s+\S+){1,3}?)[\s_*~`]*:",
    re.I,
)
# Marks of prompts and chat templates are made of angle and square brackets, their wide and decomposed forms included.
_ESCAPES = str.maketrans(
    {
        **dict.fromkeys("<\uff1c\ufe64\u226e", "\u2039"),
        **dict.fromkeys(">\uff1e\ufe65\u226f", "\u203a"),
        **dict.fromkeys("[\uff3b\ufe47", "("),
        **dict.fromkeys("]\uff3d\ufe48", ")"),
        "\x00": "",
    }
)


QUESTION_WORDS = 60
"""Words of a judge's question that others are shown, at most; the stored question stays whole."""
_NO_QUESTION = frozenset({"", "none", "nothing", "no question", "no questions"})


def _is_absent(value: object) -> bool:
    return not value


class Draft(Record):
    """An earlier form of a speech with its critique.

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
    """Adapter of the critic."""
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
    # Left out of a file where they say nothing, so that speeches of plain players are written as ever.
    repetition_penalty: float | None = Field(default=None, exclude_if=_is_absent)
    opening: str = Field(default="", exclude_if=_is_absent)
    """Beginning of the speech that the player was given; a part of its text."""
    quotes: QuoteRules | None = Field(default=None, exclude_if=_is_absent)
    """Rules that its quotes were held to while it was written; None where they were free."""
    max_new_tokens: int | None = None
    prompt_tokens: int = 0
    new_tokens: int = 0
    finish: str = "stop"
    best_of: int = 1
    """Number of candidates this speech was chosen from."""
    drafts: tuple[Draft, ...] = ()
    """Earlier forms of a refined speech with their critiques, oldest first."""


class Speech(Record):
    """The speech of one side in one turn, as written, with its quotes checked.

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
        """Hash the fields in which speeches differ."""
        # Hashing all fields, as pydantic does, takes many times as long, and `shown_text` hashes in every prompt.
        return hash((self.side, self.turn, self.text))


class JudgeQuestion(Record):
    """What the judge asked the debaters between two rounds, as it was written.

    Example:
        JudgeQuestion(turn=0, text="Who moved the pipe after noon?",
                      origin=Origin(player="base judge", model="smollm2-135m", seed=11, new_tokens=8))
    """

    turn: int
    """Turn after which it was asked."""
    text: str
    """May say that there is nothing to ask; see `shown_question`."""
    origin: Origin
    """How it was made; `player` is the judge, a model or a person (`human/ann`)."""


class Transcript(Record):
    """One game: the question, the rules, the player on each side, and the speeches so far.

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
    """Side that the player picked, in protocols where it does; not part of the game's `id`."""
    called: tuple[Side, ...] = ()
    """Side that was called to speak in each turn so far, in protocols where the judge's belief decides."""
    asked: tuple[JudgeQuestion, ...] = Field(default=(), exclude_if=_is_absent)
    """Questions of the judge so far, in protocols where it may ask; not part of the game's `id`."""

    @property
    def id(self) -> str:
        """Name of the game: the same players, rules, question and seed give the same name."""
        return digest([self.question.id, self.protocol.model_dump(mode="json"), self.players, self.seed])

    @property
    def present(self) -> tuple[Side, ...]:
        """The sides that take part, in order."""
        # Under `sides: picked` the player sits on both sides until it has picked one.
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
        """Sides that speak in a turn; none where the judge calls nobody any more."""
        if self.protocol.calls == "rejected":
            return self.called[turn : turn + 1]
        speakers = self.protocol.speakers(turn, self.present)
        if self.protocol.opens == "order":
            return speakers
        opener = self.picked
        if self.protocol.opens == "drawn":
            opener = drawn_side(self.question.id, self.seed)
        # The protocol's order is written for an opener on side A: with B the sides trade places.
        if opener == "B":
            return tuple(map(other, speakers))
        return speakers

    def add(self, speeches: Iterable[Speech]) -> Transcript:
        """A copy of the game with the speeches of a turn added."""
        return self.model_copy(update={"speeches": (*self.speeches, *speeches)})

    def ask(self, question: JudgeQuestion) -> Transcript:
        """A copy of the game with a question of the judge added."""
        return self.model_copy(update={"asked": (*self.asked, question)})


def open_transcript(question: Question, protocol: Protocol, players: dict[Side, str], seed: int = 0) -> Transcript:
    """Start a game; under a protocol with one drawn side only that side's player takes part.

    Raises:
        UserError: the protocol needs a passage and the question has none; or a player is to pick its side, and there
            are two players.
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
    """Create a speech from a text: its quotes are checked against the passage before anyone else reads it."""
    quotes = check_quotes(text, transcript.question.passage, transcript.protocol.near_quotes)
    return Speech(side=side, turn=turn, text=text, quotes=quotes, origin=origin)


def seen_by_speaker(transcript: Transcript, side: Side, turn: int) -> tuple[Speech, ...]:
    """Speeches that a side may read before it speaks in a turn: those of earlier turns, its own or all by protocol."""
    earlier = [speech for speech in transcript.speeches if speech.turn < turn]
    if transcript.protocol.speakers_see == "own":
        earlier = [speech for speech in earlier if speech.side == side]
    return tuple(earlier)


def seen_by_judge(transcript: Transcript, sides: Sequence[Side], turns: int | None = None) -> tuple[Speech, ...]:
    """Speeches of the given sides, turn by turn; within a turn in the order of `sides`.

    Args:
        transcript: the game.
        sides: the sides to show, in the order of presentation.
        turns: number of turns to show, from the first; None shows all.
    """
    shown = [speech for speech in transcript.speeches if speech.side in sides]
    if turns is not None:
        shown = [speech for speech in shown if speech.turn < turns]
    return tuple(sorted(shown, key=lambda speech: (speech.turn, list(sides).index(speech.side))))


def asked_before(transcript: Transcript, turn: int) -> tuple[JudgeQuestion, ...]:
    """The judge's questions that a side may read before it speaks in a turn: those after earlier turns."""
    return tuple(question for question in transcript.asked if question.turn < turn)


def with_questions(
    speeches: Sequence[Speech], questions: Sequence[JudgeQuestion]
) -> list[tuple[Speech, tuple[JudgeQuestion, ...]]]:
    """Pair each speech, in the order shown, with the judge's questions that stand between it and the next one."""
    next_turns = [*(speech.turn for speech in speeches[1:]), math.inf]
    paired = []
    for speech, next_turn in zip(speeches, next_turns, strict=False):
        behind = tuple(question for question in questions if speech.turn <= question.turn < next_turn)
        paired.append((speech, behind))
    return paired


def shown_question(question: JudgeQuestion) -> str:
    """The question as everybody reads it: one line, escaped and not too long; empty where nothing is asked.

    It is the first line with a question mark, else the first one: models may answer before they ask, and go on after.
    """
    lines = [line.strip() for line in _SCRATCHPAD.sub("", question.text).splitlines()]
    first = next(filter(None, lines), "")
    if first.strip(".!\"'*() ").lower() in _NO_QUESTION:
        return ""
    asked = next((line for line in lines if "?" in line), first)
    return _limit_words(escape(asked).strip(), QUESTION_WORDS)


def escape(text: str) -> str:
    """Neutralise anything in a speech that could pass for a mark, a role tag or a special token.

    Angle and square brackets become look-alikes, and the colon after a role's name is removed, so neither `<v_quote>`,
    `<|im_end|>`, `[INST]` nor `Judge: A wins` means more than its words.
    """
    return _remove_role_tags(text.translate(_ESCAPES))


def _remove_role_tags(text: str) -> str:
    """Remove the colon after a role's name, in whatever letters the name is written (bold, wide)."""
    # Searched in the folded text, where all forms of a letter are the letter; cut in the original one.
    flat, origins = folded(text)
    pieces = []
    start = 0
    for match in _ROLE_TAG.finditer(flat):
        colon = match.end() - 1
        if origins is not None:
            colon = origins[colon]
        pieces.append(text[start:colon])
        start = colon + 1
    pieces.append(text[start:])
    return "".join(pieces)


def without_scratchpad(text: str, protocol: Protocol) -> str:
    """Remove the scratchpad from a text, unless the protocol makes it public."""
    return text if protocol.scratchpad == "public" else _SCRATCHPAD.sub("", text).strip()


@lru_cache(maxsize=1024)  # a speech is shown in every game and presentation order that contains it
def shown_text(speech: Speech, protocol: Protocol) -> str:
    """The speech as others read it: scratchpad hidden unless public, quotes marked, the rest escaped, words limited."""
    spans: list[tuple[int, int, Quote | None]] = []
    if protocol.scratchpad != "public":
        spans = [(*match.span(), None) for match in _SCRATCHPAD.finditer(speech.text)]
    hidden = list(spans)
    for checked in speech.quotes:
        # A quote that reaches into a scratchpad would show what is hidden: its visible part is plain text.
        if not any(checked.start < end and start < checked.end for start, end, _ in hidden):
            spans.append((checked.start, checked.end, checked))
    pieces: list[str] = []
    position = 0
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
    """Cut a text after a number of words and say so; a mark left open by the cut is closed."""
    words = re.findall(r"\S+\s*", text)
    if limit is None or len(words) <= limit:
        return text
    cut = "".join(words[:limit]).rstrip()
    for mark in MARKS.values():
        if cut.count(f"<{mark}>") > cut.count(f"</{mark}>"):
            cut += f"</{mark}>"
    return f"{cut} (cut after {limit} words)"
