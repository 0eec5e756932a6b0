"""Relevance of evidence: can a reader tell from the quotes alone which answer a speech argues for?

A reader (a judge that is shown a text) gets the valid quotes of one speech as the text and the question, and nothing
that says whose they are. Quotes that back their answer give it away; true but idle ones do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from debate_rl.analysis.behaviour.behaviour import Argues, Spoken
from debate_rl.engines.request import Engine
from debate_rl.game.protocol import SIDES, load_protocol
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Verdict
from debate_rl.intervals import Estimate, mean
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.judges.scores import hits
from debate_rl.records import Record, digest


class Relevance(Record):
    """How often a reader guesses a player's side from the quotes of a speech alone.

    Example:
        Relevance(player="dpo", argues="wrong", guessed=Estimate(value=0.88, low=0.8, high=0.95, n=40, clusters=31),
                  without=2, failed=0)
    """

    player: str
    argues: Argues
    guessed: Estimate | None
    """Share of speeches whose side the reader guesses, 1/2 is chance; None where no speech has a valid quote."""
    without: int
    """Speeches without a valid quote: nothing to guess from, left out."""
    failed: int
    """Speeches that the reader gave no verdict on."""


def quotes_only(spoken: Spoken, prompts: str = "default") -> Transcript | None:
    """A game without speeches whose passage is the valid quotes of one speech; None if it has none.

    Args:
        spoken: the speech.
        prompts: prompt set of the protocol under which the speech was given.
    """
    quotes = [" ".join(quote.text.split()) for quote in spoken.speech.quotes if quote.verdict != "invalid"]
    if not quotes:
        return None
    # "Correct" is what the speech argues for: the reader is right when it guesses the side.
    passage = "\n".join(dict.fromkeys(quotes))
    question = spoken.question.model_copy(
        update={"passage": passage, "excerpt": None, "correct": SIDES.index(spoken.speech.side)}
    )
    return Transcript(question=question, protocol=load_protocol("open_book", prompts=prompts), players={})


def relevance(
    every: Sequence[Spoken], reader: AnyJudge, engine: Engine, limit: int | None = None, prompts: str = "default"
) -> list[Relevance]:
    """One row for each player and side with speeches; all readings go to the engine in one call.

    Args:
        every: speeches (`behaviour.spoken`).
        reader: guesses the side.
        engine: answers for the reader.
        limit: speeches of each player and side, drawn by their content; None takes all.
        prompts: prompt set of the reader.
    """
    groups: dict[tuple[str, Argues], list[Spoken]] = {}
    for speech in every:
        if speech.argues is not None:
            groups.setdefault((speech.player, speech.argues), []).append(speech)
    transcripts: dict[tuple[str, Argues], list[Transcript]] = {}
    without: dict[tuple[str, Argues], int] = {}
    for key, speeches in groups.items():
        drawn = _draw(speeches, limit)
        shown = [quotes_only(speech, prompts) for speech in drawn]
        transcripts[key] = [transcript for transcript in shown if transcript is not None]
        without[key] = len(drawn) - len(transcripts[key])
    every_transcript = list(chain.from_iterable(transcripts.values()))
    # One call for all groups: an engine batches what it is given at once.
    verdicts = iter(judge_transcripts(every_transcript, reader, engine) if every_transcript else [])
    rows = []
    for (player, argues), group in transcripts.items():
        probabilities, stories = [], []
        for transcript in group:
            verdict = next(verdicts)
            if isinstance(verdict, Verdict):
                probabilities.append(verdict.p[transcript.question.correct or 0])
                stories.append(transcript.question.cluster)
        row = Relevance(
            player=player,
            argues=argues,
            guessed=mean(hits(probabilities), stories) if probabilities else None,
            without=without[player, argues],
            failed=len(group) - len(probabilities),
        )
        rows.append(row)
    return rows


def _draw(speeches: Sequence[Spoken], limit: int | None) -> list[Spoken]:
    """Draw speeches by question, side and turn: the same questions for every player."""
    # A hash instead of a random draw: adding a player does not change the questions drawn for the others.
    ranked = sorted(
        speeches, key=lambda speech: digest(["read", speech.question.id, speech.speech.side, speech.speech.turn])
    )
    return ranked[:limit]
