"""A person as judge: reads a debate round by round without the passage, and after each says how likely side A is.

A game that is played while it is judged may let the person ask the debaters between rounds, as the judges of Michael et
al. 2023 did.

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
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import (
    JudgeQuestion,
    Origin,
    Transcript,
    asked_before,
    seen_by_judge,
    shown_question,
    shown_text,
    with_questions,
)
from debate_rl.game.verdict import Ask, Failure, JudgedDebate, Verdict
from debate_rl.judges.presentation import logprobs_of
from debate_rl.judges.scores import ROUND_COST
from debate_rl.records import append, clean_text, digest, explain, read

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
PlayRound = Callable[[Transcript], "Transcript | Failure"]
"""Plays a game on to the end of its next round."""
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
    games: Iterable[Transcript],
    judge: str,
    log: Path,
    say: Say,
    listen: Listen,
    count: int = 1,
    play_round: PlayRound | None = None,
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
        play_round: plays the rounds of games that are not played yet, each when the person wants to read it, and lets
            it ask before the next one. None: the games are finished, and nobody can be asked.

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
        if game.question.id in judged or (play_round is None and not (game.complete and game.speeches)):
            continue
        try:
            if play_round is None:
                leg = judge_game(game, judge, say, listen)
            else:
                leg = judge_game(live_game(game, judge), judge, say, listen, play_round)
        except EOFError:
            say("(end of input: this debate is not recorded)")
            break
        except UserError as error:
            say(f"{error}; this debate is not recorded")
            continue
        append(log, [leg], inline=True)
        judged.add(game.question.id)
        say(_outcome(leg))
    return len(judged)


def judge_game(
    game: Transcript, judge: str, say: Say, listen: Listen, play_round: PlayRound | None = None
) -> JudgedDebate:
    """Show a game round by round, ask after each, and return what was read with the verdict.

    Args:
        game: finished, or with `play_round` not begun.
        judge: name of the verdict.
        say: prints.
        listen: reads a line.
        play_round: as for `judge_in_person`.

    Raises:
        EOFError: the input ended before the decision.
        UserError: a round could not be played.
    """
    first, second = game.question.answers
    say(f"\n=== {game.question.text}\nA: {first}\nB: {second}")
    ends = round_ends(game) if play_round is None else planned_rounds(game)
    given: list[float] = []
    start = 0
    for number, end in enumerate(ends, start=1):
        if play_round is not None:
            game = _played_on(game, play_round)
        _say_round(game, start, end, f"round {number} of {len(ends)}", say)
        p, ended = _ask_person(number, say, listen)
        given.append(p)
        if ended or number == len(ends):
            break
        if play_round is not None:
            text = listen("question to the debaters (empty: none): ").strip()
            if text:
                game = game.ask(question_of_person(text, judge, end))
        start = end
    return judged_leg(game, judge, given)


def _played_on(game: Transcript, play_round: PlayRound) -> Transcript:
    """Play the next round.

    Raises:
        UserError: a speech failed.
    """
    played = play_round(game)
    if isinstance(played, Failure):
        raise UserError(f"the debaters could not go on: {played.message}")
    return played


def _say_round(game: Transcript, start: int, end: int, round_: str, say: Say) -> None:
    """Print the speeches of a round, and what a judge before asked after it."""
    for speech, questions in with_questions(seen_by_judge(game, game.present), game.asked):
        if not start <= speech.turn < end:
            continue
        say(f"\n--- {speech.side}, {round_}\n{shown_text(speech, game.protocol)}")
        for question in filter(None, map(shown_question, questions)):
            say(f"\n--- the judge asked\n{question}")


def live_game(game: Transcript, judge: str) -> Transcript:
    """A game that is played for one judge: what it asks makes the game its own, so the name of the game is too."""
    return game.model_copy(update={"seed": int(digest([game.seed, "judge", judge]), 16) % 2**31})


def question_of_person(text: str, judge: str, turns: int) -> JudgeQuestion:
    """What a person asks the debaters after some turns."""
    return JudgeQuestion(turn=turns - 1, text=clean_text(text), origin=Origin(player=judge))


def judged_leg(game: Transcript, judge: str, given: Sequence[float]) -> JudgedDebate:
    """The leg of a person who judged a game; if it decided early, the game ends with the last round that it read.

    Args:
        game: a finished game.
        judge: name of the verdict.
        given: probability of answer A after each round that was read.
    """
    ends = round_ends(game)
    verdict = _verdict(game, judge, given, ends)
    # A live game ends where its judge decides: what it has not read was never said.
    if len(given) == len(ends) and game.complete:
        return JudgedDebate(transcript=game, verdict=verdict)
    turns_read = ends[len(given) - 1]
    rules = game.protocol.model_copy(update={"turns": turns_read})
    speeches = tuple(speech for speech in game.speeches if speech.turn < turns_read)
    asked = asked_before(game, turns_read - 1)
    read_game = game.model_copy(update={"protocol": rules, "speeches": speeches, "asked": asked})
    return JudgedDebate(transcript=read_game, verdict=verdict)


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
    last = max((speech.turn for speech in game.speeches), default=-1)
    return _round_ends(
        [{speech.side for speech in game.turn(turn)} for turn in range(last + 1)], game.protocol.calls == "rejected"
    )


def planned_rounds(game: Transcript) -> tuple[int, ...]:
    """The same of a game that is still to be played, if nothing fails."""
    return _round_ends([set(game.speakers(turn)) for turn in range(game.protocol.turns)], every_turn=False)


def _round_ends(sides_of_turns: Sequence[set[Side]], every_turn: bool) -> tuple[int, ...]:
    """See `round_ends`; `every_turn` makes a round of each turn with a speech."""
    sides: set[Side] = set().union(*sides_of_turns)
    last = max((turn for turn, speakers in enumerate(sides_of_turns) if speakers), default=-1)
    ends: list[int] = []
    heard: set[Side] = set()
    for turn in range(last + 1):
        heard |= sides_of_turns[turn]
        if not heard:
            continue
        if heard == sides or every_turn or turn == last:
            ends.append(turn + 1)
            heard = set()
    return tuple(ends)


def turns_played(game: Transcript) -> int:
    """Number of turns in which everybody has spoken, from the first."""
    for turn in range(game.protocol.turns):
        if len(game.turn(turn)) < len(game.speakers(turn)):
            return turn
    return game.protocol.turns


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
