"""One line about work that takes long: debates done, failed, tokens a second, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from debate_rl import terminal
from debate_rl.terminal import duration

EVERY = 10.0
"""Seconds between two lines of a log, at least."""


class ProgressLine:
    """Says how far some games are; it is a `log.Progress`.

    A line is added to a log at most every `every` seconds, and one at the end. In between, and on a terminal, `state`
    says it at any time.

    Args:
        name: of the work.
        say: takes the lines of a log.
        tokens: how many were read and written so far, by any work of this process.
        clock: seconds.
        every: seconds between two lines of a log.
    """

    def __init__(
        self,
        name: str,
        say: Callable[[str], None] = print,
        tokens: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        self._name = name
        self._say = say
        self._tokens = tokens
        self._clock = clock
        self._every = every
        self._began = self._said = self._counted = clock()
        self._before = tokens()
        self._found: int | None = None
        self._counts = (0, 0, 0)
        self._ended = False

    def __call__(self, done: int, failed: int, total: int) -> None:
        """Take note of (done, failed, all); the first time before anything new is done."""
        now = self._clock()
        if self._found is None or self._ended:  # of another batch of games
            self._found, self._began, self._before = done, now, self._tokens()
            terminal.progress(self.state, self.kept)
        self._counts, self._counted = (done, failed, total), now
        if done == total or (now - self._said >= self._every and not terminal.is_live()):
            self._said = now
            self._say(f"  {self._name}: {self.state()}")
        self._ended = done == total
        if self._ended:
            terminal.progress(None, self.kept)

    def state(self) -> str:
        """How far the games are now; empty before anything is known."""
        done, failed, total = self._counts
        if not total:
            return ""
        now = self._clock()
        seconds, new, tokens = now - self._began, done - (self._found or 0), self._tokens() - self._before
        text = f"{done:,} of {total:,} debates, {failed:,} failed"
        if tokens and seconds > 0:
            text += f", {tokens / seconds:,.0f} tokens/s"
        if done == total:
            return f"{text}, {duration(seconds)}" if new else text
        if not new or seconds <= 0:
            return f"{text}, {duration(seconds)} so far" if seconds >= 1 else text
        # Games are counted when a chunk of them is finished: what has gone on since then is part of what was left.
        left = (self._counted - self._began) * (total - done) / new - (now - self._counted)
        return f"{text}, {duration(max(left, 0.0))} left"

    def kept(self) -> str:
        """The games that are in the log."""
        done, _, total = self._counts
        return f"{done:,} of {total:,} debates" if total else ""
