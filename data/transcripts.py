"""Transcripts of every source, for supervised finetuning, with what the source says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from pydantic import ValidationError

from debate_rl.data.sources import khan, nyu, quality
from debate_rl.data.sources.provenance import Source, source_of
from debate_rl.errors import UserError, nearest
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, Transcript, open_transcript, read_speech
from debate_rl.game.verdict import Leg
from debate_rl.records import Record, explain, lines

LAB = ("lab-human", "lab-gpt")
NYU: dict[str, tuple[nyu.Condition, ...]] = {
    "nyu": nyu.CONDITIONS,
    "nyu-human": ("human debate", "human consultancy"),
    "nyu-gpt": ("GPT-4 debate", "GPT-4 consultancy"),
}
SOURCES = (*LAB, *NYU, "khan", "a .jsonl file of transcripts or legs")


class Corpus(Record):
    """The transcripts of a source.

    Example:
        Corpus(source=Source(name="nyu-human", licence="CC BY 4.0", ...), transcripts=(Transcript(...), ...),
               left_out={"nobody spoke": 31}, notes={"game was not finished": 39})
    """

    source: Source
    transcripts: tuple[Transcript, ...]
    left_out: dict[str, int] = {}
    """How many games are not here, by reason."""
    notes: dict[str, int] = {}
    """How many games that are here are not whole, by what they lack."""


def load_transcripts(
    source: str,
    questions: Sequence[Question],
    protocol: Protocol,
    seed: int = 0,
    path: str | None = None,
    stories: str | None = None,
) -> Corpus:
    """Load games.

    Args:
        source: `lab-human` or `lab-gpt` (simulated annotators speak about `questions`), `nyu`, `nyu-human` or `nyu-gpt`
            (the human debates, those with human or with GPT-4 debaters), `khan` (debates of language models), or a
            .jsonl file of transcripts or legs.
        questions: what lab annotators speak about.
        protocol: the rules that lab annotators follow; of the others it sets the prompts.
        seed: of the annotators.
        path: folder or file of `nyu` or `khan`.
        stories: QuALITY's folder or file, for `khan`.

    Returns:
        The games. What human debaters left unfinished is kept and noted: its speeches are speeches all the same.

    Raises:
        UserError: unknown source, missing or malformed file.
    """
    left_out: dict[str, int] = {}
    notes: dict[str, int] = {}
    if source in LAB:
        games = [_annotated(question, protocol, source.removeprefix("lab-"), seed) for question in questions]
        return Corpus(source=source_of(source), transcripts=tuple(games))
    if source in NYU:
        sessions = nyu.games(path, NYU[source])
        found = [nyu.transcript(session) for session in sessions if session.said]
        left_out["nobody spoke"] = len(sessions) - len(found)
        notes["game was not finished"] = sum(bool(session.said) and not session.finished for session in sessions)
        notes["one side is missing in a round"] = sum(not game.complete for game in found)
    elif source == "khan":
        found, rows = khan.transcripts(path, quality.stories(stories))
        left_out.update(rows)
        notes["one side is missing in a round"] = sum(not game.complete for game in found)
    elif source.endswith(".jsonl"):
        found, unfinished = _from_file(source)
        left_out["game was not finished"] = unfinished
    else:
        raise UserError(f"unknown transcripts {source!r}; {nearest(source, SOURCES)}")
    shown = {"prompts": protocol.prompts, "max_words": protocol.max_words}
    games = [t.model_copy(update={"protocol": t.protocol.model_copy(update=shown)}) for t in found]
    return Corpus(
        source=_file_source(source, games) if source.endswith(".jsonl") else source_of(source),
        transcripts=tuple(games),
        left_out={reason: count for reason, count in left_out.items() if count},
        notes={what: count for what, count in notes.items() if count},
    )


def _file_source(path: str, games: Sequence[Transcript]) -> Source:
    """What is known of a file of games: the licences of the questions they are about."""
    about = sorted({game.question.source.partition("/")[0] for game in games} - {""})
    licences = sorted({source_of(name).licence for name in about})
    named = f"speeches: not stated; questions and stories: {', '.join(licences)}"
    return source_of(path, named if licences else None)


def _annotated(question: Question, protocol: Protocol, mix: str, seed: int) -> Transcript:
    """One game between two simulated annotators."""
    from debate_rl.data.lab import annotators  # here: other sources do not need the lab

    name = f"lab-{mix}"
    rng = Random(f"{mix}/{seed}/{question.id}")
    game = open_transcript(question, protocol, {"A": name, "B": name}, seed)
    for turn in range(protocol.turns):
        texts = dict(zip(("A", "B"), annotators.speeches(question, mix, rng), strict=True))
        origin = Origin(player=name)
        game = game.add([read_speech(texts[side], game, side, turn, origin) for side in game.speakers(turn)])
    return game


def _from_file(path: str | Path) -> tuple[list[Transcript], int]:
    """Transcripts of a file of transcripts or legs, and how many are left out because they are not complete.

    Raises:
        UserError: a line is neither; names file and line.
    """
    found, unfinished = [], 0
    for number, value in lines(path):
        try:
            one = Leg.model_validate(value).transcript if "transcript" in value else Transcript.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {explain(error)}") from error
        if one.complete:
            found.append(one)
        else:
            unfinished += 1
    return found, unfinished
