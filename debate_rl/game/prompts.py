"""Prompts: Jinja2 templates per protocol and seat, rendered from what the seat may see.

A prompt set is a folder. Each seat has a template: `<protocol>.<seat>.j2` if it exists, else `<seat>.j2`. Seats are
`debater` and `judge`, and `critique` and `refine` for players that refine their drafts. These two begin with
`{% include debater %}`, the debater's own template, so that a passage is encoded once for all three. Likewise `reason`
and `state`, for judges that think first or state a probability, and `question`, for judges that ask the debaters
between rounds, begin with `{% include judge %}`. A set with `question` shows `speech.asked`, the judge's question
behind a speech, to debaters and judges. A template opens
each message with `{{ role("system") }}` or `{{ role("user") }}`; the mark that this leaves is stripped from every
value, so no speech can open a message. `set.yaml` says how the judge's candidates are worded: `labels` (A and B in the
order shown) or `answers` (the answers' own words). A judge may be asked for the other wording than its set's: `reply`
tells the judge's template which one is asked for. Where the answers' words are scored the default set does not list
them: small models then prefer what stands in the list to what is right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2

from debate_rl.errors import UserError, nearest
from debate_rl.game.protocol import SIDES, Protocol, Side
from debate_rl.game.question import Question
from debate_rl.game.sandbox import Sandbox, fill, template_fault
from debate_rl.game.transcript import (
    JudgeQuestion,
    Origin,
    Speech,
    Transcript,
    asked_before,
    escape,
    seen_by_judge,
    seen_by_speaker,
    shown_question,
    shown_text,
    with_questions,
    without_scratchpad,
)
from debate_rl.records import folded, read_yaml, spaced_after

Message = dict[str, str]
"""One chat message: {"role": "system" | "user" | "assistant", "content": text}."""

Wording = Literal["labels", "answers"]
"""How a judge's candidates are worded: A and B in the order shown, or the answers' own words."""

SHIPPED = Path(__file__).parent / "templates"
_MARK = "\x00"
_QUOTE_MARK = re.compile(r"</?(?:[vnu]_quote|scratchpad)>", re.I)


class _Loader(jinja2.FileSystemLoader):
    """Loads templates that lie in the folder, and refuses links that lead out of it."""

    def get_source(self, environment: jinja2.Environment, template: str) -> Any:
        source = super().get_source(environment, template)
        # A prompt set may be another person's: a link in it could show a model any file of this machine.
        folder = Path(self.searchpath[0])
        if not Path(source[1]).resolve().is_relative_to(folder.resolve()):
            raise jinja2.TemplateError(f"{source[1]} is a link that leads out of {folder}; copy the file there")
        return source


@cache
def _prompt_set(name: str) -> tuple[jinja2.Environment, Wording]:
    """Open a prompt set: its templates, and the wording of the judge's candidates."""
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else Path(name)
    if not (folder / "debater.j2").is_file() or not (folder / "judge.j2").is_file():
        choices = nearest(name, [path.name for path in SHIPPED.iterdir() if path.is_dir()])
        raise UserError(f"no prompt set {name!r} (a folder with debater.j2 and judge.j2); {choices}")
    environment = Sandbox(
        loader=_Loader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    settings = folder / "set.yaml"
    fields = read_yaml(settings, "prompt set") if settings.is_file() else {}
    return environment, fields.get("candidates", "labels")


@cache
def _template(prompts: str, protocol: str, seat: str) -> jinja2.Template:
    """The template of a seat. It is cached, since finding its file takes longer than filling it in."""
    environment, _ = _prompt_set(prompts)
    template = environment.select_template([f"{protocol}.{seat}.j2", f"{seat}.j2"])
    # Jinja2 leaves a ChainMap here, and each rendering copies it key by key: a dict is much faster.
    template.globals = dict(template.globals)
    return template


def _role(name: str) -> str:
    """The mark that opens a message; templates call it as `role`."""
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
    # The text before the first mark belongs to no message; then roles and contents take turns.
    parts = text.split(_MARK)[1:]
    messages = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": role, "content": content.strip()} for role, content in messages if content.strip()]


def without_marks(value: str) -> str:
    """Remove the mark that opens a message, and break up anything that could pass for a mark of a quote."""
    value = value.replace(_MARK, "")
    # Searched in the folded text: a tokenizer may read a wide or accented "<" as the plain one.
    flat, origins = folded(value)
    return spaced_after(value, (match.start() for match in _QUOTE_MARK.finditer(flat)), origins)


def _seat_name(transcript: Transcript, side: Side) -> str:
    """Name of a seat in prompts: its letter, and the player's name where the protocol shows it."""
    if transcript.protocol.identities == "shown":
        return f"{side} ({without_marks(transcript.players[side])})"
    return side


class ShownSpeech(NamedTuple):
    """A speech as templates read it."""

    side: Side
    name: str
    answer: str
    turn: int
    text: str
    asked: str = ""
    """The judge's question after the speech's turn, at the last speech before it; empty where it asked none."""


def _speech_values(
    transcript: Transcript, speeches: Sequence[Speech], questions: Sequence[JudgeQuestion]
) -> list[ShownSpeech]:
    """Speeches in the order shown, each with the question that stands between it and the next one."""
    shown = []
    for speech, behind in with_questions(speeches, questions):
        asked = map(shown_question, behind)
        shown.append(
            ShownSpeech(
                side=speech.side,
                name=_seat_name(transcript, speech.side),
                answer=without_marks(transcript.question.answers[SIDES.index(speech.side)]),
                turn=speech.turn,
                text=shown_text(speech, transcript.protocol),
                asked=" ".join(filter(None, asked)),
            )
        )
    return shown


def debater_messages(transcript: Transcript, side: Side, turn: int) -> list[Message]:
    """The prompt of a side before it speaks in a turn (counted from 0).

    Raises:
        UserError: the prompt set is missing, or a template asks for a value that this seat may not know.
    """
    values = _debater_values(transcript, side, turn)
    return _render(transcript.protocol.prompts, transcript.protocol.name, "debater", values)


def critique_messages(transcript: Transcript, draft: Speech) -> list[Message]:
    """The prompt of a critic: everything the speaker sees, and a draft of the speech with its quotes marked.

    Raises:
        UserError: the prompt set has no `critique.j2`, or it asks for a value that this seat may not know.
    """
    values = _debater_values(transcript, draft.side, draft.turn) | _draft_values(transcript, draft)
    return _render(transcript.protocol.prompts, transcript.protocol.name, "critique", values)


def refine_messages(transcript: Transcript, draft: Speech, critique: str) -> list[Message]:
    """The prompt of a side that rewrites a draft after a critique of it.

    Raises:
        UserError: the prompt set has no `refine.j2`, or it asks for a value that this seat may not know.
    """
    protocol = transcript.protocol
    values = _debater_values(transcript, draft.side, draft.turn) | _draft_values(transcript, draft)
    values["critique"] = escape(without_scratchpad(critique, protocol))
    return _render(protocol.prompts, protocol.name, "refine", values)


def _draft_values(transcript: Transcript, draft: Speech) -> dict[str, Any]:
    """The draft as others would read it, and the names of the debater's template, which its prompts include."""
    template_names = [f"{transcript.protocol.name}.debater.j2", "debater.j2"]
    return {"draft": shown_text(draft, transcript.protocol), "debater": template_names}


def _debater_values(transcript: Transcript, side: Side, turn: int) -> dict[str, Any]:
    """Values for the template of a side that speaks in a turn."""
    question = transcript.question
    protocol = transcript.protocol
    answer = SIDES.index(side)
    return {
        "passage": without_marks(question.shown_passage),
        "question": without_marks(question.text),
        "answers": [without_marks(answer) for answer in question.answers],
        "own": without_marks(question.answers[answer]),
        "other": without_marks(question.answers[1 - answer]),
        "side": side,
        "name": _seat_name(transcript, side),
        "alone": protocol.speakers_see == "own",
        "speeches": _speech_values(transcript, seen_by_speaker(transcript, side, turn), asked_before(transcript, turn)),
        "turn": turn,
        "turns": protocol.turns,
        "max_words": protocol.max_words,
        "scratchpad": protocol.scratchpad,
    }


def judge_messages(
    transcript: Transcript,
    sides: Sequence[Side],
    order: tuple[int, int],
    turns: int | None = None,
    reply: Wording | None = None,
) -> list[Message]:
    """The judge's prompt.

    Args:
        transcript: the game.
        sides: the sides to show, in the order of presentation.
        order: order in which the two answers are listed.
        turns: number of turns to show, from the first; None shows all.
        reply: wording of the answer that the judge is asked for; None is the prompt set's own.

    Raises:
        UserError: the prompt set is missing, or a template asks for a value that the judge may not know.
    """
    values = _judge_values(transcript, sides, order, turns)
    if reply is not None:
        values["reply"] = reply
    return _render(transcript.protocol.prompts, transcript.protocol.name, "judge", values)


def reasoning_messages(
    transcript: Transcript,
    sides: Sequence[Side],
    order: tuple[int, int],
    turns: int | None = None,
    scratchpad: str | None = None,
) -> list[Message]:
    """The prompt of a judge that thinks first (`reason.j2`).

    Args:
        transcript: the game.
        sides: as in `judge_messages`.
        order: as in `judge_messages`.
        turns: as in `judge_messages`.
        scratchpad: text the judge wrote, with which it is asked for the answer; None asks for the scratchpad.

    Raises:
        UserError: the prompt set has no `reason.j2`.
    """
    written = None if scratchpad is None else escape(scratchpad).strip() or "(nothing)"
    values = {**_judge_values(transcript, sides, order, turns), "scratchpad": written}
    return _render(transcript.protocol.prompts, transcript.protocol.name, "reason", values)


def stated_messages(
    transcript: Transcript,
    sides: Sequence[Side],
    order: tuple[int, int],
    turns: int | None = None,
    reasoning: bool = False,
) -> list[Message]:
    """The prompt of a judge that states its probability (`state.j2`).

    Args:
        transcript: the game.
        sides: as in `judge_messages`.
        order: as in `judge_messages`.
        turns: as in `judge_messages`.
        reasoning: ask for a short reasoning first.

    Raises:
        UserError: the prompt set has no `state.j2`.
    """
    values = {**_judge_values(transcript, sides, order, turns), "reasoning": reasoning}
    return _render(transcript.protocol.prompts, transcript.protocol.name, "state", values)


def question_messages(transcript: Transcript, turns: int) -> list[Message]:
    """The prompt of a judge that may put a question to the debaters after some turns (`question.j2`).

    Raises:
        UserError: the prompt set has no `question.j2`.
    """
    values = _judge_values(transcript, transcript.present, (0, 1), turns)
    return _render(transcript.protocol.prompts, transcript.protocol.name, "question", values)


def check_questions(protocol: Protocol) -> None:
    """Refuse a protocol whose prompt set has no words for the judge's questions.

    Raises:
        UserError: the prompt set is missing, has no `question.j2`, or its debaters and judges do not show questions.
    """
    asked = "is this shown"
    side: Side = protocol.order[0][0]
    origin = Origin(player="-")
    game = Transcript(
        question=Question(id="-", text="-", answers=("-", "--"), passage="-", group="-"),
        protocol=protocol,
        players=dict.fromkeys(SIDES, "-"),
        speeches=(Speech(side=side, turn=0, text="-", origin=origin),),
        asked=(JudgeQuestion(turn=0, text=asked, origin=origin),),
    )
    try:
        question_messages(game, 1)
    except UserError as error:
        raise UserError(f"protocol {protocol.name!r}, judge_questions: {error}") from error
    shown = {"debater": debater_messages(game, side, 1), "judge": judge_messages(game, game.present, (0, 1))}
    for seat, messages in shown.items():
        if not any(asked in message["content"] for message in messages):
            raise UserError(
                f"prompt set {protocol.prompts!r}: the template of the {seat} does not show the judge's questions; "
                "add {{ speech.asked }} behind each speech, or leave judge_questions out"
            )


def _judge_values(
    transcript: Transcript, sides: Sequence[Side], order: tuple[int, int], turns: int | None
) -> dict[str, Any]:
    """Values for a judge's template, with the names of the judge's own template, which others include."""
    question = transcript.question
    protocol = transcript.protocol
    _, wording = _prompt_set(protocol.prompts)
    # Between two rounds the judge says what it believes before it asks.
    questions = transcript.asked if turns is None else asked_before(transcript, turns - 1)
    values: dict[str, Any] = {
        "question": without_marks(question.text),
        "answers": [without_marks(question.answers[i]) for i in order],
        "reply": wording,
        "sides": list(sides),
        "speeches": _speech_values(transcript, seen_by_judge(transcript, sides, turns), questions),
        "labels": ["A", "B"],
        "alone": len(sides) == 1,
        "reads_passage": protocol.judge_reads_passage,
        "judge": [f"{protocol.name}.judge.j2", "judge.j2"],
    }
    # Left out otherwise, not empty: a template that shows the passage to a judge who must not read it then fails.
    if protocol.judge_reads_passage:
        values["passage"] = without_marks(question.shown_passage)
    return values


def judge_candidates(transcript: Transcript, order: tuple[int, int], reply: Wording | None = None) -> tuple[str, str]:
    """The two continuations whose probabilities make the verdict, for answer 0 and answer 1.

    Args:
        transcript: the game.
        order: order in which the two answers are listed.
        reply: wording of the candidates; None is the prompt set's own.
    """
    _, wording = _prompt_set(transcript.protocol.prompts)
    if (reply or wording) == "answers":
        return transcript.question.answers
    # Labels go by the order shown, the verdict by answer 0 and 1: the answer listed first is "A".
    labels = ("A", "B")
    return labels[order.index(0)], labels[order.index(1)]
