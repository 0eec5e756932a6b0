"""Transcripts of every source, for supervised finetuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from pydantic import ValidationError

from debate_rl.data import nyu
from debate_rl.errors import UserError, nearest
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, Transcript, open_transcript, read_speech
from debate_rl.game.verdict import Leg
from debate_rl.records import explain, lines

SOURCES = ("lab-human", "lab-gpt", "nyu", "a .jsonl file of transcripts or legs")


def load_transcripts(
    source: str, questions: Sequence[Question], protocol: Protocol, seed: int = 0, path: str | None = None
) -> list[Transcript]:
    """Load finished games.

    Args:
        source: `lab-human` or `lab-gpt` (simulated annotators speak about `questions`), `nyu` (the human debates under
            `path`), or a .jsonl file of transcripts or legs.
        questions: what lab annotators speak about.
        protocol: the rules that lab annotators follow; of the others it sets the prompts.
        seed: of the annotators.
        path: folder or file of the human debates.

    Raises:
        UserError: unknown source, missing or malformed file.
    """
    if source in ("lab-human", "lab-gpt"):
        return [_annotated(question, protocol, source.removeprefix("lab-"), seed) for question in questions]
    if source == "nyu":
        found = nyu.transcripts(path)
    elif source.endswith(".jsonl"):
        found = _from_file(source)
    else:
        raise UserError(f"unknown transcripts {source!r}; {nearest(source, SOURCES)}")
    shown = {"prompts": protocol.prompts, "max_words": protocol.max_words}
    return [t.model_copy(update={"protocol": t.protocol.model_copy(update=shown)}) for t in found]


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


def _from_file(path: str | Path) -> list[Transcript]:
    """Transcripts of a file of transcripts or legs; legs without a whole transcript are left out.

    Raises:
        UserError: a line is neither; names file and line.
    """
    found = []
    for number, value in lines(path):
        try:
            one = Leg.model_validate(value).transcript if "transcript" in value else Transcript.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {explain(error)}") from error
        if one.complete:
            found.append(one)
    return found
