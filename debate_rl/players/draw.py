"""Draws: texts that players write, one per draw number, refined where the player refines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from debate_rl.engines.request import Completion, Engine, EngineFailure, Request
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Draft, Speech, Transcript, read_speech
from debate_rl.game.verdict import Failure
from debate_rl.players.debater import Debater


@dataclass(frozen=True)
class Draw:
    """A text to be written. Equal draw numbers of one player and prompt give the same text."""

    transcript: Transcript
    side: Side
    turn: int
    player: Debater
    number: int = 0


def write(draws: Sequence[Draw], engine: Engine) -> list[Speech | Failure]:
    """Have many texts written.

    First drafts are one call to the engine. Each round of refining adds one call for all critiques and one for all
    rewritten texts. A draft whose critique or next form fails is a failure.

    Returns:
        In the order of the draws, a speech with checked quotes, or the failure.
    """
    requests = [draw.player.request(draw.transcript, draw.side, draw.turn, draw.number) for draw in draws]
    written = []
    for draw, request, answer in zip(draws, requests, engine.generate(requests), strict=True):
        written.append(_speech(draw, request, answer))
    # Players may refine a different number of rounds: each round takes the texts that are still to be refined.
    rounds = max((draw.player.refine for draw in draws), default=0)
    for round_ in range(rounds):
        drafts: dict[int, Speech] = {}
        for index, speech in enumerate(written):
            if draws[index].player.refine > round_ and isinstance(speech, Speech):
                drafts[index] = speech
        for index, refined in _refine(draws, drafts, round_, engine).items():
            written[index] = refined
    return written


def _refine(
    draws: Sequence[Draw], drafts: dict[int, Speech], round_: int, engine: Engine
) -> dict[int, Speech | Failure]:
    """Run one round of refining.

    Args:
        draws: all draws.
        drafts: texts to refine, by the index of their draw.
        round_: number of the round, from 0; it selects the random numbers.
        engine: writes critiques and rewritten texts.

    Returns:
        The next form of each draft, by the index of its draw.
    """
    # Critiques of all drafts in one call, then all rewritten texts in one: two calls per round, however many texts.
    critique_requests = {
        index: draws[index].player.critique_request(draws[index].transcript, draft, draws[index].number, round_)
        for index, draft in drafts.items()
    }
    critiques = dict(zip(critique_requests, engine.generate(list(critique_requests.values())), strict=True))
    refine_requests = {}
    for index, critique in critiques.items():
        if isinstance(critique, Completion):
            draw = draws[index]
            refine_requests[index] = draw.player.refine_request(
                draw.transcript, drafts[index], critique.text, draw.number, round_
            )
    answers = dict(zip(refine_requests, engine.generate(list(refine_requests.values())), strict=True))
    refined: dict[int, Speech | Failure] = {}
    for index, critique in critiques.items():
        if isinstance(critique, EngineFailure):
            refined[index] = _failure(draws[index], critique)
            continue
        draft = drafts[index]
        criticised = Draft(
            text=draft.text,
            critique=critique.text,
            critic=critique_requests[index].model,
            adapter=critique_requests[index].adapter,
            revision=critique.revision,
            new_tokens=draft.origin.new_tokens,
            critique_tokens=critique.new_tokens,
        )
        # Earlier forms and critiques stay with the speech, so that its record shows how it was made.
        history = (*draft.origin.drafts, criticised)
        refined[index] = _speech(draws[index], refine_requests[index], answers[index], history)
    return refined


def _speech(
    draw: Draw, request: Request, answer: Completion | EngineFailure, drafts: tuple[Draft, ...] = ()
) -> Speech | Failure:
    """Read an engine's answer as a speech with checked quotes."""
    if isinstance(answer, EngineFailure):
        return _failure(draw, answer)
    origin = draw.player.origin(request, answer)
    if drafts:
        origin = origin.model_copy(update={"drafts": drafts})
    return read_speech(request.opening + answer.text, draw.transcript, draw.side, draw.turn, origin)


def _failure(draw: Draw, answer: EngineFailure) -> Failure:
    return Failure(seat=draw.side, turn=draw.turn, kind=answer.kind, message=answer.message)
