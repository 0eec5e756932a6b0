"""Prompts: Jinja2 templates per protocol and seat, rendered from what the seat may see.

A prompt set is a folder. For a seat the file `<protocol>.<seat>.j2` is used where it exists, else `<seat>.j2`, with
seats `debater` and `judge`, and `critique` and `refine` for players that refine their drafts. These two begin with
`{% include debater %}`, the debater's own template, so that a passage is encoded once for all three. Likewise `reason`
and `state`, for judges that think first or state a probability, begin with `{% include judge %}`. A template opens
each message with `{{ role("system") }}` or `{{ role("user") }}`; the mark that this leaves is stripped from every
value, so no speech can open a message. `set.yaml` says how the judge's candidates are worded: `labels` (A and B in the
order shown) or `answers` (the answers' own words).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2

from debate_rl.errors import UserError, nearest
from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.sandbox import Sandbox, fill, template_fault
from debate_rl.game.transcript import (
    Speech,
    Transcript,
    escape,
    seen_by_judge,
    seen_by_speaker,
    shown_text,
    without_scratchpad,
)
from debate_rl.records import folded, read_yaml, spaced_after

Message = dict[str, str]
"""One chat message: {"role": "system" | "user" | "assistant", "content": text}."""

SHIPPED = Path(__file__).parent / "templates"
_MARK = "\x00"
_QUOTE_MARK = re.compile(r"</?(?:[vnu]_quote|scratchpad)>", re.I)


class _Loader(jinja2.FileSystemLoader):
    """Reads templates that lie in the folder; a link in it would show a model any other file of the machine."""

    def get_source(self, environment: jinja2.Environment, template: str) -> Any:
        source = super().get_source(environment, template)
        folder = Path(self.searchpath[0])
        if not Path(source[1]).resolve().is_relative_to(folder.resolve()):
            raise jinja2.TemplateError(f"{source[1]} is a link that leads out of {folder}; copy the file there")
        return source


@cache
def _prompt_set(name: str) -> tuple[jinja2.Environment, Literal["labels", "answers"]]:
    """Open a prompt set: its templates, and how it words the judge's candidates."""
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else Path(name)
    if not (folder / "debater.j2").is_file() or not (folder / "judge.j2").is_file():
        choices = nearest(name, [path.name for path in SHIPPED.iterdir() if path.is_dir()])
        raise UserError(f"no prompt set {name!r} (a folder with debater.j2 and judge.j2); {choices}")
    environment = Sandbox(
        loader=_Loader(folder), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        auto_reload=False,
    )  # fmt: skip
    settings = folder / "set.yaml"
    fields = read_yaml(settings, "prompt set") if settings.is_file() else {}
    return environment, fields.get("candidates", "labels")


@cache
def _template(prompts: str, protocol: str, seat: str) -> jinja2.Template:
    """The template of a seat; looking for its file takes longer than filling it in."""
    found = _prompt_set(prompts)[0].select_template([f"{protocol}.{seat}.j2", f"{seat}.j2"])
    found.globals = dict(found.globals)  # a chain of maps else, which each rendering goes through key by key
    return found


def _role(name: str) -> str:
    """What opens a message."""
    return f"{_MARK}{name}{_MARK}"


def _render(prompts: str, protocol: str, seat: str, values: dict[str, Any]) -> list[Message]:
    """Fill in the seat's template and cut it into messages."""
    try:
        text = fill(_template(prompts, protocol, seat), {**values, "role": _role})
    except jinja2.TemplatesNotFound as error:
        raise UserError(f"prompt set {prompts!r} has no {seat}.j2; write one, or play without that seat") from error
    except jinja2.UndefinedError as error:
        raise UserError(
            f"prompt set {prompts!r}, {seat}: {error.message}; this seat is not given that value"
        ) from error
    except Exception as error:  # an expression of a template may raise anything
        raise UserError(f"prompt set {prompts!r}, {seat}: {template_fault(error)}") from error
    parts = text.split(_MARK)[1:]
    messages = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": role, "content": content.strip()} for role, content in messages if content.strip()]


def _plain(value: str) -> str:
    """A text without the mark that opens a message, and with a space in what would pass for a mark of a quote."""
    value = value.replace(_MARK, "")
    flat, origins = folded(value)
    return spaced_after(value, (match.start() for match in _QUOTE_MARK.finditer(flat)), origins)


def _seat_name(transcript: Transcript, side: Side) -> str:
    """How a seat is called in prompts: its letter, and the player's name where the rules show it."""
    shown = transcript.protocol.identities == "shown"
    return f"{side} ({_plain(transcript.players[side])})" if shown else side


class Heard(NamedTuple):
    """What a template may know of a speech that its seat may see."""

    side: Side
    name: str
    answer: str
    turn: int
    text: str


def _speech_values(transcript: Transcript, speeches: Sequence[Speech]) -> list[Heard]:
    """Speeches as templates read them."""
    return [
        Heard(
            side=speech.side,
            name=_seat_name(transcript, speech.side),
            answer=_plain(transcript.question.answers[SIDES.index(speech.side)]),
            turn=speech.turn,
            text=shown_text(speech, transcript.protocol),
        )
        for speech in speeches
    ]


def debater_messages(transcript: Transcript, side: Side, turn: int) -> list[Message]:
    """The prompt of a side before it speaks in a turn (counted from 0).

    Raises:
        UserError: the prompt set is missing or a template asks for what this seat may not know.
    """
    values = _debater_values(transcript, side, turn)
    return _render(transcript.protocol.prompts, transcript.protocol.name, "debater", values)


def critique_messages(transcript: Transcript, draft: Speech) -> list[Message]:
    """The prompt of a critic: what the speaker sees, and a draft of the speech, its quotes marked.

    Raises:
        UserError: the prompt set has no `critique.j2`, or that asks for what this seat may not know.
    """
    values = _debater_values(transcript, draft.side, draft.turn) | _draft_values(transcript, draft)
    return _render(transcript.protocol.prompts, transcript.protocol.name, "critique", values)


def refine_messages(transcript: Transcript, draft: Speech, critique: str) -> list[Message]:
    """The prompt of a side that writes a draft again after a critique of it.

    Raises:
        UserError: the prompt set has no `refine.j2`, or that asks for what this seat may not know.
    """
    protocol = transcript.protocol
    values = _debater_values(transcript, draft.side, draft.turn) | _draft_values(transcript, draft)
    values["critique"] = escape(without_scratchpad(critique, protocol))
    return _render(protocol.prompts, protocol.name, "refine", values)


def _draft_values(transcript: Transcript, draft: Speech) -> dict[str, Any]:
    """The draft as others would read it, and the names of the template that its prompts begin with."""
    names = [f"{transcript.protocol.name}.debater.j2", "debater.j2"]
    return {"draft": shown_text(draft, transcript.protocol), "debater": names}


def _debater_values(transcript: Transcript, side: Side, turn: int) -> dict[str, Any]:
    """What a template may know of a side that speaks in a turn."""
    question, protocol = transcript.question, transcript.protocol
    own = SIDES.index(side)
    return {
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
    values = _judge_values(transcript, sides, order, turns)
    return _render(transcript.protocol.prompts, transcript.protocol.name, "judge", values)


def reasoning_messages(
    transcript: Transcript,
    sides: Sequence[Side],
    order: tuple[int, int],
    turns: int | None = None,
    scratchpad: str | None = None,
) -> list[Message]:
    """The prompt of a judge that thinks first (`reason.j2`): for its scratchpad, or with it for the answer.

    Raises:
        UserError: the prompt set has no `reason.j2`.
    """
    written = None if scratchpad is None else escape(scratchpad).strip() or "(nothing)"
    values = {**_judge_values(transcript, sides, order, turns), "scratchpad": written}
    return _render(transcript.protocol.prompts, transcript.protocol.name, "reason", values)


def stated_messages(
    transcript: Transcript, sides: Sequence[Side], order: tuple[int, int], turns: int | None = None
) -> list[Message]:
    """The prompt of a judge that states its probability of the answer listed first (`state.j2`).

    Raises:
        UserError: the prompt set has no `state.j2`.
    """
    values = _judge_values(transcript, sides, order, turns)
    return _render(transcript.protocol.prompts, transcript.protocol.name, "state", values)


def _judge_values(
    transcript: Transcript, sides: Sequence[Side], order: tuple[int, int], turns: int | None
) -> dict[str, Any]:
    """What a judge's template may know (see `judge_messages`), and the names of the judge's own template."""
    question, protocol = transcript.question, transcript.protocol
    values: dict[str, Any] = {
        "question": _plain(question.text),
        "answers": [_plain(question.answers[i]) for i in order],
        "sides": list(sides),
        "speeches": _speech_values(transcript, seen_by_judge(transcript, sides, turns)),
        "labels": ["A", "B"],
        "alone": len(sides) == 1,
        "reads_passage": protocol.judge_reads_passage,
        "judge": [f"{protocol.name}.judge.j2", "judge.j2"],
    }
    if protocol.judge_reads_passage:
        values["passage"] = _plain(question.passage or "")
    return values


def judge_candidates(transcript: Transcript, order: tuple[int, int]) -> tuple[str, str]:
    """The two continuations whose probabilities are the verdict, for answer 0 and answer 1."""
    _, wording = _prompt_set(transcript.protocol.prompts)
    if wording == "answers":
        return transcript.question.answers
    labels = ("A", "B")
    return labels[order.index(0)], labels[order.index(1)]
