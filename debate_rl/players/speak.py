"""Speaking: many seats at once get their speeches, plain or Best-of-N, in one call to generate and one to judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
"""Draw numbers of simulated opponents start here, so that they are never the speech that is given in the real round;
unless a player reuses the other side's own draws, which start at 0."""

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
    """Who speaks for the other side where that has to be simulated: one player, or a pool to draw from."""
    branch: int = 0
    """Which of several speeches in this place: branches are draws of their own, and branch 0 is the plain game's."""


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
    """Probability of the speaker's side. Best-of-N: a row a candidate, a column an opponent (one column if there is
    none). Node of a tree: a row a candidate, a column a finished transcript through it."""
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
    scores = tuple(min(row) if aggregate == "min" else sum(row) / len(row) for row in p)
    return Pool(
        transcript=transcript, side=side, turn=turn, player=player, candidates=tuple(candidates),
        opponents=tuple(opponents), p=tuple(map(tuple, p)), aggregate=aggregate, scores=scores,
        chosen=max(range(len(scores)), key=lambda index: scores[index]),
    )  # fmt: skip


@dataclass
class Spoken:
    """What came of a seat: a speech with the pool it was chosen from, or a failure."""

    speech: Speech | None = None
    failure: Failure | None = None
    pool: Pool | None = None


@dataclass(frozen=True)
class _Texts:
    """A seat's texts before one is chosen."""

    candidates: tuple[Speech, ...] = ()
    opponents: tuple[Speech, ...] = ()
    failure: Failure | None = None


def _simulated(seat: Seat) -> list[Debater]:
    """Who is simulated on the other side: only where that speaks unseen in the same turn of a debate.

    Of a pool the players are taken in an order drawn for this place in the game, each once before any a second time.
    The order depends on neither N nor the real opponent.
    """
    transcript = seat.transcript
    meets = other(seat.side) in transcript.speakers(seat.turn) and transcript.protocol.speakers_see == "all"
    if not meets or seat.player.best_of == 1 or not seat.opponents:
        return []
    place = [transcript.seed, transcript.question.id, seat.side, seat.turn]
    order = sorted(seat.opponents, key=lambda player: digest([*place, player.name]))
    return [order[number % len(order)] for number in range(seat.player.opponents)]


def _draws(seat: Seat) -> list[Draw]:
    """Each text a seat needs: its candidates, then the simulated opponents."""
    first = seat.branch * seat.player.best_of
    start = 0 if seat.player.reuse_opponents else OPPONENT_DRAWS
    own = [
        Draw(seat.transcript, seat.side, seat.turn, seat.player, number)
        for number in range(first, first + seat.player.best_of)
    ]
    return own + [
        Draw(seat.transcript, other(seat.side), seat.turn, opponent, start + number)
        for number, opponent in enumerate(_simulated(seat))
    ]


def speak(seats: Sequence[Seat], engine: Engine, score: Scorer | None = None) -> list[Spoken]:
    """Get a speech for every seat.

    Seats in which one player reads the same get one speech: in a round robin of simultaneous turns a player speaks
    once for a question and side, whoever it meets.

    Args:
        seats: who speaks; seats of one turn never see one another's speeches.
        engine: writes the texts, all in one call (players that refine need two more a round, see `draw.write`).
        score: judges the candidates of Best-of-N players, all in one call; not needed without such players.

    Returns:
        In the order of the seats.

    Raises:
        UserError: there are Best-of-N players and nobody to choose for them.
    """
    places: dict[tuple[object, ...], int] = {}
    said = [places.setdefault(_place(seat), len(places)) for seat in seats]
    first = dict(zip(reversed(said), reversed(seats), strict=True))
    spoken = _speak([first[number] for number in range(len(places))], engine, score)
    return [_for_seat(seat, spoken[number]) for seat, number in zip(seats, said, strict=True)]


def _place(seat: Seat) -> tuple[object, ...]:
    """All that what is said in a seat depends on: the same records of speeches and players, not merely equal ones."""
    game = seat.transcript
    rules = game.protocol
    seen = game.speeches if rules.speakers_see == "all" else seen_by_speaker(game, seat.side, seat.turn)
    names = tuple(game.players.items() if rules.identities == "shown" else game.players)
    return (
        id(seat.player), tuple(map(id, seat.opponents)), seat.side, seat.turn, seat.branch, id(game.question),
        id(rules), game.seed, names, game.picked, game.called, tuple(map(id, seen)),
    )  # fmt: skip


def _for_seat(seat: Seat, spoken: Spoken) -> Spoken:
    """What was said in a seat like this one, with a pool of this seat's own game."""
    if spoken.pool is None or spoken.pool.transcript is seat.transcript:
        return spoken
    return replace(spoken, pool=spoken.pool.model_copy(update={"transcript": seat.transcript}))


def _speak(seats: Sequence[Seat], engine: Engine, score: Scorer | None) -> list[Spoken]:
    """A speech for each of seats that differ."""
    drawn = _draw(seats, engine)
    tried: list[Transcript] = []
    for seat, texts in zip(seats, drawn, strict=True):
        if seat.player.best_of > 1 and texts.failure is None:
            tried.extend(trials(seat.transcript, seat.side, seat.player.name, texts.candidates, texts.opponents))
    if tried and score is None:
        raise UserError("a Best-of-N player needs a judge to choose for it; give one, or play with best_of 1")
    verdicts = iter(score(tried) if tried and score is not None else [])
    results = []
    for seat, texts in zip(seats, drawn, strict=True):
        if texts.failure is not None:
            results.append(Spoken(failure=texts.failure))
        elif seat.player.best_of == 1:
            results.append(Spoken(speech=texts.candidates[0]))
        else:
            results.append(_choose(seat, texts, verdicts))
    return results


def _draw(seats: Sequence[Seat], engine: Engine) -> list[_Texts]:
    """Have all texts of all seats written together."""
    wanted = [_draws(seat) for seat in seats]
    written = iter(write([draw for draws in wanted for draw in draws], engine))
    drawn = []
    for seat, draws in zip(seats, wanted, strict=True):
        texts = [next(written) for _ in draws]
        failures = [text for text in texts if isinstance(text, Failure)]
        speeches = tuple(text for text in texts if isinstance(text, Speech))
        count = seat.player.best_of
        drawn.append(_Texts(failure=failures[-1]) if failures else _Texts(speeches[:count], speeches[count:]))
    return drawn


def trials(
    transcript: Transcript, side: Side, player: str, candidates: Sequence[Speech], opponents: Sequence[Speech]
) -> list[Transcript]:
    """What the judge reads to score candidates: each with each opponent as if it were the debate, row by row.

    Without opponents the candidate stands alone.
    """
    if opponents:
        return [transcript.add([own, theirs]) for own in candidates for theirs in opponents]
    speaks_now = candidates and other(side) in transcript.speakers(candidates[0].turn)
    if transcript.protocol.speakers_see == "own" or speaks_now:
        transcript = transcript.model_copy(update={"players": {side: player}})
    return [transcript.add([own]) for own in candidates]


def grid(
    verdicts: Iterator[Verdict | Failure], side: Side, rows: int, columns: int
) -> list[tuple[float, ...]] | Failure:
    """Take the verdicts of one pool's trials: probabilities of a side, row by row; the last failure if any failed."""
    taken = [next(verdicts) for _ in range(rows * columns)]
    failures = [verdict for verdict in taken if isinstance(verdict, Failure)]
    if failures:
        return failures[-1]
    p = [verdict.p_side(side) for verdict in taken if isinstance(verdict, Verdict)]
    return [tuple(p[start : start + columns]) for start in range(0, len(p), columns)]


def _choose(seat: Seat, texts: _Texts, verdicts: Iterator[Verdict | Failure]) -> Spoken:
    """Take the candidate with the best mean or worst-case probability; the first of equals."""
    p = grid(verdicts, seat.side, len(texts.candidates), max(len(texts.opponents), 1))
    if isinstance(p, Failure):
        return Spoken(failure=p.model_copy(update={"turn": seat.turn}))
    pool = make_pool(
        seat.transcript, seat.side, seat.turn, seat.player.name, texts.candidates, texts.opponents, p,
        seat.player.aggregate,
    )  # fmt: skip
    return Spoken(speech=texts.candidates[pool.chosen], pool=pool)
