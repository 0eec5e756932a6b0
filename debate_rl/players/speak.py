"""Speaking: many seats at once get their speeches, plain or Best-of-N, in one call to generate and one to judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from debate_rl.engines.request import Completion, Engine, EngineFailure, Request
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Speech, Transcript, read_speech
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.players.debater import Debater
from debate_rl.records import Record

OPPONENT_DRAWS = 1_000_000
"""Draw numbers of simulated opponents start here: they are never the speech that is given in the real round."""

Scorer = Callable[[Sequence[Transcript]], list["Verdict | Failure"]]
"""Judges transcripts that may lack a side or later turns."""


@dataclass(frozen=True)
class Seat:
    """A player about to speak; `opponent` speaks for the other side where that has to be simulated."""

    transcript: Transcript
    side: Side
    turn: int
    player: Debater
    opponent: Debater | None = None


class Pool(Record):
    """The candidates of one speech with the judge's probabilities, enough to choose again or to make preferences of.

    Example:
        Pool(transcript=Transcript(...), side="A", turn=0, player="sft@4", candidates=(Speech(...), ...),
             opponents=(Speech(...), Speech(...)), p=((0.7, 0.6), ...), scores=(0.65, ...), chosen=0)
    """

    transcript: Transcript
    """The game as the speaker saw it, before this turn."""
    side: Side
    turn: int
    player: str
    candidates: tuple[Speech, ...]
    opponents: tuple[Speech, ...] = ()
    p: tuple[tuple[float, ...], ...]
    """Probability of the speaker's side: a row a candidate, a column an opponent (one column if there is none)."""
    scores: tuple[float, ...]
    chosen: int


@dataclass
class Spoken:
    """What came of a seat: a speech with the pool it was chosen from, or a failure."""

    speech: Speech | None = None
    failure: Failure | None = None
    pool: Pool | None = None


@dataclass
class _Drawn:
    """A seat's texts before one is chosen."""

    candidates: list[Speech] = field(default_factory=list)
    opponents: list[Speech] = field(default_factory=list)
    failure: Failure | None = None


def _other(side: Side) -> Side:
    return "B" if side == "A" else "A"


def _simulated(seat: Seat) -> int:
    """How many opposing speeches to simulate: only where the other side speaks unseen in the same turn of a debate."""
    transcript = seat.transcript
    meets = _other(seat.side) in transcript.speakers(seat.turn) and transcript.protocol.speakers_see == "all"
    return seat.player.opponents if meets and seat.player.best_of > 1 and seat.opponent is not None else 0


def _wanted(seat: Seat) -> Iterator[tuple[Debater, Side, int]]:
    """Speaker, side and draw number of each text a seat needs."""
    for draw in range(seat.player.best_of):
        yield seat.player, seat.side, draw
    if seat.opponent is not None:
        for draw in range(_simulated(seat)):
            yield seat.opponent, _other(seat.side), OPPONENT_DRAWS + draw


def speak(seats: Sequence[Seat], engine: Engine, score: Scorer | None = None) -> list[Spoken]:
    """Get a speech for every seat.

    Args:
        seats: who speaks; seats of one turn never see one another's speeches.
        engine: writes the texts, all in one call.
        score: judges the candidates of Best-of-N players, all in one call; not needed without such players.

    Returns:
        In the order of the seats.
    """
    drawn = _draw(seats, engine)
    trials: list[Transcript] = []
    for seat, texts in zip(seats, drawn, strict=True):
        if seat.player.best_of > 1 and texts.failure is None:
            trials.extend(_trials(seat, texts))
    verdicts = iter(score(trials) if trials and score is not None else [])
    results = []
    for seat, texts in zip(seats, drawn, strict=True):
        if texts.failure is not None:
            results.append(Spoken(failure=texts.failure))
        elif seat.player.best_of == 1:
            results.append(Spoken(speech=texts.candidates[0]))
        else:
            results.append(_choose(seat, texts, verdicts))
    return results


def _draw(seats: Sequence[Seat], engine: Engine) -> list[_Drawn]:
    """Have all texts of all seats written in one call."""
    wanted = [list(_wanted(seat)) for seat in seats]
    requests = [
        player.request(seat.transcript, side, seat.turn, draw)
        for seat, texts in zip(seats, wanted, strict=True)
        for player, side, draw in texts
    ]
    answers = iter(zip(requests, engine.generate(requests), strict=True))
    drawn = []
    for seat, texts in zip(seats, wanted, strict=True):
        result = _Drawn()
        for player, side, _ in texts:
            request, answer = next(answers)
            if isinstance(answer, EngineFailure):
                result.failure = Failure(seat=side, turn=seat.turn, kind=answer.kind, message=answer.message)
            else:
                own = side == seat.side
                speech = _speech(seat, player, side, request, answer)
                (result.candidates if own else result.opponents).append(speech)
        drawn.append(result)
    return drawn


def _speech(seat: Seat, player: Debater, side: Side, request: Request, answer: Completion) -> Speech:
    """A text as a speech with checked quotes."""
    origin = player.origin(request, answer.revision, answer.prompt_tokens, answer.new_tokens, answer.finish)
    return read_speech(answer.text, seat.transcript, side, seat.turn, origin)


def _trials(seat: Seat, texts: _Drawn) -> list[Transcript]:
    """Each candidate with each opponent as if it were the debate; without opponents the candidate stands alone."""
    if texts.opponents:
        return [seat.transcript.add([own, other]) for own in texts.candidates for other in texts.opponents]
    context = seat.transcript
    if context.protocol.speakers_see == "own" or _other(seat.side) in context.speakers(seat.turn):
        context = context.model_copy(update={"players": {seat.side: seat.player.name}})
    return [context.add([own]) for own in texts.candidates]


def _choose(seat: Seat, texts: _Drawn, verdicts: Iterator[Verdict | Failure]) -> Spoken:
    """Take the candidate with the best mean or worst-case probability; the first of equals."""
    columns = max(len(texts.opponents), 1)
    rows: list[tuple[float, ...]] = []
    failure: Failure | None = None
    for _ in texts.candidates:
        row = []
        for _ in range(columns):
            verdict = next(verdicts)
            if isinstance(verdict, Failure):
                failure = verdict
            else:
                row.append(verdict.p_side(seat.side))
        rows.append(tuple(row))
    if failure is not None:
        return Spoken(failure=failure.model_copy(update={"turn": seat.turn}))
    scores = tuple(min(row) if seat.player.aggregate == "min" else sum(row) / len(row) for row in rows)
    chosen = max(range(len(scores)), key=lambda index: scores[index])
    pool = Pool(
        transcript=seat.transcript, side=seat.side, turn=seat.turn, player=seat.player.name,
        candidates=tuple(texts.candidates), opponents=tuple(texts.opponents), p=tuple(rows), scores=scores,
        chosen=chosen,
    )  # fmt: skip
    return Spoken(speech=texts.candidates[chosen], pool=pool)
