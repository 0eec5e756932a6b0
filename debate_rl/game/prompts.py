"""Prompts: Jinja2 templates per protocol and seat, rendered from what the seat may see.

A prompt set is a folder. For a seat the file `<protocol>.<seat>.j2` is used where it exists, else `<seat>.j2`, with
seats `debater` and `judge`. A template opens each message with `{{ role("system") }}` or `{{ role("user") }}`; the
mark that this leaves is stripped from every value, so no speech can open a message. `set.yaml` says how the judge's
candidates are worded: `labels` (A and B in the order shown) or `answers` (the answers' own words).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml

from debate_rl.errors import UserError, nearest
from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.transcript import Transcript, seen_by_judge, seen_by_speaker, shown_text

Message = dict[str, str]
"""One chat message: {"role": "system" | "user" | "assistant", "content": text}."""

SHIPPED = Path(__file__).parent / "templates"
_MARK = "\x00"


@cache
def _prompt_set(name: str) -> tuple[jinja2.Environment, Literal["labels", "answers"]]:
    """Open a prompt set: its templates, and how it words the judge's candidates."""
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else Path(name)
    if not (folder / "debater.j2").is_file() or not (folder / "judge.j2").is_file():
        choices = nearest(name, [path.name for path in SHIPPED.iterdir() if path.is_dir()])
        raise UserError(f"no prompt set {name!r} (a folder with debater.j2 and judge.j2); {choices}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    settings = folder / "set.yaml"
    fields = yaml.safe_load(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return environment, fields.get("candidates", "labels")


def _render(prompts: str, protocol: str, seat: str, values: dict[str, Any]) -> list[Message]:
    """Fill in the seat's template and cut it into messages."""
    environment, _ = _prompt_set(prompts)
    try:
        template = environment.select_template([f"{protocol}.{seat}.j2", f"{seat}.j2"])
        text = template.render(**values, role=lambda name: f"{_MARK}{name}{_MARK}")
    except jinja2.UndefinedError as error:
        raise UserError(
            f"prompt set {prompts!r}, {seat}: {error.message}; this seat is not given that value"
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"prompt set {prompts!r}, {error.name}:{error.lineno}: {error.message}") from error
    parts = text.split(_MARK)[1:]
    messages = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": role, "content": content.strip()} for role, content in messages if content.strip()]


def _plain(value: str) -> str:
    """A text without the mark that opens a message."""
    return value.replace(_MARK, "")


def _seat_name(transcript: Transcript, side: Side) -> str:
    """How a seat is called in prompts: its letter, and the player's name where the rules show it."""
    shown = transcript.protocol.identities == "shown"
    return f"{side} ({_plain(transcript.players[side])})" if shown else side


def _speech_values(transcript: Transcript, speeches: Sequence[Any]) -> list[dict[str, Any]]:
    """What a template may know of each speech that its seat may see."""
    return [
        {
            "side": speech.side,
            "name": _seat_name(transcript, speech.side),
            "answer": _plain(transcript.question.answers[SIDES.index(speech.side)]),
            "turn": speech.turn,
            "text": shown_text(speech, transcript.protocol),
        }
        for speech in speeches
    ]


def debater_messages(transcript: Transcript, side: Side, turn: int) -> list[Message]:
    """The prompt of a side before it speaks in a turn (counted from 0).

    Raises:
        UserError: the prompt set is missing or a template asks for what this seat may not know.
    """
    question, protocol = transcript.question, transcript.protocol
    own = SIDES.index(side)
    values = {
        "passage": _plain(question.passage or ""),
        "question": _plain(question.text),
        "answers": [_plain(answer) for answer in question.answers],
        "own": _plain(question.answers[own]),
        "other": _plain(question.answers[1 - own]),
        "side": side,
        "name": _seat_name(transcript, side),
        "alone": protocol.speakers_see == "own",
        "speeches": _speech_values(transcript, seen_by_speaker(transcript, side, turn)),
        "turn": turn,
        "turns": protocol.turns,
        "max_words": protocol.max_words,
        "scratchpad": protocol.scratchpad,
    }
    return _render(protocol.prompts, protocol.name, "debater", values)


def judge_messages(
    transcript: Transcript, sides: Sequence[Side], order: tuple[int, int], turns: int | None = None
) -> list[Message]:
    """The judge's prompt.

    Args:
        transcript: the game.
        sides: the sides shown, first shown first.
        order: order in which the two answers are listed.
        turns: show the first so many turns only; None shows all.

    The passage is given to the template only where the protocol says so: a template that asks for it elsewhere fails.
    """
    question, protocol = transcript.question, transcript.protocol
    values: dict[str, Any] = {
        "question": _plain(question.text),
        "answers": [_plain(question.answers[i]) for i in order],
        "sides": list(sides),
        "speeches": _speech_values(transcript, seen_by_judge(transcript, sides, turns)),
        "labels": ["A", "B"],
        "alone": len(sides) == 1,
        "reads_passage": protocol.judge_reads_passage,
    }
    if protocol.judge_reads_passage:
        values["passage"] = _plain(question.passage or "")
    return _render(protocol.prompts, protocol.name, "judge", values)


def judge_candidates(transcript: Transcript, order: tuple[int, int]) -> tuple[str, str]:
    """The two continuations whose probabilities are the verdict, for answer 0 and answer 1."""
    _, wording = _prompt_set(transcript.protocol.prompts)
    if wording == "answers":
        return transcript.question.answers
    labels = ("A", "B")
    return labels[order.index(0)], labels[order.index(1)]
