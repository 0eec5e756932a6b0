"""Relevance of evidence: can a reader tell from the quotes alone which answer a speech argues for?

A reader (a judge that is shown a text) gets the valid quotes of one speech as the text and the question, and nothing
that says whose they are. Quotes that back their answer give it away; true but idle ones do not.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """What the quotes of a player's speeches give away.

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


def quotes_only(said: Spoken, prompts: str = "default") -> Transcript | None:
    """A game without speeches whose text is the valid quotes of one speech; None where it has none.

    Args:
        said: the speech.
        prompts: prompt set, as of the protocol the speech was given under.
    """
    quotes = [" ".join(quote.text.split()) for quote in said.speech.quotes if quote.verdict != "invalid"]
    if not quotes:
        return None
    question = said.question.model_copy(
        update={"passage": "\n".join(dict.fromkeys(quotes)), "correct": SIDES.index(said.speech.side)}
    )
    return Transcript(question=question, protocol=load_protocol("open_book", prompts=prompts), players={})


def relevance(
    every: Sequence[Spoken], reader: AnyJudge, engine: Engine, limit: int | None = None, prompts: str = "default"
) -> list[Relevance]:
    """One row for each player and side with speeches; all readings in one call to the engine.

    Args:
        every: speeches (`behaviour.spoken`).
        reader: who guesses.
        engine: answers for it.
        limit: speeches of each player and side, drawn by their content; None takes all.
        prompts: prompt set of the reader.
    """
    groups: dict[tuple[str, Argues], list[Spoken]] = {}
    for said in every:
        if said.argues is not None:
            groups.setdefault((said.player, said.argues), []).append(said)
    drawn = {key: _draw(found, limit) for key, found in groups.items()}
    views = {key: [quotes_only(said, prompts) for said in found] for key, found in drawn.items()}
    shown = [view for found in views.values() for view in found if view is not None]
    verdicts = iter(judge_transcripts(shown, reader, engine) if shown else [])
    rows = []
    for (player, argues), found in views.items():
        kept = [view for view in found if view is not None]
        read = [(view, next(verdicts)) for view in kept]
        good = [(view, verdict.p[view.question.correct or 0]) for view, verdict in read if isinstance(verdict, Verdict)]
        labels = [view.question.cluster for view, _ in good]
        rows.append(
            Relevance(
                player=player, argues=argues, guessed=mean(hits([p for _, p in good]), labels) if good else None,
                without=len(found) - len(kept), failed=len(kept) - len(good),
            )
        )  # fmt: skip
    return rows


def _draw(found: Sequence[Spoken], limit: int | None) -> list[Spoken]:
    """So many speeches, drawn by question, side and turn: the same questions for every player."""
    ranked = sorted(found, key=lambda said: digest(["read", said.question.id, said.speech.side, said.speech.turn]))
    return ranked[:limit]
