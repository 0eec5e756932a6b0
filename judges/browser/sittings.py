"""Several people judge the games of one run, round by round; whatever one does is on disk before it is answered.

judgements.jsonl            judged debates, as `debate-rl judge play` writes them
judgements.rounds.jsonl     every step: opened, answered, paused, resumed
judgements.tokens.json      the token of each judge's address; readable by its owner only
"""

from __future__ import annotations

import json
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.human import (
    LEAST,
    MOST,
    judged_leg,
    judgements,
    live_game,
    planned_rounds,
    question_of_person,
    round_ends,
    turns_played,
)
from debate_rl.records import Record, append, clean_text, digest, read_json, read_log


def _is_absent(value: object) -> bool:
    return not value


class Step(Record):
    """One thing that a judge did.

    Example:
        Step(judge="human/ann", game="08c1f2...", story="lab-7", kind="answered", at=1764511212.4, round=2,
             percent=70.0, final=True)
    """

    judge: str
    game: str
    """Name of the whole game; the leg of a judge who decided early holds a shorter one."""
    story: str
    kind: Literal["opened", "spoke", "answered", "paused", "resumed", "dropped"]
    """spoke: the debaters of a live game wrote a round; dropped: they could not, and the judge left it."""
    at: float
    """Seconds since 1970, UTC."""
    round: int = 0
    """Round that was answered, from 1."""
    percent: float | None = None
    """Probability of answer A."""
    final: bool = False
    text: str = ""
    """Of an opened game: hash of what was said in it. A game that was played anew is another one to read."""
    # Of live games only, and left out of the steps of all others.
    question: str = Field(default="", exclude_if=_is_absent)
    """What the judge asked the debaters behind its answer."""
    speeches: tuple[Speech, ...] = Field(default=(), exclude_if=_is_absent)
    """Of a round that the debaters wrote."""
    picked: Side | None = Field(default=None, exclude_if=_is_absent)
    """Side that the debater picked before its first round."""


@dataclass
class Sitting:
    """One judge before one game."""

    judge: str
    id: str
    """Name of the game among those of the bench; a live game is the judge's own and has another."""
    game: Transcript
    live: bool = False
    """Whether its rounds are played when the judge gets to them."""
    answers: list[Step] = field(default_factory=list)
    counted: float = 0.0
    """Seconds until the clock last stopped."""
    running_since: float | None = None
    """When the clock last started; None while it stands."""
    last: float = 0.0
    """Time of the last step."""

    @property
    def finished(self) -> bool:
        """Whether the judge has decided."""
        return bool(self.answers) and self.answers[-1].final

    @property
    def given(self) -> list[float]:
        """Probability of answer A after each round."""
        return [step.percent / 100 for step in self.answers if step.percent is not None]

    @property
    def round(self) -> int:
        """Round that is to be answered, from 1."""
        return len(self.answers) + 1

    @property
    def ends(self) -> tuple[int, ...]:
        """Number of turns after which each round ends."""
        return planned_rounds(self.game) if self.live else round_ends(self.game)

    @property
    def waiting(self) -> bool:
        """Whether the round that is to be answered is still to be written."""
        return self.live and not self.finished and turns_played(self.game) < self.ends[self.round - 1]

    def seconds(self, now: float) -> float:
        """Time spent on the game, pauses aside."""
        running = 0.0 if self.running_since is None else max(0.0, now - self.running_since)
        return self.counted + running

    def take(self, step: Step) -> None:
        """Follow a step."""
        self.last = step.at
        if step.kind == "spoke":
            self.game = self.game.add(step.speeches)
            if step.picked is not None:
                self.game = self.game.model_copy(update={"picked": step.picked})
        if step.kind == "answered":
            if step.question:
                asked = question_of_person(step.question, self.judge, self.ends[self.round - 1])
                self.game = self.game.ask(asked)
            self.answers.append(step)
        if step.kind in ("opened", "spoke", "resumed") and self.running_since is None:
            self.running_since = step.at
        # While the debaters write there is nothing to read.
        if step.kind == "paused" or self.finished or self.waiting:
            self.counted = self.seconds(step.at)
            self.running_since = None


class Progress(NamedTuple):
    """How far a judge has come."""

    done: int
    total: int


class Bench:
    """All judges of one log. Not for several threads or processes at once: the server holds a lock on the log.

    Args:
        games: games with a known answer, finished, or with `live` not begun.
        judges: names of the verdicts, such as "human/ann".
        log: file of judged debates, added to.
        count: debates for each judge.
        clock: seconds since 1970.
        live: the rounds of a game are played for each judge, who may ask the debaters between them.

    Raises:
        UserError: the log or the file of steps holds something else, or can not be written.
    """

    def __init__(
        self,
        games: Iterable[Transcript],
        judges: Sequence[str],
        log: Path,
        count: int,
        clock: Callable[[], float] = time.time,
        live: bool = False,
    ) -> None:
        self.games = {game.id: game for game in games}
        self.log, self.count, self.clock, self.live = log, count, clock, live
        self.steps_log = log.with_name(f"{log.stem}.rounds.jsonl")
        self._legs: dict[tuple[str, str], JudgedDebate] = {}
        self._stories: dict[str, set[str]] = {judge: set() for judge in judges}
        self._orders: dict[str, list[Transcript]] = {}
        self._sittings: dict[tuple[str, str], Sitting] = {}
        for leg in judgements(log):
            self._keep(leg)
        for step in read_log(self.steps_log, Step):
            self._follow(step)
        for sitting in list(self._sittings.values()):
            self._recover(sitting)

    def sitting(self, judge: str) -> Sitting | None:
        """The game that a judge has open."""
        for sitting in self._sittings.values():
            if sitting.judge == judge and not sitting.finished:
                return sitting
        return None

    def past(self, judge: str, game: str) -> Sitting | None:
        """A judge's sitting on a game, open or finished."""
        return self._sittings.get((judge, game))

    def leg(self, judge: str, game: str) -> JudgedDebate | None:
        """What a judge's finished sitting left in the log."""
        return self._legs.get((judge, self.games[game].question.id)) if game in self.games else None

    def legs(self, judge: str) -> list[JudgedDebate]:
        """All judgements of a judge in the log."""
        return [leg for (name, _), leg in self._legs.items() if name == judge]

    def progress(self, judge: str) -> Progress:
        """Judged debates of these games, and how many there will be."""
        here = {game.question.cluster for game in self.games.values()}
        judged = {leg.transcript.question.cluster for leg in self.legs(judge)}
        done = len(judged & here)
        unseen = len(here - self._stories[judge])
        is_open = self.sitting(judge) is not None
        return Progress(done, max(done, min(self.count, done + is_open + unseen)))

    def next_game(self, judge: str) -> Transcript | None:
        """The next game on a story that the judge has not seen; None after `count` debates or without such a game."""
        progress = self.progress(judge)
        if progress.done >= progress.total:
            return None
        if judge not in self._orders:
            # Each judge has an order of its own, and it is the same after a restart.
            self._orders[judge] = sorted(self.games.values(), key=lambda game: digest([judge, game.id]))
        for game in self._orders[judge]:
            if game.question.cluster not in self._stories[judge]:
                return game
        return None

    def start(self, judge: str) -> None:
        """Open the next game, unless one is open."""
        self._catch_up(judge)
        game = self.next_game(judge)
        if self.sitting(judge) is None and game is not None:
            self._do(judge, game.id, "opened", text=digest(game))

    def pause(self, judge: str) -> None:
        """Stop the clock."""
        sitting = self.sitting(judge)
        if sitting is not None and sitting.running_since is not None:
            self._do(judge, sitting.id, "paused")

    def resume(self, judge: str) -> None:
        """Start the clock again."""
        sitting = self.sitting(judge)
        if sitting is not None and sitting.running_since is None and not sitting.waiting:
            self._do(judge, sitting.id, "resumed")

    def spoke(self, judge: str, game: str, played: Transcript) -> None:
        """Record the round that the debaters of a judge's live game wrote, unless it is there already."""
        sitting = self.past(judge, game)
        if sitting is not None and sitting.waiting and sitting.game.asked == played.asked:
            speeches = played.speeches[len(sitting.game.speeches) :]
            self._do(judge, game, "spoke", speeches=speeches, picked=played.picked)

    def drop(self, judge: str) -> None:
        """Leave a game whose debaters can not go on; its story counts as seen."""
        sitting = self.sitting(judge)
        if sitting is not None and sitting.waiting:
            self._do(judge, sitting.id, "dropped")

    def answer(self, judge: str, game: str, round_: int, percent: float, final: bool, question: str = "") -> bool:
        """Record the probability of answer A after a round; the last round of a game decides it.

        The question is one to the debaters of a live game, where another round follows.

        Returns:
            Whether it was recorded; False where the round was answered before, or is not reached yet.

        Raises:
            UserError: the number is no probability, or the disk is full.
        """
        self._catch_up(judge)
        sitting = self.past(judge, game)
        if sitting is None or sitting.finished or sitting.waiting or round_ != sitting.round:
            return False
        if not (math.isfinite(percent) and LEAST <= percent <= MOST):
            raise UserError(f"write a number from {LEAST:g} to {MOST:g}")
        decides = final or round_ == len(sitting.ends)
        asked = clean_text(question).strip() if sitting.live and not decides else ""
        self.resume(judge)
        self._do(judge, sitting.id, "answered", round=round_, percent=percent, final=decides, question=asked)
        if sitting.finished:
            self._record(sitting)
        return True

    def _do(self, judge: str, game: str, kind: str, **fields: object) -> None:
        """Write a step on a game of the bench, then follow it."""
        where = {"judge": judge, "game": game, "story": self.games[game].question.cluster}
        step = Step.model_validate({**where, "kind": kind, "at": self.clock(), **fields})
        append(self.steps_log, [step])
        self._follow(step)

    def _follow(self, step: Step) -> None:
        """Take a step into the picture; steps on games that are not here still count as stories that were seen."""
        self._stories.setdefault(step.judge, set()).add(step.story)
        game = self.games.get(step.game)
        if step.kind == "opened" and game is not None and step.text == digest(game):
            own = live_game(game, step.judge) if self.live else game
            self._sittings[step.judge, step.game] = Sitting(step.judge, step.game, own, self.live)
        if step.kind == "dropped":
            self._sittings.pop((step.judge, step.game), None)
        sitting = self._sittings.get((step.judge, step.game))
        if sitting is not None:
            sitting.take(step)

    def _record(self, sitting: Sitting) -> None:
        """Write the judged debate of a finished sitting."""
        leg = judged_leg(sitting.game, sitting.judge, sitting.given)
        append(self.log, [leg])
        self._keep(leg)

    def _keep(self, leg: JudgedDebate) -> None:
        """Remember a judged debate of the log."""
        if leg.verdict is not None:
            question = leg.transcript.question
            self._legs[leg.verdict.judge, question.id] = leg
            self._stories.setdefault(leg.verdict.judge, set()).add(question.cluster)

    def _catch_up(self, judge: str) -> None:
        """Write the judged debates that are missing: a server died, or a disk was full, after the last answer."""
        for sitting in self._sittings.values():
            decided = sitting.judge == judge and sitting.finished
            if decided and (judge, sitting.game.question.id) not in self._legs:
                self._record(sitting)

    def _recover(self, sitting: Sitting) -> None:
        """Finish what a server that was killed left undone."""
        self._catch_up(sitting.judge)
        if sitting.running_since is not None:
            # The time without a server is nobody's reading time.
            stopped = Step(
                judge=sitting.judge,
                game=sitting.id,
                story=sitting.game.question.cluster,
                kind="paused",
                at=sitting.last,
            )
            append(self.steps_log, [stopped])
            self._follow(stopped)


def judge_tokens(log: Path, names: Sequence[str]) -> dict[str, str]:
    """The token of each judge, made at the first call and the same ever after, so that addresses stay good.

    Raises:
        UserError: a name is none, or repeats; or the file of tokens holds something else.
    """
    for name in names:
        if not name or not all(letter.isalnum() or letter in "-_." for letter in name):
            raise UserError(f"--judge {name!r}: write a name of letters, digits, - and _")
    if len(set(names)) < len(names):
        raise UserError(f"--judge: a name is there twice: {', '.join(names)}")
    path = log.with_name(f"{log.stem}.tokens.json")
    tokens = read_json(path) if path.exists() else {}
    if not isinstance(tokens, dict) or not all(isinstance(token, str) and token for token in tokens.values()):
        raise UserError(f"{path}: not the tokens of judges; remove the file, and new ones are made")
    missing = {name: secrets.token_urlsafe(16) for name in names if name not in tokens}
    if missing:
        tokens |= missing
        _write_private(path, json.dumps(tokens, indent=2))
    return {name: tokens[name] for name in names}


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Files of `tempfile` are private from the first byte on.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
