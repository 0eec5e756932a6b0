"""Transcripts of every source, for supervised finetuning, with their provenance."""

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
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import Record, explain, lines

LAB = ("lab-human", "lab-gpt")
NYU: dict[str, tuple[nyu.Condition, ...]] = {
    "nyu": nyu.CONDITIONS,
    "nyu-human": ("human debate", "human consultancy"),
    "nyu-gpt": ("GPT-4 debate", "GPT-4 consultancy"),
}
SOURCES = (*LAB, *NYU, "khan", "a .jsonl file of transcripts or judged debates")


class Corpus(Record):
    """The transcripts of a source.

    Example:
        Corpus(source=Source(name="nyu-human", licence="CC BY 4.0", ...), transcripts=(Transcript(...), ...),
               left_out={"nobody spoke": 31}, notes={"game was not finished": 39})
    """

    source: Source
    transcripts: tuple[Transcript, ...]
    left_out: dict[str, int] = {}
    """Number of games that were left out, by reason."""
    notes: dict[str, int] = {}
    """Number of games that are kept although something is missing, by what is missing."""


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
            .jsonl file of transcripts or judged debates.
        questions: questions that lab annotators speak about.
        protocol: the rules that lab annotators follow; for other sources it only sets the prompts.
        seed: seed of the annotators.
        path: folder or file of `nyu` or `khan`.
        stories: QuALITY's folder or file, for `khan`.

    Returns:
        The games. Games that human debaters left unfinished are kept and noted: their speeches are speeches all the
        same.

    Raises:
        UserError: unknown source, missing or malformed file.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="train", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> corpus = dr.load_transcripts("lab-gpt", questions, rules)
        >>> len(corpus.transcripts), len(corpus.transcripts[0].speeches)
        (4, 2)
    """
    left_out: dict[str, int] = {}
    notes: dict[str, int] = {}
    if source in LAB:
        annotated = [_annotated(question, protocol, source.removeprefix("lab-"), seed) for question in questions]
        return Corpus(source=source_of(source), transcripts=tuple(annotated))
    if source in NYU:
        sessions = nyu.games(path, NYU[source])
        spoken = [session for session in sessions if session.said]
        loaded = [nyu.transcript(session) for session in spoken]
        left_out["nobody spoke"] = len(sessions) - len(spoken)
        notes["game was not finished"] = sum(not session.finished for session in spoken)
        notes["one side is missing in a round"] = sum(not game.complete for game in loaded)
    elif source == "khan":
        loaded, left_out = khan.transcripts(path, quality.stories(stories))
        notes["one side is missing in a round"] = sum(not game.complete for game in loaded)
    elif source.endswith(".jsonl"):
        loaded, unfinished = _from_file(source)
        left_out["game was not finished"] = unfinished
    else:
        raise UserError(f"unknown transcripts {source!r}; {nearest(source, SOURCES)}")
    games = [_with_prompts(game, protocol) for game in loaded]
    return Corpus(
        source=_file_source(source, games) if source.endswith(".jsonl") else source_of(source),
        transcripts=tuple(games),
        left_out={reason: count for reason, count in left_out.items() if count},
        notes={note: count for note, count in notes.items() if count},
    )


def _with_prompts(game: Transcript, protocol: Protocol) -> Transcript:
    """A game under its own rules, shown in the prompts of a protocol."""
    shown = {"prompts": protocol.prompts, "max_words": protocol.max_words}
    return game.model_copy(update={"protocol": game.protocol.model_copy(update=shown)})


def _file_source(path: str, games: Sequence[Transcript]) -> Source:
    """The source record of a file of games, with the licences of the questions they are about."""
    names = {game.question.source.partition("/")[0] for game in games} - {""}
    licences = sorted({source_of(name).licence for name in names})
    if not licences:
        return source_of(path, None)
    return source_of(path, f"speeches: not stated; questions and stories: {', '.join(licences)}")


def _annotated(question: Question, protocol: Protocol, mix: str, seed: int) -> Transcript:
    """Play one game between two simulated annotators."""
    from debate_rl.data.lab import annotators  # here: other sources do not need the lab

    name = f"lab-{mix}"
    rng = Random(f"{mix}/{seed}/{question.id}")
    origin = Origin(player=name)
    game = open_transcript(question, protocol, {"A": name, "B": name}, seed)
    for turn in range(protocol.turns):
        # Both sides are drawn in every turn, also where one is silent, so that protocols share their speeches.
        text_a, text_b = annotators.speeches(question, mix, rng)
        texts = {"A": text_a, "B": text_b}
        game = game.add([read_speech(texts[side], game, side, turn, origin) for side in game.speakers(turn)])
    return game


def _from_file(path: str | Path) -> tuple[list[Transcript], int]:
    """Read a file of transcripts or judged debates; return the complete games and the number of the others.

    Raises:
        UserError: a line is neither; names file and line.
    """
    complete = []
    unfinished = 0
    for number, value in lines(path):
        try:
            if "transcript" in value:
                game = JudgedDebate.model_validate(value).transcript
            else:
                game = Transcript.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {explain(error)}") from error
        if game.complete:
            complete.append(game)
        else:
            unfinished += 1
    return complete, unfinished
