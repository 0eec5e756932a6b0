"""Speaking: give many seats their speeches, plain or Best-of-N, with one call to generate and one to judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, product
from typing import Literal

from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side, other
from debate_rl.game.transcript import Speech, Transcript, seen_by_speaker
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.players.debater import Debater
from debate_rl.players.draw import Draw, write
from debate_rl.records import Record, digest

OPPONENT_DRAWS = 1_000_000
"""First draw number of simulated opponents. It lies beyond the numbers of real speeches (from 0), so a simulated speech
is never the one given in the real round, unless a player reuses the other side's own draws."""

Scorer = Callable[[Sequence[Transcript]], list["Verdict | Failure"]]
"""Judges transcripts that may lack a side or later turns."""


@dataclass(frozen=True)
class Seat:
    """A player about to speak."""

    transcript: Transcript
    side: Side
    turn: int
    player: Debater
    opponents: tuple[Debater, ...] = ()
    """Players who may be simulated on the other side: one player, or a pool to draw from."""
    branch: int = 0
    """Index of this speech among the branches of its node. Every branch has its own draws; branch 0 has those of a
    plain game."""


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
    """Probability of the speaker's side, one row per candidate. Best-of-N: one column per opponent (one column without
    opponents). Node of a tree: one column per finished transcript through the candidate."""
    aggregate: Literal["mean", "min"] = "mean"
    """How a row of `p` becomes a score."""
    scores: tuple[float, ...]
    chosen: int


def make_pool(
    transcript: Transcript,
    side: Side,
    turn: int,
    player: str,
    candidates: Sequence[Speech],
    opponents: Sequence[Speech],
    p: Sequence[Sequence[float]],
    aggregate: Literal["mean", "min"],
) -> Pool:
    """Score candidates by their rows of probabilities and choose the best one, the first of equals."""
    if aggregate == "min":
        scores = tuple(min(row) for row in p)
    else:
        scores = tuple(sum(row) / len(row) for row in p)
    return Pool(
        transcript=transcript,
        side=side,
        turn=turn,
        player=player,
        candidates=tuple(candidates),
        opponents=tuple(opponents),
        p=tuple(map(tuple, p)),
        aggregate=aggregate,
        scores=scores,
        chosen=max(range(len(scores)), key=lambda index: scores[index]),
    )


@dataclass
class SpeechResult:
    """The outcome of one seat's turn: a speech with the pool it was chosen from, or a failure."""

    speech: Speech | None = None
    failure: Failure | None = None
    pool: Pool | None = None


@dataclass(frozen=True)
class _SeatTexts:
    """All texts written for a seat, before one is chosen."""

    candidates: tuple[Speech, ...] = ()
    opponents: tuple[Speech, ...] = ()
    failure: Failure | None = None


def _simulated_opponents(seat: Seat) -> list[Debater]:
    """Choose the players to simulate on the other side.

    Simulation is needed only where the other side speaks unseen in the same turn of a debate. Players of a pool are
    taken in an order drawn for this side and turn, each once before any a second time.
    """
    transcript = seat.transcript
    if seat.player.best_of == 1 or not seat.opponents:
        return []
    if transcript.protocol.speakers_see != "all" or other(seat.side) not in transcript.speakers(seat.turn):
        return []
    # The order depends on neither N nor the real opponent, so Best-of-16 meets the same rivals as Best-of-4.
    stream = [transcript.seed, transcript.question.id, seat.side, seat.turn]
    order = sorted(seat.opponents, key=lambda player: digest([*stream, player.name]))
    return [order[number % len(order)] for number in range(seat.player.opponents)]


def _draws(seat: Seat) -> list[Draw]:
    """List the texts a seat needs: its candidates, then the simulated opponents."""
    game = seat.transcript
    best_of = seat.player.best_of
    first_candidate = seat.branch * best_of
    first_opponent = 0 if seat.player.reuse_opponents else OPPONENT_DRAWS
    draws = [
        Draw(game, seat.side, seat.turn, seat.player, number)
        for number in range(first_candidate, first_candidate + best_of)
    ]
    for number, opponent in enumerate(_simulated_opponents(seat), start=first_opponent):
        draws.append(Draw(game, other(seat.side), seat.turn, opponent, number))
    return draws


def speak(seats: Sequence[Seat], engine: Engine, score: Scorer | None = None) -> list[SpeechResult]:
    """Get a speech for every seat.

    Seats in which one player reads the same text share one speech: in a round robin of simultaneous turns a player
    speaks once per question and side, whoever it meets.

    Args:
        seats: who speaks; seats of one turn never see one another's speeches.
        engine: writes the texts, all in one call (players that refine need two more calls per round, see `draw.write`).
        score: judges the candidates of Best-of-N players, all in one call; not needed without such players.

    Returns:
        One result per seat, in the order of the seats.

    Raises:
        UserError: there are Best-of-N players and nobody to choose for them.
    """
    number_by_key: dict[tuple[object, ...], int] = {}
    distinct: list[Seat] = []
    seat_numbers: list[int] = []
    for seat in seats:
        key = _speech_key(seat)
        if key not in number_by_key:
            number_by_key[key] = len(distinct)
            distinct.append(seat)
        seat_numbers.append(number_by_key[key])
    results = _speak(distinct, engine, score)
    return [_for_seat(seat, results[number]) for seat, number in zip(seats, seat_numbers, strict=True)]


def _speech_key(seat: Seat) -> tuple[object, ...]:
    """Everything a seat's speech depends on; seats with equal keys share one speech."""
    game = seat.transcript
    rules = game.protocol
    visible = game.speeches if rules.speakers_see == "all" else seen_by_speaker(game, seat.side, seat.turn)
    names = tuple(game.players.items() if rules.identities == "shown" else game.players)
    # Identity instead of equality: hashing whole records for each seat of a round robin costs more than it saves.
    return (
        id(seat.player),
        tuple(map(id, seat.opponents)),
        seat.side,
        seat.turn,
        seat.branch,
        id(game.question),
        id(rules),
        game.seed,
        names,
        game.picked,
        game.called,
        tuple(map(id, visible)),
        tuple((question.turn, question.text) for question in game.asked),
    )


def _for_seat(seat: Seat, result: SpeechResult) -> SpeechResult:
    """Give a seat the result of a seat with the same key; its pool names this seat's own game."""
    if result.pool is None or result.pool.transcript is seat.transcript:
        return result
    return replace(result, pool=result.pool.model_copy(update={"transcript": seat.transcript}))


def _speak(seats: Sequence[Seat], engine: Engine, score: Scorer | None) -> list[SpeechResult]:
    """Get a speech for every seat, all of them with different keys."""
    seat_texts = _write_texts(seats, engine)
    to_judge: list[Transcript] = []
    for seat, texts in zip(seats, seat_texts, strict=True):
        if seat.player.best_of > 1 and texts.failure is None:
            to_judge += trials(seat.transcript, seat.side, seat.player.name, texts.candidates, texts.opponents)
    verdicts: Iterator[Verdict | Failure] = iter(())
    if to_judge:
        if score is None:
            raise UserError("a Best-of-N player needs a judge to choose for it; give one, or play with best_of 1")
        verdicts = iter(score(to_judge))
    results = []
    for seat, texts in zip(seats, seat_texts, strict=True):
        if texts.failure is not None:
            results.append(SpeechResult(failure=texts.failure))
        elif seat.player.best_of == 1:
            results.append(SpeechResult(speech=texts.candidates[0]))
        else:
            # Each seat takes its own trials from the shared iterator: the order is that of the loop above.
            results.append(_choose(seat, texts, verdicts))
    return results


def _write_texts(seats: Sequence[Seat], engine: Engine) -> list[_SeatTexts]:
    """Have all texts of all seats written together."""
    seat_draws = [_draws(seat) for seat in seats]
    written = iter(write(list(chain.from_iterable(seat_draws)), engine))
    seat_texts = []
    for seat, draws in zip(seats, seat_draws, strict=True):
        speeches: list[Speech] = []
        failure = None
        for text in islice(written, len(draws)):
            if isinstance(text, Failure):
                failure = text
            else:
                speeches.append(text)
        if failure is not None:
            # One missing text fails the seat: a choice among fewer candidates would not be Best-of-N.
            seat_texts.append(_SeatTexts(failure=failure))
            continue
        best_of = seat.player.best_of
        seat_texts.append(_SeatTexts(tuple(speeches[:best_of]), tuple(speeches[best_of:])))
    return seat_texts


def trials(
    transcript: Transcript, side: Side, player: str, candidates: Sequence[Speech], opponents: Sequence[Speech]
) -> list[Transcript]:
    """List the transcripts that the judge reads to score candidates.

    Each candidate meets each opponent as if that were the debate, row by row (a row is a candidate). Without opponents
    the candidate stands alone.
    """
    if opponents:
        return [transcript.add(pair) for pair in product(candidates, opponents)]
    # Where the other side's speech of this turn is missing, both sides at once would show the judge half a turn: the
    # candidate's side is then the only one of the game.
    other_side_is_due = candidates and other(side) in transcript.speakers(candidates[0].turn)
    if transcript.protocol.speakers_see == "own" or other_side_is_due:
        transcript = transcript.model_copy(update={"players": {side: player}})
    return [transcript.add([candidate]) for candidate in candidates]


def grid(
    verdicts: Iterator[Verdict | Failure], side: Side, rows: int, columns: int
) -> list[tuple[float, ...]] | Failure:
    """Take the verdicts of one pool's trials from an iterator.

    Returns:
        Probabilities of a side, row by row; the last failure if any trial failed.
    """
    p = []
    failure = None
    # All trials of the pool are taken, failed or not: the next pool begins after them.
    for verdict in islice(verdicts, rows * columns):
        if isinstance(verdict, Failure):
            failure = verdict
        else:
            p.append(verdict.p_side(side))
    if failure is not None:
        return failure
    return [tuple(p[start : start + columns]) for start in range(0, len(p), columns)]


def _choose(seat: Seat, texts: _SeatTexts, verdicts: Iterator[Verdict | Failure]) -> SpeechResult:
    """Choose the candidate with the best mean or worst-case probability."""
    p = grid(verdicts, seat.side, len(texts.candidates), max(len(texts.opponents), 1))
    if isinstance(p, Failure):
        return SpeechResult(failure=p.model_copy(update={"turn": seat.turn}))
    pool = make_pool(
        seat.transcript,
        seat.side,
        seat.turn,
        seat.player.name,
        texts.candidates,
        texts.opponents,
        p,
        seat.player.aggregate,
    )
    return SpeechResult(speech=texts.candidates[pool.chosen], pool=pool)
