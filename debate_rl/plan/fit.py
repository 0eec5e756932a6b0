"""Which questions do not fit the context of which model, counted before anything is played."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.load import context_of, load_config, load_tokenizer
from debate_rl.engines.request import Message
from debate_rl.errors import UserError
from debate_rl.game.prompts import debater_messages, judge_messages
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.runs.engines import passage_counter
from debate_rl.runs.run import Run
from debate_rl.stages.base import Stage

_FRAME = 200
"""Characters of a prompt beside the question and the passage, at least: shorter ones need not be encoded."""
_STEP = 50
"""What is advised is rounded down to so many tokens."""


class Reader(NamedTuple):
    """A model that reads passages.

    Example:
        Reader(model="smollm2-135m", protocol=load_protocol("debate"), new_tokens=300)
    """

    model: str
    protocol: Protocol
    new_tokens: int
    """Tokens it may write after its prompt; 0 for a judge."""


def check_lengths(run: Run, stages: Iterable[Stage]) -> list[str]:
    """Compare the prompts of the run's questions with what each model can read, by its own tokenizer.

    A debater's first prompt is counted: those of later turns hold the earlier speeches as well.

    Returns:
        Lines about questions that do not fit, and about passages that are shown in part.

    Raises:
        UserError: no question fits the debater.
    """
    questions = [*run.questions("train"), *run.questions("test")]
    lines = _excerpt_lines(run, questions)
    for reader in dict.fromkeys(_readers(run, list(stages))):
        line = _too_long(run, reader, questions)
        if line is not None:
            lines.append(line)
    return lines


def _excerpt_lines(run: Run, questions: Sequence[Question]) -> list[str]:
    """What `protocol.passage_tokens` does to the questions."""
    limit = run.config.protocol.passage_tokens
    if limit is None:
        return []
    _, counted_by = passage_counter(run.config, run.resolve)
    shortened = sum(question.excerpt is not None for question in questions)
    return [
        f"{shortened} of {len(questions)} questions: prompts show {limit:,} tokens of the passage (by {counted_by}), "
        "those nearest to question and answers; quotes are checked against the whole"
    ]


def _readers(run: Run, stages: Sequence[Stage]) -> Iterable[Reader]:
    """The models that are shown passages: the debater, and the judges of open-book controls."""
    config = run.config
    protocol = run.protocol()
    if protocol.turns > 0:
        yield Reader(config.models.debater, protocol, protocol.max_new_tokens)
    for stage in stages:
        for name in stage.protocols_named():
            shown = run.protocol(name)
            if not shown.judge_reads_passage:
                continue
            for key, model in stage.models_used(config.models):
                if key == "models.judge":
                    model = config.judge.model or model
                if key != "models.debater":
                    yield Reader(model, shown, 0)


def _too_long(run: Run, reader: Reader, questions: Sequence[Question]) -> str | None:
    """A line about the questions that a model can not read; None where all fit, or nothing is known of the model."""
    path = Path(run.resolve(reader.model))
    if run.config.engine.kind == "server" or not (path / "tokenizer.json").is_file():
        return None
    limit = context_of(load_config(path))
    if limit is None:
        return None
    tokenizer = load_tokenizer(path)
    tokenizer.model_max_length = int(1e9)  # it would warn about each prompt that is counted here
    room = limit - reader.new_tokens
    # A token is at least a character, so only long texts are encoded; the longest first, until one fits.
    by_length = sorted(questions, key=lambda question: len(question.shown_passage), reverse=True)
    lengths: list[int] = []
    for question in by_length:
        if len(question.shown_passage) + len(question.text) + _FRAME <= room:
            break
        tokens = _prompt_length(run, reader, question, tokenizer)
        if tokens <= room:
            break
        lengths.append(tokens)
    if not lengths:
        return None
    new = f", which with {reader.new_tokens} new ones exceed" if reader.new_tokens else " and exceeds"
    said = (
        f"{len(lengths)} of {len(questions)} questions: the prompt of the longest has {lengths[0]:,} tokens{new} the "
        f"{limit:,} that {reader.model} can read"
    )
    if reader.new_tokens:
        # Room for the speeches that a later turn's prompt holds.
        room -= reader.new_tokens * len(reader.protocol.order[0]) * (reader.protocol.turns - 1)
    fits = _passage_room(run, reader, by_length[0], tokenizer, room)
    advice = "choose a model with a longer context, or other questions"
    if fits >= _STEP and run.config.protocol.passage_tokens is None:
        advice = f"set protocol.passage_tokens={fits}, or {advice}"
    if len(lengths) == len(questions) and reader.new_tokens:
        raise UserError(f"{said}; {advice}")
    fails = "their debates will fail" if reader.new_tokens else f"their {reader.protocol.name} verdicts will fail"
    return f"{said}; {fails}: {advice}"


def _prompt_length(run: Run, reader: Reader, question: Question, tokenizer: Any) -> int:
    """Tokens of a reader's first prompt."""
    game = open_transcript(question, reader.protocol, {"A": "base", "B": "base"}, run.config.seed)
    if reader.new_tokens:
        messages = debater_messages(game, next(iter(game.players)), 0)
    else:
        messages = judge_messages(game, game.present, (0, 1))
    return len(prompt_ids(tokenizer, tuple(Message.model_validate(one) for one in messages)))


def _passage_room(run: Run, reader: Reader, question: Question, tokenizer: Any, room: int) -> int:
    """Tokens that are left for a passage beside everything else in a prompt, rounded down."""
    # Not an empty one: a template may leave out what stands round the passage with it.
    bare = question.model_copy(update={"excerpt": "-"})
    return max(0, room - _prompt_length(run, reader, bare, tokenizer)) // _STEP * _STEP
