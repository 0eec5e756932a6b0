"""A person as judge: reads a debate round by round without the passage, and says after each how likely side A is.

As in Michael et al. 2023 the reward is log2 p(correct) - .05 for each round that was asked for, and probabilities are
kept between .01 and .99. A judgement is a `Leg` like any other; its log is read by everything that reads legs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from debate_rl.errors import UserError, existing
from debate_rl.game.transcript import Transcript, seen_by_judge, shown_text
from debate_rl.game.verdict import Ask, Leg, Verdict
from debate_rl.judges.presentation import logprobs_of
from debate_rl.judges.scores import ROUND_COST
from debate_rl.records import append, digest, explain, read

LEAST, MOST = 1.0, 99.0
"""Percent that the interface of Michael et al. 2023 let a judge give."""
HELP = (
    "You judge debates whose text you can not see. After each round say how likely answer A is, in percent "
    f"({LEAST:g} to {MOST:g}); each round you read costs {ROUND_COST:g} bits. '70' reads on, '70 end' decides now.\n"
    "Quotes are marked: <v_quote> is in the text word for word, <n_quote> nearly so, <u_quote> is not in it."
)

Say = Callable[[str], None]
Listen = Callable[[str], str]
"""Prints a prompt and returns the line that was typed; raises EOFError at the end of the input."""
_START = b'{"transcript":'
"""How a line of a log begins."""


def saved_games(path: str | Path, stage: str | None = None) -> list[Transcript]:
    """Complete games with speeches, and with a known answer, of a run, a study or a file of legs; each once.

    Args:
        path: folder of a run or study, or a file of legs.
        stage: of the run, only this stage's.

    Raises:
        UserError: nothing is there, or a line is malformed.
    """
    root = existing(path, "run")
    files = [root]
    if root.is_dir():
        inside = sorted(root.rglob("legs.jsonl"))
        files = [one for one in inside if not any(part.startswith(".") for part in one.relative_to(root).parts)]
        files = [one for one in files if stage is None or one.parent.name == stage]
    found: dict[str, Transcript] = {}
    for file in files:
        for leg in read(file, Leg):
            game = leg.transcript
            if game.complete and game.speeches and game.question.correct is not None:
                found.setdefault(game.id, game)
    if not found:
        where = f" in stage {stage!r}" if stage else ""
        raise UserError(f"{path}: no finished debate{where} with speeches and a known answer; give a run that has some")
    return list(found.values())


def judgements(log: Path) -> list[Leg]:
    """The legs of a log that judgements are to be added to; none if there is no file yet.

    A torn last line (a crash) is left out, and cut by the next `append`, where whole legs stand before it.

    Raises:
        UserError: the file is none of legs (names the line), is a folder, or can not be written.
    """
    place = log if log.exists() else next(one for one in log.absolute().parents if one.exists())
    if log.is_dir() or (place is not log and not place.is_dir()):
        raise UserError(f"--log {log}: {place} is a {'folder' if log.is_dir() else 'file'}; name a file of legs")
    if not os.access(place, os.W_OK | os.R_OK):
        raise UserError(f"--log {log}: {place} can not be written; name another file")
    if not log.exists():
        return []
    *whole, tail = log.read_bytes().split(b"\n")
    legs = [_logged(line, f"{log}:{number}") for number, line in enumerate(whole, start=1) if line.strip()]
    torn = bool(legs) and (tail.startswith(_START) or _START.startswith(tail))
    if tail.strip() and not (torn and not _is_json(tail)):
        _logged(tail, f"{log}:{len(whole) + 1}")
        raise UserError(f"{log}:{len(whole) + 1}: the last line has no line break at its end; add one")
    return legs


def _logged(line: bytes, where: str) -> Leg:
    """A line of a log."""
    try:
        return Leg.model_validate_json(line)
    except ValidationError as error:
        raise UserError(f"{where}: not a leg ({explain(error)}); name a new file, or one of legs, as --log") from error


def _is_json(line: bytes) -> bool:
    """Whether a line is whole."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def unjudged(games: Iterable[Transcript], judge: str, log: Path) -> list[Transcript]:
    """Games, played or not yet, on questions that this judge has no verdict on, in an order drawn by the judge's name.

    A question that was judged is left out with all its games: its answer was shown.
    """
    known = {leg.transcript.question.id for leg in judgements(log) if _by(leg) == judge}
    left = [game for game in games if game.question.id not in known]
    return sorted(left, key=lambda game: digest([judge, game.id]))


def judge_in_person(
    games: Iterable[Transcript], judge: str, log: Path, say: Say, listen: Listen, count: int = 1
) -> int:
    """Let a person judge some games, each on a question of its own; every finished judgement is logged at once.

    A game that was not played to its end is passed over. The leg holds what the judge read: where it decided early, the
    game has so many turns.

    Args:
        games: to judge, in order.
        judge: name of the verdicts.
        log: file of legs, added to.
        say: prints.
        listen: reads a line.
        count: stop after so many.

    Returns:
        Number of games judged; fewer than `count` where the input or the games end.

    Raises:
        UserError: the log holds something else than legs (see `judgements`); it is left as it is.
    """
    judgements(log)
    say(HELP)
    seen: set[str] = set()
    for game in games:
        if len(seen) == count:
            break
        if game.question.id in seen or not (game.complete and game.speeches):
            continue
        try:
            leg = judge_game(game, judge, say, listen)
        except EOFError:
            say("(end of input: this debate is not recorded)")
            break
        append(log, [leg])
        seen.add(game.question.id)
        say(_outcome(leg))
    return len(seen)


def judge_game(game: Transcript, judge: str, say: Say, listen: Listen) -> Leg:
    """Show a game round by round, ask after each, and give what was read with the verdict.

    Raises:
        EOFError: the input ended before the decision.
    """
    first, second = game.question.answers
    say(f"\n=== {game.question.text}\nA: {first}\nB: {second}")
    given: list[float] = []
    ends = round_ends(game)
    for number, (start, end) in enumerate(zip((0, *ends), ends, strict=False), start=1):
        for speech in seen_by_judge(game, game.present):
            if start <= speech.turn < end:
                say(f"\n--- {speech.side}, round {number} of {len(ends)}\n{shown_text(speech, game.protocol)}")
        p, ended = _ask(number, say, listen)
        given.append(p)
        if ended:
            break
    moments = [*ends[: len(given) - 1], None]
    asks = [
        Ask(sides=game.present, logprobs=logprobs_of(p), after_turn=moment)
        for p, moment in zip(given, moments, strict=True)
    ]
    after = tuple((p, 1 - p) for p in given[:-1])
    verdict = Verdict(judge=judge, p=(given[-1], 1 - given[-1]), asks=tuple(asks), after_turn=after)
    if len(given) == len(ends):
        return Leg(transcript=game, verdict=verdict)
    turns = ends[len(given) - 1]
    rules = game.protocol.model_copy(update={"turns": turns})
    read = tuple(speech for speech in game.speeches if speech.turn < turns)
    return Leg(transcript=game.model_copy(update={"protocol": rules, "speeches": read}), verdict=verdict)


def round_ends(game: Transcript) -> tuple[int, ...]:
    """After how many turns each round of a game ends: once every side that speaks in the game has spoken again.

    Turns of one side each (sequential) make one round together, as in Michael et al. 2023; where the judge calls the
    speakers every turn is one. Turns without a speech are in none.
    """
    sides = {speech.side for speech in game.speeches}
    last = max((speech.turn for speech in game.speeches), default=-1)
    ends: list[int] = []
    heard: set[str] = set()
    for turn in range(last + 1):
        heard |= {speech.side for speech in game.turn(turn)}
        if heard and (heard == sides or game.protocol.calls == "rejected" or turn == last):
            ends.append(turn + 1)
            heard = set()
    return tuple(ends)


def rounds(leg: Leg) -> int:
    """Rounds that a judge is charged for: those it asked for, where it was asked between, else all of the game.

    A judgement before any speech (after turn 0), as the judges of Michael et al. 2023 gave, asks for the first round;
    without one the first was read unasked and is charged as well.
    """
    ends = round_ends(leg.transcript)
    asks = leg.verdict.asks if leg.verdict else ()
    between = {ask.after_turn for ask in asks if ask.after_turn is not None} & {0, *ends}
    return min(len(between | {0}), len(ends)) if between else len(ends)


def reward(leg: Leg) -> float | None:
    """log2 p(correct) - .05 for each of the leg's `rounds`, in bits; None where either is unknown."""
    if leg.p_correct is None:
        return None
    return math.log2(leg.p_correct) - ROUND_COST * rounds(leg)


def _by(leg: Leg) -> str | None:
    """Who judged a leg."""
    return None if leg.verdict is None else leg.verdict.judge


def _ask(round_: int, say: Say, listen: Listen) -> tuple[float, bool]:
    """A probability of A in (0, 1) and whether it is final; asks until it is one."""
    while True:
        line = listen(f"P(A) in percent after round {round_}: ").strip().lower()
        number, _, rest = line.partition(" ")
        try:
            percent = float(number.rstrip("%"))
        except ValueError:
            percent = math.nan
        if LEAST <= percent <= MOST and rest.strip() in ("", "end"):
            return percent / 100, rest.strip() == "end"
        say(f'not read: {line!r}; write a number from {LEAST:g} to {MOST:g}, with " end" behind it to decide now')


def _outcome(leg: Leg) -> str:
    """What was true, and what the judgement earned."""
    game, correct = leg.transcript, leg.transcript.question.correct or 0
    return (
        f"\ncorrect: {'AB'[correct]}, {game.question.answers[correct]}. You gave it {leg.p_correct:.2f} after "
        f"{rounds(leg)} round(s): {reward(leg):+.3f} bits"
    )
