"""A person as judge: reads a debate round by round without the passage, and after each says how likely side A is.

As in Michael et al. 2023, the reward is log2 p(correct) - .05 for each round that was asked for, and probabilities are
kept between .01 and .99. A judgement is a `JudgedDebate` like any other, so everything that reads legs reads its log.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from debate_rl.errors import UserError, existing
from debate_rl.game import run_files
from debate_rl.game.transcript import Transcript, seen_by_judge, shown_text
from debate_rl.game.verdict import Ask, JudgedDebate, Verdict
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
"""Prints a text."""
Listen = Callable[[str], str]
"""Prints a prompt and returns the line that was typed; raises EOFError at the end of the input."""
_LINE_START = b'{"transcript":'
"""First bytes of every line of a log."""


def saved_games(path: str | Path, stage: str | None = None) -> list[Transcript]:
    """Load the finished games of a run, a study or a file of judged debates: with speeches and a known answer.

    Args:
        path: folder of a run or study, or a file of judged debates.
        stage: only the games of this stage of the run.

    Returns:
        Each game once.

    Raises:
        UserError: nothing is there, or a line is malformed.
    """
    games: dict[str, Transcript] = {}
    for leg in _finished_legs(path, stage):
        games.setdefault(leg.transcript.id, leg.transcript)
    if not games:
        where = f" in stage {stage!r}" if stage else ""
        raise UserError(f"{path}: no finished debate{where} with speeches and a known answer; give a run that has some")
    return list(games.values())


def recorded_verdicts(path: str | Path, stage: str | None = None) -> dict[str, dict[str, float]]:
    """Load what other judges gave the correct answer of the games of `saved_games`, after the whole game.

    Returns:
        For each game's name the probability of the correct answer by judge; games without a verdict are left out.
    """
    verdicts: dict[str, dict[str, float]] = {}
    for leg in _finished_legs(path, stage):
        if leg.verdict is not None and leg.p_correct is not None:
            verdicts.setdefault(leg.transcript.id, {})[leg.verdict.judge] = leg.p_correct
    return verdicts


def _finished_legs(path: str | Path, stage: str | None) -> Iterator[JudgedDebate]:
    """The legs of finished games with speeches and a known answer."""
    for file in _leg_files(existing(path, "run"), stage):
        for leg in read(file, JudgedDebate):
            game = leg.transcript
            if game.complete and game.speeches and game.question.correct is not None:
                yield leg


def _leg_files(root: Path, stage: str | None) -> list[Path]:
    """A file of judged debates itself, or all those in a folder, the hidden ones aside."""
    if not root.is_dir():
        return [root]
    files = []
    for file in sorted(root.rglob(run_files.DEBATES)):
        # Unfinished work lies in hidden folders.
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        if not hidden and stage in (None, file.parent.name):
            files.append(file)
    return files


def judgements(log: Path) -> list[JudgedDebate]:
    """Read the legs of a log that judgements are to be added to; empty if there is no file yet.

    A torn last line (after a crash) is left out if whole legs stand before it; the next `append` cuts it off.

    Raises:
        UserError: the file holds something else than legs (names the line), is a folder, or can not be written.
    """
    _check_place(log)
    if not log.exists():
        return []
    *whole_lines, tail = log.read_bytes().split(b"\n")
    legs = []
    for number, line in enumerate(whole_lines, start=1):
        if line.strip():
            legs.append(_parse_leg(line, f"{log}:{number}"))
    if not tail.strip():
        return legs
    # Only the beginning of a leg can be torn; anything else behind whole legs is not ours to cut.
    begins_a_leg = tail.startswith(_LINE_START) or _LINE_START.startswith(tail)
    if legs and begins_a_leg and not _is_json(tail):
        return legs
    _parse_leg(tail, f"{log}:{len(whole_lines) + 1}")
    raise UserError(f"{log}:{len(whole_lines) + 1}: the last line has no line break at its end; add one")


def _check_place(log: Path) -> None:
    """Refuse a log that can not be written, before a person has judged anything."""
    if log.is_dir():
        raise UserError(f"--log {log}: {log} is a folder; name a file of judged debates")
    place = log
    if not log.exists():
        # The nearest folder that it would be made in.
        place = next(parent for parent in log.absolute().parents if parent.exists())
        if not place.is_dir():
            raise UserError(f"--log {log}: {place} is a file; name a file of judged debates")
    if not os.access(place, os.W_OK | os.R_OK):
        raise UserError(f"--log {log}: {place} can not be written; name another file")


def _parse_leg(line: bytes, where: str) -> JudgedDebate:
    """Read one line of a log."""
    try:
        return JudgedDebate.model_validate_json(line)
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
    """Select the games on questions that this judge has no verdict on, in an order drawn by the judge's name.

    A question that was judged is left out with all its games, because its answer was shown. Games may be unplayed yet.
    """
    answered = set()
    for leg in judgements(log):
        if leg.verdict is not None and leg.verdict.judge == judge:
            answered.add(leg.transcript.question.id)
    open_games = [game for game in games if game.question.id not in answered]
    return sorted(open_games, key=lambda game: digest([judge, game.id]))


def judge_in_person(
    games: Iterable[Transcript], judge: str, log: Path, say: Say, listen: Listen, count: int = 1
) -> int:
    """Let a person judge some games, each on a question of its own; every finished judgement is logged at once.

    Games that were not played to their end are passed over. The leg holds what the judge read: if it decided early, the
    game ends at that turn.

    Args:
        games: games to judge, in order.
        judge: name of the verdicts.
        log: file of judged debates, added to.
        say: prints.
        listen: reads a line.
        count: stop after this many judgements.

    Returns:
        Number of games judged; fewer than `count` if the input or the games end.

    Raises:
        UserError: the log holds something else than legs (see `judgements`); it is left as it is.
    """
    judgements(log)  # refuse a bad log before the person has read anything
    say(HELP)
    judged: set[str] = set()
    for game in games:
        if len(judged) == count:
            break
        if game.question.id in judged or not game.complete or not game.speeches:
            continue
        try:
            leg = judge_game(game, judge, say, listen)
        except EOFError:
            say("(end of input: this debate is not recorded)")
            break
        append(log, [leg], inline=True)
        judged.add(game.question.id)
        say(_outcome(leg))
    return len(judged)


def judge_game(game: Transcript, judge: str, say: Say, listen: Listen) -> JudgedDebate:
    """Show a game round by round, ask after each, and return what was read with the verdict.

    Raises:
        EOFError: the input ended before the decision.
    """
    first, second = game.question.answers
    say(f"\n=== {game.question.text}\nA: {first}\nB: {second}")
    ends = round_ends(game)
    given: list[float] = []
    start = 0
    for number, end in enumerate(ends, start=1):
        for speech in seen_by_judge(game, game.present):
            if start <= speech.turn < end:
                say(f"\n--- {speech.side}, round {number} of {len(ends)}\n{shown_text(speech, game.protocol)}")
        p, ended = _ask_person(number, say, listen)
        given.append(p)
        if ended:
            break
        start = end
    return judged_leg(game, judge, given)


def judged_leg(game: Transcript, judge: str, given: Sequence[float]) -> JudgedDebate:
    """The leg of a person who judged a game; if it decided early, the game ends with the last round that it read.

    Args:
        game: a finished game.
        judge: name of the verdict.
        given: probability of answer A after each round that was read.
    """
    ends = round_ends(game)
    verdict = _verdict(game, judge, given, ends)
    if len(given) == len(ends):
        return JudgedDebate(transcript=game, verdict=verdict)
    turns_read = ends[len(given) - 1]
    rules = game.protocol.model_copy(update={"turns": turns_read})
    speeches = tuple(speech for speech in game.speeches if speech.turn < turns_read)
    return JudgedDebate(transcript=game.model_copy(update={"protocol": rules, "speeches": speeches}), verdict=verdict)


def _verdict(game: Transcript, judge: str, given: Sequence[float], ends: Sequence[int]) -> Verdict:
    """The verdict made of the probabilities of A that a person gave, one after each round it read."""
    moments = [*ends[: len(given) - 1], None]
    asks = [
        Ask(sides=game.present, logprobs=logprobs_of(p), after_turn=moment)
        for p, moment in zip(given, moments, strict=True)
    ]
    pairs = [(p, 1 - p) for p in given]
    return Verdict(judge=judge, p=pairs[-1], asks=tuple(asks), after_turn=tuple(pairs[:-1]))


def round_ends(game: Transcript) -> tuple[int, ...]:
    """Number of turns after which each round of a game ends: once every side that speaks at all has spoken again.

    Turns of one side each (sequential debates) make one round together, as in Michael et al. 2023; if the judge calls
    the speakers, every turn is a round. Turns without a speech belong to no round.
    """
    sides = {speech.side for speech in game.speeches}
    last = max((speech.turn for speech in game.speeches), default=-1)
    every_turn = game.protocol.calls == "rejected"
    ends: list[int] = []
    heard: set[str] = set()
    for turn in range(last + 1):
        heard.update(speech.side for speech in game.turn(turn))
        if not heard:
            continue
        if heard == sides or every_turn or turn == last:
            ends.append(turn + 1)
            heard = set()
    return tuple(ends)


def rounds(leg: JudgedDebate) -> int:
    """Rounds that a judge is charged for: those it asked for, or the whole game if it was only asked at the end.

    A judgement before any speech (after turn 0), as the judges of Michael et al. 2023 gave, asks for the first round.
    Without one the first round was read unasked, and is charged as well.
    """
    ends = round_ends(leg.transcript)
    asks = leg.verdict.asks if leg.verdict else ()
    between = {ask.after_turn for ask in asks} & {0, *ends}
    if not between:
        return len(ends)
    return min(len(between | {0}), len(ends))


def reward(leg: JudgedDebate) -> float | None:
    """Reward of a judge in bits, log2 p(correct) - .05 for each of the leg's `rounds`; None where p is unknown."""
    if leg.p_correct is None:
        return None
    return math.log2(leg.p_correct) - ROUND_COST * rounds(leg)


def _ask_person(round_: int, say: Say, listen: Listen) -> tuple[float, bool]:
    """Ask until the answer is a probability of A; return it, in (0, 1), and whether it is final."""
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


def _outcome(leg: JudgedDebate) -> str:
    """Say which answer was correct, and what the judgement earned."""
    question = leg.transcript.question
    correct = question.correct or 0
    return (
        f"\ncorrect: {'AB'[correct]}, {question.answers[correct]}. You gave it {leg.p_correct:.2f} after "
        f"{rounds(leg)} round(s): {reward(leg):+.3f} bits"
    )
